"""The page itself, in Gradio's components."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import gradio

from hired.errors import HiredError
from hired.methods import METHODS
from hired.options import number as number_of
from hired.page import words
from hired.page.reader import ANY, EMPTY, Reader
from hired.page.tabs import Tabs, pages_of

__all__ = ["LOOK", "STYLE", "interface"]

LOOK: Any = gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
"""Fonts of the reader's own system: none is fetched."""

STYLE = """
.hired-problem { border-left: 4px solid #d33; background: rgba(221, 51, 51, .12); padding: .6em .8em; }
#answers table { width: 100%; border-collapse: collapse; table-layout: fixed; }
#answers :is(table, thead, tbody, tr, th, td) { border: 0; }
#answers :is(th, td) { text-align: left; vertical-align: top; padding: .35em .5em; overflow-wrap: anywhere;
  border-bottom: 1px solid var(--border-color-primary); }
#answers tbody th { font-weight: 400; }
#answers tbody tr:first-child td { font-weight: 600; }
#answers p { font-size: .9em; margin-top: .5em; }
#figure img { padding-top: 36px; }
#share div:has(> input[type="number"]) { display: none; }
"""
"""Of what `hired.page.words` writes; room for the buttons above the drawing; and no second box for the budget."""

_BUDGET = 0.2

_KEPT_SECONDS = 86_400  # a file that was uploaded or drawn; all go when the page ends


def interface(reader: Reader, tabs: Tabs) -> gradio.Blocks:
    """The page.

    Args:
        reader: Answers.
        tabs: Holds the pictures.
    """
    with gradio.Blocks(
        title=f"HiRED: {reader.loaded.name}", analytics_enabled=False, delete_cache=(3600, _KEPT_SECONDS)
    ) as page:
        gradio.Markdown(
            f"# HiRED\nWhat `{reader.loaded.name}` says of a picture from all of its visual tokens, and from fewer."
        )
        with gradio.Row():
            with gradio.Column(scale=1, min_width=300):
                file = gradio.File(label="Picture, or PDF", height=120)
                number = gradio.Number(1, label="Page", precision=0, visible=False)
                question = gradio.Textbox(label="Question", placeholder="What is TOTAL?", max_lines=4)
                share = gradio.Slider(
                    0.01, 1, _BUDGET, step=0.01, label="Budget: share of the visual tokens", elem_id="share", buttons=[]
                )
                typed = gradio.Textbox(
                    f"{_BUDGET:g}", label="Budget, typed: a share (0.2) or tokens (576)", max_lines=1
                )
                # What slider and box agree on: the one whose change is answered, so that no keystroke is.
                budget = gradio.Textbox(f"{_BUDGET:g}", visible="hidden")
                method = gradio.Dropdown(list(METHODS), value="hired", label="Method")
                ask = gradio.Button("Ask", variant="primary")
            with gradio.Column(scale=2, min_width=300):
                message = gradio.Markdown(elem_id="message", latex_delimiters=[])
                table = gradio.Markdown(elem_id="answers", latex_delimiters=[])
                figure = gradio.Image(
                    label="Kept and dropped tokens", format="jpeg", elem_id="figure", buttons=["download", "fullscreen"]
                )

        def answer(
            path: str | None, at: float | None, text: str, asked: str, name: str, request: gradio.Request
        ) -> Iterator[dict[Any, Any]]:
            """What is shown, step by step: the reduced answer first, the untouched one last."""
            empty = {table: "", figure: gradio.Image(None, alt_text=None)}
            if path is None:
                tabs.close(_tab(request))
                yield {message: "", number: gradio.Number(1, visible=False), **empty}
                return
            try:
                if not tabs.has(_tab(request), path):  # another file than before
                    count, at = len(pages_of(path)), 1
                    yield {number: gradio.Number(1, visible=count > 1, label=f"Page, of {count:,}")}
                yield from steps(_tab(request), path, int(at or 0), text.strip(), asked.strip(), name)
            except HiredError as error:
                yield {message: words.problem(error), **empty}

        def steps(tab: str, path: str, at: int, text: str, asked: str, name: str) -> Iterator[dict[Any, Any]]:
            from hired.viz import draw

            seen = tabs.see(tab, path, at)
            choice = reader.choose(seen, text or ANY, number_of(asked), name)
            chosen = choice.selection
            alt = words.described(chosen.tokens_full, chosen.tokens_kept)

            def drawn() -> Any:
                return gradio.Image(draw(seen.picture, chosen), alt_text=alt)

            if not text:
                yield {message: words.problem(EMPTY), table: "", figure: drawn()}
                return
            reduced = reader.reduced(seen, text, choice)
            untouched = reader.untouched(seen, text) if reader.knows(seen, text) else None

            def told() -> str:
                return words.answers(
                    reduced, untouched, f"budget {asked}, {name}", seen.encode_ms, reader.loaded.kind, reader.positions
                )

            yield {message: "", table: told()}
            yield {figure: drawn()}
            if untouched is None:
                untouched = reader.untouched(seen, text)
                yield {table: told()}

        def write(value: str) -> float | Any:
            """Where the slider stands at a budget that was typed."""
            with contextlib.suppress(ValueError):
                if 0.01 <= float(value) <= 1:
                    return float(value)
            return gradio.skip()

        quick: dict[str, Any] = {
            "queue": False,
            "show_progress": "hidden",
            "trigger_mode": "always_last",
            "api_visibility": "private",
        }
        share.input(lambda value: [f"{value:g}"] * 2, share, [typed, budget], **quick)
        gradio.on([typed.submit, typed.blur], lambda value: (value, write(value)), typed, [budget, share], **quick)
        # One listener for all, so that of moves in quick succession the last one is answered last.
        events = [file.change, number.change, question.submit, budget.change, method.change, ask.click]
        gradio.on(
            events,
            answer,
            [file, number, question, budget, method],
            [message, table, figure, number],
            trigger_mode="always_last",
            concurrency_limit=1,
            show_progress="minimal",
            show_progress_on=table,
            api_visibility="private",
        )

        def left(request: gradio.Request) -> None:
            tabs.close(_tab(request))

        page.unload(left)
    return page


def _tab(request: gradio.Request) -> str:
    return str(request.session_hash)
