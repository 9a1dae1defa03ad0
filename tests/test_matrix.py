"""Every method on every family, as the registries list them."""

import copy
from typing import Any

import pytest
import torch
from torch.utils._pytree import tree_leaves

import hired
from hired.families import FAMILIES, family_of
from hired.methods import METHODS
from tests.support import models, pictures
from tests.support.reducing import budgeted

CASES = [model_type for family in FAMILIES for model_type in family.model_types]
MET = tuple(name for name, method in METHODS.items() if getattr(method, "exact", True))
"""Methods that meet the budget to the token."""


def test_every_family_has_a_tiny_model() -> None:
    assert sorted(CASES) == sorted(models.ALL), "tests/support/cases needs one Case for every model_type"
    for name in CASES:
        assert name in family_of(models.shared(name)).model_types


def test_the_registries_say_what_the_docs_need() -> None:
    for name, method in METHODS.items():
        assert method.name == name
        assert method.__doc__
    for family in FAMILIES:
        for fact in ("name", "classes", "encoder", "partitions", "tokens", "verified"):
            assert getattr(family, fact)


def floats(outputs: Any) -> list[torch.Tensor]:
    """The tensors in `mm_encoder_outputs`."""
    return [leaf for leaf in tree_leaves(dict(outputs["image"])) if isinstance(leaf, torch.Tensor)]


@pytest.fixture(scope="module")
def half() -> dict[str, Any]:
    return {name: models.ALL[name].model().to(torch.bfloat16) for name in CASES}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("budget", [1.0, 0.5, 0.1, 7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_matrix(name: str, method: str, budget: float, dtype: torch.dtype, half: dict[str, Any]) -> None:
    model = models.shared(name) if dtype == torch.float32 else half[name]
    sizes = models.ALL[name].sizes
    rows = [sizes[:2], None, sizes[2:3], [sizes[3], sizes[0]]]
    inputs = pictures.inputs(name, rows).to(dtype)
    asked = {"variant": "published"} if method == "published" else {"method": method}
    reduced = hired.reduce(model, inputs, budget, **asked)
    assert len(reduced.selection) == 5
    for entry in reduced.selection:
        allowed = int(budget * budgeted(name, entry) + 1e-9) if budget <= 1 else int(budget)
        if budget == 1 or allowed >= entry.tokens_full:
            assert entry.tokens_kept == entry.tokens_full
        elif method in MET:
            assert entry.tokens_kept == min(allowed, entry.tokens_real)
        elif method == "overview":
            assert entry.tokens_kept == min(allowed, entry._layout.capacity[0])
            assert sum(entry.per_partition) == entry.per_partition[0]
        else:
            # Truncated as the authors do, a single token goes to nobody.
            assert min(1, allowed // 2) <= entry.tokens_kept <= allowed
    per_row = (reduced["input_ids"] == family_of(model).image_token(model)).sum(1).tolist()
    kept = [entry.tokens_kept for entry in reduced.selection]
    assert per_row == [kept[0] + kept[1], 0, kept[2], kept[3] + kept[4]]
    settings = {"max_new_tokens": 3, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    new = model.generate(**reduced, **settings)
    assert new.shape == (4, reduced["input_ids"].shape[1] + 3)
    if budget == 1:
        assert torch.equal(new, model.generate(**inputs, **settings))
        assert reduced["pixel_values"] is inputs["pixel_values"]
        return
    features = floats(reduced["mm_encoder_outputs"])
    assert features
    assert all(feature.dtype == dtype for feature in features)
    # The model sees the features that were kept, in their places: another feature, another answer.
    with torch.no_grad():
        logits = model(**reduced).logits
        changed = copy.deepcopy(reduced["mm_encoder_outputs"])
        for feature in floats(changed):
            feature.neg_()
        other = model(**{**reduced, "mm_encoder_outputs": changed}).logits
    assert not torch.equal(logits[0, -1], other[0, -1])
    assert torch.equal(logits[1, -1], other[1, -1]), "the text-only row saw a picture"
