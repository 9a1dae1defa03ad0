"""One row of results: means over questions, and their intervals over pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from hired.agreeing.answering import Answered, Outcome
from hired.agreeing.likeness import correct, similarity
from hired.agreeing.timing import Cost
from hired.intervals import bootstrap, wilson

__all__ = ["UNTOUCHED", "Row", "make_rows", "smallest"]

UNTOUCHED = "untouched"
"""The method of the untouched model's row."""


class Row(TypedDict):
    """One method and budget. Intervals are 95 %, [low, high], by the bootstrap over pictures.

    Attributes:
        method: Its name, or `UNTOUCHED` (the first row).
        budget: As in `hired.reduce`.
        tokens: Visual tokens the LLM is given, mean of a question.
        share: Of those of the untouched model.
        n: Questions.
        pictures: Pictures.
        exact: Share of answers that are the untouched model's, letter by letter, 0..1.
        exact_interval: Where all pictures agree or none does, Wilson's, as a bootstrap sees no spread there.
        similar: Mean `hired.agreeing.likeness.similarity` to the untouched model's answers, 0..1.
        similar_interval: Its interval.
        log_probability: Mean over questions of the mean log-probability (natural, a token) that is given to the
            untouched model's answer.
        log_probability_interval: Its interval.
        accuracy: Share of right answers, of those to questions whose answer is known; None where there are none.
        accuracy_interval: Its interval, Wilson's where that of `exact` would be.
        known: Questions whose answer is known.
        ttft_s: Seconds from the processor's output to the first token, median; None where not timed.
        tokens_per_s: New tokens a second behind the first, median; None where not timed.
        kv_cache_bytes: Of the key-value cache after prefill; None where not timed.
        peak_memory_bytes: The GPU's at the highest; None on other devices, and where not timed.
    """

    method: str
    budget: int | float
    tokens: float
    share: float
    n: int
    pictures: int
    exact: float
    exact_interval: list[float]
    similar: float
    similar_interval: list[float]
    log_probability: float
    log_probability_interval: list[float]
    accuracy: float | None
    accuracy_interval: list[float] | None
    known: int
    ttft_s: float | None
    tokens_per_s: float | None
    kv_cache_bytes: int | None
    peak_memory_bytes: int | None


def make_rows(
    jobs: Sequence[tuple[str, int | float]], found: Sequence[Answered], costs: Sequence[Cost] | None = None
) -> list[Row]:
    """The rows: the untouched model's, then one for each of the jobs.

    Args:
        jobs: (method, budget) of every entry of `Answered.reduced`.
        found: One or more questions.
        costs: Of the untouched model and of every job; None where nothing was timed.
    """
    whole = [each.untouched for each in found]
    rows = [_row(UNTOUCHED, 1, whole, found, None if costs is None else costs[0])]
    rows[0]["exact_interval"] = rows[0]["similar_interval"] = [1.0, 1.0]  # it agrees with itself, whatever is asked
    for place, (method, budget) in enumerate(jobs):
        outcomes = [each.reduced[place] for each in found]
        rows.append(_row(method, budget, outcomes, found, None if costs is None else costs[place + 1]))
    return rows


def _row(
    method: str, budget: int | float, outcomes: Sequence[Outcome], found: Sequence[Answered], cost: Cost | None
) -> Row:
    groups = [each.sample.name for each in found]
    tokens, full = _mean([one.tokens for one in outcomes]), _mean([each.untouched.tokens for each in found])
    pairs = [(one.answer, each.untouched.answer) for one, each in zip(outcomes, found, strict=True)]
    exact, similar = [float(one == other) for one, other in pairs], [similarity(*pair) for pair in pairs]
    told = [one.log_probability for one in outcomes]
    known = [place for place, each in enumerate(found) if each.sample.answers]
    right = [float(correct(outcomes[place].answer, found[place].sample.answers)) for place in known]
    return Row(
        method=method,
        budget=budget,
        tokens=round(tokens, 2),
        share=round(tokens / full, 4),
        n=len(found),
        pictures=len(set(groups)),
        exact=round(_mean(exact), 4),
        exact_interval=_share_interval(exact, groups),
        similar=round(_mean(similar), 4),
        similar_interval=_interval(similar, groups),
        log_probability=round(_mean(told), 4),
        log_probability_interval=_interval(told, groups),
        accuracy=round(_mean(right), 4) if right else None,
        accuracy_interval=_share_interval(right, [groups[place] for place in known]) if right else None,
        known=len(known),
        ttft_s=None if cost is None else round(cost.ttft, 6),
        tokens_per_s=None if cost is None or cost.rate is None else round(cost.rate, 3),
        kv_cache_bytes=None if cost is None else cost.kv_cache_bytes,
        peak_memory_bytes=None if cost is None else cost.peak_bytes,
    )


def smallest(rows: Sequence[Row], agree: float, measure: str = "exact") -> Row | None:
    """The row of the fewest tokens that keeps an agreement, and of whose method every larger budget does as well.

    Args:
        rows: As `hired.agreement` gives them.
        agree: The agreement asked for, 0..1.
        measure: One of `hired.agreeing.MEASURES`.

    Returns:
        None where no budget below the untouched model's keeps it. Of rows with as many tokens, the one that agrees
        most.
    """
    keeping: list[Row] = []
    for method in dict.fromkeys(row["method"] for row in rows if row["method"] != UNTOUCHED):
        for row in sorted((row for row in rows if row["method"] == method), key=lambda row: -row["tokens"]):
            if row[measure] < agree:  # type: ignore[literal-required]
                break
            if row["share"] < 1:
                keeping.append(row)
    return min(keeping, key=lambda row: (row["tokens"], -row["similar"]), default=None)


def _interval(values: Sequence[float], groups: Sequence[str]) -> list[float]:
    return [round(edge, 4) for edge in bootstrap(values, groups)]


def _share_interval(values: Sequence[float], groups: Sequence[str]) -> list[float]:
    if len(set(values)) > 1:
        return _interval(values, groups)
    pictures = len(set(groups))
    return [round(edge, 4) for edge in wilson(pictures if values[0] else 0, pictures)]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
