"""Towers reduce as the whole models do, and read nothing else of a checkpoint. llama.cpp is not needed."""

import json
import shutil
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import hired
from hired.errors import ModelLoadError, UnsupportedModelError
from hired.gguf import load_tower
from hired.gguf.architectures import text_facts
from hired.gguf.names import language_name
from hired.greedy import end_tokens
from hired.loading.shards import Shards
from tests.support import models, pictures
from tests.support.models import ALL

INDEX = "model.safetensors.index.json"
each_family = pytest.mark.parametrize("name", ALL)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A checkpoint of a family, of many files; the test is skipped where its processor cannot be loaded."""
    root = tmp_path_factory.mktemp("saved")

    @cache
    def save(name: str) -> Path:
        models.shared(name).save_pretrained(root / name, max_shard_size="30KB")
        if name != "llama4":  # whose tiny processor is no class of transformers'
            processor.save_pretrained(root / name)
        return root / name

    def get(name: str) -> Path:
        nonlocal processor
        processor = models.processor(name)
        return save(name)

    processor: Any = None
    return get


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Path], Any]:
    """The tower of a family's checkpoint."""

    def get(name: str, folder: Path) -> Any:
        if name == "llama4":
            monkeypatch.setattr("hired.gguf.tower.load_processor", lambda *_: models.processor(name))
        tower, processor = load_tower(str(folder), device="cpu")
        assert type(processor) is type(models.processor(name))
        return tower

    return get


def index(folder: Path) -> dict[str, str]:
    """The file of every weight."""
    return dict(json.loads((folder / INDEX).read_text())["weight_map"])


def inputs(name: str) -> Any:
    """Two unlike pictures in one prompt, a prompt without, one with one."""
    first, second, third, *_ = ALL[name].sizes
    return pictures.inputs(name, [[first, second], None, [third]])


