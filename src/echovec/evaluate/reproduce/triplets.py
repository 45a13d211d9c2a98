"""Triplets: the toy data of the paper's section 3, written for this project.

A situation is a text of two halves A and B, each told again in slightly other words (near), told
again in quite other words (far), and replaced by something else (-). The structures put these
together; q and s+ mean the same, q and s- do not:

    structure            q        s+         s-          what differs, what tempts
    S1 (early)           [A, B]   [A+, B+]   [A-, B]     the first half; the second is word for word
    S2 (late)            [A, B]   [A+, B+]   [A, B-]     the second half; the first is word for word
    identical prefix     [A, B]   [A, B+]    [A, B-]     as S2, but the positive shares A too

A+ and B+ are the near ones, which is what the authors asked their writer for ("slightly other
words"), or the far ones, where q and s+ share one word in nine and the words speak for s-.

S1 and S2 are as version 2's text defines them (its appendix tables have the labels the other way
round), the third is "structure 3" of version 1 and of LLM2Vec's replication. Each situation stands
once in each structure, so the structures differ in the place of the difference alone. The authors'
own triplets came from a language model's prompt; of theirs only 28 are printed, and none is used.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Situation:
    """The parts that the structures are made of; `join` stands between the halves."""

    topic: str
    join: str
    a: str
    b: str
    a_near: str
    b_near: str
    a_far: str
    b_far: str
    a_negative: str
    b_negative: str


@dataclass(frozen=True)
class Halves:
    """One text, and where its first half ends."""

    first: str
    join: str
    second: str

    @property
    def text(self) -> str:
        """The whole text."""
        return f"{self.first}{self.join}{self.second}"


@dataclass(frozen=True)
class Triplet:
    """A text, one that means the same and one that does not."""

    topic: str
    query: Halves
    positive: Halves
    negative: Halves


Part = tuple[str, str]
Wording = Literal["near", "far"]
WORDINGS: tuple[Wording, ...] = ("near", "far")

STRUCTURES: Mapping[str, tuple[Part, Part, Part]] = {
    "S1": (("a", "b"), ("a_positive", "b_positive"), ("a_negative", "b")),
    "S2": (("a", "b"), ("a_positive", "b_positive"), ("a", "b_negative")),
    "prefix": (("a", "b"), ("a", "b_positive"), ("a", "b_negative")),
}
"""Structure to the parts of q, s+ and s-; a positive part is the near or the far one."""

SHOWN: Mapping[str, str] = {
    "S1": "S1, first halves differ",
    "S2": "S2, second halves differ",
    "prefix": "identical prefix",
}
"""What pages call the structures."""


@cache
def situations() -> tuple[Situation, ...]:
    """All situations, in the order of the file."""
    lines = (files(__package__) / "toy_triplets.jsonl").read_text("utf-8").splitlines()
    return tuple(Situation(**json.loads(line)) for line in lines)


def triplets(structure: str, wording: Wording = "near") -> list[Triplet]:
    """One triplet per situation, in their order.

    Args:
        structure: a key of STRUCTURES.
        wording: which paraphrases the positives are made of.
    """
    parts = STRUCTURES[structure]
    return [Triplet(s.topic, *(_halves(s, part, wording) for part in parts)) for s in situations()]


def _halves(situation: Situation, part: Part, wording: Wording) -> Halves:
    first, second = (getattr(situation, name.replace("positive", wording)) for name in part)
    return Halves(first, situation.join, second)
