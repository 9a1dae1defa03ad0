"""What `hired.gguf.export` writes, read back with the format's own library."""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

gguf = pytest.importorskip("gguf", reason="need llama.cpp (make test-gguf runs them)")

import hired  # noqa: E402
from hired.gguf import export  # noqa: E402
from hired.gguf.exporting import (  # noqa: E402
    TYPES,
    export_checkpoint,
    writing,
)
from tests.gguf import language  # noqa: E402
from tests.gguf.support import RUN  # noqa: E402
from tests.gguf.support import model as vision_language  # noqa: E402

NAMES = {
    "embed_tokens": "token_embd",
    "norm": "output_norm",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
GEMMA = {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}


def read(path: Path) -> Any:
    return gguf.GGUFReader(path)


def values(path: Path) -> dict[str, Any]:
    """The header."""
    return {key: field.contents() for key, field in read(path).fields.items()}


def tensors(path: Path) -> dict[str, torch.Tensor]:
    """All tensors as float32, in torch's shapes."""
    found = {}
    for tensor in read(path).tensors:
        data = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        found[tensor.name] = torch.from_numpy(data.copy()).reshape([int(size) for size in tensor.shape[::-1]])
    return found


def by_hand(model: Any) -> dict[str, torch.Tensor]:
    """What a file of a model must hold, by the names that llama.cpp reads."""
    decoder, config = model.get_decoder(), model.config.get_text_config()
    paired = config.model_type in ("llama", "mistral", "ministral3")
    gemma = config.model_type == "gemma3_text"
    names = {**NAMES, **GEMMA} if gemma else NAMES
    found = {}
    for name, value in decoder.named_parameters():
        stem, _, kind = name.rpartition(".")
        number = stem.split(".")[1] if stem.startswith("layers.") else None
        part = stem.split(".", 2)[2] if number is not None else stem
        value = value.detach().float()
        if paired and part.endswith(("q_proj", "k_proj")):
            heads = config.num_attention_heads if part.endswith("q_proj") else config.num_key_value_heads
            half = len(value) // heads // 2
            starts = range(0, len(value), 2 * half)
            value = value[[row for start in starts for k in range(half) for row in (start + k, start + half + k)]]
        if gemma and "norm" in part:
            value = value + 1
        found[f"blk.{number}.{names[part]}.{kind}" if number is not None else f"{names[part]}.{kind}"] = value
    if not model.config.tie_word_embeddings:
        found["output.weight"] = model.get_output_embeddings().weight.detach().float()
    return found


@pytest.mark.parametrize("name", language.MODELS)
def test_every_weight_is_where_llama_cpp_reads_it(name: str, tmp_path: Path) -> None:
    model = language.named(name)
    written = export(model, None, tmp_path / "a.gguf", "f32")
    assert written.architecture == language.MODELS[name][1]
    assert written.size == (tmp_path / "a.gguf").stat().st_size
    found, wanted = tensors(tmp_path / "a.gguf"), by_hand(model)
    slowed = found.pop("rope_freqs.weight", None)
    assert (slowed is not None) == name.endswith("llama3")
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        assert torch.equal(found[key], value), key


@pytest.mark.parametrize("name", RUN)
def test_the_language_model_of_every_family(name: str, tmp_path: Path) -> None:
    model = vision_language(name)
    export(model, None, tmp_path / "a.gguf", "f32")
    found, wanted = tensors(tmp_path / "a.gguf"), by_hand(model)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key], value) for key, value in wanted.items())


