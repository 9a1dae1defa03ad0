"""Pages of PDF files as pictures, by PDFium through pypdfium2 (the extra `pdf`).

PDFium is what draws PDFs in Chromium. Scripts in a file are not run.
"""

from __future__ import annotations

import importlib.util
import math
import re
from collections.abc import Sequence
from typing import Any

from PIL import Image

from hired.errors import ImageError, MissingDependencyError

__all__ = ["DPI", "MOST_DPI", "Pdf", "check_dpi", "is_pdf", "parse_pages", "require"]

DPI = 144
"""Pixels an inch of the page, unless told otherwise: two for a point, a PDF's own unit. An A4 page has 1191 x 1684
pixels then, about what models that cut pictures into partitions take in."""
MOST_DPI = 2400
_INCH = 72  # points
_HEAD = 1024  # bytes; readers look no further for the header
_PAGES = re.compile(r"\d{1,9}(-(\d{1,9})?)?(,\d{1,9}(-(\d{1,9})?)?)*")
_PASSWORD, _SECURITY = 4, 5  # PDFium's codes


def is_pdf(data: bytes) -> bool:
    """Whether the bytes of a file are a PDF's."""
    return data[:_HEAD].lstrip(b"\xef\xbb\xbf\0\t\n\f\r ").startswith(b"%PDF-")


def require() -> None:
    """Raise `MissingDependencyError` where pypdfium2 is not installed."""
    if importlib.util.find_spec("pypdfium2") is None:
        raise MissingDependencyError(
            "reading PDFs needs pypdfium2: pip install pypdfium2, or install hired-vlm with its pdf extra"
        )


def check_dpi(dpi: float) -> None:
    """Raise `ImageError` for a resolution that is not above 0 and at most `MOST_DPI`."""
    if not (isinstance(dpi, int | float) and 0 < dpi <= MOST_DPI):
        raise ImageError(f"dpi {dpi}: use a number above 0 and at most {MOST_DPI}; {DPI} is the default")


def parse_pages(text: str, count: int, name: str) -> list[int]:
    """The pages that ``2``, ``2-4``, ``7-`` (to the end) or several of these with commas name, in that order.

    Args:
        text: The words.
        count: Pages of the file.
        name: What errors call it.

    Returns:
        Page numbers, from 1.

    Raises:
        ImageError: Something else, or a page that the file does not have.
    """
    if not _PAGES.fullmatch(text):
        raise ImageError(f"pages {text!r} of {name}: name them as in #2, #2-4, #7- or #1,3")
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        start, end = int(first), int(last or count) if dash else int(first)
        wrong = next((page for page in (start, end) if not 1 <= page <= count), None)
        if wrong is not None:
            raise ImageError(f"{name} has no page {wrong:,}: it has {count:,}")
        if end < start:
            raise ImageError(f"pages {part} of {name}: the first comes behind the last")
        found += range(start, end + 1)
    return found


class Pdf:
    """An open PDF."""

    def __init__(self, name: str, data: bytes, dpi: float = DPI) -> None:
        """Open it.

        Args:
            name: What errors call it.
            data: The file.
            dpi: Pixels an inch.

        Raises:
            ImageError: It is broken, encrypted or without pages, or the resolution is out of range.
            MissingDependencyError: pypdfium2 is not installed.
        """
        check_dpi(dpi)
        require()
        import pypdfium2

        self.name, self.dpi = name, dpi
        try:
            self._document = pypdfium2.PdfDocument(data)
            self._document.init_forms()
            self._count = len(self._document)
        except pypdfium2.PdfiumError as error:
            code = getattr(error, "err_code", None)
            if code in (_PASSWORD, _SECURITY) or "password" in str(error).lower():
                raise ImageError(f"{name} is encrypted: save it without a password first") from error
            raise ImageError(f"{name} is a broken PDF") from error
        if not self._count:
            raise ImageError(f"{name} is a PDF without pages")

    def __len__(self) -> int:
        return self._count

    def pages(self, words: str | None) -> Sequence[int]:
        """The pages that are meant, from 1; all where nothing is said. Errors are those of `parse_pages`."""
        return range(1, self._count + 1) if words is None else parse_pages(words, self._count, self.name)

    def page(self, number: int, most: int) -> Image.Image:
        """Draw a page, on white.

        Args:
            number: From 1.
            most: Pixels it may have.

        Returns:
            RGB, upright.

        Raises:
            ImageError: It is broken, or would have more pixels.
        """
        import pypdfium2

        name = f"page {number:,} of {self.name}"
        scale = self.dpi / _INCH
        try:
            page = self._document[number - 1]
            try:
                width, height = (math.ceil(side * scale) for side in page.get_size())
                if width < 1 or height < 1:
                    raise ImageError(f"{name} has no area")
                if width * height > most:
                    raise ImageError(
                        f"{name} would have {width:,} x {height:,} pixels at {self.dpi:g} dpi, more than {most:,} in"
                        " all: lower --dpi"
                    )
                bitmap: Any = page.render(scale=scale, rev_byteorder=True)
                try:
                    return bitmap.to_pil().convert("RGB").copy()  # type: ignore[no-any-return]
                finally:
                    bitmap.close()
            finally:
                page.close()
        except (pypdfium2.PdfiumError, ValueError, OverflowError) as error:
            if isinstance(error, ImageError):
                raise
            raise ImageError(f"{name} is broken") from error
        except MemoryError as error:
            raise ImageError(f"{name} does not fit in memory: lower --dpi") from error
