"""Vectors for the tests of indexes: files as `echovec embed` writes them, and an embedder of words.

The embedder counts letters, so that texts which share words are near each other and the answers
to a query can be seen by eye.
"""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from echovec.files.vectors import Made, in_memory

RECIPE = json.dumps({"name": "stub", "fingerprint": "0123456789abcdef", "views": {}})
MADE = Made(RECIPE, "0123456789abcdef")
TEXTS = ["a cat on a mat", "a cat on the mat", "stock markets fell", "markets rose", "Zürich 🚂"]


class Letters:
    """A unit vector of letter counts; remembers what it was asked."""

    dimension = 26

    def __init__(self, fingerprint="0123456789abcdef"):
        self.recipe = SimpleNamespace(fingerprint=fingerprint, name="stub")
        self.asked = []

    def encode(self, texts, *, role=None, instruction=None, truncate_dim=None, **_):
        self.asked.append((tuple(texts), role, instruction))
        counts = (
            np.array(
                [[text.lower().count(c) for c in map(chr, range(97, 123))] for text in texts],
                np.float32,
            )
            + 0.01
        )
        counts = counts[:, :truncate_dim]
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)


def some_vectors(rows, dimension=24, seed=0, clusters=8):
    """Unit vectors in clusters, as those of texts are."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((clusters, dimension))
    vectors = centres[rng.integers(clusters, size=rows)] + 0.7 * rng.standard_normal(
        (rows, dimension)
    )
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def source(vectors, *, made=MADE, ids=None, texts=None, name="memory", **fields):
    """Vectors in memory as a build takes them."""
    ids = ids or [f"r{n}" for n in range(len(vectors))]
    columns = {"id": ids, **fields}
    if texts is not None:
        columns["text"] = texts
    return in_memory(pa.table(columns), np.asarray(vectors, np.float32), made, name=name)


def write_parquet(path, vectors, *, made=MADE, ids=None, **columns):
    """A file as `echovec embed` writes it, with columns of the caller's."""
    ids = ids or [f"r{n}" for n in range(len(vectors))]
    flat = pa.array(np.asarray(vectors, np.float32).ravel())
    embedding = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
    run = {name: getattr(made, name) for name in ("role", "instruction", "truncate_dim")}
    metadata = {"echovec.recipe": made.recipe_json, "echovec.fingerprint": made.fingerprint}
    table = pa.table({"id": ids, **columns, "embedding": embedding})
    pq.write_table(
        table.replace_schema_metadata({**metadata, "echovec.run": json.dumps(run)}), path
    )
    return path