def test_the_header_tells_the_configuration(tmp_path: Path) -> None:
    export(language.named("llama-yarn-attention"), None, tmp_path / "a.gguf", "f32", name="a model")
    found = values(tmp_path / "a.gguf")
    assert found["general.architecture"] == "llama"
    assert found["general.name"] == "a model"
    assert found["general.file_type"] == 0
    wanted = {
        "vocab_size": 128,
        "context_length": 512,
        "embedding_length": 64,
        "block_count": 4,
        "feed_forward_length": 96,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
        "attention.key_length": 16,
        "attention.value_length": 16,
        "rope.dimension_count": 16,
        "rope.freq_base": 1e4,
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": 4.0,
        "rope.scaling.original_context_length": 128,
    }
    assert {key: found[f"llama.{key}"] for key in wanted} == wanted
    assert found["llama.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-6)
    # What llama.cpp multiplies with by itself is taken out.
    own = 1 + 0.1 * torch.log(torch.tensor(4.0)).item()
    assert found["llama.rope.scaling.attn_factor"] == pytest.approx(1.3 / own)
    assert found["tokenizer.ggml.model"] == "none"


def test_windows_sections_and_deepstack_are_told(tmp_path: Path) -> None:
    export(language.named("gemma3-often"), None, tmp_path / "a.gguf", "f32")
    found = values(tmp_path / "a.gguf")
    assert found["gemma3.attention.sliding_window"] == 30
    assert found["gemma3.attention.sliding_window_pattern"] == [False, True, False, True]
    assert found["gemma3.rope.freq_base"] == 1e6
    assert found["gemma3.rope.freq_base_swa"] == 1e4
    assert found["gemma3.rope.scaling.factor"] == 4.0
    assert found["gemma3.final_logit_softcapping"] == 5.0
    export(vision_language("qwen3_vl"), None, tmp_path / "b.gguf", "f32")
    found = values(tmp_path / "b.gguf")
    assert found["qwen3vl.rope.dimension_sections"] == [6, 5, 5, 0]
    assert found["qwen3vl.n_deepstack_layers"] == 2


def test_logits_are_scaled_as_the_model_that_is_exported_does(tmp_path: Path) -> None:
    """Cohere's own class multiplies its logits; the vision-language classes around it do not."""
    export(language.named("cohere2"), None, tmp_path / "a.gguf", "f32")
    assert values(tmp_path / "a.gguf")["cohere2.logit_scale"] == 0.0625
    export(vision_language("aya_vision"), None, tmp_path / "b.gguf", "f32")
    assert values(tmp_path / "b.gguf")["cohere2.logit_scale"] == 1.0


def test_a_window_that_llama_cpp_does_not_keep_ends_the_context(tmp_path: Path) -> None:
    export(language.make("Mistral", sliding_window=100), None, tmp_path / "a.gguf")
    assert values(tmp_path / "a.gguf")["llama.context_length"] == 100
    qwen = language.make("Qwen2", use_sliding_window=True, sliding_window=64, max_window_layers=2)
    export(qwen, None, tmp_path / "b.gguf")
    assert values(tmp_path / "b.gguf")["qwen2.context_length"] == 64


# --- Types -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("type", "most"), [("f16", 1e-3), ("bf16", 8e-3), ("q8_0", 8e-3)])
def test_types_that_are_written_here(type: str, most: float, tmp_path: Path) -> None:
    model = language.named("qwen2")
    export(model, None, tmp_path / "a.gguf", type)
    assert values(tmp_path / "a.gguf")["general.file_type"] == TYPES[type].code
    found, wanted = tensors(tmp_path / "a.gguf"), by_hand(model)
    for key, value in wanted.items():
        assert (found[key] - value).abs().max() <= most * value.abs().max(), key
    kinds = {tensor.name: tensor.tensor_type.name for tensor in read(tmp_path / "a.gguf").tensors}
    assert all(kinds[key] == ("F32" if value.dim() == 1 else type.upper()) for key, value in wanted.items())


def test_half_precision_weights_keep_every_bit(tmp_path: Path) -> None:
    model = language.named("llama").to(torch.bfloat16)
    export(model, None, tmp_path / "a.gguf", "BF16")
    found, wanted = tensors(tmp_path / "a.gguf"), by_hand(model)
    assert all(torch.equal(found[key], value) for key, value in wanted.items())


def test_rows_that_blocks_do_not_fit_are_float16(tmp_path: Path) -> None:
    export(language.make("Llama", hidden_size=72), None, tmp_path / "a.gguf", "q8_0")
    kinds = {tensor.name: tensor.tensor_type.name for tensor in read(tmp_path / "a.gguf").tensors}
    assert kinds["blk.0.attn_q.weight"] == "F16"
    assert kinds["blk.0.ffn_down.weight"] == "Q8_0"


def test_values_that_float16_does_not_hold_are_refused(tmp_path: Path) -> None:
    model = language.named("llama")
    model.model.layers[1].mlp.up_proj.weight.data[0, 0] = 1e6
    with pytest.raises(hired.UnsupportedModelError, match="float16 does not: export as bf16 or f32"):
        export(model, None, tmp_path / "a.gguf")
    assert not list(tmp_path.iterdir())
    export(model, None, tmp_path / "a.gguf", "bf16")


@pytest.mark.parametrize("type", [name for name, kind in TYPES.items() if not kind.plain])
def test_types_that_llama_cpp_makes(type: str, tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp", reason="need llama.cpp (make test-gguf runs them)")
    told: list[tuple[str, int, int]] = []
    model = language.make("Qwen2", hidden_size=256, intermediate_size=512)
    written = export(model, None, tmp_path / "a.gguf", type, progress=lambda *step: told.append(step))
    assert values(tmp_path / "a.gguf")["general.file_type"] == TYPES[type].code
    assert [path.name for path in tmp_path.iterdir()] == ["a.gguf"]
    found, wanted = tensors(tmp_path / "a.gguf"), by_hand(model)
    name = "blk.1.ffn_up.weight"
    coarse = 2.0 ** -int(type[1])
    error = (found[name] - wanted[name]).norm() / wanted[name].norm()
    assert coarse / 4 < error < 2 * coarse
    assert written.size < 0.5 * sum(4 * value.numel() for value in wanted.values())
    assert {step[0] for step in told} == {"writing", "quantizing"}
    assert all(done <= total for _, done, total in told)


# --- Refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "settings", "match"),
    [
        ("Olmo2", {}, "'olmo2' does not run on llama.cpp through HiRED: known are llama, mistral,"),
        ("Llama", {"hidden_act": "gelu"}, "its activation is 'gelu' in place of 'silu'"),
        ("Llama", {"rope_parameters": {**language.YARN, "beta_fast": 16.0}}, "YaRN between 16 and 1 turns"),
        ("Llama", {"rope_parameters": {**language.YARN, "truncate": False}}, "YaRN without truncation"),
        (
            "Llama",
            {
                "rope_parameters": {
                    "rope_type": "longrope",
                    "rope_theta": 1e4,
                    "factor": 2.0,
                    "short_factor": [1.0] * 8,
                    "long_factor": [2.0] * 8,
                    "original_max_position_embeddings": 256,
                }
            },
            "RoPE of the kind 'longrope'",
        ),
        ("Qwen2", {"rope_parameters": language.LLAMA3}, "RoPE of the kind 'llama3'"),
        ("Cohere", {"use_qk_norm": True}, "use_qk_norm=True"),
        ("Cohere2", {"tie_word_embeddings": False}, "its LM head is not tied to the embeddings"),
        ("Gemma3", {**language.GEMMA, "query_pre_attn_scalar": 16}, "query_pre_attn_scalar is 16 in place of 32"),
        ("Gemma3", {**language.GEMMA, "use_bidirectional_attention": True}, "use_bidirectional_attention=True"),
    ],
)
def test_what_llama_cpp_computes_otherwise_is_refused(
    kind: str, settings: dict[str, Any], match: str, tmp_path: Path
) -> None:
    with pytest.raises(hired.UnsupportedModelError, match=match) as caught:
        export(language.make(kind, **settings), None, tmp_path / "a.gguf")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_deepstack_features_for_the_last_layer_are_refused(tmp_path: Path) -> None:
    from tests.support.models import shared

    with pytest.raises(hired.UnsupportedModelError, match="each of its 2 layers takes DeepStack features"):
        export(shared("qwen3_vl"), None, tmp_path / "a.gguf")


def test_a_model_without_head_or_with_other_layers_is_refused(tmp_path: Path) -> None:
    model = language.named("llama")
    with pytest.raises(hired.UnsupportedModelError, match="LlamaModel has no LM head"):
        export(model.model, None, tmp_path / "a.gguf")
    model.model.layers[0].self_attn.extra = torch.nn.Linear(4, 4)
    with pytest.raises(hired.UnsupportedModelError, match=r"'model.layers.0.self_attn.extra.weight' has no place"):
        export(model, None, tmp_path / "a.gguf")
    with torch.device("meta"):
        empty = language.make("Llama")
    with pytest.raises(hired.UnsupportedModelError, match="offloaded"):
        export(empty, None, tmp_path / "a.gguf")


@pytest.mark.parametrize(
    ("name", "type", "match"),
    [
        ("a.bin", "f16", "name a .gguf file"),
        ("none/a.gguf", "f16", "there is no directory"),
        ("there.gguf", "f16", "is there already: name another file, or add --force"),
        ("folder.gguf", "f16", "it is no ordinary file"),
        ("a.gguf", "q4_k", "unknown type 'q4_k' of weights: use one of f32, f16,"),
    ],
)
def test_paths_and_types_are_refused_before_anything_is_read(name: str, type: str, match: str, tmp_path: Path) -> None:
    (tmp_path / "there.gguf").write_text("mine")
    (tmp_path / "folder.gguf").mkdir()
    with pytest.raises(hired.HiredError, match=match):
        export(SimpleNamespace(), None, tmp_path / name, type)
    assert (tmp_path / "there.gguf").read_text() == "mine"


# --- Whole or not at all -----------------------------------------------------------------------------------------


def test_a_file_is_replaced_when_that_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_text("mine")
    export(language.named("llama"), None, tmp_path / "a.gguf", overwrite=True)
    assert values(tmp_path / "a.gguf")["general.architecture"] == "llama"


@pytest.mark.parametrize(("type", "at"), [("f16", "writing"), ("q4_0", "writing"), ("q4_0", "quantizing")])
def test_an_interruption_leaves_nothing(type: str, at: str, tmp_path: Path) -> None:
    if type == "q4_0":
        pytest.importorskip("llama_cpp", reason="need llama.cpp (make test-gguf runs them)")
    (tmp_path / "a.gguf").write_text("mine")

    def interrupt(doing: str, done: int, total: int) -> None:
        if doing == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(language.named("llama"), None, tmp_path / "a.gguf", type, progress=interrupt, overwrite=True)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a.gguf": "mine"}


def test_too_little_room_is_told_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = SimpleNamespace(free=10_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    monkeypatch.setattr(writing, "_write_plain", lambda *_: pytest.fail("it was begun"))
    with pytest.raises(hired.HiredError, match=r"needs 0.0 GB on the way, and the disk has 0.0 GB left"):
        export(language.named("llama"), None, tmp_path / "a.gguf")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs limits of POSIX")
@pytest.mark.parametrize("type", ["f32", "q4_0"])
def test_a_full_disk_leaves_nothing(type: str, tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk."""
    import resource
    import signal

    if type == "q4_0":
        pytest.importorskip("llama_cpp", reason="need llama.cpp (make test-gguf runs them)")
    model = language.named("llama").to(torch.bfloat16)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    most = 50_000 if type == "q4_0" else 200_000  # a q4_0 file's own bytes are beyond it, and so are its plain ones
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, limits[1]))
    try:
        with pytest.raises(hired.HiredError, match=r"cannot write .*a.gguf: "):
            export(model, None, tmp_path / "a.gguf", type)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert not list(tmp_path.iterdir())


# --- Checkpoints -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vision-language model of many files, with its tokenizer."""
    from tests.support.models import ALL

    path = tmp_path_factory.mktemp("saved") / "model"
    ALL["llava_next"].model().save_pretrained(path, max_shard_size="30KB")
    ALL["llava_next"].processor("left").save_pretrained(path)
    return path


def index(path: Path) -> dict[str, str]:
    return dict(json.loads((path / "model.safetensors.index.json").read_text())["weight_map"])


def test_a_checkpoint_gives_what_its_model_gives_and_needs_no_vision_files(saved: Path, tmp_path: Path) -> None:
    from tests.support.models import shared

    folder = shutil.copytree(saved, tmp_path / "model")
    files = index(folder)
    words = {file for name, file in files.items() if "language_model" in name or "lm_head" in name}
    for file in set(files.values()) - words:
        (folder / file).unlink()
    written = export_checkpoint(str(folder), tmp_path / "a.gguf", "f32")
    export(shared("llava_next"), None, tmp_path / "b.gguf", "f32")
    found, wanted = tensors(tmp_path / "a.gguf"), tensors(tmp_path / "b.gguf")
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key], value) for key, value in wanted.items())
    assert (written.vocabulary, written.why_not) == (None, "llama.cpp has no tokenizer of the kind WordLevel")
    told = values(tmp_path / "a.gguf")
    assert told["tokenizer.ggml.model"] == "none"
    assert [told[f"tokenizer.ggml.{name}_token_id"] for name in ("bos", "eos", "padding")] == [1, 2, 0]
    assert told["general.name"] == "model"


