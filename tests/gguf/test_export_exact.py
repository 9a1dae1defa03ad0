"""llama.cpp on an exported file computes what transformers does: RoPE's kinds, windows, biases, heads, scales."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("llama_cpp", reason="need llama.cpp (make test-gguf runs them)")

from hired.gguf import export
from hired.gguf.llama import Context, Model
from tests.gguf import language

LENGTH = 300
"""Beyond every window and original length in `language.MODELS`."""


def of_llama_cpp(path: Path, ids: np.ndarray) -> np.ndarray:
    """Logits of the last token, in float32."""
    model = Model(path, exact=True)
    context = Context(model, 512, 1)
    try:
        context.feed_ids(ids, np.arange(len(ids), dtype=np.int32), True)
        return np.array(context.logits())
    finally:
        context.close()
        model.close()


def of_transformers(model: Any, ids: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        logits = model(input_ids=torch.from_numpy(ids.astype(np.int64))[None]).logits
    return np.asarray(logits[0, -1].numpy())


@pytest.mark.parametrize("name", language.MODELS)
def test_logits_equal(name: str, tmp_path: Path) -> None:
    model = language.named(name)
    export(model, None, tmp_path / "a.gguf", "f32")
    ids = (np.arange(LENGTH) * 7 % 128).astype(np.int32)
    found, wanted = of_llama_cpp(tmp_path / "a.gguf", ids), of_transformers(model, ids)
    # ggml has GELU from a table in float16.
    close = 1e-3 if name.startswith("gemma3") else 5e-5
    np.testing.assert_allclose(found, wanted, rtol=0, atol=close * np.abs(wanted).max())


@pytest.mark.parametrize("name", ["llama-yarn-attention", "llama-llama3", "cohere2-often", "gemma3-often"])
def test_the_comparison_sees_what_it_is_for(name: str, tmp_path: Path) -> None:
    """The same weights under another kind of RoPE, or other windows, are not equal."""
    ids = (np.arange(LENGTH) * 7 % 128).astype(np.int32)
    kind, _, settings = language.MODELS[name]
    model = language.named(name)
    export(model, None, tmp_path / "a.gguf", "f32")
    changed = {key: value for key, value in settings.items() if key not in ("rope_parameters", "layer_types")}
    other = language.make(kind, **changed)
    other.load_state_dict(model.state_dict())
    found, wanted = of_llama_cpp(tmp_path / "a.gguf", ids), of_transformers(other, ids)
    assert np.abs(found - wanted).max() > 0.01 * np.abs(wanted).max()
