"""Reading pictures: every mode comes out as RGB, every failure as one line."""

import contextlib
import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hired import images
from hired.errors import ImageError

WHITE = (255, 255, 255)


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> io.BytesIO:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    buffer.seek(0)
    return buffer


def noise(width: int = 64, height: int = 48) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def ramp() -> np.ndarray:
    return np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)


def test_rgb_is_unchanged() -> None:
    loaded = images.load(saved(noise()))
    assert loaded.mode == "RGB"
    assert np.array_equal(np.asarray(loaded), np.asarray(noise()))


def test_sources_agree(tmp_path: Path) -> None:
    path = tmp_path / "a picture.png"
    noise().save(path)
    expected = np.asarray(noise())
    with path.open("rb") as opened:
        for source in (path, str(path), opened):
            assert np.array_equal(np.asarray(images.load(source)), expected)


def test_one_pixel() -> None:
    assert images.load(saved(Image.new("RGB", (1, 1), (1, 2, 3)))).getpixel((0, 0)) == (1, 2, 3)


def test_one_to_fifty() -> None:
    assert images.load(saved(Image.new("RGB", (2000, 40)))).size == (2000, 40)


@pytest.mark.parametrize(("kind", "order"), [("PNG", "<u2"), ("TIFF", "<u2"), ("TIFF", ">u2")])
def test_16_bit_is_scaled(kind: str, order: str) -> None:
    loaded = np.asarray(images.load(saved(Image.fromarray(ramp().astype(order)), kind)))
    assert np.abs(loaded[..., 0] - ramp() / 257).max() <= 0.5


def test_float_modes() -> None:
    unit = Image.fromarray(np.array([[0.0, 0.5, 1.0]], dtype=np.float32))
    assert np.asarray(images.load(saved(unit, "TIFF")))[0, :, 0].tolist() == [0, 128, 255]
    signed = Image.fromarray(np.array([[-10.0, 0.0, 10.0, np.nan]], dtype=np.float32))
    assert np.asarray(images.load(saved(signed, "TIFF")))[0, :3, 0].tolist() == [0, 128, 255]


def test_32_bit_integers() -> None:
    deep = Image.fromarray(np.array([[0, 35000, 70000]], dtype=np.int32))
    assert np.asarray(images.load(saved(deep, "TIFF")))[0, :, 0].tolist() == [0, 128, 255]


def test_one_bit() -> None:
    picture = Image.new("1", (2, 1), 0)
    picture.putpixel((1, 0), 1)
    loaded = images.load(saved(picture))
    assert [loaded.getpixel((x, 0)) for x in (0, 1)] == [(0, 0, 0), WHITE]


def test_cmyk() -> None:
    cyan = images.load(saved(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "JPEG")).getpixel((4, 4))
    assert np.abs(np.array(cyan) - (0, 255, 255)).max() <= 2


def test_lab() -> None:
    loaded = images.load(saved(Image.new("LAB", (2, 2), (255, 128, 128)), "TIFF"))
    assert min(loaded.getpixel((0, 0))) >= 250


@pytest.mark.parametrize(("mode", "clear"), [("LA", (0, 0)), ("RGBA", (0, 0, 0, 0))])
def test_transparency_is_on_white(mode: str, clear: tuple[int, ...]) -> None:
    picture = Image.new(mode, (2, 1), clear)
    picture.putpixel((1, 0), (0, 255) if mode == "LA" else (0, 0, 0, 255))
    loaded = images.load(saved(picture))
    assert [loaded.getpixel((x, 0)) for x in (0, 1)] == [WHITE, (0, 0, 0)]


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_palette_with_transparency(kind: str) -> None:
    picture = Image.new("P", (2, 1), 0)
    picture.putpalette([9, 9, 9, 200, 10, 10])
    picture.putpixel((1, 0), 1)
    loaded = images.load(saved(picture, kind, transparency=0))
    assert [loaded.getpixel((x, 0)) for x in (0, 1)] == [WHITE, (200, 10, 10)]


@pytest.mark.parametrize(("mode", "key"), [("L", 0), ("RGB", (0, 0, 0))])
def test_colour_key_transparency(mode: str, key: object) -> None:
    assert images.load(saved(Image.new(mode, (2, 2), 0), transparency=key)).getpixel((0, 0)) == WHITE


