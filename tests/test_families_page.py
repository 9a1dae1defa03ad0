"""The page on families says what the registry says."""

from pathlib import Path

from hired.families import FAMILIES, Family
from hired.vllm import ARCHITECTURES

PAGE = Path(__file__).parents[1] / "docs" / "families.md"


def row(family: Family) -> str:
    """A family's row in the table of the page."""
    served = "yes" if family.classes.split()[0] in ARCHITECTURES else "no"
    facts = (family.name, family.classes, family.encoder, family.partitions, family.tokens, served, family.verified)
    return "| " + " | ".join(facts) + " |"


def test_the_table_holds_every_family() -> None:
    lines = PAGE.read_text().splitlines()
    assert [line for line in lines if line in {row(family) for family in FAMILIES}] == list(map(row, FAMILIES))
