"""What only a CUDA GPU can show: the same choice as on a CPU, and that the host does not wait for the device."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

import hired
from hired.checking.run import check
from hired.encoding.packed import Packed, varlen_for
from hired.methods import METHODS
from hired.reduction import assemble, encode, plan, project, select
from tests.support import models, pictures

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
each_family = pytest.mark.parametrize("name", list(models.ALL))
GREEDY = {"do_sample": False, "max_new_tokens": 5, "eos_token_id": None, "pad_token_id": 0}


@pytest.fixture(autouse=True)
def _no_tf32() -> Iterator[None]:
    """Convolutions in float32 as on a CPU; by default GPUs round their factors to 10 bits."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


def both(name: str, dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """(model, inputs) on the GPU: two pictures in a prompt, a prompt of text, one picture."""
    sizes = models.ALL[name].sizes
    inputs = pictures.inputs(name, [sizes[:2], None, sizes[2:3]])
    model = models.ALL[name].model().to("cuda")
    # Not cast where that changes nothing: it would make Llama 4's complex rotations real.
    return model if dtype == torch.float32 else model.to(dtype), inputs.to("cuda", dtype)


@each_family
def test_the_choice_is_that_of_a_cpu(name: str) -> None:
    model, inputs = both(name)
    there = hired.reduce(model, inputs, 0.3)
    here = hired.reduce(models.shared(name), inputs.to("cpu"), 0.3)
    assert [entry.rows for entry in there.selection] == [entry.rows for entry in here.selection]
    with torch.no_grad():
        expected = models.shared(name)(**here).logits
        found = model(**there).logits.cpu()
    real = here["attention_mask"].bool()
    torch.testing.assert_close(found[real], expected[real], atol=1e-3, rtol=1e-3)


@each_family
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_full_budget_changes_nothing(name: str, dtype: torch.dtype) -> None:
    model, inputs = both(name, dtype)
    reduced = hired.reduce(model, inputs, 1.0)
    with torch.no_grad():
        assert torch.equal(model(**reduced).logits, model(**inputs).logits)
    assert torch.equal(model.generate(**reduced, **GREEDY), model.generate(**inputs, **GREEDY))


@each_family
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_meets_the_budget(name: str, dtype: torch.dtype) -> None:
    model, inputs = both(name, dtype)
    reduced = hired.reduce(model, inputs, 7)
    assert [entry.tokens_kept for entry in reduced.selection] == [7, 7, 7]
    assert model.generate(**reduced, **GREEDY).shape[1] == reduced["input_ids"].shape[1] + 5


@contextmanager
def waits() -> Iterator[list[str]]:
    """Collects where the host waits for the device."""
    found: list[str] = []
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield found
        found += [f"{w.filename}:{w.lineno}" for w in caught if "synchroniz" in str(w.message)]
    finally:
        torch.cuda.set_sync_debug_mode(before)


@pytest.mark.parametrize("name", list(models.CASES))
@pytest.mark.parametrize("newlines", ["drop", "keep"])
def test_nothing_waits_between_encoder_and_prefill(name: str, newlines: Any) -> None:
    model, inputs = both(name)
    made = plan(model, inputs, 0.3, newlines=newlines)
    with waits() as encoding:
        encoded = encode(made)
    with waits() as after:
        kept = select(made, encoded)
        assemble(made, encoded, kept, project(made, encoded, kept))
    assert after == []
    # Pictures as small as these are not worth a wait for what may be left out.
    assert encoding == []


@pytest.mark.parametrize("name", list(models.CASES))
def test_waiting_changes_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = both(name)
    without = hired.reduce(model, inputs, 0.3)
    monkeypatch.setattr("hired.encoding.waiting.BUSY", 0)
    monkeypatch.setattr("hired.encoding.waiting.FEW", 10**6)
    waited = hired.reduce(model, inputs, 0.3)
    assert [entry.rows for entry in waited.selection] == [entry.rows for entry in without.selection]
    monkeypatch.undo()
    monkeypatch.setattr("hired.methods.hired.kernels_for", lambda layout: None)
    tensors = hired.reduce(model, inputs, 0.3)
    assert [entry.rows for entry in tensors.selection] == [entry.rows for entry in without.selection]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_packed_attention_is_that_of_padded_slots(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = Packed.of([2, 17, 1, 9], torch.device("cuda"))
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 29, 2, 64, device="cuda", dtype=dtype).transpose(1, 2) for _ in range(3))
    if varlen_for(q) is None:
        pytest.skip("no attention over sequences of unlike length in this torch, or on this GPU")
    at_once = packed.attend(q, k, v, 0.1)
    monkeypatch.setattr("hired.encoding.packed.varlen_for", lambda query: None)
    torch.testing.assert_close(at_once, packed.attend(q, k, v, 0.1), atol=2e-2, rtol=2e-2)


WAITING = ("published", "holov", "globalcom2", "cdpruner")
"""Methods that ask the device for a number: how many tokens there are, quotas, how long the question is."""


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_every_method_meets_the_budget(method: str, dtype: torch.dtype) -> None:
    model, inputs = both("llava_next", dtype)
    reduced = hired.reduce(model, inputs, 9, method=method)
    if getattr(METHODS[method], "exact", True):
        assert [entry.tokens_kept for entry in reduced.selection] == [9, 9, 9]
    assert model.generate(**reduced, **GREEDY).shape[1] == reduced["input_ids"].shape[1] + 5


@pytest.mark.parametrize("method", [name for name in METHODS if name not in WAITING])
def test_methods_wait_for_nothing(method: str) -> None:
    model, inputs = both("llava_next")
    made = plan(model, inputs, 0.3, method=method)
    encoded = encode(made)
    with waits() as after:
        kept = select(made, encoded)
        assemble(made, encoded, kept, project(made, encoded, kept))
    assert after == []


@each_family
def test_check_and_agreement_run_there(name: str) -> None:
    model, processor = models.ALL[name].model().to("cuda"), models.processor(name)
    result = check(model, processor)
    assert result.works, result.lines
    samples = [(pictures.noise(size), "what?") for size in models.ALL[name].sizes[:2]]
    rows = hired.agreement(model, processor, samples, (0.5,), max_new_tokens=4, repeats=1)
    assert all(row["peak_memory_bytes"] and row["ttft_s"] for row in rows)
