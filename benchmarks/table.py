"""Tables from the result files: the README's, and the page `docs/results.md`.

python benchmarks/table.py            # writes docs/results.md, prints the README's table
"""

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "results.md"
NAMES = {
    "hired": "**HiRED**",
    "glean": "glean",
    "uniform": "every n-th token",
    "random": "random tokens",
    "overview": "full image only",
    "smaller": "smaller picture",
    "no-newlines": "all newlines gone",
    "blank-half": "a random half of blank paper gone",
    **{f"layer {layer}": f"HiRED, the budget divided by layer {layer}" for layer in range(5)},
}
FILES = {
    "forms.json": "Forms: 1 to 4 lines a page, the fonts of training",
    "forms-unseen-fonts.json": "Forms in fonts that training never saw",
    "dense.json": "Dense pages: more ink than a 20 % budget can hold",
    "checks.json": "Does the model mind missing tokens at all",
    "forms-newlines.json": 'Forms, `newlines="keep"`',
    "forms-positions.json": 'Forms, `positions="original"`',
    "forms-alpha.json": "Forms, `alpha=0.25`",
    "forms-eight.json": "Forms, `glean` on 8 % beside HiRED on 20 %",
    "aya-forms.json": "Forms, the second model",
    "aya-checks.json": "Forms, the second model: does it mind missing tokens",
    "stand-in.json": "The second model, the budget divided by another layer",
}
INTRODUCTION = """# Results

Written by `python benchmarks/table.py` from the files in [`benchmarks/`](../benchmarks/README.md); not edited by hand.
Exact match of the shipped model, and at the end of the second one, in percent, correct answers of all in brackets, over
the mean of visual tokens kept. At a budget of 100 % every method but the smaller picture is the untouched model.

What they say:

- The model hardly minds missing tokens as such (the two checks), so what a method loses is what it dropped.
- HiRED keeps what was asked for; at equal tokens the baselines do not. The text is too small for the full image or a
  smaller picture, and too sparse for tokens chosen blindly.
- Where the ink is more than the budget can hold (dense pages), accuracy falls with the budget.
- Kept tokens read about as well at their original positions as at consecutive ones, on this model. The default is
  consecutive, as published.
- At a budget of 10 % a smaller `alpha` reads better here: text is not legible in the full image, and less is spent
  on it.
- Typefaces that training never showed cost a good tenth of the score at any budget; HiRED keeps what the model can read
  of them. (The first edition, which had seen six typefaces, read half.)
- The initial layer's share of a sub-image goes with what is drawn there (correlations of 0.4 to 0.5 by kind of page,
  `initial-layer.json`), but divides the budget less well than the final layer does ([glean](glean.md)).
- `glean` on 8 % of the tokens is as good as HiRED on 20 %. All methods and kinds of pages:
  [leaderboard](leaderboard.md).
- The second model ([training](training.md#the-one-without-a-cls-token)) has no CLS token, and 2 x 2 patches make one
  visual token. Ranked by the attention that patches receive, pooled to tokens, its tokens are chosen nearly as well as
  the shipped model's by the CLS token: the stand-in means something, behind a merger too. A tile has 36 tokens there,
  so 10 % of them are few for four lines.
- Without a CLS token, layer 0 divides the budget worst. HiRED uses layer 1 there
  ([why](families.md#encoders-without-a-cls-token)).
"""


def rows(path: Path) -> list[dict[str, Any]]:
    """The measurements of a result file."""
    found: list[dict[str, Any]] = json.loads(path.read_text())["results"]
    return found


def table(path: Path = HERE / "forms.json", counts: bool = False) -> str:
    """A Markdown table: a row a method, a column a budget, exact match in percent, with `counts` in numbers too."""
    found = {(row["method"], row["budget"]): row for row in rows(path)}
    methods = [name for name in NAMES if any(method == name for method, _ in found)]
    budgets = sorted({budget for _, budget in found}, reverse=True)

    def head(budget: float) -> str:
        return f"{budget:.0%}" if counts else f"{budget:.0%} ({found['hired', budget]['tokens']:.0f} tokens)"

    def cell(row: dict[str, Any] | None) -> str:
        if row is None:
            return ""
        share = f"{100 * row['exact_match']:.1f}"
        return f"{share} ({row['correct']} of {row['n']}), {row['tokens']:.0f} tokens" if counts else share

    lines = ["| exact match, % | " + " | ".join(map(head, budgets)) + " |", "|---" * (len(budgets) + 1) + "|"]
    for method in methods:
        lines.append(f"| {NAMES[method]} | " + " | ".join(cell(found.get((method, b))) for b in budgets) + " |")
    return "\n".join(lines)


def page() -> str:
    """The page with all tables, and what they were measured on."""
    parts = [INTRODUCTION]
    for name, title in FILES.items():
        content = json.loads((HERE / name).read_text())
        machine, versions = content["machine"], content["versions"]
        made = ", ".join(f"{key} {value}" for key, value in versions.items())
        parts.append(f"## {title}\n\n{table(HERE / name, counts=True)}\n")
        parts.append(f"`{name}`: {machine['device']}, {machine['dtype']}, {machine['date']}; {made}.\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page())
    print(table())
