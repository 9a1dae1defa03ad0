"""The paper's table 1: its benchmarks, by what lmms-eval calls them, and its numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["BENCHMARKS", "MODEL", "PUBLISHED", "Benchmark", "is_the_papers", "score"]

MODEL = "llava-hf/llava-v1.6-vicuna-7b-hf"
"""The model of table 1, LLaVA-NeXT-7B."""


@dataclass(frozen=True)
class Benchmark:
    """One of the paper's benchmarks.

    Attributes:
        column: the paper's name.
        metric: lmms-eval's, of several that a task may have.
        scale: from lmms-eval's number to the paper's.
        adds: the number is a sum over the documents, so that part of them cannot be compared.
        data: the data set on the hub, as lmms-eval 0.7.3 names it, and its configuration.
        login: lmms-eval asks the hub for it as a user who is logged in.
    """

    column: str
    metric: str
    scale: float
    data: tuple[str, str | None]
    adds: bool = False
    login: bool = True


BENCHMARKS: dict[str, Benchmark] = {
    "vqav2_val": Benchmark("VQAv2", "exact_match", 100, ("lmms-lab-encoder/VQAv2", None)),
    "scienceqa_img": Benchmark("SQA", "exact_match", 100, ("lmms-lab-encoder/ScienceQA", "ScienceQA-IMG")),
    "textvqa_val": Benchmark("TextVQA", "exact_match", 100, ("lmms-lab-encoder/textvqa", None), login=False),
    "docvqa_val": Benchmark("DocVQA", "anls", 100, ("lmms-lab-encoder/DocVQA", "DocVQA")),
    "ocrbench": Benchmark("OCRBench", "ocrbench_accuracy", 1000, ("echo840/OCRBench", None), adds=True),
    "mme": Benchmark("MME", "mme_perception_score", 1, ("lmms-lab-encoder/MME", None), adds=True),
    "pope": Benchmark("POPE", "pope_accuracy", 100, ("lmms-lab-encoder/POPE", None)),
    "chartqa": Benchmark("ChartQA", "relaxed_overall", 100, ("lmms-lab-encoder/ChartQA", None)),
}
"""By lmms-eval's names of the tasks, in the order of the paper's columns."""

PUBLISHED: dict[float, dict[str, float]] = {
    1: dict(zip(BENCHMARKS, (80.3, 73.2, 64.8, 73.4, 501, 1519, 87.6, 54.8), strict=True)),
    0.4: dict(zip(BENCHMARKS, (78.8, 73.8, 63.6, 68.7, 488, 1474, 88.2, 46.5), strict=True)),
    0.2: dict(zip(BENCHMARKS, (77.5, 73.4, 61.4, 60.8, 475, 1483, 87.0, 42.0), strict=True)),
}
"""Table 1's rows of HiRED, and of the model with all tokens, by budget and task (arXiv 2408.10945 v3)."""


def score(task: str, metrics: dict[str, Any]) -> tuple[str, float]:
    """The number of a task and the name of its metric: in the paper's units, or the first that lmms-eval gives.

    Args:
        task: lmms-eval's name.
        metrics: what lmms-eval gives for it, such as `{"anls,none": 0.6, "anls_stderr,none": 0.01}`.

    Raises:
        ValueError: none of it is a number.
    """
    known = BENCHMARKS.get(task)
    for key, value in metrics.items():
        name = key.partition(",")[0]
        if known is not None and name != known.metric:
            continue
        if isinstance(value, int | float) and not isinstance(value, bool) and "_stderr" not in name:
            return name, float(value) * (1 if known is None else known.scale)
    raise ValueError(f"lmms-eval gave no number for {task}: {metrics!r:.300}")


def is_the_papers(config: Any) -> bool:
    """Whether a checkpoint has the shape of the paper's model, so that its numbers can be set against the paper's."""
    text = config.get_text_config()
    return bool(
        config.model_type == "llava_next"
        and text.model_type == "llama"
        and (text.hidden_size, text.num_hidden_layers) == (4096, 32)
        and text.vocab_size < 33_000  # Vicuna's, not Llama 3's
    )
