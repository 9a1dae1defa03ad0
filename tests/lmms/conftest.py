"""What the tests of the lmms-eval plug-in share. Without lmms-eval, as for all other tests, none is collected."""

import functools
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

collect_ignore_glob = [] if importlib.util.find_spec("lmms_eval") else ["test_*.py"]


def pytest_configure(config: pytest.Config) -> None:
    # Read when huggingface_hub and datasets are imported: what these tests need is on this disk.
    os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    # Deprecations inside lmms-eval and what it imports are not ours to mend.
    config.addinivalue_line("filterwarnings", "default")


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Data sets are cached by the names of files that are made anew for every run."""
    os.environ["HF_DATASETS_CACHE"] = str(tmp_path_factory.mktemp("datasets"))


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Saves the tiny model of a family, with its processor and a chat template; the folder."""
    from tests.support import models

    root, made = tmp_path_factory.mktemp("checkpoints"), {}

    def save(name: str) -> Path:
        if name not in made:
            made[name] = root / name
            processor = models.ALL[name].processor("left")
            processor.chat_template = template(models.ALL[name].mark)
            models.shared(name).save_pretrained(made[name])
            processor.save_pretrained(made[name])
        return made[name]

    return save


def template(mark: str) -> str:
    """A chat template in which a picture is `mark`; contents may be text or parts."""
    parts = (
        "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}"
        f"{{% else %}}{mark}{{% endif %}}{{% endfor %}}"
    )
    return (
        "{% for message in messages %}{% if message['content'] is string %}{{ message['content'] }}"
        f"{{% else %}}{parts}{{% endif %}}{{% endfor %}}{{% if add_generation_prompt %}}:{{% endif %}}"
    )


@functools.cache
def tasks_of(include: Path | None) -> Any:
    """lmms-eval's index of tasks, for which it reads thousands of files, and those of a folder."""
    from lmms_eval.tasks import TaskManager

    return TaskManager("ERROR", include_path=None if include is None else str(include), model_name="hired")


def evaluated(model: Any, tasks: list[Any], folder: Path, include: Path | None = None, **settings: Any) -> Any:
    """lmms-eval's results, with the samples, as its own command line would have them."""
    from argparse import Namespace

    from lmms_eval.evaluator import simple_evaluate

    return simple_evaluate(
        model=model,
        tasks=tasks,
        batch_size=1,
        log_samples=True,
        bootstrap_iters=0,
        task_manager=tasks_of(include),
        cli_args=Namespace(process_with_media=False, output_path=str(folder)),
        **settings,
    )
