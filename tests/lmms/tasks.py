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
