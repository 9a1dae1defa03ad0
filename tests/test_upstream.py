"""The comparison of `make test-upstream`, on a checkout of three tests."""

import sys

import pytest
from transformers import LlavaForConditionalGeneration

from hired import families
from hired.families.llava import Llava
from tests.upstream import run

TESTS = """
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

import hired

SMALL = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2)


def made():
    vision = CLIPVisionConfig(image_size=28, patch_size=14, **SMALL)
    text = LlamaConfig(vocab_size=32, **SMALL)
    return LlavaForConditionalGeneration(LlavaConfig(vision_config=vision, text_config=text, image_token_id=3))


def test_made():
    made()


def test_enabled():
    assert "generate" in vars(made())


def test_plain():
    pass


def test_refused():
    hired.enable(made(), 0.5)


class AnyIntegrationTest:
    def test_network(self):
        raise OSError
"""


@pytest.fixture
def in_process(monkeypatch, tmp_path):
    """The tests of one family, run in this process, which has imported everything; what is patched is undone."""
    monkeypatch.setattr(run, "OUT", tmp_path)
    monkeypatch.setattr(run, "FAMILIES", (Llava(),))
    monkeypatch.setattr(families, "FAMILIES", (Llava(),))
    monkeypatch.setattr(LlavaForConditionalGeneration, "__init__", LlavaForConditionalGeneration.__init__)

    def tests_run(command, cwd, env, **others):
        monkeypatch.chdir(cwd)
        monkeypatch.syspath_prepend(str(run.HERE))
        for name in ("HIRED_BUDGET", "HIRED_OUTCOMES"):
            monkeypatch.setenv(name, env[name])
        pytest.main(command[command.index("pytest") + 1 :])

    monkeypatch.setattr(run.subprocess, "run", tests_run)
    yield
    sys.modules.pop("hired_upstream", None)
    sys.modules.pop("test_modeling_llava", None)


@pytest.mark.parametrize(("name", "made"), [("untouched", 0), ("enabled", 1)])
def test_models_are_enabled_when_made_and_failures_told(tmp_path, in_process, name, made):
    file = tmp_path / "tests" / "models" / "llava" / "test_modeling_llava.py"
    file.parent.mkdir(parents=True)
    file.write_text(TESTS)
    found = run.outcomes(tmp_path, name, ["-p", "no:xdist"])
    told = {test.rpartition("::")[2]: result for test, result in found.items()}
    assert set(told) == {"test_made", "test_enabled", "test_plain", "test_refused"}
    assert told["test_made"] == {"outcome": "passed", "made": made}
    assert told["test_enabled"]["outcome"] == ("passed" if made else "failed")
    assert told["test_plain"] == {"outcome": "passed", "made": 0}
    if made:
        assert told["test_refused"]["error"].startswith("hired.errors.HiredError: this model is enabled already")
        assert told["test_refused"]["line"].startswith("hired/enabling/__init__.py:")
    else:
        assert told["test_refused"]["outcome"] == "passed"


def test_a_folder_that_is_no_checkout(tmp_path):
    with pytest.raises(SystemExit, match="no checkout of transformers"):
        run.test_files(tmp_path)


def outcome(kind: str, made: int = 1, **told: str) -> dict[str, object]:
    return {"outcome": kind, "made": made, **told}


def test_what_passes_untouched_must_pass_enabled():
    untouched = {
        "a": outcome("passed", 0),
        "b": outcome("passed", 0),
        "c": outcome("failed", 0),
        "d": outcome("passed", 0),
    }
    enabled = {"a": outcome("passed"), "b": outcome("failed", error="E", line="hired/x.py:1"), "c": outcome("failed")}
    text, good = run.report(untouched, enabled)
    assert not good
    assert "failed only when enabled: E (hired/x.py:1)\n    b" in text
    assert "not run only when enabled\n    d" in text
    assert "    c" not in text
    assert "no test makes a model of llava\n" in text
    assert "3 tests pass untouched, 1 of them enabled too" in text


@pytest.mark.parametrize(("made", "good"), [(1, True), (0, False)])
def test_two_runs_that_agree_are_good_if_models_were_enabled(made, good):
    assert run.report({"a": outcome("passed", 0)}, {"a": outcome("passed", made)})[1] is good
