"""Counts as the verbs print them."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """A number and its noun, one or many: "1 row", "1,234 rows", "2 passes"."""
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"
