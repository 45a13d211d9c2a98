"""`python -m benchmarks.start`: a process from its beginning to its first vector, twice over.

The default model with `best`: as it starts from the second time on, without transformers
(`echovec.model.start`), and as it starts the first time; in turn, medians. A process is timed from
outside, its end included.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time

from echovec.model.start import FILE
from echovec.model.store import default_model

FIRST_VECTOR = "from echovec import Embedder; Embedder.load().encode(['one line'])"
IMPORTS = ("torch", "torch, transformers", "torch, numba")


def main() -> None:
    """Time and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    kept = default_model() / FILE
    took: dict[str, list[tuple[float, float]]] = {"without transformers": [], "with it": []}
    timed(FIRST_VECTOR)
    if not kept.is_file():
        raise SystemExit(f"no {kept}: its folder cannot be written, so every start is a first one")
    for _ in range(options.repeats):
        took["without transformers"].append(timed(FIRST_VECTOR))
        kept.unlink()
        took["with it"].append(timed(FIRST_VECTOR))
        for names in IMPORTS:
            took.setdefault(f"import {names}", []).append(timed(f"import {names}"))
    print("| | seconds | seconds of processor time |\n|---|---|---|")
    for name, times in took.items():
        wall, cpu = (statistics.median(column) for column in zip(*times, strict=True))
        print(f"| {name} | {wall:.2f} | {cpu:.2f} |")


def timed(code: str) -> tuple[float, float]:
    """Seconds by the clock and of processor time that a process takes for some Python."""
    before, start = used(), time.perf_counter()
    environment = os.environ | {"ECHOVEC_OFFLINE": "1"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    return time.perf_counter() - start, used() - before


def used() -> float:
    """Processor time of all processes that have ended."""
    found = resource.getrusage(resource.RUSAGE_CHILDREN)
    return found.ru_utime + found.ru_stime


if __name__ == "__main__":
    main()
