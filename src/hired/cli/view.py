"""``hired view``: draw which tokens of a picture are kept."""

from __future__ import annotations

from pathlib import Path

from hired import files, images, prompts
from hired.cli import output, waiting
from hired.cli.answering import How
from hired.loading.strangers import strangers
from hired.pdf import DPI, check_dpi

__all__ = ["run"]


def run(
    image: str,
    out: Path,
    how: How,
    model: str = "tiny",
    device: str = "auto",
    dtype: str = "auto",
    trust_remote_code: bool = False,
    load: str | None = None,
    dpi: float = DPI,
) -> None:
    """Encode a picture, select, and write the figure to `out`. No answer is generated.

    Raises:
        HiredError: The picture, the model or the settings will not do, or `out` cannot be written.
    """
    files.check_picture_path(out, images.file_of(image))
    check_dpi(dpi)
    settings = how.keywords()
    picture = images.load(image, dpi)
    loaded = waiting.load(model, device, dtype, trust_remote_code, load)

    import torch

    import hired
    from hired.viz import draw

    words = prompts.prompt(loaded.processor, "What is shown?")
    inputs = prompts.inputs(loaded.model, loaded.processor, [words], [picture])
    with strangers(model, "select with"), torch.inference_mode():
        reduced = hired.reduce(loaded.model, inputs, **settings, images=[picture])
    chosen = reduced.selection[0]
    line = f"{out}: {chosen.tokens_full:,} -> {chosen.tokens_kept:,} visual tokens"
    output.deliver(lambda: print(line), lambda: files.save_picture(draw(picture, chosen), out))
