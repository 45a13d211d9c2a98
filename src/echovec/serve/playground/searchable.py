"""Searchable: what the playground asks of an index; `echovec.search.Index` is one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from echovec.recipe import Role


class Hit(Protocol):
    """A row as an answer; the fields of `echovec.search`'s."""

    @property
    def rank(self) -> int:
        """1 is the best."""

    @property
    def score(self) -> float:
        """Its cosine with the query."""

    @property
    def id(self) -> str:
        """Its name."""

    @property
    def text(self) -> str | None:
        """What it is, if that is kept."""


class Points(Protocol):
    """Rows in the plane."""

    @property
    def ids(self) -> list[str]:
        """Names, in order."""

    @property
    def texts(self) -> list[str | None]:
        """What they are."""

    @property
    def fields(self) -> dict[str, list[Any]]:
        """Further values of each."""

    @property
    def xy_N2(self) -> Any:
        """Places."""

    @property
    def vectors_ND(self) -> Any:
        """Unit vectors."""


class Searchable(Protocol):
    """An index that can be asked."""

    @property
    def fingerprint(self) -> str:
        """Of the recipe whose vectors it holds."""

    def __len__(self) -> int: ...

    def search(self, query: Any, k: int = ...) -> Sequence[Hit]:
        """The k rows nearest to a vector."""

    def points(self, limit: int | None = None) -> Points:
        """Rows in the plane."""


@dataclass(frozen=True)
class Shown:
    """An index, and how queries to it are embedded."""

    index: Searchable
    name: str
    """What people call it."""

    role: Role | None = None
    """The side that asks."""

    instruction: str | None = None
    dimensions: int | None = None
