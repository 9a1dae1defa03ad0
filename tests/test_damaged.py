"""Damaged checkpoints, drawn at random: every command ends well or with one line, never with a traceback."""

import contextlib
import io
import json
import logging
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file

from hired.cli import main
from hired.tiny import WEIGHTS
from tests.test_checkpoints import commands

JSONS = ("config.json", "processor_config.json", "tokenizer_config.json", "generation_config.json", "tokenizer.json")
FILES = (*JSONS, "chat_template.jinja", "model.safetensors")

# What nobody's file should hold, and what some might. Sizes are small: a large one is no mistake that can be told.
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 300),
    st.floats(-2, 2, allow_nan=False),
    st.sampled_from(["", "x", "llava", "<image>", "auto", "../..", "\x00"]),
    st.sampled_from([[], [0], [[]], [None], {}, {"a": 1}, [[0, 96]], [96, 96]]),
)


@st.composite
def edits(draw: st.DrawFn) -> tuple[Any, ...]:
    """One damage: (kind, file, where, with what)."""
    kind = draw(st.sampled_from(["key", "key", "key", "drop", "bytes", "cut", "empty", "gone", "whole", "tensors"]))
    where = draw(st.lists(st.integers(0, 10**6), min_size=6, max_size=6))
    if kind in ("key", "drop"):
        return kind, draw(st.sampled_from(JSONS)), where, draw(VALUES)
    if kind == "whole":
        return kind, draw(st.sampled_from(JSONS)), where, draw(VALUES)
    if kind == "bytes":
        return kind, draw(st.sampled_from(FILES[:-1])), where, draw(st.binary(min_size=1, max_size=6))
    if kind == "tensors":
        return kind, FILES[-1], where, draw(st.sampled_from(["drop", "reshape", "retype"]))
    return kind, draw(st.sampled_from(FILES)), where, None


def damage(folder: Path, edit: tuple[Any, ...]) -> None:
    kind, name, where, value = edit
    path = folder / name
    if not path.exists():
        return
    if kind in ("key", "drop"):
        with contextlib.suppress(ValueError):  # an earlier damage
            held = json.loads(path.read_text(errors="replace"))
            _change(held, where, kind == "drop", value)
            path.write_text(json.dumps(held))
    elif kind == "whole":
        path.write_text(json.dumps(value))
    elif kind == "bytes":
        data = bytearray(path.read_bytes())
        for place, byte in zip(where, value, strict=False):
            if data:
                data[place % len(data)] = byte
        path.write_bytes(bytes(data))
    elif kind == "cut":
        data = path.read_bytes()
        path.write_bytes(data[: where[0] % max(len(data), 1)])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "gone":
        path.unlink()
    else:
        with contextlib.suppress(Exception):  # an earlier damage
            _tensors(path, where, value)


def _change(held: Any, where: list[int], drop: bool, value: Any) -> None:
    """Goes down into what a file holds, and changes or drops one entry there."""
    for step in where:
        if not isinstance(held, dict | list) or not held:
            return
        keys = sorted(held) if isinstance(held, dict) else range(len(held))
        key = keys[step % len(keys)]
        if isinstance(held[key], dict | list) and held[key] and step % 3:
            held = held[key]
            continue
        if drop:
            del held[key]
        else:
            held[key] = value
        return


def _tensors(path: Path, where: list[int], how: str) -> None:
    weights = load_file(path)
    names = sorted(weights)
    for step in where[: 1 + where[0] % 6]:
        name = names[step % len(names)]
        if how == "drop":
            weights.pop(name, None)
        elif name in weights:
            weights[name] = weights[name].reshape(-1)[:3].clone() if how == "reshape" else weights[name].int()
    save_file(weights, path, metadata={"format": "pt"})


@contextlib.contextmanager
def logs_into(stream: io.StringIO) -> Iterator[None]:
    """Loggers of libraries write where they would on a command line: to standard error."""
    handlers = [h for name in ("transformers", "huggingface_hub") for h in logging.getLogger(name).handlers]
    streams = [handler for handler in handlers if isinstance(handler, logging.StreamHandler)]
    before = [handler.stream for handler in streams]
    for handler in streams:
        handler.stream = stream
    try:
        yield
    finally:
        for handler, old in zip(streams, before, strict=True):
            handler.stream = old


def check(folder: Path, command: str) -> None:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), logs_into(err):
        code = main(commands(folder)[command])
    assert code in (0, 2), code
    if code == 2:
        assert err.getvalue().startswith("hired: ")
        assert err.getvalue().count("\n") == 1, err.getvalue()
        assert len(err.getvalue()) < 800
    else:
        assert out.getvalue()


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(edits(), min_size=1, max_size=2),
    st.sampled_from(["ask", "ask", "view", "plan", "plan", "eval", "bench", "tune"]),
)
@example([("empty", "tokenizer.json", [0] * 6, None)], "ask")
@example([("empty", "generation_config.json", [0] * 6, None)], "ask")
@example([("whole", "generation_config.json", [0] * 6, [0])], "eval")
@example([("cut", "model.safetensors", [1000] * 6, None)], "view")
@example([("cut", "model.safetensors", [5_000_000] * 6, None)], "bench")
@example([("tensors", "model.safetensors", [3] * 6, "retype")], "ask")
@example([("bytes", "chat_template.jinja", [0, 1] * 3, b"\xff\xfe\x00")], "ask")
def test_one_line_at_most(damages: list[tuple[Any, ...]], command: str) -> None:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(shutil.copytree(WEIGHTS, Path(made) / "model"))
        Image.radial_gradient("L").resize((60, 40)).convert("RGB").save(Path(made) / "page.png")
        for edit in damages:
            damage(folder, edit)
        check(folder, command)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", ["gone", "empty"])
def test_every_file_missing_or_empty(tmp_path: Path, name: str, kind: str) -> None:
    test_one_line_at_most.hypothesis.inner_test([(kind, name, [0] * 6, None)], "ask")  # type: ignore[attr-defined]
