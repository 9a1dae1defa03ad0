"""Values that a function of this library cannot take: one line, of this library's own classes."""

import builtins
import io
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import hired
from hired import forms, images
from hired.errors import BudgetError, HiredError, ImageError, MissingDependencyError, ModelLoadError
from hired.forms import typefaces


def line(error: pytest.ExceptionInfo[HiredError]) -> str:
    message = str(error.value)
    assert message.isprintable()
    assert len(message) < 400
    return message


@pytest.mark.parametrize(
    "source", [None, 5, 2.5, True, b"page.png", ["page.png"], {}, object(), Image.new("RGB", (2, 2)), str]
)
def test_what_is_no_picture(source: Any) -> None:
    with pytest.raises(ImageError) as caught:
        images.load(source)
    assert f"not {type(source).__name__}" in line(caught)


def test_files_that_give_no_bytes(tmp_path: Path) -> None:
    class Nothing:
        def read(self, _: int) -> None:
            """What a socket without data gives."""

    for source, words in ((io.StringIO("text"), "not bytes"), (Nothing(), "not bytes")):
        with pytest.raises(ImageError) as caught:
            images.load(source)  # type: ignore[arg-type]
        assert words in line(caught)
    closed = io.BytesIO(b"x")
    closed.close()
    with pytest.raises(ImageError) as caught:
        images.load(closed)
    assert "closed" in line(caught)


def test_a_path_of_bytes(tmp_path: Path) -> None:
    class Path8:
        def __fspath__(self) -> bytes:
            return bytes(tmp_path / "page.png")

    Image.new("RGB", (3, 2)).save(tmp_path / "page.png")
    assert images.load(Path8()).size == (3, 2)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "dtype", ["float33", "", "int8", "torch.int8", "float", "FLOAT32", None, 32, True, torch.int8, torch.bool, [], {}]
)
def test_dtypes_that_load_tiny_does_not_take(dtype: Any) -> None:
    with pytest.raises(ModelLoadError) as caught:
        hired.load_tiny(dtype)
    assert "dtype=" in line(caught)
    assert "bfloat16" in line(caught)


@pytest.mark.parametrize(
    ("dtype", "wanted"),
    [
        ("float32", torch.float32),
        ("torch.float16", torch.float16),
        (torch.float64, torch.float64),
        ("auto", torch.bfloat16),
    ],
)
def test_dtypes_that_load_tiny_takes(dtype: Any, wanted: torch.dtype) -> None:
    assert hired.load_tiny(dtype)[0].dtype == wanted


@pytest.mark.parametrize("device", ["nonsense", "", "cuda:99", "mps:7", None, 2.5, [], "cpu:x", -3])
def test_devices_that_load_tiny_does_not_take(device: Any) -> None:
    with pytest.raises(ModelLoadError) as caught:
        hired.load_tiny(device=device)
    assert "cannot be used" in line(caught)
    assert "cannot be used" in line(caught)


def test_pages_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def absent(name: str, *rest: Any, **options: Any) -> Any:
        if name.split(".")[0] == "matplotlib":
            raise ModuleNotFoundError("No module named 'matplotlib'", name="matplotlib")
        return original(name, *rest, **options)

    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", absent)
    typefaces.font.cache_clear()
    for draw in (lambda: forms.page(0), lambda: forms.page(3, task="dense"), lambda: forms.practice(0, (1, 1), 2)):
        with pytest.raises(MissingDependencyError) as caught:
            draw()
        assert "hired-vlm[eval]" in line(caught)


@pytest.mark.parametrize("seed", [-1, 1.5, None, "7", True, [1]])
def test_seeds_that_are_none(seed: Any) -> None:
    with pytest.raises(BudgetError) as caught:
        forms.page(seed)
    assert "seed" in line(caught)


@pytest.mark.parametrize("options", [{"task": "poems"}, {"task": None}, {"fonts": "comic"}, {"fonts": []}])
def test_pages_of_no_kind(options: Any) -> None:
    with pytest.raises(BudgetError) as caught:
        forms.page(0, **options)
    assert next(iter(options)) in line(caught)
