"""Pages of PDFs and HEIC pictures, read like any other."""

import importlib.util
import io
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hired import images
from hired.errors import HiredError, ImageError, MissingDependencyError
from hired.heif import is_heif
from hired.pdf import DPI, MOST_DPI, is_pdf, parse_pages

needs_pdf = pytest.mark.skipif(importlib.util.find_spec("pypdfium2") is None, reason="needs pypdfium2")
needs_heic = pytest.mark.skipif(importlib.util.find_spec("pillow_heif") is None, reason="needs pillow-heif")
COLOURS = [(200, 0, 0), (0, 160, 0), (0, 0, 220)]


def pdf(path: Path, sizes: list[tuple[int, int]] | None = None, dpi: float = DPI) -> Path:
    """A page of each colour."""
    pages = [Image.new("RGB", size, colour) for size, colour in zip(sizes or [(60, 40)] * 3, COLOURS, strict=False)]
    pages[0].save(path, save_all=True, append_images=pages[1:], resolution=dpi)
    return path


def raw(*objects: bytes, trailer: bytes = b"") -> bytes:
    """A PDF of these objects, the first of which is its root."""
    out, places = b"%PDF-1.7\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    count = len(objects) + 1
    end = b"trailer\n<< /Size %d /Root 1 0 R %s>>\nstartxref\n%d\n%%%%EOF" % (count, trailer, len(out))
    return out + b"xref\n0 %d\n0000000000 65535 f \n" % count + table + end


def page(box: bytes, rest: bytes = b"") -> bytes:
    kids = b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>"
    return raw(b"<< /Type /Catalog /Pages 2 0 R >>", kids, b"<< /Type /Page /Parent 2 0 R %s %s >>" % (box, rest))


def middle(image: Image.Image) -> Any:
    return image.getpixel((image.width // 2, image.height // 2))


def near(image: Image.Image, colour: tuple[int, int, int]) -> bool:
    return int(np.abs(np.array(middle(image)) - colour).max()) < 12


@needs_pdf
def test_every_page_of_a_pdf_in_order(tmp_path: Path) -> None:
    found = images.each(str(pdf(tmp_path / "a.pdf")))
    assert [picture.name for picture in found] == [f"{tmp_path}/a.pdf#{i}" for i in (1, 2, 3)]
    for picture, colour in zip(found, COLOURS, strict=True):
        image = picture.load()
        assert (image.mode, image.size) == ("RGB", (60, 40))
        assert near(image, colour)


@needs_pdf
@pytest.mark.parametrize(
    ("words", "numbers"),
    [("2", [2]), ("2-3", [2, 3]), ("2-", [2, 3]), ("3,1", [3, 1]), ("1-1,3-", [1, 3]), ("002", [2])],
)
def test_pages_that_are_named(tmp_path: Path, words: str, numbers: list[int]) -> None:
    found = images.each(f"{pdf(tmp_path / 'a.pdf')}#{words}")
    assert [picture.name.rpartition("#")[2] for picture in found] == list(map(str, numbers))
    assert all(near(picture.load(), COLOURS[number - 1]) for picture, number in zip(found, numbers, strict=True))


@needs_pdf
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("0", "has no page 0: it has 3"),
        ("4", "has no page 4: it has 3"),
        ("2-9", "has no page 9"),
        ("9-", "has no page 9"),
        ("999999999", "no page 999,999,999"),
        ("3-2", "the first comes behind the last"),
        ("1--2", "name them as in #2"),
        ("1,", "name them as in #2"),
        ("9" * 40, "name them as in #2"),
    ],
)
def test_pages_that_are_not_there(tmp_path: Path, words: str, said: str) -> None:
    with pytest.raises(ImageError, match=said):
        images.each(f"{pdf(tmp_path / 'a.pdf')}#{words}")


def test_page_numbers_alone() -> None:
    assert parse_pages("7-", 8, "x") == [7, 8]


