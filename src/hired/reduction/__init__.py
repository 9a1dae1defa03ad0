"""The one path from the processor's output to `generate`'s input: plan, encode, select, project, assemble.

`reduce` runs the five stages. They are separate so that each can be timed and tools can put their own choice of
tokens in place of `select` (after `encode(plan, everything=True)`).
"""

from collections.abc import Mapping
from typing import Any

from hired.compiling import untraced
from hired.core.budget import Budget, EncoderBudget, Newlines
from hired.core.image import Attention
from hired.core.transfer import host_by_default
from hired.errors import HiredError
from hired.families import family_of
from hired.methods import Method, resolve
from hired.reduction.assemble import assemble
from hired.reduction.checks import Positions, check_choices, check_encoder_budget, check_mapping
from hired.reduction.encode import encode
from hired.reduction.encoded import Encoded
from hired.reduction.plan import Plan, plan
from hired.reduction.project import project
from hired.reduction.reduced import ReducedInputs, Report
from hired.reduction.select import select
from hired.reduction.selection import Counts, ImageSelection, Token

__all__ = [
    "Counts",
    "Encoded",
    "ImageSelection",
    "Plan",
    "ReducedInputs",
    "Token",
    "assemble",
    "encode",
    "plan",
    "project",
    "reduce",
    "select",
]


@untraced
def reduce(
    model: Any,
    inputs: Mapping[str, Any],
    budget: float,
    *,
    alpha: float = 0.5,
    method: str | Method = "hired",
    variant: str = "paper",
    newlines: Newlines = "drop",
    positions: Positions | None = None,
    encoder_budget: float | EncoderBudget | None = None,
    images: Any = None,
) -> ReducedInputs:
    """Drops visual tokens of a processor's output under a budget, before the LLM sees them.

    Runs the vision encoder once, without gradients unless `model` is in training mode. The model is left as it
    was.

    Args:
        model: a supported vision-language model; see `hired models`.
        inputs: what the processor returned, on the model's device: `input_ids` (batch, length), `pixel_values`
            and what belongs to them; `attention_mask`, `labels` and other (batch, length) tensors are cut alike.
        budget: at most 1: share of the P partitions x N visual tokens of every image, so that
            B = floor(budget * P * N); a whole number above 1: tokens per image. An image whose budget covers all
            its tokens stays as it is; otherwise exactly min(B, R) of its R patch tokens are kept.
        alpha: the full image's share of the budget, 0..1 (paper: 0.5); for methods "hired" and "published".
        method: a name in `hired.methods.METHODS`, or a `hired.methods.Method`.
        variant: "paper" (made exact) or "published" (what the authors' code does); for method "hired".
        newlines: "drop" as published, or "keep" the row-end newlines of rows that keep a token, within B.
        positions: kept tokens take "consecutive" positions as published, or keep their "original" ones. None: the
            former, but the latter in families whose positions tell where in the picture a token stands (M-RoPE).
        encoder_budget: None, or a ratio of at least 1 such as 2: after an early layer, the encoder goes on with only
            that many times the tokens each partition may keep, its most promising ones. Faster and lossy: features
            and choice change. For method "hired" with newlines dropped.
        images: the pictures, or their (width, height), in the order of their placeholders; for pixel boxes in the
            original picture where the processor does not pass the size on, and where the inputs alone do not tell into
            which grid a picture was cut: then an error asks for them.

    Returns:
        A mapping for `model.generate(**...)` and `model(**...)`, reusable, with `.selection`, one entry an image.

    Raises:
        BudgetError: a setting out of range, or a budget that leaves no token.
        UnsupportedModelError: a model, encoder or setting HiRED does not know.
        InputsError: inputs that do not fit the model or each other.
    """
    settings: dict[str, Any] = {
        "alpha": alpha,
        "method": method,
        "variant": variant,
        "newlines": newlines,
        "positions": positions,
        "encoder_budget": encoder_budget,
        "images": images,
    }
    if Budget.parse(budget).share == 1:
        return _untouched(model, inputs, settings)
    with host_by_default():
        planned = plan(model, inputs, budget, **settings)
        encoded = encode(planned)
        kept = select(planned, encoded)
        return assemble(planned, encoded, kept, project(planned, encoded, kept))


def _untouched(model: Any, inputs: Mapping[str, Any], settings: dict[str, Any]) -> ReducedInputs:
    """Inputs of which everything is kept: whatever the model itself takes, it takes."""
    check_choices(family_of(model), settings["newlines"], settings["positions"])
    chosen = resolve(settings["method"], settings["variant"], settings["alpha"])
    check_encoder_budget(settings["encoder_budget"], chosen, settings["newlines"])
    check_mapping(inputs)
    data = dict(inputs)

    def report() -> Report:
        try:
            with host_by_default():
                layouts = plan(model, data, 1, **settings).layouts
        except HiredError:  # such as videos
            layouts = []
        return Report(layouts, [None] * len(layouts), [Attention()] * len(layouts))

    return ReducedInputs(dict(data), report, model)
