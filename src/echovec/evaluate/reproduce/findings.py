"""Findings: what an experiment hands back: claims with verdicts, tables and plots, as plain data.

An experiment is a function `(embedder, data, options) -> Findings`; it computes and writes nothing.
page.py turns Findings into HTML and Markdown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from echovec.evaluate.interval import SEED
from echovec.evaluate.report_parts import Plot, Table
from echovec.evaluate.reproduce.verdict import Claim, Verdict

if TYPE_CHECKING:
    from echovec.embedder import Embedder


@dataclass(frozen=True, kw_only=True)
class Options:
    """What every experiment can be told."""

    sample: int | None = None
    """Items of each task at most; None takes the experiment's own size, 0 every item."""

    seed: int = SEED
    """What the sample is drawn with; resamples always have the same seed."""

    cache: Path | None = None
    """Folder for vectors and results, so that a second run needs no model time; None: a
    temporary one."""

    say: Callable[[str], None] = lambda line: None
    """Called with a line for people when a step begins."""

    def size(self, default: int) -> int | None:
        """Items of each task at most, None for all, given the experiment's default."""
        chosen = default if self.sample is None else self.sample
        return chosen or None


@dataclass(frozen=True, kw_only=True)
class Findings:
    """The outcome of one experiment; the first claim is the one it was made for."""

    experiment: str
    title: str
    question: str
    """What is asked, in a sentence or two."""

    claims: tuple[Claim, ...]
    tables: tuple[Table, ...] = ()
    plots: tuple[Plot, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    """Model, recipes, data, sizes, seeds: what a reader needs to do it again."""

    notes: tuple[str, ...] = ()
    """What to know before believing it."""

    @property
    def verdict(self) -> Verdict:
        """The first claim's."""
        return self.claims[0].verdict


Experiment = Callable[["Embedder", Path | None, Options], Findings]
