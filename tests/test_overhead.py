"""What HiRED adds to a model, counted: operations, and waits for a GPU, neither of which depends on the machine."""

import copy
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

import hired
from hired.families import family_of
from hired.reduction import assemble, encode, plan, project, select
from tests.support import models, pictures

LAYERS = 24


def deep(name: str) -> Any:
    """A tiny model of as many layers, in the encoder and in the LLM, as a real one."""
    usual = models.shared(name)
    config = copy.deepcopy(usual.config)
    config.vision_config.num_hidden_layers = config.text_config.num_hidden_layers = LAYERS
    config.text_config.layer_types = None
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return type(usual)(config).eval()


class Dispatched(TorchDispatchMode):
    """Counts the operations that torch dispatches."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[str(func)] += 1
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def operations(call: Callable[[], Any]) -> int:
    """Operations of a call that is not the first one."""
    call()
    with Dispatched() as dispatched:
        call()
    return dispatched.counts.total()


@pytest.mark.parametrize("name", ["llava_next", "llava"])
@pytest.mark.parametrize("rows", [[[(64, 64)]], [[(64, 64)], [(64, 64)]]])
def test_few_operations_more_than_untouched(name: str, rows: Any) -> None:
    model, inputs = deep(name), pictures.inputs(name, rows)
    untouched = operations(lambda: model(**inputs))
    reduced = operations(lambda: model(**hired.reduce(model, inputs, 0.2)))
    # The encoder's last layer does not run, which saves about 25.
    assert reduced - untouched <= 60


def without_values(made: Any) -> Any:
    """A plan whose model and tensors are on a device that holds no values, so that to ask for one is an error."""
    device = torch.device("meta")

    def there(values: Any) -> Any:
        return tree_map_only(Tensor, lambda tensor: tensor.to(device), values)

    model, known = copy.deepcopy(made.model).to(device), made.beforehand
    return replace(
        made,
        model=model,
        inputs=there(dict(made.inputs)),
        placed=[layout and layout.to(device) for layout in made.placed],
        encoder=family_of(model).parts(model),
        beforehand=known and replace(known, order=replace(known.order, index=there(known.order.index))),
    )


@pytest.mark.parametrize("name", ["llava_next", "llava"])
def test_no_value_is_asked_for_between_the_first_layer_and_the_llm(name: str) -> None:
    model, inputs = deep(name), pictures.inputs(name, [[(64, 64)]])
    made = plan(model, inputs, 0.3)
    there = without_values(made)
    with torch.no_grad():
        encoded = encode(there)
        assert encoded.shares is None
        assert encoded.attention[0].last is not None
        assert encoded.attention[0].last.is_meta
        kept = select(there, encoded)
        reduced = assemble(there, encoded, kept, project(there, encoded, kept))
    expected = hired.reduce(model, inputs, 0.3)
    assert reduced["input_ids"].shape == expected["input_ids"].shape
    features = reduced["mm_encoder_outputs"]["image"].pooler_output[0]
    assert features.is_meta
    assert features.shape == expected["mm_encoder_outputs"]["image"].pooler_output[0].shape