def same(one: Any, other: Any) -> bool:
    """Whether two trees of tensors are equal bit for bit."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@each_family
def test_a_tower_reduces_as_the_whole_model_and_needs_its_own_files_only(
    name: str, saved: Callable[[str], Path], load: Callable[[str, Path], Any], tmp_path: Path
) -> None:
    folder = shutil.copytree(saved(name), tmp_path / "model")
    files = index(folder)
    llm = ("language_model", "text_model", "lm_head")
    own = {file for weight, file in files.items() if not any(part in weight for part in llm)}
    assert own < set(files.values())
    for file in set(files.values()) - own:
        (folder / file).unlink()
    model, made = models.shared(name), inputs(name)
    tower = load(name, folder)
    assert type(tower) is type(model)
    assert not tower.training
    decoder = tower.get_decoder()
    assert sum(value.numel() for value in decoder.parameters()) <= 3 * tower.config.get_text_config().hidden_size
    for budget in (1, 0.3, 7):
        found, wanted = hired.reduce(tower, made, budget), hired.reduce(model, made, budget)
        assert same(dict(found), dict(wanted))
        assert [entry.rows for entry in found.selection] == [entry.rows for entry in wanted.selection]


@each_family
def test_a_tower_tells_of_the_whole_checkpoint(
    name: str, saved: Callable[[str], Path], load: Callable[[str, Path], Any]
) -> None:
    model, tower = models.shared(name), load(name, saved(name))
    found, wanted = tower.config.to_dict(), model.config.to_dict()
    for told in (found, wanted):  # what from_pretrained notes
        for key in ("_name_or_path", "architectures", "dtype", "transformers_version"):
            told.pop(key, None)
            told["text_config"].pop(key, None)
            told["vision_config"].pop(key, None)
    assert found["text_config"] == wanted["text_config"]
    assert found["tie_word_embeddings"] == wanted["tie_word_embeddings"]
    assert end_tokens(tower) == end_tokens(model)
    try:
        assert text_facts(tower) == text_facts(model)
    except UnsupportedModelError:
        with pytest.raises(UnsupportedModelError):
            text_facts(model)


def test_methods_that_read_the_question_need_its_words(saved: Callable[[str], Path]) -> None:
    model, made = models.shared("llava_next"), inputs("llava_next")
    tower, _ = load_tower(str(saved("llava_next")), device="cpu")
    with pytest.raises(UnsupportedModelError, match=r"'cdpruner' reads the question.*words=True"):
        hired.reduce(tower, made, 0.3, method="cdpruner")
    tower, _ = load_tower(str(saved("llava_next")), device="cpu", words=True)
    found, wanted = (hired.reduce(each, made, 0.3, method="cdpruner") for each in (tower, model))
    assert same(dict(found), dict(wanted))


def test_prompts_take_a_tower_for_the_whole_model(saved: Callable[[str], Path]) -> None:
    from hired import prompts

    tower, processor = load_tower(str(saved("llava_next")), device="cpu")
    made = prompts.inputs(tower, processor, ["<image>\nwhat?"], [pictures.noise((40, 30))])
    assert made["input_ids"].max() > 0


def test_a_checkpoint_of_one_file(saved: Callable[[str], Path], tmp_path: Path) -> None:
    models.shared("llava").save_pretrained(tmp_path)
    models.processor("llava").save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").is_file()
    tower, _ = load_tower(str(tmp_path), device="cpu")
    made = inputs("llava")
    assert same(dict(hired.reduce(tower, made, 0.3)), dict(hired.reduce(models.shared("llava"), made, 0.3)))


def test_a_pickled_checkpoint(saved: Callable[[str], Path], tmp_path: Path) -> None:
    folder = shutil.copytree(saved("llava"), tmp_path / "model")
    weights = {}
    for file in set(index(folder).values()):
        weights |= load_file(folder / file)
        (folder / file).unlink()
    (folder / INDEX).unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    tower, _ = load_tower(str(folder), device="cpu")
    made = inputs("llava")
    assert same(dict(hired.reduce(tower, made, 0.3)), dict(hired.reduce(models.shared("llava"), made, 0.3)))


@pytest.mark.parametrize(("dtype", "wanted"), [("auto", "float32"), ("bfloat16", "bfloat16"), ("float16", "float16")])
def test_the_shipped_model_and_dtypes(dtype: str, wanted: str) -> None:
    tower, _ = load_tower("tiny", dtype=dtype, device="cpu")
    model, processor = hired.load_tiny(wanted)
    assert {value.dtype for value in tower.parameters()} == {getattr(torch, wanted)}
    made = processor(text=["<image>what?"], images=[pictures.noise((200, 120))], return_tensors="pt")
    found, wanted_inputs = hired.reduce(tower, made, 0.2), hired.reduce(model, made, 0.2)
    assert same(dict(found), dict(wanted_inputs))


def test_auto_is_the_dtype_of_a_checkpoint(saved: Callable[[str], Path], tmp_path: Path) -> None:
    ALL["llava"].model().to(torch.bfloat16).save_pretrained(tmp_path)
    models.processor("llava").save_pretrained(tmp_path)
    tower, _ = load_tower(str(tmp_path), device="cpu")
    assert {value.dtype for value in tower.parameters()} == {torch.bfloat16}


# --- Refusals ----------------------------------------------------------------------------------------------------


def changed(folder: Path, weight: str, value: torch.Tensor | None) -> None:
    """Puts another value in a checkpoint's file, or takes the weight out of it and the index."""
    told = json.loads((folder / INDEX).read_text())
    path = folder / told["weight_map"][weight]
    held = load_file(path)
    del held[weight]
    if value is not None:
        held[weight] = value
    else:
        del told["weight_map"][weight]
    save_file(held, path, {"format": "pt"})
    (folder / INDEX).write_text(json.dumps(told))


def first_of(folder: Path, part: str) -> str:
    return next(name for name in index(folder) if part in name)


@pytest.mark.parametrize("part", ["vision_tower", "multi_modal_projector", "image_newline"])
def test_a_checkpoint_that_lacks_a_weight_of_the_tower(part: str, saved: Callable[[str], Path], tmp_path: Path) -> None:
    folder = shutil.copytree(saved("llava_next"), tmp_path / "model")
    changed(folder, first_of(folder, part), None)
    with pytest.raises(ModelLoadError, match=rf"lacks 1 weight \(model\..*{part}"):
        load_tower(str(folder), device="cpu")


def test_a_weight_of_another_shape(saved: Callable[[str], Path], tmp_path: Path) -> None:
    folder = shutil.copytree(saved("llava_next"), tmp_path / "model")
    changed(folder, first_of(folder, "multi_modal_projector"), torch.zeros(3))
    with pytest.raises(ModelLoadError, match=r"1 weight of another shape than its config.json tells \(.* is 3 in"):
        load_tower(str(folder), device="cpu")


