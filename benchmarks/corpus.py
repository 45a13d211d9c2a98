"""The corpus job itself: its overhead and its memory, with a stub model that takes no time.

    python -m benchmarks.corpus FOLDER_OF_DATA [ROWS ...] [--tiny] [--dim 8]
    python -m benchmarks.corpus FOLDER_OF_DATA --model [--texts 20000]

For each number of rows, real texts (every string of two words or more in the compressed JSON lines
of the folder, each with a number at its end) go through a stub of 576 numbers a text, in a process
of its own, whose peak memory is reported. `--distinct-share 0.1` makes nine of ten texts repeats,
`--tiny` makes every text a number and nothing else.

`--model` compares the job with the model alone: after each shard of the job the default model
embeds the same texts by `encode`, so that what else the machine does meets both alike. The texts
are distinct and of 15 to `--longest` characters.
"""

from __future__ import annotations

import argparse
import gzip
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

DIM = 576


class Stub:
    """Vectors of the right shape at once."""

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self.recipe = SimpleNamespace(
            name="stub", fingerprint="0" * 16, versions={}, save=lambda folder: None
        )
        self._row = np.full(dimension, dimension**-0.5, np.float32)

    def encode(self, texts: list[str], **_: object) -> tuple[Any, Any]:
        """The same unit vector for each text."""
        return np.tile(self._row, (len(texts), 1)), np.zeros(len(texts), np.bool_)


def real_texts(folder: Path) -> Iterator[str]:
    """Every string of two words or more in the compressed JSON lines below the folder."""
    for path in sorted(folder.rglob("*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                for value in json.loads(line).values():
                    if isinstance(value, str) and " " in value:
                        yield value


def write_input(path: Path, texts: list[str], rows: int, distinct: int) -> None:
    """`rows` lines of JSON with ids of their own, of which `distinct` texts differ.

    Without `texts` each is its number.
    """
    with path.open("w", encoding="utf-8") as file:
        for n in range(rows):
            which = n % distinct
            text = f"{texts[which % len(texts)]} {which}" if texts else str(which)
            row = {"id": f"r{n}", "text": text}
            file.write(json.dumps(row) + "\n")


def job(path: str, out: str, dimension: str = str(DIM)) -> None:
    """One job, as `echovec embed` does it; prints its seconds and peak memory as JSON."""
    from echovec.files.parquet import give_memory_back

    give_memory_back()
    from echovec.corpus.formats import Contents
    from echovec.corpus.run import embed_corpus
    from echovec.corpus.source import read_rows

    start = time.perf_counter()
    contents = Contents(recipe_json="{}", fingerprint="0" * 16)
    stub: Any = Stub(int(dimension))
    done = embed_corpus(stub, read_rows([path], unique_ids=False), out, contents)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    seconds = time.perf_counter() - start
    print(json.dumps({"rows": done.rows, "reused": done.reused, "seconds": seconds, "peak": peak}))


def beside_the_model(texts: list[str], shard_rows: int, recipe_name: str) -> None:
    """The job, and after each of its shards the same texts by `encode` alone."""
    from echovec import Embedder
    from echovec.corpus.formats import Contents
    from echovec.corpus.run import Progress, embed_corpus
    from echovec.corpus.source import Row

    embedder = Embedder.load(recipe=recipe_name, precision="fast")
    recipe = embedder.recipe
    contents = Contents(recipe_json=recipe.to_json(), fingerprint=recipe.fingerprint)
    rows = [Row(str(n), text, f"row {n}") for n, text in enumerate(texts)]
    embedder.encode(texts[:32])
    alone = np.zeros(2)
    done = 0

    def now() -> Any:
        return np.array([time.perf_counter(), time.process_time()])

    def encode_alone(progress: Progress) -> None:
        nonlocal alone, done
        start = now()
        embedder.encode(texts[done : progress.rows], return_truncated=True, show_progress_bar=False)
        alone = alone + now() - start
        done = progress.rows
        print(f"  {done:,} texts", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as folder:
        start = now()
        embed_corpus(
            embedder, rows, folder, contents, shard_rows=shard_rows, on_progress=encode_alone
        )
        whole = now() - start - alone
    for kind, encode_s, job_s in zip(("clock", "processor"), alone, whole, strict=True):
        print(
            f"{len(rows):,} texts, by the {kind}: encode {encode_s:.1f} s "
            f"({len(rows) / encode_s:.1f} texts/s), job {job_s:.1f} s "
            f"({len(rows) / job_s:.1f} texts/s), {100 * (job_s / encode_s - 1):+.1f} %"
        )


def main() -> None:
    """Print one line for each number of rows: the job, then the same job again."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("rows", type=int, nargs="*", default=[10_000, 200_000])
    parser.add_argument("--distinct-share", type=float, default=1.0)
    parser.add_argument("--model", action="store_true", help="beside the default model's encode")
    parser.add_argument("--texts", type=int, default=20_000)
    parser.add_argument("--longest", type=int, default=60, help="characters")
    parser.add_argument("--recipe", default="classical", help="the cheaper, the harder on the job")
    parser.add_argument("--shard-rows", type=int, default=8192)
    parser.add_argument("--tiny", action="store_true", help="texts are numbers")
    parser.add_argument("--dim", type=int, default=DIM, help="of the stub")
    arguments = parser.parse_args()
    if arguments.model:
        every = real_texts(arguments.data)
        short = dict.fromkeys(text for text in every if 15 <= len(text) <= arguments.longest)
        beside_the_model(
            list(islice(short, arguments.texts)), arguments.shard_rows, arguments.recipe
        )
        return
    texts = [] if arguments.tiny else list(islice(real_texts(arguments.data), 50_000))
    if texts:
        print(f"{len(texts):,} real texts, {np.mean([len(t) for t in texts]):.0f} characters each")
    for rows in arguments.rows:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "in.jsonl"
            write_input(path, texts, rows, max(1, int(rows * arguments.distinct_share)))
            for run in ("first", "again"):
                command = [sys.executable, "-m", "benchmarks.corpus", "--job", str(path)]
                command += [f"{folder}/out", str(arguments.dim)]
                made = subprocess.run(command, check=True, capture_output=True, text=True)
                r = json.loads(made.stdout)
                size = sum(file.stat().st_size for file in Path(f"{folder}/out").iterdir())
                print(
                    f"{rows:>9,} rows, {run}: {r['seconds']:6.2f} s, "
                    f"{1e6 * r['seconds'] / rows:6.0f} us a row, peak {r['peak']:,} MB, "
                    f"{r['reused']:,} reused, {size / 1e6:,.0f} MB on the disk",
                    flush=True,
                )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--job"]:
        job(*sys.argv[2:])
    else:
        main()
