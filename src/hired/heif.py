"""HEIC and HEIF pictures, by libheif through pillow-heif (the extra `heic`); nothing is registered with Pillow."""

from __future__ import annotations

import importlib.util

from PIL import Image

from hired.errors import ImageError, MissingDependencyError

__all__ = ["is_heif", "load"]

_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
"""Of ISO/IEC 23008-12; AVIF, which Pillow reads itself, has brands of its own."""
_AVIF = {b"avif", b"avis"}


def is_heif(data: bytes) -> bool:
    """Whether the bytes of a file are a HEIF picture's that is not AVIF: by its `ftyp` box."""
    if data[4:8] != b"ftyp":
        return False
    end = min(int.from_bytes(data[:4], "big"), 256, len(data))
    named = {data[at : at + 4] for at in (8, *range(16, end - 3, 4))}
    return bool(named & _BRANDS) and not named & _AVIF


def load(name: str, data: bytes, most: int) -> Image.Image:
    """Decode the primary picture, turned and mirrored as the file says.

    Args:
        name: What errors call it.
        data: The file.
        most: Pixels it may have.

    Returns:
        8 bits a channel, with or without transparency.

    Raises:
        ImageError: It would have more pixels.
        MissingDependencyError: pillow-heif is not installed.
        Exception: Whatever pillow-heif raises over a broken file.
    """
    if importlib.util.find_spec("pillow_heif") is None:
        raise MissingDependencyError(
            f"{name} is a HEIC picture, for which pillow-heif is needed: pip install pillow-heif, or install hired-vlm"
            " with its heic extra"
        )
    import pillow_heif

    opened = pillow_heif.open_heif(data)
    width, height = opened.size
    if width < 1 or height < 1:
        raise ImageError(f"{name} has no pixels ({width} x {height})")
    if width * height > most:
        raise ImageError(f"{name} would decode to more than {most:,} pixels")
    image: Image.Image = opened.to_pillow()
    return image
