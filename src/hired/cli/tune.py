"""``hired tune``: the smallest budget under which a model's answers about your pictures stay what they are."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hired import files, images
from hired.agreeing import MEASURES, Sample, Settings
from hired.cli import output, waiting
from hired.cli.records import Records
from hired.cli.samples import questions_in, read
from hired.errors import BudgetError, HiredError
from hired.loading import Loaded
from hired.loading.strangers import strangers
from hired.machine import versions
from hired.options import positive
from hired.pdf import DPI, check_dpi
from hired.questions import check_tags

if TYPE_CHECKING:
    from hired.agreeing.answering import Answered
    from hired.agreeing.rows import Row

__all__ = ["Options", "run"]

_PAGES = (".html", ".htm")


@dataclass(frozen=True)
class Options:
    """The options of ``hired tune``; see ``hired tune --help``."""

    model: str
    pictures: tuple[str, ...]
    questions: tuple[str, ...] = ()
    questions_file: Path | None = None
    agree: float = 0.95
    measure: str = "exact"
    limit: int | None = 24
    settings: Settings = field(default_factory=Settings)
    device: str = "auto"
    dtype: str = "auto"
    load: str | None = None
    trust_remote_code: bool = False
    dpi: float = DPI
    out: tuple[Path, ...] = ()
    as_json: bool = False

    def check(self) -> None:
        """Raise `HiredError` for options that cannot be, before anything is read."""
        self.settings.check()
        if not self.settings.jobs():
            raise BudgetError("a budget of 1 is the untouched model: name one or more smaller ones")
        positive(self.agree, 1, f"--agree {self.agree:g}: use a share above 0 and at most 1, such as 0.95")
        if self.measure not in MEASURES:
            raise HiredError(f"unknown measure {self.measure!r}: use one of {', '.join(MEASURES)}")
        check_dpi(self.dpi)
        pages = [path for path in self.out if path.suffix.lower() in _PAGES]
        others = [path for path in self.out if path not in pages]
        unknown = [path for path in others if path.suffix.lower() not in (".json", ".png", ".svg", ".pdf")]
        if unknown:
            name = files.one_line(unknown[0])
            raise HiredError(f"cannot write {name}: name a .json, a .png, .svg or .pdf for the plot, or a .html")
        files.check_results(others)
        for path in pages:
            files.check_writable(path)

    def decisive(self) -> dict[str, Any]:
        """What answers depend on."""
        settings = asdict(self.settings)
        del settings["repeats"]
        ours = {"model": self.model, "dtype": self.dtype, "load": self.load, "dpi": self.dpi}
        return json.loads(json.dumps({**ours, **settings}))  # type: ignore[no-any-return]  # tuples are lists in a file


def run(options: Options) -> None:
    """Measure, print a table and what follows from it, and write the files asked for.

    Raises:
        HiredError: Options, pictures or model will not do, or a file cannot be written.
    """
    options.check()
    samples = read(
        options.pictures, questions_in(options.questions_file, options.questions), options.limit, options.dpi
    )
    sources = {images.file_of(sample.name) for sample in samples} | {*options.pictures, str(options.questions_file)}
    for path in options.out:
        files.check_apart(path, sources, "among what is read")
    records = None
    if options.out:
        records = Records(options.out[0].with_suffix(".answers.jsonl"), options.decisive(), "hired tune")
    loaded = waiting.load(options.model, options.device, options.dtype, options.trust_remote_code, options.load)

    from hired.agreeing.rows import make_rows, smallest
    from hired.agreeing.run import ready
    from hired.agreeing.timing import middle, timed
    from hired.agreeing.words import code, conclusion
    from hired.machine import machine

    start = time.perf_counter()
    ready(loaded.model)
    for question in dict.fromkeys(sample.question for sample in samples):
        check_tags(loaded.processor, question)
    settings = options.settings
    with strangers(options.model, "measure", through=OSError):
        found = _answers(loaded, samples, settings, records)
        costs = None
        if settings.repeats:
            runs = (settings.repeats + 1) * (1 + len(settings.jobs()))
            with waiting.bar("Timed runs", runs) as advance:
                costs = timed(loaded.model, loaded.processor, middle(found), settings, lambda: advance(1))
    rows = make_rows(settings.jobs(), found, costs)
    chosen = smallest(rows, options.agree, options.measure)
    told = conclusion(rows, chosen, options.agree, options.measure)
    result: dict[str, Any] = {
        "model": options.model,
        "results": rows,
        "agree": options.agree,
        "measure": options.measure,
        "chosen": chosen,
        "code": None if chosen is None else code(chosen),
        "timed_on": middle(found).sample.name if costs else None,
        "answers": [_line(each, settings) for each in found],
        "settings": {**options.decisive(), "limit": options.limit, "repeats": settings.repeats},
        "versions": versions(),
        "machine": machine(loaded.model),
        "seconds": round(time.perf_counter() - start, 1),
    }
    output.deliver(
        lambda: print(json.dumps(result)) if options.as_json else _print(rows, told, options.model),
        *(partial(_write, path, options, result, loaded, found, told) for path in options.out),
    )


def _answers(loaded: Loaded, samples: Sequence[Sample], settings: Settings, records: Records | None) -> list[Answered]:
    """Every sample's answers, those that were there before among them."""
    from hired.agreeing.answering import answered
    from hired.agreeing.samples import by_picture

    found: dict[tuple[str, str], Answered] = {}
    for sample in samples:
        line = None if records is None else records.get(sample.name, sample.question)
        if line is not None:
            found[sample.name, sample.question] = _read(line, sample)
    each_has = 1 + len(settings.jobs())
    with (
        nullcontext() if records is None else records.open() as file,
        waiting.bar("Answers", each_has * len(samples)) as advance,
    ):
        advance(each_has * len(found))
        for some in by_picture(samples).values():
            left = [sample for sample in some if (sample.name, sample.question) not in found]
            if not left:
                continue
            for each in answered(loaded.model, loaded.processor, left, settings, lambda: advance(1)):
                found[each.sample.name, each.sample.question] = each
                if records is not None and file is not None:
                    records.add(file, **_line(each, settings))
    return [found[sample.name, sample.question] for sample in samples]


