"""Parquet files of vectors: opened so that a damaged one is an error that names it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from echovec.errors import StorageError

Vectors = NDArray[np.float32]


def give_memory_back() -> None:
    """Let Arrow return what it frees, where its own pool would keep it; the environment goes first.

    A corpus job's peak is 25 MB lower for it, and flatter (docs/LOG.md). Read by pyarrow when it is
    first imported, so this is for a program that does nothing else.
    """
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The file as a pyarrow `ParquetFile`.

    Raises:
        StorageError: it is not Parquet, or what is read of it is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, StorageError):
            raise
        raise damaged(path, str(error).splitlines()[0]) from error


def to_numpy(column: Any) -> Vectors:
    """A column of fixed-size lists as float32 [n, d]; a view where it can be."""
    if hasattr(column, "combine_chunks"):
        column = column.combine_chunks()
    flat = column.flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat, dtype=np.float32).reshape(-1, column.type.list_size)


def damaged(path: Path, reason: str) -> StorageError:
    """The error for a shard that is not what its manifest says."""
    return StorageError(
        f"{path} is damaged ({reason}); run the `echovec embed` that made it again: for a folder "
        "with --repair, which does what is damaged again and keeps the rest"
    )