def test_a_file_that_is_missing(saved: Callable[[str], Path], tmp_path: Path) -> None:
    folder = shutil.copytree(saved("llava_next"), tmp_path / "model")
    file = index(folder)[first_of(folder, "vision_tower")]
    (folder / file).unlink()
    with pytest.raises(ModelLoadError, match=f"lacks {file}, which holds weights"):
        load_tower(str(folder), device="cpu")


@pytest.mark.parametrize(
    ("told", "match"),
    [
        ("{}", "has no weight_map in model.safetensors.index.json"),
        ('{"weight_map": {"a": 3}}', "has no weight_map"),
        ('{"weight_map": {"a": "../other.safetensors"}}', "has no weight_map"),
        ("nothing", "cannot load the vision encoder of"),
    ],
)
def test_a_broken_index(told: str, match: str, saved: Callable[[str], Path], tmp_path: Path) -> None:
    folder = shutil.copytree(saved("llava_next"), tmp_path / "model")
    (folder / INDEX).write_text(told)
    with pytest.raises(ModelLoadError, match=match) as caught:
        load_tower(str(folder), device="cpu")
    assert "\n" not in str(caught.value)


def test_no_weights_at_all(saved: Callable[[str], Path], tmp_path: Path) -> None:
    folder = shutil.copytree(saved("llava_next"), tmp_path / "model")
    for path in [folder / INDEX, *folder.glob("*.safetensors")]:
        path.unlink()
    with pytest.raises(ModelLoadError, match=r"holds no weights: neither model\.safetensors nor"):
        load_tower(str(folder), device="cpu")


def test_quantised_checkpoints_unknown_families_and_dtypes(saved: Callable[[str], Path], tmp_path: Path) -> None:
    folder = shutil.copytree(saved("llava_next"), tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "awq"}}))
    with pytest.raises(ModelLoadError, match="is quantised: take the tower from the checkpoint"):
        load_tower(str(folder), device="cpu")
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(UnsupportedModelError, match="'llama'"):
        load_tower(str(folder), device="cpu")
    with pytest.raises(ModelLoadError, match="unknown dtype 'int4'"):
        load_tower("tiny", dtype="int4")
    with pytest.raises(ModelLoadError, match="no model directory"):
        load_tower(str(tmp_path / "none"))


def test_of_a_checkpoint_on_the_hub_only_needed_files_are_fetched(
    saved: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, asked = saved("llava_next"), []

    def cached_file(source: str, file: str, **settings: Any) -> str | None:
        assert source == "someone/model"
        asked.append(file)
        return str(folder / file) if (folder / file).is_file() else None

    monkeypatch.setattr("transformers.utils.cached_file", cached_file)
    shards = Shards("someone/model", "someone/model")
    assert asked == [INDEX]
    wanted = [name for name in shards.names if language_name(name) is None]
    shards.fetch(wanted)
    files = index(folder)
    assert set(asked[1:]) == {files[name] for name in wanted} < set(files.values())
    assert len(asked) == len(set(asked))


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("language_model.model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight"),
        ("language_model.lm_head.weight", "lm_head.weight"),
        ("model.language_model.embed_tokens.weight", "model.embed_tokens.weight"),
        ("model.text_model.norm.weight", "model.norm.weight"),
        ("model.layers.3.input_layernorm.weight", "model.layers.3.input_layernorm.weight"),
        ("model.embed_tokens.weight", "model.embed_tokens.weight"),
        ("lm_head.weight", "lm_head.weight"),
        ("model.vision_model.encoder.layers.0.mlp.fc1.weight", None),
        ("vision_tower.vision_model.encoder.layers.0.layer_norm1.weight", None),
        ("visual.blocks.0.norm1.weight", None),
        ("model.visual.merger.mlp.0.weight", None),
        ("multi_modal_projector.linear_1.weight", None),
        ("model.image_newline", None),
        ("model.connector.modality_projection.proj.weight", None),
    ],
)
def test_names_of_the_language_model(name: str, wanted: str | None) -> None:
    """As checkpoints of transformers 4 and 5 have them."""
    assert language_name(name) == wanted
