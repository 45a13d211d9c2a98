"""The corpus job itself: its overhead and its memory, with a stub model that takes no time.

    python -m benchmarks.corpus FOLDER_OF_DATA [ROWS ...]

For each number of rows, real texts (every string of two words or more in the compressed JSON lines
of the folder, each with a number at its end) go through a stub of 576 numbers a text, in a process
of its own, whose peak memory is reported. `--distinct-share 0.1` makes nine of ten texts repeats.

`--model` compares the job with the model alone instead: the default model embeds the first TEXTS
(512), by `encode` and as a job in turn, three times each, in seconds of the processor.
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

    dimension = DIM

    def __init__(self) -> None:
        self.recipe = SimpleNamespace(
            name="stub", fingerprint="0" * 16, versions={}, save=lambda folder: None
        )
        self._row = np.full(DIM, DIM**-0.5, np.float32)

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
    """`rows` lines of JSON with ids of their own, of which `distinct` texts differ."""
    with path.open("w", encoding="utf-8") as file:
        for n in range(rows):
            which = n % distinct
            row = {"id": f"r{n}", "text": f"{texts[which % len(texts)]} {which}"}
            file.write(json.dumps(row) + "\n")


def job(path: str, out: str) -> None:
    """One job; prints its seconds and peak memory as JSON."""
    from echovec.corpus.formats import Contents
    from echovec.corpus.run import embed_corpus
    from echovec.corpus.source import read_rows

    start = time.perf_counter()
    contents = Contents(recipe_json="{}", fingerprint="0" * 16)
    stub: Any = Stub()
    done = embed_corpus(stub, read_rows([path], unique_ids=False), out, contents)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    seconds = time.perf_counter() - start
    print(json.dumps({"rows": done.rows, "reused": done.reused, "seconds": seconds, "peak": peak}))


def beside_the_model(texts: list[str], rounds: int = 3) -> None:
    """Seconds of the processor for the same texts: `encode` alone, and the job around it."""
    from echovec import Embedder
    from echovec.corpus.formats import Contents
    from echovec.corpus.run import embed_corpus
    from echovec.corpus.source import Row

    embedder = Embedder.load()
    recipe = embedder.recipe
    contents = Contents(recipe_json=recipe.to_json(), fingerprint=recipe.fingerprint)
    rows = [Row(str(n), text, f"row {n}") for n, text in enumerate(dict.fromkeys(texts))]
    embedder.encode([row.text for row in rows[:32]])
    spent: dict[str, list[float]] = {"encode": [], "job": []}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            start = time.process_time()
            embedder.encode([row.text for row in rows], return_truncated=True)
            middle = time.process_time()
            embed_corpus(embedder, rows, folder, contents)
            spent["encode"].append(middle - start)
            spent["job"].append(time.process_time() - middle)
    alone, job_seconds = min(spent["encode"]), min(spent["job"])
    print(
        f"{len(rows):,} texts: encode {alone:.2f} s, job {job_seconds:.2f} s of the processor "
        f"(best of {rounds}): {100 * (job_seconds / alone - 1):+.1f} %; all: {spent}"
    )


def main() -> None:
    """Print one line for each number of rows: the job, then the same job again."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("rows", type=int, nargs="*", default=[10_000, 200_000])
    parser.add_argument("--distinct-share", type=float, default=1.0)
    parser.add_argument("--model", action="store_true", help="beside the default model's encode")
    parser.add_argument("--texts", type=int, default=512)
    arguments = parser.parse_args()
    if arguments.model:
        beside_the_model(list(islice(real_texts(arguments.data), arguments.texts)))
        return
    texts = list(islice(real_texts(arguments.data), 50_000))
    print(f"{len(texts):,} real texts, {np.mean([len(t) for t in texts]):.0f} characters each")
    for rows in arguments.rows:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "in.jsonl"
            write_input(path, texts, rows, max(1, int(rows * arguments.distinct_share)))
            for run in ("first", "again"):
                command = [sys.executable, "-m", "benchmarks.corpus", "--job", str(path)]
                made = subprocess.run(
                    [*command, f"{folder}/out"], check=True, capture_output=True, text=True
                )
                r = json.loads(made.stdout)
                print(
                    f"{rows:>9,} rows, {run}: {r['seconds']:6.2f} s, "
                    f"{1e6 * r['seconds'] / rows:6.0f} us a row, peak {r['peak']:,} MB, "
                    f"{r['reused']:,} reused",
                    flush=True,
                )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--job"]:
        job(*sys.argv[2:])
    else:
        main()
