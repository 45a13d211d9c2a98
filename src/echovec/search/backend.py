"""Backend: what an index is searched with, and the table of those there are.

    exact    every row is compared with the query: up to about 100,000 rows, nothing is missed
    lance    LanceDB's graph of neighbours: more rows, filters, full text, updates

One suite of tests runs over all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Protocol

from echovec.errors import InputError
from echovec.files.parquet import Vectors
from echovec.files.vectors import Block

if TYPE_CHECKING:
    from echovec.search.layout import Facts, Kept

BACKENDS = {"exact": "echovec.search.exact", "lance": "echovec.search.lance"}
"""Name -> the module that has `build` and `Opened`."""


@dataclass(frozen=True)
class Hit:
    """One row as an answer."""

    rank: int
    """1 is the best."""

    score: float
    """Its cosine with the query; where the words of a query count too, what ranks the hits."""

    id: str
    text: str | None
    """None where the vectors were embedded with --no-text."""

    fields: dict[str, Any] = field(default_factory=dict)
    """Whatever else the row has."""


@dataclass(frozen=True)
class Ask:
    """What a search wants beside nearness."""

    k: int
    filter: str | None = None
    """A condition on fields, as in SQL's WHERE."""
    words: Sequence[str] | None = None
    """For each query, words that hits should hold."""


class Source(Protocol):
    """What a backend is built of: rows with unit vectors, in order, as often as asked for."""

    @property
    def schema(self) -> Any:
        """The Arrow schema of the rows."""

    @property
    def num_rows(self) -> int:
        """Of all blocks."""

    @property
    def dimension(self) -> int:
        """Numbers in each vector."""

    def blocks(self) -> Iterator[Block]:
        """All rows."""


@dataclass(frozen=True)
class Built:
    """What a backend has made."""

    options: dict[str, Any]
    """What to open it with; kept in index.json."""

    files: dict[str, Kept]

    exact: bool
    """Whether its answers are those of exact float32 search; if not, its recall is measured."""

    tries: tuple[dict[str, Any], ...] = ({},)
    """Further options, quickest first: the first with a recall of `LEAST_RECALL` is taken, or the
    last."""


class Backend(Protocol):
    """An opened index, without the embedder."""

    updatable: ClassVar[bool]
    """Whether it has `upsert` and `delete`, `matching`, filters and words."""

    def __len__(self) -> int: ...

    def nearest(self, queries_QD: Vectors, ask: Ask) -> list[list[Hit]]:
        """The hits of each query [q, d] (unit length), best first, `ask.k` of them or all."""

    def matching(self, ask: Ask) -> list[list[Hit]]:
        """The hits of each of `ask.words` by those words alone."""

    def blocks(self) -> Iterator[Block]:
        """All rows with their unit vectors as stored, in order."""

    def upsert(self, source: Source) -> None:
        """Add rows; those whose id is there replace the old ones. On the disk when it returns."""

    def delete(self, ids: Sequence[str]) -> int:
        """Delete rows by id; returns how many there were. On the disk when it returns."""


class Module(Protocol):
    """What a backend's module has."""

    @staticmethod
    def check(options: dict[str, Any]) -> None:
        """Raise an InputError for options it does not know, before any work."""

    @staticmethod
    def build(folder: Path, token: str, source: Source, options: dict[str, Any]) -> Built:
        """Write the files of a new index, `token` in their names."""

    @staticmethod
    def Opened(folder: Path, facts: Facts) -> Backend:
        """Open it."""


def backend(name: str) -> Module:
    """The module of a backend by its name.

    Raises:
        InputError: there is none of this name.
        DependencyError: it needs an extra.
    """
    if name not in BACKENDS:
        raise InputError(f"backend {name!r}; there are {', '.join(BACKENDS)}")
    module: Any = import_module(BACKENDS[name])
    return module  # type: ignore[no-any-return]


def hit(rank: int, score: float, row: dict[str, Any]) -> Hit:
    """A row as a hit."""
    fields = dict(row)
    return Hit(rank, score, fields.pop("id"), fields.pop("text", None), fields)


def refuse(what: str) -> NoReturn:
    """Raise the InputError for what an exact index cannot do."""
    raise InputError(
        f"{what}: an exact index knows nearness only; build it again with --backend lance"
    )
