"""``hired view``: draw which tokens of a picture are kept."""

from __future__ import annotations

from pathlib import Path

from hired import images
from hired.cli import loading, output

__all__ = ["run"]


def run(
    image: str,
    out: Path,
    model: str = "tiny",
    budget: int | float | str = 0.2,
    alpha: float = 0.5,
    variant: str = "paper",
    device: str = "auto",
    dtype: str = "auto",
) -> None:
    """Encode a picture, select, and write the figure to `out`. No answer is generated.

    Raises:
        HiredError: The picture, the model or the settings will not do, or `out` cannot be written.
    """
    output.check_picture_path(out, image)
    share = loading.check_settings(budget, alpha, variant)
    picture = images.load(image)
    loaded = loading.load(model, device, dtype)

    import torch

    import hired
    from hired.viz import draw

    words = loading.prompt(loaded.processor, "What is shown?")
    inputs = loaded.processor(text=[words], images=[picture], return_tensors="pt").to(loaded.model.device)
    with torch.inference_mode():
        reduced = hired.reduce(loaded.model, inputs, budget=share, alpha=alpha, variant=variant, images=[picture])
    chosen = reduced.selection[0]
    line = f"{out}: {chosen.tokens_full:,} -> {chosen.tokens_kept:,} visual tokens"
    output.deliver(lambda: print(line), lambda: output.save_picture(draw(picture, chosen), out))
