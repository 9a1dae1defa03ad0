"""What the tests of the plugin share. Where vLLM is missing, as for all other tests, none of them is collected."""

import gc
import importlib.util
from typing import Any

import pytest

from tests.vllm.environment import prepare

collect_ignore_glob = [] if importlib.util.find_spec("vllm") else ["test_*.py"]


def pytest_configure(config: pytest.Config) -> None:
    prepare()
    # Deprecations inside vLLM are not ours to mend.
    config.addinivalue_line("filterwarnings", "default")


@pytest.fixture(scope="session")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The shipped model, and the random tiny models of the library's tests."""
    from hired.tiny import WEIGHTS, load_tiny
    from hired.vllm.checkpoints import export
    from tests.vllm.support import MODELS, Case

    root = tmp_path_factory.mktemp("checkpoints")
    found = {"tiny": Case("tiny", export(WEIGHTS, root / "tiny"), load_tiny()[0])}
    for name, make in MODELS.items():
        model, processor = make()
        saved = root / f"{name}-saved"
        model.save_pretrained(saved)
        processor.save_pretrained(saved)
        # Of the others vLLM knows the names that transformers gives weights.
        found[name] = Case(name, export(saved, root / name) if name.startswith("llava") else saved, model)
    return found


@pytest.fixture
def engine() -> Any:
    """Makes engines in this process, float32, and takes them down again."""
    from vllm import LLM
    from vllm.distributed import cleanup_dist_env_and_memory

    made = []

    def make(case: Any, hired: Any = None, **settings: Any) -> Any:
        settings = {
            "dtype": "float32",
            "enforce_eager": True,
            "max_model_len": 2048,
            "max_num_seqs": 8,
            "block_size": 32,
            "distributed_executor_backend": "uni",
            "limit_mm_per_prompt": {"image": 3},
            **({} if hired is None else {"hf_overrides": {"hired": hired}}),
            **settings,
        }
        made.append(LLM(str(case.folder), **settings))
        return made[-1]

    yield make
    for llm in made:  # now, and not when a failed test's traceback lets go of them
        llm.llm_engine.engine_core.shutdown()
    made.clear()
    gc.collect()
    cleanup_dist_env_and_memory()


@pytest.fixture(scope="session", autouse=True)
def _plugins() -> None:
    """As vLLM does at the start of each of its processes."""
    from vllm.plugins import load_general_plugins

    load_general_plugins()
