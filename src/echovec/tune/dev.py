"""Dev: texts and tasks that a recipe may be chosen by; test data cannot get in.

A set is a folder of docs/local-data.md. Of each one the development split is taken: `validation`,
`val`, `dev`, else `train`. Files of other splits are not opened, and a `DevTask` of another split
cannot be made. What is sampled of each set is in samples.py.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from echovec.errors import InputError
from echovec.text.check import text_problem

DEVELOPMENT = ("validation", "val", "dev", "train")
"""Splits that anything may be chosen by, best first."""

CATEGORIES = ("STS", "PairClassification", "Classification", "Clustering", "Retrieval")

_ENDINGS = (".jsonl", ".jsonl.gz")

Rows = NDArray[np.int64]
Row = dict[str, Any]


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


def split_file(folder: Path, stem: str) -> Path | None:
    """`STEM.jsonl` or `STEM.jsonl.gz` of a folder, or None."""
    files = (folder / f"{stem}{ending}" for ending in _ENDINGS)
    return next((file for file in files if file.is_file()), None)


def read_rows(file: Path) -> list[Row]:
    """All lines of a file; InputError with file and line where one is broken."""
    rows: list[Row] = []
    number = 0
    try:
        opener = gzip.open if file.suffix == ".gz" else open
        with opener(file, "rt", encoding="utf-8") as lines:
            for line in lines:
                number += 1
                if not line.strip():
                    continue
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError("not a JSON object")
                rows.append(row)
    except (OSError, EOFError, ValueError) as error:
        raise InputError(f"{file}, line {number}: cannot be read ({error})") from None
    return rows


def check_rows(folder: Path, rows: Sequence[Row], fields: Sequence[str]) -> None:
    """InputError unless every row has these fields, all but "label" as texts."""
    for number, row in enumerate(rows, 1):
        for name in fields:
            value = row.get(name)
            if name == "label":
                problem = "is missing" if value is None else None
            else:
                problem = text_problem(value)
            if problem:
                raise InputError(f"{folder}, row {number}: {name!r} {problem}")
