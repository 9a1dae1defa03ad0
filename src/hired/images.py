"""Reading pictures as upright RGB: any file that Pillow knows, HEIC, pages of PDFs; from disk, standard input or a URL.

`load` gives the first frame, turned the way EXIF says, on white where it is transparent; `each` gives every page of a
PDF, and one picture of any other file. Whatever goes wrong is an `hired.errors.ImageError` of one line.
"""

from __future__ import annotations

import io
import os
import re
import stat
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from hired.download import DownloadError, download, without_password
from hired.errors import HiredError, ImageError
from hired.heif import is_heif
from hired.heif import load as load_heif
from hired.pdf import DPI, Pdf, is_pdf

__all__ = ["MAX_BYTES", "MAX_PIXELS", "URL_SECONDS", "Picture", "each", "file_of", "is_url", "load"]

MAX_BYTES = 256 * 1024 * 1024
"""Largest file or download that is read, in bytes."""
MAX_PIXELS = 89_478_485
"""Largest picture that is decoded, in pixels (Pillow's own threshold for a decompression bomb)."""
URL_SECONDS = 30.0
"""How long a download may take in all, redirects included, in seconds."""

# Formats that Pillow hands to another program (Ghostscript) or to the system are not read.
_CHUNK = 1 << 16
_NEVER = frozenset({"EPS", "WMF"})


_PAGES = re.compile(r"(?P<source>.+)#(?P<pages>\d[\d,-]*)", re.DOTALL)


@dataclass(frozen=True)
class Picture:
    """A picture that can be had.

    Attributes:
        name: The source as it was named; behind it ``#`` and the number of the page, for one of a PDF.
        load: Decodes it: upright RGB as in `load`, with the same errors.
    """

    name: str
    load: Callable[[], Image.Image]


def each(source: str | os.PathLike[str] | BinaryIO, dpi: float = DPI) -> list[Picture]:
    """The pictures of a source: pages of a PDF, or the one picture of any other file. Reads it, decodes nothing.

    Args:
        source: As in `load`; ``#2``, ``#2-4``, ``#7-`` or ``#1,3`` behind a PDF's name choose pages of it.
        dpi: Pixels an inch that pages are drawn with.

    Returns:
        One or more.

    Raises:
        ImageError: The file cannot be had, is a broken or encrypted PDF, or lacks a page that was named.
        MissingDependencyError: It is a PDF, and pypdfium2 is not installed.
    """
    source, words = _without_pages(source)
    name, data = _read(source)
    if not data:
        raise ImageError(f"{name} is empty (0 bytes)")
    named = without_password(os.fsdecode(source)) if isinstance(source, str | os.PathLike) else name
    if is_pdf(data):
        pdf = Pdf(name, data, dpi)
        return [Picture(f"{named}#{page}", partial(pdf.page, page, MAX_PIXELS)) for page in pdf.pages(words)]
    if words is not None and not is_url(named):  # a URL may have an anchor of its own
        raise ImageError(f"{name} is no PDF: it has no pages to choose from by #{words[:40]}")
    return [Picture(named, partial(_picture, name, data))]


def load(source: str | os.PathLike[str] | BinaryIO, dpi: float = DPI) -> Image.Image:
    """Read a picture as upright RGB.

    Args:
        source: A path, ``"-"`` (standard input), an http or https URL, or a binary file object; of a PDF with several
            pages, one of them, as in ``"file.pdf#2"``.
        dpi: Pixels an inch that a page is drawn with.

    Returns:
        The first frame, mode ``RGB``, at least 1 x 1 pixels, EXIF orientation applied, transparent
        parts on white. 16-bit grey is scaled from 0..65535; other deep grey from its own range where
        it exceeds 0..255.

    Raises:
        ImageError: The picture cannot be had or decoded, has no pixels, or is larger than `MAX_BYTES`
            or `MAX_PIXELS`; or several pages are meant.
        MissingDependencyError: It is a PDF or a HEIC picture, and what reads these is not installed.
    """
    found = each(source, dpi)
    if len(found) > 1:
        raise ImageError(
            f"{_shown(found[0].name.rpartition('#')[0])} stands for {len(found):,} pages: name one of them, as in"
            f" {_shown(found[0].name)}"
        )
    return found[0].load()