def test_a_checkpoint_that_lacks_a_weight_is_refused(saved: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(saved, tmp_path / "model")
    told = json.loads((folder / "model.safetensors.index.json").read_text())
    gone = next(name for name in told["weight_map"] if name.endswith("layers.1.mlp.up_proj.weight"))
    del told["weight_map"][gone]
    (folder / "model.safetensors.index.json").write_text(json.dumps(told))
    with pytest.raises(hired.ModelLoadError, match=r"lacks 1 weight \(model.layers.1.mlp.up_proj.weight\)"):
        export_checkpoint(str(folder), tmp_path / "a.gguf")
    assert not (tmp_path / "a.gguf").exists()


def test_a_checkpoint_of_other_sizes_is_refused(saved: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(saved, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["intermediate_size"] = 100
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(hired.ModelLoadError, match=r"weights of another shape than its config\.json tells"):
        export_checkpoint(str(folder), tmp_path / "a.gguf")


def test_the_command(run: Any, saved: Path, tmp_path: Path) -> None:
    code, out, err = run("gguf", "export", saved, tmp_path / "a.gguf", "--type", "q8_0")
    assert (code, err) == (0, "")
    assert out.startswith(f"{tmp_path / 'a.gguf'}: 0.1 MB, q8_0, llama, without vocabulary (llama.cpp has no tokenizer")
    code, _, err = run("gguf", "export", saved, tmp_path / "a.gguf")
    assert code == 2
    assert "is there already" in err
    code, out, err = run("gguf", "export", "tiny", tmp_path / "a.gguf", "--force", "--json")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert told["bytes"] == (tmp_path / "a.gguf").stat().st_size
    assert (told["type"], told["architecture"]) == ("f16", "llama")
