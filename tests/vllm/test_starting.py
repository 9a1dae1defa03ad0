"""Engines that must not start: each would answer, and not keep to its budget. And those that must: connectors."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hired.errors import HiredError
from hired.vllm.starting import ENCODER_OPTIONS, RUST, SetUp, StartError
from tests.vllm.support import Case, answer, generate, noisy, request

SIZES = [(64, 64), (90, 31), (30, 80)]


def refused(engine: Any, case: Case, message: str, hired: Any = None, **settings: Any) -> None:
    """No engine with these settings starts, and our one line is the error's last."""
    with pytest.raises(HiredError, match=message) as caught:
        engine(case, {"budget": 0.3} if hired is None else hired, **settings)
    assert not isinstance(caught.value, ValueError)
    assert "\n" not in str(caught.value)


def test_settings_that_will_not_do(engine: Any, cases: dict[str, Case]) -> None:
    for hired, message in (
        ({"budget": 0.0001}, "leaves no token: raise it"),
        ({"budget": 0}, "above 0"),
        ({"budget": 0.2, "method": "cdpruner"}, "'cdpruner' cannot be served: it reads the question"),
        ({"budget": 0.2, "alpha": 2}, "alpha"),
        ({"share": 0.2}, "must be"),
    ):
        refused(engine, cases["llava_next"], message, hired)


def test_set_ups_that_go_around_the_budget(
    engine: Any, cases: dict[str, Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = cases["llava_next"]
    refused(engine, case, "enable-mm-embeds", enable_mm_embeds=True)
    refused(engine, case, "is for requests", mm_processor_kwargs={"hired_budget": 0.1})
    refused(engine, case, "tower-connector-lora", enable_lora=True, enable_tower_connector_lora=True)
    for option in ENCODER_OPTIONS:
        refused(engine, case, option, compilation_config={option: True})
    drafter = {"method": "eagle", "model": eagle(case, tmp_path), "num_speculative_tokens": 2}
    refused(engine, case, "'eagle' is not supported with a budget", speculative_config=drafter)
    monkeypatch.setenv(RUST, "1")
    refused(engine, case, RUST)


def eagle(case: Case, folder: Path) -> str:
    """A drafter's configuration; its weights are never read."""
    text = json.loads((case.folder / "config.json").read_text())["text_config"]
    (folder / "config.json").write_text(json.dumps({**text, "architectures": ["LlamaForCausalLM"]}))
    return str(folder)


def test_pipeline_parallelism_ends_the_start_in_the_workers(
    engine: Any, cases: dict[str, Case], capfd: pytest.CaptureFixture[str]
) -> None:
    """The error is raised in processes of their own: it is in the output, and vLLM's own error says to look there."""
    with pytest.raises(Exception, match="WorkerProc initialization failed"):
        engine(cases["llava_next"], {"budget": 0.3}, pipeline_parallel_size=2, distributed_executor_backend="mp")
    assert "StartError: pipeline parallelism is not supported with a budget" in "".join(capfd.readouterr())


def test_what_is_read_of_an_engine() -> None:
    """Every field has its own line; nothing else is refused."""
    cases = {
        "pipeline": SetUp(stages=2),
        "'mtp'": SetUp(drafter="mtp"),
        "compile_mm_encoder and cudagraph": SetUp(encoder=ENCODER_OPTIONS),
        "tower-connector": SetUp(adapters=True),
        "--enable-mm-embeds": SetUp(embeds=True),
        RUST: SetUp(rust=True),
    }
    for message, setup in cases.items():
        with pytest.raises(StartError, match=message):
            setup.check()
    for setup in (SetUp(), SetUp(drafter="ngram"), SetUp(drafter="suffix")):
        setup.check()


@pytest.mark.parametrize(
    ("kv", "ec", "embeds"),
    [(None, None, True), ("producer", None, True), ("consumer", None, False), (None, "consumer", False)],
)
def test_embeddings_that_a_connector_switched_on_are_not_the_users(kv: Any, ec: Any, embeds: bool) -> None:
    none = SimpleNamespace
    config = none(
        model_config=none(multimodal_config=none(enable_mm_embeds=True)),
        parallel_config=none(pipeline_parallel_size=1),
        compilation_config=none(),
        lora_config=None,
        speculative_config=None,
        kv_transfer_config=kv and none(is_kv_consumer=kv == "consumer"),
        ec_transfer_config=ec and none(is_ec_consumer=ec == "consumer"),
    )
    assert SetUp.of(config).embeds == embeds


def asked(case: Case) -> tuple[list[Any], list[list[int]]]:
    """Requests, and the library's answers under a budget of 0.3."""
    pictures = noisy(SIZES)
    pairs = [([picture], "what is a?") for picture in pictures] + [(pictures, "b:")]
    return [request(case, *pair) for pair in pairs], [answer(case, *pair, 0.3)[0] for pair in pairs]


def test_a_cache_that_goes_out_and_comes_back(engine: Any, cases: dict[str, Case], tmp_path: Path) -> None:
    """`kv_both`: the second time the KV cache of every prompt is read from where the connector put it."""
    case = cases["llava_next"]
    requests, expected = asked(case)
    connector = {"kv_connector": "ExampleConnector", "kv_role": "kv_both"}
    connector["kv_connector_extra_config"] = {"shared_storage_path": str(tmp_path)}  # type: ignore[assignment]
    llm = engine(case, {"budget": 0.3}, kv_transfer_config=connector, enable_prefix_caching=False)
    assert generate(llm, requests) == expected
    stored = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    assert stored
    assert generate(llm, requests) == expected
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")} == stored


def test_one_engine_encodes_and_another_answers(engine: Any, cases: dict[str, Case], tmp_path: Path) -> None:
    case = cases["llava_next"]
    requests, expected = asked(case)

    def connected(role: str) -> dict[str, Any]:
        extra = {"shared_storage_path": str(tmp_path)}
        return {"ec_connector": "ECExampleConnector", "ec_role": role, "ec_connector_extra_config": extra}

    # It has no KV cache, so none for prefixes.
    encoder = engine(case, {"budget": 0.3}, ec_transfer_config=connected("ec_producer"), enable_prefix_caching=False)
    generate(encoder, requests, new=1)
    assert len(list(tmp_path.rglob("*.safetensors"))) == len(SIZES)
    encoder.llm_engine.engine_core.shutdown()  # a process has one connector
    consumer = engine(case, {"budget": 0.3}, ec_transfer_config=connected("ec_consumer"))
    consumer.apply_model(without_encoder)
    assert generate(consumer, requests) == expected


def without_encoder(model: Any) -> None:
    """In the engine: what is not received cannot be made."""
    model.pruned.embed = None
