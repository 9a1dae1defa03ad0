"""Everything that a reproduction can lack, found out and told in one line before a model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hired.errors import HiredError, ModelLoadError
from hired.harness.bases import base_of, require_lmms_eval
from hired.harness.paper import BENCHMARKS, is_the_papers
from hired.harness.settings import Settings
from hired.loading.checkpoints import load_config
from hired.loading.strangers import quiet, reason
from hired.tiny import WEIGHTS

__all__ = ["check"]


def check(settings: Settings, tasks: Sequence[str]) -> bool:
    """Finds out whether everything is there. Imports nothing of lmms-eval, which writes to standard output.

    Args:
        settings: of the reproduction.
        tasks: those of its tasks whose data are to come from the hub or its cache.

    Returns:
        Whether the checkpoint has the shape of the paper's, so that its numbers can be set against the paper's.

    Raises:
        HiredError: one line with everything that is missing: the checkpoint, the hub login, data sets.
        MissingDependencyError, UnsupportedModelError: see `hired.harness.bases`.
    """
    require_lmms_eval()
    missing: list[str] = []
    config = _model(settings, missing)
    known = [task for task in tasks if task in BENCHMARKS]
    unnamed = [task for task in known if BENCHMARKS[task].login]
    if unnamed and not _logged_in():
        missing.append(f"a hub login, for which lmms-eval asks in {', '.join(unnamed)} (hf auth login, or HF_TOKEN)")
        known = [task for task in known if task not in unnamed]
    missing += _data(known)
    if missing or config is None:
        raise HiredError(f"before anything is measured, this is missing: {'; '.join(missing)}")
    if settings.include is not None and not Path(settings.include).is_dir():
        raise HiredError(f"no folder of task definitions: {settings.include!r}")
    if settings.base is None:
        base_of(config.model_type, repr(settings.model))
    return is_the_papers(config)


def _model(settings: Settings, missing: list[str]) -> Any:
    """The checkpoint's configuration, or None."""
    source = str(WEIGHTS) if settings.model == "tiny" else settings.model
    if not Path(source).expanduser().exists() and source.startswith((".", "/", "~")):
        raise ModelLoadError(f"no model directory {source!r}")
    try:
        return load_config(source, settings.model, settings.trust_remote_code)
    except ModelLoadError as error:
        missing.append(f"the model ({error})")
        return None


def _logged_in() -> bool:
    """Whether the hub knows who asks, or is not to be asked at all."""
    from huggingface_hub import get_token
    from huggingface_hub.constants import HF_HUB_OFFLINE

    return HF_HUB_OFFLINE or get_token() is not None


def _data(tasks: Sequence[str]) -> list[str]:
    """What is said against data sets that can be had neither from the hub nor from its cache.

    Where the hub cannot be reached the first tells as much as all, and every one of them is tried for half a minute.
    """
    import datasets

    said: list[str] = []
    for task in tasks:
        path, name = BENCHMARKS[task].data
        try:
            with quiet():
                datasets.load_dataset_builder(path, name)
        except ConnectionError as error:
            return [*said, f"the data of {task} ({reason(error)}); others were not tried"]
        except Exception as error:  # whatever datasets, the hub and the network raise
            said.append(f"the data of {task} ({reason(error)})")
    return said