@needs_pdf
def test_a_page_is_a_picture_and_a_document_is_not(tmp_path: Path) -> None:
    path = pdf(tmp_path / "a.pdf")
    assert near(images.load(f"{path}#3"), COLOURS[2])
    with pytest.raises(ImageError, match=r"stands for 3 pages: name one of them, as in .*a\.pdf#1"):
        images.load(path)
    one = pdf(tmp_path / "one.pdf", [(30, 30)])
    assert near(images.load(one), COLOURS[0])
    assert near(images.load(io.BytesIO(one.read_bytes())), COLOURS[0])


@needs_pdf
def test_resolution(tmp_path: Path) -> None:
    path = pdf(tmp_path / "a.pdf", [(100, 50)], dpi=72)  # 100 x 50 points
    assert images.load(path).size == (200, 100)
    assert images.load(path, dpi=72).size == (100, 50)
    assert images.load(path, dpi=36.5).size == (51, 26)
    for dpi in (0, -1, MOST_DPI + 1, float("nan"), float("inf")):
        with pytest.raises(ImageError, match="dpi"):
            images.load(path, dpi=dpi)


@needs_pdf
def test_a_page_that_is_too_large_is_refused_before_it_is_drawn() -> None:
    with pytest.raises(ImageError, match=r"page 1 of the given file would have 28,800 x 28,800 pixels at 144 dpi"):
        images.load(io.BytesIO(page(b"/MediaBox [0 0 14400 14400]")))


@needs_pdf
def test_rotated_and_empty_pages() -> None:
    turned = images.load(io.BytesIO(page(b"/MediaBox [0 0 100 50]", b"/Rotate 90")))
    assert turned.size == (100, 200)
    assert middle(turned) == (255, 255, 255)


@needs_pdf
@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"%PDF-1.7\nno more", "broken PDF"),
        (b"\xef\xbb\xbf \n%PDF-1.4", "broken PDF"),
        (raw(b"<< /Type /Catalog >>"), "broken PDF|without pages"),
        (raw(b"<< /Type /Catalog /Pages 2 0 R >>", b"<< /Type /Pages /Kids [] /Count 0 >>"), "PDF"),
        (
            raw(
                b"<< /Type /Catalog /Pages 2 0 R >>",
                b"<< /Type /Pages /Kids [] /Count 0 >>",
                b"<< /Filter /Standard /V 1 /R 2 /P -4 /O <%s> /U <%s> >>" % (b"61" * 32, b"62" * 32),
                trailer=b"/Encrypt 3 0 R /ID [<61> <61>] ",
            ),
            "encrypted: save it without a password",
        ),
    ],
)
def test_broken_and_encrypted_documents(data: bytes, said: str) -> None:
    assert is_pdf(data)
    with pytest.raises(ImageError, match=said) as caught:
        images.load(io.BytesIO(data))
    assert "\n" not in str(caught.value)


