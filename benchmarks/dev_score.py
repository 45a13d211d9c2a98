"""`python -m benchmarks.dev_score EMBEDDER [EMBEDDER ...]`: which is better, on development data.

An embedder is a folder that `Embedder.load` reads, the name of one that ships, or `recipe:NAME` for
the default model read by a recipe. Each embeds the development sample of `echovec tune` (no test
data); scores per category, their mean, and the 95 % interval of its difference from the first
one's, paired. `--seen NAMES` are sets that one of them was trained on: the tasks of others get a
mean of their own. Vectors are kept in `--keep`. Needs the data folder (`ECHOVEC_DATA`).
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.workloads import folder
from echovec import Embedder
from echovec.tune.dev import CATEGORIES, DevTask
from echovec.tune.samples import read_dev
from echovec.tune.score import Vectors, mean_replicates, middle, score

PREFIX = "recipe:"


def main() -> None:
    """Print a table, a line an embedder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("embedders", nargs="+")
    parser.add_argument("--keep", type=Path, default=Path("benchmarks/out/dev"))
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--seen", default="", help="names or parts of names, with , between")
    parser.add_argument("--tasks", action="store_true", help="a second table, of every task")
    options = parser.parse_args()
    data = read_dev(folder(), share=options.share)
    seen = [part for part in options.seen.split(",") if part]
    print(f"{len(data.texts):,} texts, {len(data.tasks)} tasks", flush=True)
    unseen = [task for task in data.tasks if not any(part in task.name for part in seen)]
    vectors = {name: embedded(name, data.texts, options.keep) for name in options.embedders}
    print("| | mean | " + " | ".join(CATEGORIES) + (" | unseen |" if seen else " |"))
    first: NDArray[np.float64] | None = None
    for name, z_ND in vectors.items():
        scores = score(data.tasks, z_ND)
        draws_R = mean_replicates(data.tasks, z_ND)
        first = draws_R if first is None else first
        low, high = middle(draws_R - first)
        line = [f"{scores.mean:.2f} ({low:+.2f} to {high:+.2f})"]
        line += [f"{scores.categories[c]:.1f}" for c in CATEGORIES if c in scores.categories]
        if seen:
            line.append(f"{by_task(unseen, z_ND):.2f}")
        print(f"| {name} | " + " | ".join(line) + " |", flush=True)
    if options.tasks:
        print("| task | " + " | ".join(vectors) + " |")
        for task in data.tasks:
            told = [f"{by_task([task], z_ND):.1f}" for z_ND in vectors.values()]
            print(f"| {task.name}, {task.category} | " + " | ".join(told) + " |")


def by_task(tasks: Sequence[DevTask], z_ND: Vectors) -> float:
    """The mean over tasks, whatever their category."""
    return float(np.mean(list(score(tasks, z_ND).tasks.values())))


def embedded(name: str, texts: Sequence[str], keep: Path) -> Vectors:
    """Vectors of unit length of all texts, from what is kept where it is."""
    model = (
        Embedder.load(recipe=name.removeprefix(PREFIX), precision="fast")
        if name.startswith(PREFIX)
        else Embedder.load(name, precision="fast")
    )
    key = hashlib.sha256("\n".join([model.recipe.fingerprint, *texts]).encode()).hexdigest()[:16]
    file = keep / f"{key}.npy"
    if file.is_file():
        kept: Vectors = np.load(file)
        return kept
    z_ND = np.asarray(model.encode(list(texts), show_progress_bar=True), dtype=np.float32)
    z_ND /= np.linalg.norm(z_ND, axis=1, keepdims=True)
    keep.mkdir(parents=True, exist_ok=True)
    np.save(file, z_ND)
    return z_ND


if __name__ == "__main__":
    main()
