"""Files of vectors as one stream for a build: checked, of unit length, each id once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from echovec.errors import InputError, NonFiniteError
from echovec.files.known import Known, hash_texts
from echovec.files.parquet import Vectors
from echovec.files.vectors import Block, Made, VectorFile, open_vectors
from echovec.search.layout import INDEX


@dataclass(frozen=True)
class Gathered:
    """Several files as one; `blocks()` may be asked for again and again."""

    files: tuple[VectorFile, ...]
    schema: Any

    @property
    def made(self) -> Made:
        """How all vectors were made."""
        return self.files[0].made

    @property
    def num_rows(self) -> int:
        """Of all files."""
        return sum(file.num_rows for file in self.files)

    @property
    def dimension(self) -> int:
        """Numbers in each vector."""
        return self.files[0].dimension

    @property
    def arrays(self) -> Path | None:
        """The file of the recipe's arrays, where one of the files has it."""
        return next((file.arrays for file in self.files if file.arrays), None)

    def blocks(self) -> Iterator[Block]:
        """All rows in order, vectors of unit length.

        Raises:
            InputError: an id is used twice.
            NonFiniteError: a vector is not finite, or nothing but zeros.
        """
        known, start = Known(), 0
        for file in self.files:
            for block in file.blocks():
                _check_ids(block.ids, known, start, file.path)
                vectors_ND = _unit(block, start, file.path)
                yield Block(padded(block.rows, self.schema), vectors_ND)
                start += len(vectors_ND)


def gather(sources: Sequence[str | Path | VectorFile]) -> Gathered:
    """Open paths, and take files that are open already; all made in one way.

    Raises:
        InputError: see `open_vectors`; or one is an index; or a field has one kind of value here,
            another there.
        StorageError: a file is damaged.
    """
    import pyarrow as pa

    for one in sources:
        if not isinstance(one, VectorFile) and Path(one, INDEX).is_file():
            raise InputError(f"{one} is an index; name the vectors that it was made of")
    files = open_vectors(sources)
    try:
        schema = pa.unify_schemas([file.schema for file in files])
    except pa.ArrowException as error:
        raise InputError(f"a field has two kinds of values in these files: {error}") from error
    found = Gathered(tuple(files), schema)
    if not found.num_rows:
        raise InputError(f"{files[0].path} holds no vectors; embed some texts first")
    return found


def _check_ids(ids: list[str], known: Known, start: int, path: Path) -> None:
    hashes = hash_texts(ids)
    here = np.arange(start, start + len(ids), dtype=np.int64)
    first = known.add(hashes, here)
    if len(twice := np.flatnonzero(first != here)):
        row = int(twice[0])
        raise InputError(
            f'{path}: the id "{ids[row]}" is that of two rows ({first[row]:,} and {here[row]:,} of '
            "all files); embed the inputs in one run, or give ids with --id-field"
        )


def _unit(block: Block, start: int, path: Path) -> Vectors:
    lengths_N = np.linalg.norm(block.vectors_ND, axis=1, keepdims=True)
    bad = np.flatnonzero(~(np.isfinite(lengths_N[:, 0]) & (lengths_N[:, 0] > 0)))
    if len(bad):
        row = int(bad[0])
        what = "zero" if lengths_N[row, 0] == 0 else "not finite"
        raise NonFiniteError(
            f'{path}: the vector of "{block.ids[row]}" is {what}; embed that text again',
            row=start + row,
        )
    unit: Vectors = block.vectors_ND / lengths_N
    return unit


def padded(rows: Any, schema: Any) -> Any:
    """An Arrow table with the columns of `schema`: those that it lacks are null."""
    import pyarrow as pa

    columns = [
        rows.column(f.name).cast(f.type)
        if f.name in rows.schema.names
        else pa.nulls(rows.num_rows, f.type)
        for f in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)
