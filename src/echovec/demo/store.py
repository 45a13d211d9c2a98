"""The demo's Parquet files: a second run reads them back where they still fit.

A file fits if it holds the same texts under the same recipe fingerprint, and if its vectors are
whole: finite, of unit length, one per text. Anything else is said and embedded again.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from echovec.demo.docstrings import Docstring
from echovec.errors import InputError, StorageError

if TYPE_CHECKING:
    import numpy as np

    from echovec.recipe import Recipe

_MAX_LENGTH_ERROR = 1e-3


def texts_hash(docs: Sequence[Docstring]) -> str:
    """The sha256 over all names and texts in their order."""
    pairs = [[doc.name, doc.text] for doc in docs]
    return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()


def vectors_path(folder: Path, recipe_name: str) -> Path:
    """Where the vectors of a recipe lie: FOLDER/stdlib.NAME.parquet."""
    return folder / f"stdlib.{re.sub(r'[^A-Za-z0-9._-]', '_', recipe_name)}.parquet"


def make_folder(folder: Path) -> None:
    """Make the folder for the files, before the long work rather than after it.

    Raises:
        InputError: There is a file of that name.
        StorageError: The disk refuses.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"{folder} is not a folder; give another one with --out") from error
    except OSError as error:
        raise StorageError(f"cannot make {folder}: {error.strerror}; give another --out") from error


def save(path: Path, docs: Sequence[Docstring], vectors: np.ndarray, recipe: Recipe) -> None:
    """Write the texts and their vectors; `path` is whole or as it was before.

    Raises:
        StorageError: The disk is full, read-only or broken.
    """
    metadata = {
        "echovec.recipe": recipe.to_json(),
        "echovec.fingerprint": recipe.fingerprint,
        "echovec.texts": texts_hash(docs),
        "echovec.run": json.dumps({"role": "document"}),  # for `echovec index`
    }
    _save(path, [doc.name for doc in docs], [doc.text for doc in docs], vectors, metadata)


def read_back(
    path: Path, docs: Sequence[Docstring], fingerprint: str
) -> tuple[np.ndarray | None, str]:
    """The saved vectors of `docs`, or None and why not ("cannot be read: ...").

    The reason is empty if there is no such file, which is nothing to remark on.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            metadata = file.schema_arrow.metadata or {}
            for key, wanted, other in (
                ("echovec.fingerprint", fingerprint, "was made with another recipe or model"),
                ("echovec.texts", texts_hash(docs), "holds other texts"),
            ):
                if metadata.get(key.encode()) != wanted.encode():
                    return None, other
            vectors = _to_numpy(file.read(["embedding"]).column("embedding"))
    except FileNotFoundError:
        return None, ""
    except (pa.ArrowException, OSError, KeyError, TypeError) as error:
        return None, f"cannot be read: {str(error).splitlines()[0]}"
    problem = vectors_problem(vectors, len(docs))
    return (None, problem) if problem else (vectors, "")


def vectors_problem(vectors: np.ndarray, count: int) -> str:
    """What is wrong with vectors that should be `count`, finite, of unit length; empty if nothing.

    Unit length is meant to within 0.001.
    """
    import numpy as np

    if len(vectors) != count:
        return f"holds {len(vectors):,} vectors for {count:,} texts"
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    # Written so that NaN and infinity count as bad.
    bad = np.flatnonzero(~(np.abs(lengths - 1) <= _MAX_LENGTH_ERROR))
    if len(bad):
        return f"has a vector of length {lengths[bad[0]]:g} in row {bad[0]}, where 1 was expected"
    return ""


def _to_numpy(column: Any) -> np.ndarray:
    import numpy as np
    import pyarrow as pa

    if not pa.types.is_fixed_size_list(column.type) or column.null_count:
        raise TypeError(f"column embedding is {column.type}, with {column.null_count} nulls")
    flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat, dtype=np.float32).reshape(-1, column.type.list_size)


def _save(
    path: Path,
    ids: Sequence[str],
    texts: Sequence[str],
    vectors: np.ndarray,
    metadata: Mapping[str, str],
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    embedding = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
    columns = {"id": pa.array(ids), "text": pa.array(texts), "embedding": embedding}
    table = pa.table(columns).replace_schema_metadata(dict(metadata))
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        pq.write_table(table, unfinished)
        unfinished.replace(path)
    except OSError as error:
        reason = error.strerror or error
        raise StorageError(f"cannot write {path}: {reason}; free space or use --out") from error
    finally:
        # After the rename there is nothing left; after an error or Ctrl-C there may be.
        unfinished.unlink(missing_ok=True)
