"""Indexes of many rows: how fast they answer, what they find, what they weigh.

    python -m benchmarks.search VECTORS --prepare FOLDER_OF_DATA [--rows 50000]
    python -m benchmarks.search VECTORS [--rows 100000] [--queries 50]

The first makes VECTORS, without timing anything: that many distinct real texts of 15 to 70
characters through the first eight blocks of the default model, the cheapest vectors that are a
model's own. It is a corpus job: stopped and called again, it goes on.

The second takes VECTORS, or anything that `echovec embed` wrote. Rows beyond its own are grown from
it: each is a real vector moved a third of the way towards another one that is near it, so that
neighbourhoods stay as dense as real ones are. Queries are real vectors moved a little. One line for
each kind of index: seconds to build, bytes that a query reads, median and best milliseconds a
query, recall@10 against exact float32 search. `--kinds float32,int8` picks some.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from echovec import Index
from echovec.files.vectors import Made, in_memory, open_vectors

KINDS: dict[str, dict[str, Any]] = {
    "float32": {},
    "float16": {"dtype": "float16"},
    "int8": {"dtype": "int8"},
    "first 288": {"dim": 288},
    "pca 288": {"dim": 288, "reduce": "pca"},
    "pca 128": {"dim": 128, "reduce": "pca"},
    "pca 64": {"dim": 64, "reduce": "pca"},
    "int8 codes": {"codes": "int8", "dtype": "float16"},
    "binary codes": {"codes": "binary", "dtype": "float16"},
    "binary codes x10": {"codes": "binary", "dtype": "float16", "oversample": 10},
    "lance": {"backend": "lance"},
    "binary codes x100": {"codes": "binary", "dtype": "float16", "oversample": 100},
}


def prepare(data: Path, folder: str, rows: int) -> None:
    """Embed `rows` distinct short texts of the data into a folder of shards."""
    from benchmarks.corpus import real_texts
    from echovec import Embedder
    from echovec.corpus.formats import Contents
    from echovec.corpus.run import embed_corpus
    from echovec.corpus.source import Row
    from echovec.presets import preset, recipe_of
    from echovec.vector.view import View

    short = dict.fromkeys(text for text in real_texts(data) if 15 <= len(text) <= 70)
    texts = list(islice(short, None, None, max(1, len(short) // rows)))[:rows]
    template = preset("classical-sentence").views["symmetric"][0].template
    embedder = Embedder.load(
        recipe=recipe_of("blocks-8", View(template, layer=8)), max_tokens=16, precision="fast"
    )
    recipe = embedder.recipe
    contents = Contents(recipe_json=recipe.to_json(), fingerprint=recipe.fingerprint)
    each = [Row(f"r{n}", text, f"text {n}") for n, text in enumerate(texts)]
    embed_corpus(
        embedder,
        each,
        folder,
        contents,
        shard_rows=2048,
        on_progress=lambda done: print(f"{done.rows:,} of {len(each):,}", flush=True),
    )


def real_vectors(paths: list[str]) -> tuple[Any, Made]:
    """All vectors of the files, and how they were made."""
    files = open_vectors(paths)
    blocks = [block.vectors_ND for file in files for block in file.blocks()]
    return np.concatenate(blocks), files[0].made


def grown(vectors_ND: Any, rows: int, seed: int = 0) -> Any:
    """`rows` unit vectors: the real ones first, then some between real neighbours."""
    if rows <= len(vectors_ND):
        return vectors_ND[:rows]
    rng = np.random.default_rng(seed)
    base = rng.integers(len(vectors_ND), size=rows - len(vectors_ND))
    pieces = [vectors_ND]
    for part in np.array_split(base, max(1, len(base) // 2000)):
        scores = vectors_ND[part] @ vectors_ND.T
        near = np.argpartition(-scores, 20, axis=1)[:, :20]
        other = near[np.arange(len(part)), rng.integers(20, size=len(part))]
        moved = 2 / 3 * vectors_ND[part] + 1 / 3 * vectors_ND[other]
        moved += rng.standard_normal(moved.shape).astype(np.float32) * 0.01
        pieces.append(moved / np.linalg.norm(moved, axis=1, keepdims=True))
    return np.concatenate(pieces).astype(np.float32)


def queries_near(vectors_ND: Any, count: int, seed: int = 1) -> Any:
    """Rows moved by a tenth of their length in a random direction."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((count, vectors_ND.shape[1])).astype(np.float32)
    moved = vectors_ND[rng.integers(len(vectors_ND), size=count)]
    moved = moved + 0.1 * noise / np.linalg.norm(noise, axis=1, keepdims=True)
    return moved / np.linalg.norm(moved, axis=1, keepdims=True)


def truth(vectors_ND: Any, queries_QD: Any, k: int = 10) -> list[set[str]]:
    """The ids of the k rows nearest to each query."""
    scores = queries_QD @ vectors_ND.T
    best = np.argpartition(-scores, k, axis=1)[:, :k]
    return [{f"r{row}" for row in rows} for rows in best.tolist()]


def bytes_searched(index: Index) -> int:
    """Of the file that every query reads from end to end; of lance, of all its files."""
    files = index.facts.files
    if index.facts.backend == "lance":
        return sum(path.stat().st_size for path in index.folder.rglob("*") if path.is_file())
    kept = files.get("codes") or files.get("vectors")
    return kept.bytes if kept else 0


def measure(name: str, options: dict[str, Any], source: Any, asked: Any, nearest: Any) -> None:
    """Build, ask one query after the other, print a line."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        index = Index.build(source, Path(folder) / "index", **{"backend": "exact", **options})
        built = time.perf_counter() - start
        index.search(asked[0], 10)
        seconds, found = [], 0
        for query, rows in zip(asked, nearest, strict=True):
            start = time.perf_counter()
            hits = index.search(query, 10)
            seconds.append(time.perf_counter() - start)
            found += len(rows & {hit.id for hit in hits})
        recall = found / (10 * len(asked))
        print(
            f"{name:<24} build {built:6.1f} s  {bytes_searched(index) / 1e6:7.1f} MB  "
            f"median {1e3 * np.median(seconds):7.2f} ms  best {1e3 * min(seconds):7.2f} ms  "
            f"recall@10 {recall:.3f}",
            flush=True,
        )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("vectors", nargs="+")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=50)
    parser.add_argument("--kinds", help="names from the table, separated by commas")
    parser.add_argument("--prepare", type=Path, metavar="FOLDER_OF_DATA")
    arguments = parser.parse_args()
    if arguments.prepare:
        prepare(arguments.prepare, arguments.vectors[0], arguments.rows)
        return
    real_ND, made = real_vectors(arguments.vectors)
    vectors_ND = grown(real_ND, arguments.rows)
    asked_QD = queries_near(vectors_ND, arguments.queries)
    nearest = truth(vectors_ND, asked_QD)
    ids = pa.table({"id": [f"r{row}" for row in range(len(vectors_ND))]})
    source = in_memory(ids, vectors_ND, made, name="benchmark")
    print(f"{len(vectors_ND):,} x {vectors_ND.shape[1]}, of which {len(real_ND):,} are real")
    for name in (arguments.kinds or ",".join(KINDS)).split(","):
        if KINDS[name].get("dim", 0) <= vectors_ND.shape[1]:
            measure(name, KINDS[name], source, asked_QD, nearest)


if __name__ == "__main__":
    main()
