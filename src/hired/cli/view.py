"""``hired view``: draw which tokens of a picture are kept."""

from __future__ import annotations

from pathlib import Path

from hired import images, prompts
from hired.cli import output, waiting
from hired.cli.options import check_settings
from hired.loading.strangers import strangers

__all__ = ["run"]


def run(
    image: str,
    out: Path,
    model: str = "tiny",
    budget: int | float | str = 0.2,
    alpha: float = 0.5,
    method: str = "hired",
    variant: str = "paper",
    device: str = "auto",
    dtype: str = "auto",
    trust_remote_code: bool = False,
) -> None:
    """Encode a picture, select, and write the figure to `out`. No answer is generated.

    Raises:
        HiredError: The picture, the model or the settings will not do, or `out` cannot be written.
    """
    output.check_picture_path(out, image)
    share = check_settings(budget, alpha, method, variant)
    picture = images.load(image)
    loaded = waiting.load(model, device, dtype, trust_remote_code)

    import torch

    import hired
    from hired.viz import draw

    words = prompts.prompt(loaded.processor, "What is shown?")
    inputs = prompts.inputs(loaded.model, loaded.processor, [words], [picture])
    with strangers(model, "select with"), torch.inference_mode():
        reduced = hired.reduce(
            loaded.model, inputs, budget=share, alpha=alpha, method=method, variant=variant, images=[picture]
        )
    chosen = reduced.selection[0]
    line = f"{out}: {chosen.tokens_full:,} -> {chosen.tokens_kept:,} visual tokens"
    output.deliver(lambda: print(line), lambda: output.save_picture(draw(picture, chosen), out))
