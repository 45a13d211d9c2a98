"""Build an index: files of vectors -> a folder, whole or not there.

gather -> (fit what shortens) -> backend.build -> (measure recall) -> recipe -> index.json
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from echovec.errors import InputError, StorageError
from echovec.files.disk import storage_errors
from echovec.files.vectors import Block, VectorFile
from echovec.search import reduce as reducing
from echovec.search.backend import backend
from echovec.search.gather import Gathered, gather
from echovec.search.layout import Facts, check_out, clear, write_facts
from echovec.search.query import keep_recipe
from echovec.search.recall import find_truth, measure
from echovec.search.reduce import Reduce
from echovec.version import __version__

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
    name: str,
    dim: int | None,
    reduce: str,
    options: dict[str, Any],
    overwrite: bool,
) -> Facts:
    """Build; see `Index.build` for what can be asked and what can go wrong."""
    check_out(folder, overwrite=overwrite)
    sources: Sequence[Source] = (
        [vectors] if isinstance(vectors, str | Path | VectorFile) else vectors
    )
    source = gather(sources)
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
        if short or not made.exact:
            truth = find_truth(source)
            asked = short(truth.vectors_QD) if short else truth.vectors_QD
            opened = module.Opened(folder, facts)
            facts = replace(facts, recall=measure(opened, asked, truth))
        keep_recipe(folder, source.made, source.arrays)
        write_facts(folder, facts)
        clear(folder, (kept.name for kept in facts.files.values()))
    return facts


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
