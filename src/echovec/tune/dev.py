"""Dev: texts and tasks that a recipe may be chosen by; test data cannot get in.

A set is a folder of docs/local-data.md. Of each one the development split is taken: `validation`,
`val`, `dev`, else `train`. Files of other splits are not opened, and a `DevTask` of another split
cannot be made. What is sampled of each set is in samples.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from echovec.errors import InputError

DEVELOPMENT = ("validation", "val", "dev", "train")
"""Splits that anything may be chosen by, best first."""

CATEGORIES = ("STS", "PairClassification", "Classification", "Clustering", "Retrieval")

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class DevTask:
    """One task; its rows are places in the list of all texts.

    Raises:
        InputError: the split is not one that anything may be chosen by.
    """

    name: str

    category: str
    """One of CATEGORIES."""

    split: str
    """Where every text and judgement is from."""

    rows: Mapping[str, Rows]
    """Texts by their part in the task: "first" and "second", "learn" and "ask", "all", or
    "queries" and "documents"."""

    gold: Mapping[str, NDArray[Any]]
    """What is to be found: "score", "label", "learn" and "ask" labels, or "grade" [Q, N]."""

    def __post_init__(self) -> None:
        if self.split not in DEVELOPMENT:
            raise InputError(
                f"{self.name}: nothing may be chosen on the split {self.split!r}; there are "
                f"{', '.join(DEVELOPMENT)}"
            )
        if self.category not in CATEGORIES:
            raise InputError(f"{self.name}: category {self.category!r}")


@dataclass(eq=False)
class DevData:
    """All texts to choose by, each once, and the tasks over them."""

    texts: list[str] = field(default_factory=list)
    tasks: list[DevTask] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    """Sets that are not used, with the reason."""

    _place: dict[str, int] = field(default_factory=dict, repr=False)

    def place(self, texts: Sequence[str]) -> Rows:
        """The places of texts in the list; new ones are added to it."""
        for text in texts:
            if text not in self._place:
                self._place[text] = len(self.texts)
                self.texts.append(text)
        return np.array([self._place[text] for text in texts], dtype=np.int64)
