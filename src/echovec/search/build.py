"""Build an index: files of vectors -> a folder, whole or not there.

gather -> (fit what shortens) -> backend.build -> (measure recall) -> recipe -> index.json
"""

from __future__ import annotations

import secrets
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from echovec.errors import InputError, StorageError
from echovec.files.disk import storage_errors
from echovec.files.vectors import Block, VectorFile
from echovec.search import reduce as reducing
from echovec.search.backend import Backend, Built, Module, backend
from echovec.search.gather import Gathered, gather
from echovec.search.layout import Facts, check_out, clear, read_facts, write_facts
from echovec.search.query import keep_recipe
from echovec.search.recall import LEAST_RECALL, find_truth, measure
from echovec.search.reduce import Reduce
from echovec.version import __version__

EXACT_ROWS = 100_000
"""Up to here an exact index is built unless another backend is asked for."""

Source = str | Path | VectorFile


@dataclass(frozen=True)
class Shortened:
    """A source whose vectors are shortened as they come."""

    source: Gathered
    reduce: Reduce

    @property
    def schema(self) -> Any:
        """Of the rows."""
        return self.source.schema

    @property
    def num_rows(self) -> int:
        """Of the source."""
        return self.source.num_rows

    @property
    def dimension(self) -> int:
        """Numbers in each vector afterwards."""
        return self.reduce.dim

    def blocks(self) -> Iterator[Block]:
        """All rows in order."""
        for block in self.source.blocks():
            yield Block(block.rows, self.reduce(block.vectors_ND))


def build_index(
    vectors: Source | Sequence[Source],
    folder: Path,
    *,
    name: str | None,
    dim: int | None,
    reduce: str,
    options: dict[str, Any],
    overwrite: bool,
) -> Facts:
    """Build; see `Index.build` for what can be asked and what can go wrong."""
    check_out(folder, overwrite=overwrite)
    source = gather(_listed(vectors))
    name = choose_backend(name, source.num_rows, options)
    module = backend(name)
    module.check(options)
    if dim is None and reduce != "first":
        raise InputError(f"reduce {reduce!r} needs dim: how many numbers to keep")
    with _locked(folder):
        token = secrets.token_hex(4)
        short = None
        if dim is not None:
            short = reducing.fit(source.blocks(), source.dimension, dim, reduce)
        made = module.build(folder, token, Shortened(source, short) if short else source, options)
        facts = Facts(
            backend=name,
            rows=source.num_rows,
            dimension=source.dimension,
            made=source.made,
            options={**made.options, "dim": dim, "reduce": None if dim is None else reduce},
            files={**made.files, **(reducing.save(folder, token, short) if short else {})},
            versions={"echovec": __version__},
        )
        facts = _measured(module, folder, facts, made, source, short)
        recipe = keep_recipe(folder, token, source.made, source.arrays)
        facts = replace(facts, files={**facts.files, **recipe})
        write_facts(folder, facts)
        clear(folder, facts)
    return facts


def _measured(
    module: Module,
    folder: Path,
    facts: Facts,
    made: Built,
    source: Gathered,
    short: Reduce | None,
) -> Facts:
    """The facts with the recall, and with the quickest options whose recall suffices."""
    facts = replace(facts, options={**facts.options, **made.tries[0]})
    if made.exact and not short:
        return facts
    truth = find_truth(source)
    asked = short(truth.vectors_QD) if short else truth.vectors_QD
    for further in made.tries:
        facts = replace(facts, options={**facts.options, **further})
        recall = measure(module.Opened(folder, facts), asked, truth)
        if recall is None or recall["recall"] >= LEAST_RECALL:
            break
    return replace(facts, recall=recall)


def update_index(
    vectors: Source | Sequence[Source], folder: Path, facts: Facts, opened: Backend
) -> Facts:
    """Add rows to an index, in place of those with the same ids; see `Index.update`."""
    source = gather(_listed(vectors))
    if difference := facts.made.differs(source.made):
        raise InputError(
            f"{folder} and {source.files[0].path} were made differently and cannot be compared: "
            f"{difference}; embed with the index's recipe"
        )
    short = reducing.load(folder, facts.options["dim"], facts.files)
    with _locked(folder):
        _check_current(folder, facts)
        opened.upsert(Shortened(source, short) if short else source)
        facts = replace(facts, rows=len(opened))
        write_facts(folder, facts)
    return facts


def remove_rows(ids: list[str], folder: Path, facts: Facts, opened: Backend) -> tuple[Facts, int]:
    """Delete rows of an index; see `Index.remove`."""
    with _locked(folder):
        _check_current(folder, facts)
        removed = opened.delete(ids)
        facts = replace(facts, rows=len(opened))
        write_facts(folder, facts)
    return facts, removed


def _check_current(folder: Path, facts: Facts) -> None:
    """Refuse to write into an index that another build has replaced since it was opened."""
    if read_facts(folder).files != facts.files:
        raise StorageError(f"{folder} was built again since it was opened; open it again")


def _listed(vectors: Source | Sequence[Source]) -> Sequence[Source]:
    return [vectors] if isinstance(vectors, str | Path | VectorFile) else vectors


def choose_backend(name: str | None, rows: int, options: dict[str, Any]) -> str:
    """The backend asked for, or the one that fits the rows: see `Index.build`."""
    if name is not None:
        return name
    asked_exact = options["dtype"] != "float32" or options["codes"] is not None
    if rows <= EXACT_ROWS or asked_exact:
        return "exact"
    if find_spec("lancedb") is None:
        warnings.warn(
            f'{rows:,} rows are many for exact search; pip install "echovec[search]" for a '
            "graph of neighbours, or use --codes binary",
            stacklevel=2,
        )
        return "exact"
    return "lance"


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    from filelock import FileLock, Timeout

    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise StorageError(f"another build is writing to {folder}; wait for it") from None
    try:
        yield
    finally:
        lock.release()
