"""Share: as many docstrings as this machine embeds in a few minutes.

On two cores with AVX2 and no bfloat16 all of them would take 24 minutes (docs/LOG.md, 2026-11-28).
Rather than let one wait, the demo takes every second docstring, every fourth, and so on, and says
so. Every right answer of the fixed questions stays in: what is left out are others.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from echovec.demo.docstrings import Docstring
from echovec.demo.questions import QUESTIONS

if TYPE_CHECKING:
    from echovec.embedder import Embedder

STEPS = (1, 2, 4, 8, 16)
"""Every how many docstrings one may be taken."""

PATIENCE_S = 360.0
"""What all recipes together may take, in seconds."""

PROBE = 96
"""Texts to measure by, half of them to warm up; fewer docstrings are taken without measuring."""


def thinned(docs: Sequence[Docstring], every: int) -> list[Docstring]:
    """Every n-th docstring, and each that is a right answer, in their order."""
    right = {name for question in QUESTIONS for name in question.expected}
    return [doc for place, doc in enumerate(docs) if place % every == 0 or doc.name in right]


def seconds_a_text(embedders: Iterable[Embedder], docs: Sequence[Docstring]) -> float:
    """How long one text takes with all the recipes, by the clock, from a few of all lengths."""
    texts = [doc.text for doc in docs[:: -(-len(docs) // PROBE)]]
    took = 0.0
    for embedder in embedders:
        embedder.encode_document(texts[::2], show_progress_bar=False)
        begin = time.perf_counter()
        embedder.encode_document(texts[1::2], show_progress_bar=False)
        took += time.perf_counter() - begin
    return took / len(texts[1::2])


def affordable(seconds: float, count: int) -> int:
    """The smallest step at which `count` texts of so many seconds each are done in time."""
    return next((step for step in STEPS if seconds * count / step <= PATIENCE_S), STEPS[-1])