def test_exif_rotation() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn right to see it upright
    picture = Image.new("RGB", (32, 16), WHITE)
    picture.paste((0, 0, 0), (0, 0, 16, 16))
    loaded = images.load(saved(picture, "JPEG", exif=exif))
    assert loaded.size == (16, 32)
    assert loaded.getpixel((8, 4))[0] < 20
    assert loaded.getpixel((8, 28))[0] > 235


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_first_frame_of_animations(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((250, 0, 0), (0, 0, 250))]
    options = {"lossless": True} if kind == "WEBP" else {}
    loaded = images.load(saved(frames[0], kind, save_all=True, append_images=frames[1:], **options))
    assert np.abs(np.array(loaded.getpixel((4, 4))) - (250, 0, 0)).max() <= 6


def failure(source: object) -> str:
    with pytest.raises(ImageError) as caught:
        images.load(source)  # type: ignore[arg-type]
    message = str(caught.value)
    assert message
    assert "\n" not in message
    assert len(message) < 400
    return message


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"])
@pytest.mark.parametrize("part", [0.001, 0.3, 0.6, 0.98])
def test_truncated_files(kind: str, part: float) -> None:
    data = saved(noise(), kind).getvalue()
    failure(io.BytesIO(data[: max(4, int(len(data) * part))]))


def test_flipped_bytes_never_surprise() -> None:
    rng = np.random.default_rng(0)
    for kind in ("PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP"):
        data = np.frombuffer(saved(noise(16, 16), kind).getvalue(), dtype=np.uint8)
        for _ in range(40):
            broken = data.copy()
            places = rng.integers(0, min(len(data), 400), 6)
            broken[places] = rng.integers(0, 256, 6)
            with contextlib.suppress(ImageError):
                assert images.load(io.BytesIO(broken.tobytes())).mode == "RGB"


def test_bad_files(tmp_path: Path) -> None:
    text = tmp_path / "notes.png"
    text.write_text("not a picture at all")
    empty = tmp_path / "empty.png"
    empty.write_bytes(b"")
    assert "not a picture" in failure(text)
    assert "empty" in failure(empty)
    assert "no such file" in failure(tmp_path / "missing.png")
    assert failure(tmp_path).endswith("is a directory, not a picture")
    assert "empty" in failure("")
    assert "embedded null" in failure("a\0b")
    assert "cannot read" in failure("x" * 6000)
    assert "?" in failure("line\nbreak.png")


def test_zero_size() -> None:
    data = bytearray(saved(Image.new("RGB", (4, 4)), "BMP").getvalue())
    data[18:22] = struct.pack("<i", 0)
    failure(io.BytesIO(bytes(data)))


def test_decompression_bomb(recwarn: pytest.WarningsRecorder) -> None:
    bomb = saved(Image.new("1", (12_000, 12_000)))
    assert "pixels" in failure(bomb)
    assert not [w for w in recwarn if issubclass(w.category, Image.DecompressionBombWarning)]


def test_bomb_with_the_limit_of_pillow_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    monkeypatch.setattr(images, "MAX_PIXELS", 100)
    assert "more than 100 pixels" in failure(saved(Image.new("RGB", (20, 20))))


def test_size_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(images, "MAX_BYTES", 1024)
    path = tmp_path / "big.png"
    noise().save(path)
    assert "larger than" in failure(path)


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    class Piped(io.TextIOWrapper):
        pass

    monkeypatch.setattr("sys.stdin", Piped(saved(noise())))
    assert images.load("-").size == (64, 48)
    monkeypatch.setattr("sys.stdin", Piped(io.BytesIO(b"")))
    assert "empty" in failure("-")


def test_broken_file_object() -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError("the disk is on fire")

    assert "on fire" in failure(Broken())


class Text:
    def read(self, size: int = -1) -> str:
        return "text"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (None, "not NoneType"),
        (5, "not int"),
        ([], "not list"),
        (b"page.png", "not bytes"),
        (noise(2, 2), "not Image"),
        (Text(), "'rb'"),
    ],
)
def test_what_is_no_source(source: object, words: str) -> None:
    assert words in failure(source)


def test_a_closed_file() -> None:
    file = io.BytesIO(b"x")
    file.close()
    assert "closed" in failure(file)
