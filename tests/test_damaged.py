"""Damaged checkpoints on the command line: an answer or one line, and never a traceback."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file

from hired.cli import main
from hired.tiny import WEIGHTS

JSON = ("config.json", "generation_config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json")
ODD: list[Any] = [None, 0, -1, 1e308, "", "x", [], {}, [[]], [None], {"a": 1}, True, 2**40]
EXAMPLES = settings.default.max_examples // 4
"""15 by default."""


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "page.png"
    Image.new("RGB", (60, 40), (250, 250, 250)).save(path)
    return path


@st.composite
def damages(draw: st.DrawFn) -> tuple[str, str, Any]:
    """(file, what is done to it, with what)."""
    kind = draw(st.sampled_from(["value", "value", "key", "cut", "flip", "empty", "gone", "tensors"]))
    if kind == "tensors":
        return "model.safetensors", kind, draw(st.integers(1, 120))
    if kind in ("value", "key"):
        return draw(st.sampled_from(JSON)), kind, (draw(st.integers(0, 10_000)), draw(st.sampled_from(ODD)))
    name = draw(st.sampled_from([*JSON, "chat_template.jinja", "model.safetensors"]))
    return name, kind, draw(st.floats(0, 0.999))


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths to everything in a JSON value, but the entries of long lists and vocabularies."""
    if isinstance(value, dict) and len(value) < 60:
        return [each for key, inner in value.items() for each in [(*path, key), *leaves(inner, (*path, key))]]
    if isinstance(value, list) and len(value) < 10:
        return [each for index, inner in enumerate(value) for each in leaves(inner, (*path, index))]
    return [path] if path else []


def damage(folder: Path, name: str, kind: str, how: Any) -> None:
    path = folder / name
    data = path.read_bytes()
    if kind == "gone":
        path.unlink()
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "cut":
        path.write_bytes(data[: int(len(data) * how)])
    elif kind == "flip":
        place = int(min(len(data), 3000) * how)
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x15]) + data[place + 1 :])
    elif kind == "tensors":
        weights = load_file(path)
        kept = sorted(weights)[how:]
        save_file({key: weights[key] for key in kept}, path, metadata={"format": "pt"})
    else:
        whole = json.loads(data)
        found = leaves(whole)
        place, value = how
        *way, last = found[place % len(found)]
        holder = whole
        for key in way:
            holder = holder[key]
        if kind == "key" and isinstance(holder, dict):
            del holder[last]
        else:
            holder[last] = value
        path.write_text(json.dumps(whole), encoding="utf-8")


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=EXAMPLES)
@given(done=st.lists(damages(), min_size=1, max_size=2), command=st.sampled_from(["ask", "view", "plan"]))
def test_damaged(
    done: list[tuple[str, str, Any]], command: str, picture: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    model = folder / "model"
    shutil.copytree(WEIGHTS, model)
    for name, kind, how in done:
        if (model / name).exists():
            try:
                damage(model, name, kind, how)
            except (KeyError, TypeError, IndexError, ValueError, AttributeError):  # damaged beyond the second damage
                continue
    words = {
        "ask": ["ask", str(picture), "What is TOTAL?", "--model", str(model), "--max-new-tokens", "2"],
        "view": ["view", str(picture), "-o", str(folder / "out.png"), "--model", str(model)],
        "plan": ["plan", str(model)],
    }[command]
    captured = pytest.MonkeyPatch()
    lines: list[str] = []
    try:
        captured.setattr("hired.cli._failed", lambda message: lines.append(message) or 2)
        assert main([*words, *([] if command == "plan" else ["--device", "cpu"])]) in (0, 2)
    finally:
        captured.undo()
        shutil.rmtree(folder)
    assert all(line.strip() for line in lines)
