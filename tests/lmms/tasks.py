"""Tasks for lmms-eval whose documents are made here: pages of `hired.forms`, stand-ins for the paper's data sets."""

import io
from pathlib import Path
from typing import Any

from PIL import Image

DEFINITION = """\
task: {name}
dataset_path: parquet
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: generate_until
doc_to_visual: !function pages.visual
doc_to_text: "question"
doc_to_target: "answer"
process_results: !function pages.result
generation_kwargs:
  max_new_tokens: 8
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
"""

FUNCTIONS = """\
def visual(doc):
    return [doc["image"].convert("RGB")]


def result(doc, results):
    return {"exact_match": float(results[0].strip() == doc["answer"])}
"""


def png(image: Image.Image) -> dict[str, Any]:
    """A picture as data sets hold it, without loss."""
    data = io.BytesIO()
    image.save(data, format="PNG")
    return {"bytes": data.getvalue(), "path": None}


def parquet(documents: list[dict[str, Any]], path: Path) -> Path:
    """Documents in a file, pictures as pictures."""
    import datasets

    found = [{**each, "image": png(each["image"])} for each in documents]
    datasets.Dataset.from_list(found).cast_column("image", datasets.Image()).to_parquet(str(path))
    return path


def forms(folder: Path, limit: int, name: str = "hired_forms", question: str | None = None) -> list[Any]:
    """Writes a task of pages; returns what `hired eval` asks about them, in the same order.

    With a `question`, that is asked of every page: the tokenizers of the random tiny models know few letters.
    """
    from hired.evaluation import Settings
    from hired.evaluation.samples import samples

    folder.mkdir(parents=True, exist_ok=True)
    found = samples(Settings(limit=limit))
    documents = [{"image": each.image, "question": question or each.question, "answer": each.answer} for each in found]
    data = parquet(documents, folder / "pages.parquet")
    (folder / f"{name}.yaml").write_text(DEFINITION.format(name=name, data=data))
    (folder / "pages.py").write_text(FUNCTIONS)
    return found


TEXTS = ("vqav2_val", "textvqa_val", "docvqa_val", "ocrbench", "chartqa")
"""Benchmarks whose answers are any text; those of the others are letters, or yes and no."""


def _answers(text: str) -> list[dict[str, Any]]:
    """Ten people's, as VQAv2 has them."""
    return [{"answer": text, "answer_confidence": "yes", "answer_id": number} for number in range(1, 11)]


def benchmarks(folder: Path, truths: dict[str, list[str]] | None = None) -> dict[str, dict[str, Any]]:
    """The paper's benchmarks on pages instead of their data: what to change in lmms-eval's definitions of them.

    Every benchmark has four documents in the form of its own. `truths` are other right answers, by task.
    """
    from hired.evaluation import Settings
    from hired.evaluation.samples import samples

    folder.mkdir(parents=True, exist_ok=True)
    pages = samples(Settings(limit=4))
    right = {task: (truths or {}).get(task, [page.answer for page in pages]) for task in TEXTS}
    both = ("yes", "no", "yes", "no")
    rows: dict[str, list[dict[str, Any]]] = {
        "vqav2_val": [{"question_id": n, "answers": _answers(text)} for n, text in enumerate(right["vqav2_val"])],
        "scienceqa_img": [{"hint": "", "choices": [page.answer, "9"], "answer": 0} for page in pages],
        "textvqa_val": [
            {"question_id": n, "answers": [text] * 10, "ocr_tokens": [""]}
            for n, text in enumerate(right["textvqa_val"])
        ],
        "docvqa_val": [{"questionId": str(n), "answers": [text]} for n, text in enumerate(right["docvqa_val"])],
        "ocrbench": [
            {"answer": [text], "dataset": "SROIE", "question_type": "Key Information Extraction"}
            for text in right["ocrbench"]
        ],
        "mme": [
            {"question_id": f"{n // 2}.png", "category": "OCR", "answer": both[n].title(), "question": "Is it there?"}
            for n in range(len(pages))
        ],
        "pope": [
            {"question_id": str(n), "answer": both[n], "category": "random", "question": "Is there a cat?"}
            for n in range(len(pages))
        ],
        "chartqa": [{"type": "human_test", "answer": text} for text in right["chartqa"]],
    }
    validation = ("vqav2_val", "textvqa_val", "docvqa_val")
    found = {}
    for task, documents in rows.items():
        asked = [
            {"question": page.question, "image": page.image, **each}
            for page, each in zip(pages, documents, strict=True)
        ]
        split = "validation" if task in validation else "test"
        data = str(parquet(asked, folder / f"{task}.parquet"))
        found[task] = {"dataset_path": "parquet", "dataset_name": None, "dataset_kwargs": {"data_files": {split: data}}}
    return found
