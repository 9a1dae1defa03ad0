"""What the page shows of answers and errors: HTML, with everything that others wrote escaped."""

from __future__ import annotations

from collections.abc import Callable
from html import escape

from hired.machine import peak_memory_mb
from hired.page.reader import Answer

__all__ = ["answers", "described", "problem"]


def problem(error: object) -> str:
    """An error, on one line."""
    line = " ".join("".join(c if c.isprintable() or c.isspace() else "?" for c in str(error)).split())
    return f'<div class="hired-problem" role="alert">{escape(line)}</div>'


def answers(
    reduced: Answer, untouched: Answer | None, asked: str, encode_ms: float, kind: str, positions: int | None
) -> str:
    """A table of both answers and their costs.

    Args:
        reduced: The answer under the budget.
        untouched: The answer from all tokens, None while it is not there.
        asked: Budget and method.
        encode_ms: What the encoder took.
        kind: The type of device.
        positions: What the language model was made for, None where that is not known.
    """

    def row(name: str, tell: Callable[[Answer], str]) -> str:
        cells = "".join(f"<td>{'...' if answer is None else tell(answer)}</td>" for answer in (untouched, reduced))
        return f'<tr><th scope="row">{name}</th>{cells}</tr>'

    rows = [
        row("answer", lambda answer: _broken(answer.text)),
        row("visual tokens", lambda answer: f"{answer.tokens:,}"),
        row("first token", lambda answer: f"{answer.first_token_ms:,.0f} ms"),
        row("tokens/s", lambda answer: "" if answer.tokens_per_second is None else f"{answer.tokens_per_second:,.1f}"),
        row("KV cache", lambda answer: f"{answer.cache_mb:,.2f} MB"),
    ]
    if reduced.peak_mb is not None:
        rows.append(row("peak GPU memory", lambda answer: f"{answer.peak_mb or 0:,.0f} MB"))
    notes = [f"Both first tokens count the encoder, which ran once for this picture: {encode_ms:,.0f} ms."]
    peak = None if kind == "cuda" else peak_memory_mb(kind)
    if peak is not None:
        notes.append(f"Peak memory of the whole process: {peak:,.0f} MB.")
    longest = max(answer.prompt_tokens for answer in (reduced, untouched or reduced))
    if positions is not None and longest > positions:
        notes.append(
            f"A prompt has {longest:,} tokens, but the language model was made for {positions:,} positions: what it"
            " says beyond them may mean nothing."
        )
    return (
        '<div><table><thead><tr><td></td><th scope="col">untouched</th>'
        f'<th scope="col">{escape(asked)}</th></tr></thead><tbody>{"".join(rows)}</tbody></table>'
        f"<p>{' '.join(notes)}</p></div>"
    )


def described(full: int, kept: int) -> str:
    """The drawing, for those who do not see it."""
    return f"The picture with {kept:,} of its {full:,} visual tokens clear and the others veiled"


def _broken(text: str) -> str:
    """An answer, its lines apart."""
    return "<br>".join(escape(line) for line in text.splitlines())
