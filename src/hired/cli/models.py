"""``hired models``: the supported families."""

from __future__ import annotations

import sys

__all__ = ["run"]


def run() -> None:
    """Print each family: what it is, how it sees a picture, and what was verified."""
    from hired.families import supported

    bold, plain = ("\x1b[1m", "\x1b[0m") if sys.stdout.isatty() else ("", "")
    for i, family in enumerate(supported()):
        facts = {
            "classes": family.classes,
            "encoder": family.encoder,
            "partitions": family.partitions,
            "tokens": family.tokens,
            "verified": family.verified,
        }
        print(f"{chr(10) if i else ''}{bold}{family.name}{plain}")
        for name, words in facts.items():
            print(f"  {name:<12}{words}")
