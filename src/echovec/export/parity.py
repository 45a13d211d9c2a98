"""Parity: an export's vectors against the embedder's own, on texts that are made to break it.

Four groups: real sentences in several scripts, hostile ones, those that spell the tokenizer's own
tokens, and texts longer than the budget. All are unit vectors, so a difference of 1e-6 is rounding.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from echovec.embedder import Embedder
from echovec.errors import TruncationWarning
from echovec.recipe import ROLES, Role

Vectors = NDArray[np.float32]
Encode = Callable[[Sequence[str], Role], Vectors]
"""An export: texts and a role to unit vectors [n, d]."""

REAL = (
    "Reading a text twice lets its first word see its last.",
    "The bank was steep and muddy, so we walked back.",
    "def mean(xs):\n    return sum(xs) / len(xs)",
    "SELECT name FROM users WHERE id = 42; -- who?",
    "Der Zug nach Köln fährt um 7:45 Uhr von Gleis 12 ab.",
    "Le chat s'est assis sur le tapis, n'est-ce pas ?",
    "東京は日本の首都です。",
    "Москва — столица России.",
    "القط جالس على السجادة",
    "किताब मेज़ पर है।",
    "A cat sat on the mat; the mat was red, the cat was not.",
    "What is the difference between a list and a tuple?",
)
HOSTILE = (
    "a",
    ".",
    " leading blank",
    "trailing blank ",
    "   three   blanks   ",
    "\n\nlines\n\n\n",
    "tab\tseparated\tvalues",
    "{text} {instruction} {{braces}} {{{ }}}",
    "Rewrite the following paragraph: {text}. The rewritten paragraph: {text}",
    "👩‍👩‍👧‍👦 🏳️‍🌈 e\u0301 \u200b zero width",
    "\u202eright to left override",
    "NUL \x00 and bell \x07",
    "Zalgo t\u0335e\u0336x\u0337t\u0338",
    "x" * 200,
    "1234567890" * 8,
    '"quoted" \'text\' means in one word:"',
    "ﬁ ligature, ½, ², Ⅷ",
    "the the the the the the the",
)


@dataclass(frozen=True)
class Group:
    """Texts of one kind, and how far apart their vectors were."""

    name: str
    texts: int
    max_diff: float
    """The largest difference between any two numbers of unit vectors."""
    lowest_cosine: float


@dataclass(frozen=True)
class Parity:
    """What an export was compared on, and whether it is the same embedder."""

    groups: tuple[Group, ...]
    least_cosine: float
    """What each group has to reach."""
    most_diff: float
    """What no number may exceed."""
    route: str = ""
    """Which export this is."""
    notes: tuple[str, ...] = ()
    """What was tried before, and why it was not taken."""

    @property
    def holds(self) -> bool:
        """Whether every group is within the limits."""
        return all(
            group.lowest_cosine >= self.least_cosine and group.max_diff <= self.most_diff
            for group in self.groups
        )

    @property
    def max_diff(self) -> float:
        """Over all groups."""
        return max(group.max_diff for group in self.groups)

    @property
    def lowest_cosine(self) -> float:
        """Over all groups."""
        return min(group.lowest_cosine for group in self.groups)

    def lines(self) -> list[str]:
        """The comparison for people, a line for each group."""
        head = f"{'texts':<28}{'count':>6}{'max difference':>17}{'lowest cosine':>16}"
        rows = [
            f"{g.name:<28}{g.texts:>6}{g.max_diff:>17.1e}{g.lowest_cosine:>16.7f}"
            for g in self.groups
        ]
        same = "same vectors" if self.least_cosine > 0.9999 else "near enough"
        verdict = same if self.holds else "NOT the same vectors"
        limits = f"limits: difference {self.most_diff:g}, cosine {self.least_cosine:g}"
        return [*self.notes, head, *rows, f"{verdict} ({limits})"]


def parity_texts(embedder: Embedder) -> dict[str, list[str]]:
    """The groups of texts: an embedder's own tokens and its budget decide two of them."""
    inner = getattr(embedder.tokenizer, "inner", None)
    added = [str(token) for token in getattr(inner, "added_tokens_decoder", {}).values()][:32]
    spelled = [f"a {spelling} b{spelling}" for spelling in added] or ["a </s> b"]
    budget = embedder.definition.max_tokens
    words = " ".join(REAL)
    repeats = 2 + 4 * budget // max(1, len(words.split()))
    longest = [
        " ".join([words] * repeats),
        "alpha beta " * (2 * budget),
        "word" + " word" * (budget - 2),
        "x" * (6 * budget),
    ]
    return {
        "real": list(REAL),
        "hostile": list(HOSTILE),
        "spelling special tokens": spelled,
        "longer than the budget": longest,
    }


def compare(
    embedder: Embedder,
    export: Encode,
    *,
    route: str,
    roles: Sequence[Role] = ROLES,
    texts: dict[str, list[str]] | None = None,
    limits: tuple[float, float] | None = None,
) -> Parity:
    """Encode all groups on both sides, in every role, and measure.

    Args:
        embedder: whose vectors count.
        export: the other side.
        route: what to call it.
        roles: which roles both sides have; those of one recipe are compared on "real" only.
        texts: groups of texts; by default `parity_texts`.
        limits: the least cosine and the largest difference allowed; by default by dtype: 0.99999
            and 1e-4 in float32, where only rounding may differ; 0.99 and 0.1 in narrower ones.
    """
    exact = embedder.backbone.dtype in ("float32", "float64")
    least, most = limits or ((0.99999, 1e-4) if exact else (0.99, 0.1))
    views = embedder.definition.views
    other = [role for role in roles if views[role] != views[roles[0]]]
    groups = []
    for name, own in (texts or parity_texts(embedder)).items():
        diffs, cosines = [], []
        for role in roles if name == "real" else [roles[0], *other]:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", TruncationWarning)  # it is what is tried here
                mine = embedder.encode(own, role=None if role == "symmetric" else role)
                theirs = np.asarray(export(own, role), dtype=np.float32)
            diffs.append(float(np.abs(mine - theirs).max()))
            cosines.append(float(_cosines(mine, theirs).min()))
        groups.append(Group(name, len(own), max(diffs), min(cosines)))
    return Parity(tuple(groups), least, most, route)


def _cosines(a: Vectors, b: Vectors) -> NDArray[np.float64]:
    wide, other = a.astype(np.float64), b.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1) * np.linalg.norm(other, axis=1)
    # NaN compares false everywhere: a vector that is not finite must fail, so it counts as -1.
    cosines = (wide * other).sum(axis=1) / np.maximum(lengths, 1e-30)
    return np.where(np.isfinite(cosines), cosines, -1.0)
