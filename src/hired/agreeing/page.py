"""A page of the answers that changed: one HTML file, the pictures in it, what was kept drawn on them."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image

import hired
from hired import prompts
from hired.agreeing.answering import Answered
from hired.agreeing.likeness import similarity
from hired.agreeing.rows import Row
from hired.agreeing.settings import Settings
from hired.agreeing.words import table
from hired.viz import draw

__all__ = ["page"]

_MOST = 40
_WIDTH, _HEIGHT, _QUALITY = 1100, 1400, 82
"""Of embedded pictures: pixels at most, and JPEG quality."""

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1c202a; background: #fcfbf9; margin: 2rem auto; max-width: 72rem;
  padding: 0 1rem; }
h1 { font-size: 1.4rem; }
h2 { font-size: 1.1rem; margin-top: 2.5rem; border-top: 1px solid #dee2e6; padding-top: 1rem; }
table { border-collapse: collapse; } th, td { padding: .25rem .8rem .25rem 0; text-align: left; vertical-align: top; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; } thead th { border-bottom: 1px solid #adb5bd; }
img { max-width: 100%; margin-top: .6rem; } .same { color: #868e96; } .other { color: #c92a2a; }
pre { background: #f1f3f5; padding: .6rem .8rem; white-space: pre-wrap; }
"""


def page(
    model: Any,
    processor: Any,
    settings: Settings,
    found: Sequence[Answered],
    rows: Sequence[Row],
    chosen: Row | None,
    title: str,
    told: Sequence[str],
) -> str:
    """The page as HTML that needs nothing else.

    Drawn is what was kept under the chosen row where the answer changed under it, else under the largest number of
    tokens with another answer. At most 40 questions, those whose answers changed most under their row first.

    Args:
        model, processor, settings: What was measured.
        found: The answers.
        rows: The results.
        chosen: What `hired.agreeing.rows.smallest` made of them.
        title: Of the page.
        told: What follows from the rows.

    Raises:
        HiredError: A picture cannot be had again.
    """
    jobs = settings.jobs()
    shown = []
    for each in found:
        changed = [place for place, one in enumerate(each.reduced) if one.answer != each.untouched.answer]
        if changed:
            best = max(changed, key=lambda place: (_is(jobs[place], chosen), each.reduced[place].tokens))
            apart = similarity(each.reduced[best].answer, each.untouched.answer)
            shown.append((not _is(jobs[best], chosen), apart, each, best))
    shown.sort(key=lambda entry: entry[:2])
    blocks = [_block(model, processor, settings, each, best) for _, _, each, best in shown[:_MOST]]
    count = f"{len(shown):,} of {len(found):,} answers changed under some budget."
    left = f" The {_MOST} that changed most are shown." if len(shown) > _MOST else ""
    body = [
        f"<h1>{html.escape(title)}</h1>",
        _table(*table(rows)),
        f"<pre>{html.escape(chr(10).join(told))}</pre>",
        f"<p>{count}{left} Kept tokens are clear, dropped ones veiled.</p>",
        *blocks,
    ]
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{_STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{chr(10).join(body)}\n</body></html>\n'


def _is(job: tuple[str, int | float], row: Row | None) -> bool:
    return row is not None and job == (row["method"], row["budget"])


def _block(model: Any, processor: Any, settings: Settings, each: Answered, best: int) -> str:
    """A question, its answers, and the picture."""
    jobs = settings.jobs()
    method, budget = jobs[best]
    lines = [_answer("all tokens", each.untouched.tokens, each.untouched.answer, None)]
    for (name, share), outcome in zip(jobs, each.reduced, strict=True):
        lines.append(_answer(f"{name}, {share}", outcome.tokens, outcome.answer, each.untouched.answer))
    truths = f"<p>Right: {html.escape(' / '.join(each.sample.answers))}</p>" if each.sample.answers else ""
    name, question = html.escape(each.sample.name), html.escape(each.sample.question)
    drawn = _drawn(model, processor, settings, each, best)
    words = html.escape(f"What {method} keeps of {each.sample.name} at budget {budget}")
    return (
        f"<h2>{name}</h2><p><b>{question}</b></p>{truths}<table><tbody>{''.join(lines)}</tbody></table>"
        f'<p>Drawn: {html.escape(method)}, budget {budget}</p><img alt="{words}" src="{_embedded(drawn)}">'
    )


def _answer(under: str, tokens: int, answer: str, untouched: str | None) -> str:
    kind = "" if untouched is None else ' class="same"' if answer == untouched else ' class="other"'
    shown = html.escape(answer) or "<i>nothing</i>"
    return f'<tr><th>{html.escape(under)}</th><td class="n">{tokens:,} tokens</td><td{kind}>{shown}</td></tr>'


def _table(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    def row(tag: str, values: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{' class=n' if place else ''}>{html.escape(v)}</{tag}>" for place, v in enumerate(values)
        )

    lines = "".join(f"<tr>{row('td', values)}</tr>" for values in cells)
    return f"<table><thead><tr>{row('th', columns)}</tr></thead><tbody>{lines}</tbody></table>"


def _drawn(model: Any, processor: Any, settings: Settings, each: Answered, place: int) -> Image.Image:
    """The picture with what one job keeps of it."""
    method, budget = settings.jobs()[place]
    image = each.sample.load()
    words = prompts.prompt(processor, each.sample.question)
    inputs = prompts.inputs(model, processor, [words], [image])
    chosen: Any = settings.method(method, each.sample.name)
    options = settings.keywords()
    with torch.inference_mode():
        reduced = hired.reduce(model, inputs, budget, method=chosen, images=[image], **options)
    return draw(image, reduced.selection[0])


def _embedded(picture: Image.Image) -> str:
    """A picture as the address of itself."""
    picture.thumbnail((_WIDTH, _HEIGHT), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