def _line(each: Answered, settings: Settings) -> dict[str, Any]:
    """A question's answers, for a file."""
    jobs = zip(settings.jobs(), each.reduced, strict=True)
    return {
        "picture": each.sample.name,
        "question": each.sample.question,
        "answers": list(each.sample.answers),
        "answer": each.untouched.answer,
        "tokens": each.untouched.tokens,
        "log_probability": each.untouched.log_probability,
        "reduced": [{"method": method, "budget": budget, **asdict(outcome)} for (method, budget), outcome in jobs],
    }


def _read(line: dict[str, Any], sample: Sample) -> Answered:
    """The other way round."""
    from hired.agreeing.answering import Answered, Outcome

    def outcome(told: dict[str, Any]) -> Outcome:
        return Outcome(told["answer"], told["tokens"], told["log_probability"])

    try:
        return Answered(sample, outcome(line), tuple(map(outcome, line["reduced"])))
    except (KeyError, TypeError) as error:
        raise HiredError(f"the answers about {sample.name} that were there are not whole: remove the file") from error


def _write(
    path: Path, options: Options, result: dict[str, Any], loaded: Loaded, found: Sequence[Answered], told: Sequence[str]
) -> None:
    """Write the result (``.json``), the page of changed answers (``.html``) or the plot."""
    from hired.agreeing.words import title

    rows: list[Row] = result["results"]
    heading = title(rows, options.model)
    if path.suffix.lower() == ".json":
        files.write_json(path, result)
    elif path.suffix.lower() in _PAGES:
        from hired.agreeing.page import page

        with strangers(options.model, "draw for"):
            text = page(loaded.model, loaded.processor, options.settings, found, rows, result["chosen"], heading, told)
        files.write(path, text.encode(errors="replace"))  # names of files may be no text
    else:
        from hired.agreeing.plot import plot

        plot(rows, path, heading, options.agree, options.measure)


def _print(rows: Sequence[Row], told: Sequence[str], model: str) -> None:
    """The table for people, and what follows."""
    from hired.agreeing.words import table, title

    output.table(*table(rows), title(rows, model))
    print()
    for line in told:
        print(line)
