"""One shard: a Parquet file of id, text, what is kept, embedding, truncated and the text's hash.

Vectors are not compressed, as they would not shrink, and lie in groups of 1,024 rows, so that a few
can be fetched without the rest.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from echovec.corpus.formats import Chunk, Contents, kept_arrays
from echovec.files.known import Hashes
from echovec.files.parquet import Vectors, opened, to_numpy

GROUP_ROWS = 1024
SHARDS = f"rows-{12 * '[0-9]'}-{12 * '[0-9a-f]'}.parquet"  # a glob, and an exact one

Flags = NDArray[np.bool_]


def shard_name(start: int, slice_hash: str) -> str:
    """The name is the key: where the slice starts, and the hash of what is in it."""
    return f"rows-{start:012d}-{slice_hash[:12]}.parquet"


def write_shard(file: IO[bytes], chunk: Chunk, hashes: Hashes, contents: Contents) -> None:
    """The file for `chunk`, group after group; equal input gives equal bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    vectors_ND = np.ascontiguousarray(chunk.vectors_ND, dtype=np.float32)
    dimension = vectors_ND.shape[1]
    columns: dict[str, Any] = {"id": pa.array([row.id for row in chunk.rows], pa.string())}
    if contents.keep_text:
        columns["text"] = pa.array([row.text for row in chunk.rows], pa.string())
    kept = kept_arrays(chunk.rows, contents)
    columns |= kept
    flat = pa.array(vectors_ND.ravel())
    columns["embedding"] = pa.FixedSizeListArray.from_arrays(flat, dimension)
    columns["truncated"] = pa.array(chunk.truncated_N)
    raw = hashes.view(np.uint8)
    columns["text_hash"] = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(16), len(hashes), [None, pa.py_buffer(raw.tobytes())]
    )
    table = pa.table(columns).replace_schema_metadata(
        {
            "echovec.recipe": contents.recipe_json,
            "echovec.fingerprint": contents.fingerprint,
            "echovec.run": json.dumps(contents.run, ensure_ascii=False),
        }
    )
    compression: dict[str, str] = {}
    compression |= {name: "zstd" for name in ("id", "text", *kept) if name in columns}
    compression |= {"embedding.list.element": "none", "truncated": "zstd", "text_hash": "none"}
    dictionary = list(kept) or False
    pq.write_table(
        table, file, row_group_size=GROUP_ROWS, use_dictionary=dictionary, compression=compression
    )


def read_hashes(path: Path) -> Hashes:
    """The hashes of a shard's texts, in its order."""
    with opened(path) as file:
        column = file.read(["text_hash"]).column("text_hash").combine_chunks()
        raw = column.buffers()[1]
        if raw is None:
            return np.zeros(0, "S16")
        return np.frombuffer(raw, dtype="S16", count=len(column), offset=16 * column.offset)


def read_vectors(path: Path, rows: NDArray[np.int64]) -> tuple[Vectors, Flags]:
    """The vectors of `rows` of a shard, in that order, and whether each text was cut."""
    vectors, flags = [], []
    groups = rows // GROUP_ROWS
    wanted = np.unique(groups)
    with opened(path) as file:
        for group in wanted.tolist():
            table = file.read_row_group(group, columns=["embedding", "truncated"])
            within = rows[groups == group] - group * GROUP_ROWS
            vectors.append(to_numpy(table.column("embedding"))[within])
            flags.append(table.column("truncated").to_numpy()[within])
    order = np.argsort(np.concatenate([np.flatnonzero(groups == group) for group in wanted]))
    return np.concatenate(vectors)[order], np.concatenate(flags)[order].astype(np.bool_)
