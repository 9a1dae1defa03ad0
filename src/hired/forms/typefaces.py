"""Typefaces and inks. Fonts are those that matplotlib and Pillow ship with, so nothing is downloaded."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import ImageFont

from hired.errors import MissingDependencyError

FILES: dict[str, tuple[str, ...]] = {
    "train": (
        "DejaVuSans.ttf",
        "DejaVuSans-Bold.ttf",
        "DejaVuSansMono.ttf",
        "DejaVuSansMono-Bold.ttf",
        "DejaVuSerif.ttf",
        "DejaVuSerif-Bold.ttf",
    ),
    "unseen": ("STIXGeneral.ttf", "STIXGeneralBol.ttf", "cmss10.ttf", "Aileron"),
}
INKS = ((20, 20, 24), (24, 36, 110), (120, 24, 24), (20, 84, 44), (84, 40, 100), (70, 70, 70))


@dataclass(frozen=True)
class Style:
    """How pages are written and printed. Those that are measured use the values below.

    Attributes:
        files: Typefaces: names of `FILES`, or paths.
        sizes: Least and largest size of small print, in tile pixels.
        textured: Share of `forms` and `dense` pages with another background than paper.
        worn: Share of pages that are blurred a little, or show traces of JPEG compression.
    """

    files: tuple[str, ...]
    sizes: tuple[float, float] = (9.0, 11.5)
    textured: float = 0.0
    worn: float = 0.0


STYLES = {name: Style(files) for name, files in FILES.items()}


@lru_cache(maxsize=2048)
def font(name: str, size: float) -> ImageFont.FreeTypeFont:
    """A typeface at a size in pixels of the page."""
    if name == "Aileron":
        found = ImageFont.load_default(size)
        if not isinstance(found, ImageFont.FreeTypeFont):
            raise MissingDependencyError("the pages are written with FreeType: install a Pillow built with it")
        return found
    path = Path(name)
    if not path.is_absolute():
        try:
            import matplotlib
        except ImportError as error:
            raise MissingDependencyError(
                "the pages are written with matplotlib's fonts: pip install 'hired-vlm[eval]'"
            ) from error
        path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)