def file_of(source: str) -> str:
    """What of a source is read: the name without the pages behind it."""
    return str(_without_pages(source)[0])


def _without_pages(source: str | os.PathLike[str] | BinaryIO) -> tuple[str | os.PathLike[str] | BinaryIO, str | None]:
    """A source and the pages that are named behind it; a file of the whole name is that file."""
    match = _PAGES.fullmatch(source) if isinstance(source, str) else None
    if match is None or os.path.lexists(match[0]):
        return source, None
    return match["source"], match["pages"]


def is_url(text: str) -> bool:
    """Whether a source is fetched."""
    scheme, colon, _ = text.partition("://")
    return bool(colon) and scheme.lower() in ("http", "https")


def _picture(name: str, data: bytes) -> Image.Image:
    """Decode the bytes of a file that is no PDF."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return _decode(name, data)
    except HiredError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise ImageError(f"{name} would decode to more than {MAX_PIXELS:,} pixels") from None
    except UnidentifiedImageError:
        raise ImageError(f"{name} is not a picture in a format that Pillow reads") from None
    except MemoryError:
        raise ImageError(f"{name} does not fit in memory") from None
    except Exception as error:  # Pillow's decoders raise almost anything on a broken file
        raise ImageError(f"{name} is broken or truncated: {_line(error)}") from error


def _decode(name: str, data: bytes) -> Image.Image:
    """Decode the bytes of a file; whatever Pillow raises goes through."""
    if is_heif(data):
        return _plain(load_heif(name, data, MAX_PIXELS))
    Image.init()
    with Image.open(io.BytesIO(data), formats=[f for f in Image.ID if f not in _NEVER]) as image:
        width, height = image.size
        if width < 1 or height < 1:
            raise ImageError(f"{name} has no pixels ({width} x {height})")
        if width * height > MAX_PIXELS:
            raise Image.DecompressionBombError
        image.load()
        try:
            upright = ImageOps.exif_transpose(image)
        except Exception:  # a picture with unreadable EXIF is still a picture
            upright = image
        return _plain(upright)


def _plain(image: Image.Image) -> Image.Image:
    """RGB and nothing else."""
    rgb = _rgb(image)
    rgb.info.clear()
    return rgb


def _rgb(image: Image.Image) -> Image.Image:
    """Convert any mode to RGB, transparency on white."""
    mode = image.mode
    if mode.startswith("I;16"):
        values = np.asarray(image if mode == "I;16" else image.convert("I"), dtype=np.float64)
        return _grey(values, 65535.0)
    if mode in ("I", "F"):
        values = np.nan_to_num(np.asarray(image, dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0)
        low, high = float(values.min()), float(values.max())
        if low >= 0:
            for top in (1.0, 255.0, 65535.0) if mode == "F" else (255.0, 65535.0):
                if high <= top:
                    return _grey(values, top)
        return _grey(values - low, max(high - low, 1e-12))
    if mode == "LAB":
        profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, *profiles, outputMode="RGB")
        if converted is None:
            raise ValueError("no colour conversion from LAB")
        return converted
    if mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        if mode in ("La", "RGBa"):
            image = image.convert(mode.upper())
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB") if mode != "RGB" else image.copy()


def _grey(values: np.ndarray, top: float) -> Image.Image:
    """A grey RGB picture from values (height, width) of 0..top."""
    scaled = np.clip(np.rint(values * (255.0 / top)), 0, 255).astype(np.uint8)
    return Image.fromarray(scaled).convert("RGB")


def _read(source: str | os.PathLike[str] | BinaryIO) -> tuple[str, bytes]:
    """The bytes of a source, and what to call it in an error."""
    if not isinstance(source, str | os.PathLike):
        return _open_file(source)
    text = os.fsdecode(source)
    if isinstance(source, str):
        if text == "-":
            return _stdin()
        if is_url(text):
            return _url(text)
        if "://" in text and not Path(text).exists():
            raise ImageError(f"cannot read {_shown(text)}: only http and https URLs are read")
    return _file(text)


def _open_file(source: BinaryIO) -> tuple[str, bytes]:
    """The rest of an open file."""
    name = "the given file"
    if not callable(getattr(source, "read", None)):
        raise ImageError(f"a picture is a path, '-', a URL or an open binary file, not {type(source).__name__}")
    try:
        data = source.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: it is closed
        raise ImageError(f"cannot read {name}: {_line(error)}") from error
    if not isinstance(data, bytes | bytearray | memoryview):
        raise ImageError(f"{name} gives {type(data).__name__}, not bytes: open it with mode 'rb'")
    return name, _limited(name, bytes(data))


def _stdin() -> tuple[str, bytes]:
    """Everything on standard input."""
    name = "standard input"
    if sys.stdin is None:
        raise ImageError("standard input is closed: pipe a picture into it")
    if sys.stdin.isatty():
        raise ImageError("standard input is a terminal: pipe a picture into it")
    try:
        return name, _limited(name, sys.stdin.buffer.read(MAX_BYTES + 1))
    except OSError as error:
        raise ImageError(f"cannot read {name}: {_line(error)}") from error


def _file(text: str) -> tuple[str, bytes]:
    """The bytes of a file on disk."""
    name = _shown(text)
    if not text:
        raise ImageError("the path of the picture is empty")
    try:
        if stat.S_ISDIR(os.stat(text).st_mode):
            raise ImageError(f"{name} is a directory, not a picture")
        with open(text, "rb", buffering=0, opener=_unblocked) as file:
            return name, _limited(name, _all(name, file))
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(f"no such file: {name}") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else _line(error)
        raise ImageError(f"cannot read {name}: {reason}") from error


_PIECE = 1 << 20  # bytes read at a time


def _unblocked(path: str, flags: int) -> int:
    """Opens a file without waiting: a pipe may have nobody who writes to it."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _all(name: str, file: BinaryIO) -> bytes:
    """Everything in a file opened by `_unblocked`; where it is a pipe that somebody writes to, that is waited for."""
    first: bytes | None = b""
    if stat.S_ISFIFO(os.fstat(file.fileno()).st_mode):
        first = file.read(_PIECE)
        if first == b"":
            raise ImageError(f"{name} is a pipe that nobody writes to")
    elif os.isatty(file.fileno()):
        raise ImageError(f"{name} is a terminal, not a picture")
    if hasattr(os, "O_NONBLOCK"):
        os.set_blocking(file.fileno(), True)
    chunks, size = [first or b""], len(first or b"")
    while size <= MAX_BYTES and (chunk := file.read(_PIECE)):
        chunks.append(chunk)
        size += len(chunk)
    return b"".join(chunks)


def _url(url: str) -> tuple[str, bytes]:
    """Download a URL, within `MAX_BYTES` and `URL_SECONDS`."""
    name = _shown(url)
    try:
        return name, _limited(name, download(url, URL_SECONDS, MAX_BYTES))
    except DownloadError as error:
        raise ImageError(f"cannot download {name}: {_line(error)}") from error


def _limited(name: str, data: bytes) -> bytes:
    """The data, or an error where there is too much of it."""
    if len(data) > MAX_BYTES:
        raise ImageError(f"{name} is larger than {MAX_BYTES // (1024 * 1024)} MiB")
    return data


def _shown(text: str) -> str:
    """A path, or a URL without its password, on one line of at most 120 characters."""
    clean = "".join(c if c.isprintable() else "?" for c in without_password(text))
    return clean if len(clean) <= 120 else clean[:80] + "..." + clean[-37:]


def _line(reason: object) -> str:
    """What an exception says, on one line."""
    text = " ".join(str(reason).split()) or type(reason).__name__
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= 160 else text[:157] + "..."
