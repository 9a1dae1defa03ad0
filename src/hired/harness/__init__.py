"""lmms-eval's own model classes under a budget, and the paper's benchmarks run with them.

lmms-eval calls `manifest` through the entry point group `lmms_eval.models`, and knows a model `hired` from then on.
Importing this package imports neither lmms-eval nor torch.
"""

from typing import Any

__all__ = ["manifest"]


def manifest() -> Any:
    """What lmms-eval is told of the model `hired`, a `ModelManifest`.

    `--force_simple` takes the class of plain prompts, everything else that of chats; see `hired.harness.models`.
    """
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(
        model_id="hired",
        simple_class_path="hired.harness.models.HiredSimple",
        chat_class_path="hired.harness.models.HiredChat",
    )
