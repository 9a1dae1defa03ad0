"""The checks of ``hired check``, in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from PIL import Image
from torch import Tensor

import hired
from hired import greedy, prompts
from hired.checking import painting, peaked
from hired.checking.lines import FAILED, TOLD, Failure, Line, line
from hired.checking.pictures import sizes, structured
from hired.core.budget import floor_share
from hired.core.layout import Layout
from hired.errors import BudgetError
from hired.families import family_of
from hired.reduction import assemble, encode, plan, project, select
from hired.reduction.once import encode_for

__all__ = ["Result", "check"]

BUDGETS: tuple[int | float, ...] = (0.5, 0.2, 0.1, 16)
QUESTION = "What is shown?"
_NEW_TOKENS = 8
_ALIKE = 0.99
"""Cosine of two features that differ by rounding only, in half precision as well."""
_FOUND = 0.75
"""Share of painted cells that must be found; were cells taken for others, hardly any would be."""


@dataclass(frozen=True)
class Result:
    """What came out.

    Attributes:
        lines: In order.
        facts: Of the model: family, encoder and so on, as far as they were found.
        peaked: What `hired.checking.peaked.measure` says; None where that failed.
    """

    lines: list[Line]
    facts: dict[str, Any]
    peaked: dict[str, Any] | None

    @property
    def works(self) -> bool:
        """Whether no line failed."""
        return all(each.state != FAILED for each in self.lines)


def check(model: Any, processor: Any, tell: Callable[[str], None] = lambda name: None) -> Result:
    """Tries on built-in pictures whether HiRED works on a model.

    Args:
        model: A model, in eval mode.
        processor: Its processor.
        tell: Called with the name of every step before it is taken.
    """
    facts: dict[str, Any] = {}
    measured: list[peaked.Peaked] = []
    lines: list[Line] = []

    def step(name: str, work: Callable[[], str], state: str = "ok") -> bool:
        tell(name)
        lines.append(line(name, work, state))
        return lines[-1].state != FAILED

    # Without the first three nothing else can be tried.
    first = (("family", partial(_family, model, facts)), ("encoder", partial(_encoder, model, facts)))
    if all(step(name, work) for name, work in first) and step("pictures", lambda: _pictures(model, processor)):
        step("all tokens", lambda: _all_tokens(model, processor))
        step("budgets", lambda: _budgets(model, processor))
        step("features", lambda: _features(model, processor))
        step("answers", lambda: _answers(model, processor))
        step("painted cells", lambda: _painted(model, processor))
        step("attention", lambda: _attention(model, processor, measured), TOLD)
    return Result(lines, facts, asdict(measured[0]) if measured else None)


def _family(model: Any, facts: dict[str, Any]) -> str:
    family = family_of(model)
    facts |= {"family": family.name, "model_type": model.config.model_type, "class": type(model).__name__}
    facts["parameters"] = int(model.num_parameters())  # packed ones of quantised weights counted as what they were
    return f"{family.name}: {facts['class']}, {facts['parameters'] / 1e6:,.1f} M parameters"


def _encoder(model: Any, facts: dict[str, Any]) -> str:
    encoder = family_of(model).parts(model)
    merged = 1 if encoder.merge is None else int(encoder.merge.shape[-1])
    facts |= {
        "encoder": type(encoder.tower).__name__,
        "layers": len(encoder.layers),
        "cls": encoder.cls is not None,
        "first": encoder.first,
        "last": encoder.last,
        "merge": merged,
        "attention": getattr(encoder.tower.config, "_attn_implementation", None),
    }
    ranked = "ranked by the CLS token" if encoder.cls is not None else "no CLS token: ranked by what patches receive"
    together = f", {merged} patches to a token" if merged > 1 else ""
    return (
        f"{facts['encoder']} of {facts['layers']} layers, {facts['attention']} attention; layer {encoder.first}"
        f" divides, layer {encoder.last} picks; {ranked}{together}"
    )


def _images(model: Any) -> list[Image.Image]:
    return [Image.fromarray(structured(size)) for size in sizes(model)]


def _inputs(model: Any, processor: Any, image: Image.Image) -> Any:
    return prompts.inputs(model, processor, [prompts.prompt(processor, QUESTION)], [image])


def _pictures(model: Any, processor: Any) -> str:
    counts = []
    for image in _images(model):
        layout = plan(model, _inputs(model, processor, image), 1, images=[image]).layouts[0]
        cut = f" in {layout.partitions} parts" if layout.partitions > 1 else ""
        counts.append(f"{image.width}x{image.height}: {layout.tokens_full:,}{cut}")
    return f"visual tokens of {'; '.join(counts)}"


def _all_tokens(model: Any, processor: Any) -> str:
    """The untouched ids at a budget of 1, and with every token sent through the encoder as it is tapped.

    With all its tokens, a large model on a CPU takes minutes for a picture: where a budget of 1 hands on the very
    inputs, it is asked about the last picture only, the smallest.
    """
    images = _images(model)
    with torch.inference_mode():
        for image in images:
            inputs = _inputs(model, processor, image)
            untouched = _ids(model, processor, inputs)
            one = hired.reduce(model, inputs, 1.0, images=[image])
            same = one.keys() == inputs.keys() and all(one[name] is inputs[name] for name in inputs)
            if image is images[-1] or not same:
                same = torch.equal(untouched, _ids(model, processor, one))
            if not same:
                raise Failure(f"{image.width}x{image.height}: a budget of 1.0 changes the answer")
            made = plan(model, inputs, 2, images=[image])
            if not made.drops:
                continue
            encoded = encode_for(made, [made.method])
            every: list[Tensor | None] = [torch.arange(layout.tokens_full) for layout in made.layouts]
            ready = assemble(made, encoded, every, project(made, encoded, every))
            if not torch.equal(untouched, _ids(model, processor, ready)):
                raise Failure(f"{image.width}x{image.height}: all tokens, handed over as features, change the answer")
    return f"a budget of 1.0 gives the untouched ids on {len(images)} pictures, and so do all features handed over"


def _ids(model: Any, processor: Any, inputs: Any) -> Tensor:
    """(1, new) ids of a short answer."""
    start = inputs["input_ids"].shape[1]
    return greedy.generate(model, processor, inputs, _NEW_TOKENS)[:, start:]


def _budgets(model: Any, processor: Any) -> str:
    family, tried = family_of(model), 0
    token = family.image_token(model)
    for image in _images(model):
        inputs = _inputs(model, processor, image)
        for budget in BUDGETS:
            layout = plan(model, inputs, 1, images=[image]).layouts[0]
            wanted = _wanted(layout, budget)
            if wanted is None:
                continue
            with torch.inference_mode():
                reduced = hired.reduce(model, inputs, budget, images=[image])
            kept, left = reduced.selection[0].tokens_kept, int((reduced["input_ids"] == token).sum())
            if (kept, left) != (wanted, wanted):
                raise Failure(
                    f"{image.width}x{image.height} at {budget}: {wanted:,} tokens were to be kept, {kept:,} were, and"
                    f" {left:,} placeholders are left"
                )
            tried += 1
    return f"{', '.join(map(str, BUDGETS))} met to the token, {tried} times"


def _wanted(layout: Layout, budget: int | float) -> int | None:
    """Tokens that a budget keeps of a picture; None where it leaves none."""
    allowed = floor_share(budget, layout.tokens_budgeted) if budget <= 1 else int(budget)
    if allowed < 1:
        return None
    return layout.tokens_full if allowed >= layout.tokens_full else min(allowed, layout.tokens_real)


def _features(model: Any, processor: Any) -> str:
    """The kept features as they are computed for a budget, beside those of a run that computes everything."""
    least = 1.0
    with torch.inference_mode():
        for image in _images(model):
            inputs = _inputs(model, processor, image)
            try:
                made = plan(model, inputs, 0.2, images=[image])
            except BudgetError:
                continue
            found, everything = encode(made), encode_for(made, [made.method])
            kept = select(made, found)
            pairs = zip(project(made, found, kept), project(made, everything, kept), strict=True)
            for one, other in pairs:
                alike = torch.cosine_similarity(one.flatten(1).float(), other.flatten(1).float(), dim=-1)
                least = min(least, float(alike.min()))
    if not least >= _ALIKE:
        raise Failure(f"kept features are not those of the untouched model: cosine {least:.4f}")
    return f"kept features are those of the untouched model: cosine {least:.5f} at the least"


def _answers(model: Any, processor: Any) -> str:
    images = _images(model)
    with torch.inference_mode():
        for image in images:
            inputs = _inputs(model, processor, image)
            budget = 0.2 if _wanted(plan(model, inputs, 1, images=[image]).layouts[0], 0.2) else 2
            _ids(model, processor, hired.reduce(model, inputs, budget, images=[image]))
    return f"the model answers at a budget of 0.2, {len(images)} times"


def _painted(model: Any, processor: Any) -> str:
    found: Sequence[bool] = [each for size in sizes(model)[:3] for each in painting.moved(model, processor, size)]
    if not found:
        raise Failure("no kept token shows enough of the pictures to be painted")
    words = f"{sum(found)} of {len(found)} painted cells are the kept token that changes"
    if sum(found) < _FOUND * len(found):
        raise Failure(words)
    return words


def _attention(model: Any, processor: Any, measured: list[peaked.Peaked]) -> str:
    own = peaked.measure(model, processor)
    measured.append(own)
    return (
        f"the top fifth of the tokens has {100 * own.mass:.0f} % of it; {100 * own.ink:.0f} % of them show writing, of"
        f" all tokens {100 * own.blind:.0f} %"
    )
