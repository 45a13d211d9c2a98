"""A stub model for the corpus job: eight numbers a text, of its hash; and helpers around it."""

from __future__ import annotations

import time
from hashlib import blake2b
from types import MappingProxyType

import numpy as np
import pyarrow.parquet as pq

from echovec.corpus.formats import Contents
from echovec.corpus.run import embed_corpus
from echovec.corpus.source import read_rows
from echovec.errors import InputError
from echovec.files import manifest


class StubRecipe:
    """As much of a recipe as the job looks at."""

    name = "echo"
    max_tokens = 512
    versions = MappingProxyType({"stub": "1"})

    def __init__(self, fingerprint="0123456789abcdef"):
        self.fingerprint = fingerprint

    def to_json(self):
        return '{"name": "echo"}'

    def save(self, folder):
        (folder / "recipe.json").write_text(self.to_json())


class Stub:
    """A unit vector of each text's hash; a text that starts with "!" has no tokens."""

    dimension = 8

    def __init__(self, fingerprint="0123456789abcdef", seconds_a_row=0.0):
        self.recipe = StubRecipe(fingerprint)
        self.seen = []
        self.seconds_a_row = seconds_a_row

    def encode(self, texts, *, truncate_dim=None, return_truncated=False, **_):
        for index, text in enumerate(texts):
            if text.startswith("!"):
                raise InputError(f"texts[{index}] has no tokens; drop it", index=index)
        self.seen += texts
        time.sleep(self.seconds_a_row * len(texts))
        vectors = np.array([vector_of(text) for text in texts])
        return vectors[:, :truncate_dim], np.array([len(text) > 900 for text in texts])


def vector_of(text):
    """The stub's vector of a text, made apart from any batch."""
    raw = np.frombuffer(blake2b(text.encode(), digest_size=8).digest(), np.uint8)
    vector = raw.astype(np.float32) - 127.5
    return vector / np.linalg.norm(vector)


def job(inputs, folder, stub=None, *, contents=None, keep=(), **options):
    """Run the corpus job on files with a stub, 4 rows a shard."""
    stub = stub or Stub()
    rows = read_rows(inputs, unique_ids=False, keep=keep)
    contents = contents or Contents(
        recipe_json="{}", fingerprint=stub.recipe.fingerprint, columns=rows.columns
    )
    return embed_corpus(stub, rows, folder, contents, **{"shard_rows": 4, **options})


def table(folder):
    """All rows of the manifest's shards, in the input's order: [(id, text, vector), ...]."""
    entries, _ = manifest.read(folder / "manifest.jsonl")
    found = []
    for entry in sorted(entries, key=lambda entry: entry.start):
        if entry.file:
            rows = pq.read_table(folder / entry.file).to_pylist()
            assert len(rows) == entry.rows
            found += [(row["id"], row["text"], row["embedding"]) for row in rows]
    return found


def shards(folder):
    """Name -> bytes of every shard there is."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("rows-*.parquet"))}