@needs_pdf
def test_a_document_that_is_cut_anywhere_is_an_error_or_pictures(tmp_path: Path) -> None:
    data = pdf(tmp_path / "a.pdf").read_bytes()
    for end in range(10, len(data), max(len(data) // 60, 1)):
        try:
            assert all(picture.load().mode == "RGB" for picture in images.each(io.BytesIO(data[:end])))
        except ImageError:
            continue


@needs_pdf
def test_a_file_of_that_very_name_is_read(tmp_path: Path) -> None:
    Image.new("RGB", (5, 6), (1, 2, 3)).save(tmp_path / "a.pdf#2", "PNG")
    pdf(tmp_path / "a.pdf")
    assert images.load(str(tmp_path / "a.pdf#2")).size == (5, 6)
    assert images.file_of(f"{tmp_path}/a.pdf#2") == f"{tmp_path}/a.pdf#2"
    assert images.file_of(f"{tmp_path}/a.pdf#1-2") == f"{tmp_path}/a.pdf"


def test_pages_of_what_has_none(tmp_path: Path) -> None:
    Image.new("RGB", (5, 6)).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match=r"a\.png is no PDF: it has no pages to choose from by #2"):
        images.load(f"{tmp_path}/a.png#2")
    with pytest.raises(ImageError, match=r"no such file: .*missing\.pdf"):
        images.load(f"{tmp_path}/missing.pdf#2")


@needs_pdf
def test_a_document_on_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = pdf(tmp_path / "a.pdf").read_bytes()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
    (picture,) = images.each("-#2")
    assert near(picture.load(), COLOURS[1])


@pytest.mark.parametrize(("name", "kind"), [("pypdfium2", "pdf"), ("pillow_heif", "heic")])
def test_what_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: str) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda wanted, *_: None if wanted == name else real(wanted))
    data = page(b"/MediaBox [0 0 9 9]") if kind == "pdf" else b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 50
    with pytest.raises(MissingDependencyError, match=f"pip install {name.replace('_', '-')}.*with its {kind} extra"):
        images.load(io.BytesIO(data))


def heic(image: Image.Image, **options: Any) -> bytes:
    import pillow_heif

    out = io.BytesIO()
    pillow_heif.from_pillow(image).save(out, quality=-1, **options)
    return out.getvalue()


@needs_heic
def test_heic(tmp_path: Path) -> None:
    image = Image.new("RGB", (64, 48), (200, 30, 30))
    data = heic(image)
    assert is_heif(data)
    loaded = images.load(io.BytesIO(data))
    assert (loaded.mode, loaded.size) == ("RGB", (64, 48))
    assert near(loaded, (200, 30, 30))
    assert not loaded.info
    (tmp_path / "a.heic").write_bytes(data)
    (picture,) = images.each(str(tmp_path / "a.heic"))
    assert picture.name == str(tmp_path / "a.heic")


@needs_heic
def test_heic_is_read_without_a_change_to_pillow() -> None:
    before = list(Image.ID), dict(Image.EXTENSION)
    images.load(io.BytesIO(heic(Image.new("RGB", (64, 64)))))
    assert (list(Image.ID), dict(Image.EXTENSION)) == before
    assert "pillow_heif" in sys.modules


@needs_heic
def test_transparent_parts_of_heic_are_white() -> None:
    loaded = images.load(io.BytesIO(heic(Image.new("RGBA", (64, 64), (200, 0, 0, 0)))))
    assert near(loaded, (255, 255, 255))


@needs_heic
def test_broken_heic(monkeypatch: pytest.MonkeyPatch) -> None:
    data = heic(Image.effect_noise((64, 64), 90).convert("RGB"))
    for end in (12, 40, len(data) // 2, len(data) - 40):
        with pytest.raises(ImageError, match="broken or truncated"):
            images.load(io.BytesIO(data[:end]))
    monkeypatch.setattr(images, "MAX_PIXELS", 64 * 63)
    with pytest.raises(ImageError, match="more than 4,032 pixels"):
        images.load(io.BytesIO(data))


@pytest.mark.parametrize("seed", range(20))
@needs_pdf
def test_damaged_documents_are_errors_of_ours(tmp_path: Path, seed: int) -> None:
    random = np.random.default_rng(seed)
    data = bytearray(pdf(tmp_path / "a.pdf").read_bytes())
    for place in random.integers(8, len(data), 12):
        data[place] = random.integers(256)
    try:
        for picture in images.each(io.BytesIO(bytes(data))):
            picture.load()
    except HiredError:
        return


def test_other_formats_are_neither() -> None:
    for kind in ("PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP"):
        out = io.BytesIO()
        Image.new("RGB", (9, 9)).save(out, kind)
        assert not is_pdf(out.getvalue())
        assert not is_heif(out.getvalue())
    assert not is_heif(b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf")
    assert not is_pdf(zlib.compress(b"%PDF-"))
