"""How the corpus job scales over models, with models that sleep the time a real one takes.

    python -m benchmarks.ray_scale [--models 1,2,4,8] [--rate 500] [--seconds 20]

A model that embeds RATE texts a second (one core of a CPU, or thousands on a GPU) is a stub that
sleeps for as long and gives vectors of 576 numbers: nothing competes for the processor, so what is
lost is the job's own. Each number of models gets as many texts as keep it busy for the same time.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from echovec.corpus.formats import Contents
from echovec.corpus.ray_runner import RayRunner
from echovec.corpus.run import embed_corpus
from echovec.corpus.source import read_rows


class Sleeping:
    """Vectors after the time that a model takes."""

    dimension = 576

    def __init__(self, rate: float) -> None:
        self.recipe = _recipe()
        self._seconds = 1 / rate
        self._row = np.full(self.dimension, self.dimension**-0.5, np.float32)

    def encode(self, texts: list[str], **_: object) -> tuple[Any, Any]:
        """The same unit vector for each text."""
        time.sleep(self._seconds * len(texts))
        return np.tile(self._row, (len(texts), 1)), np.zeros(len(texts), np.bool_)


def _recipe() -> Any:
    return _Recipe(name="sleeping", fingerprint="0" * 16, versions={})


class _Recipe(SimpleNamespace):
    def save(self, folder: Path) -> None:
        """Nothing: there is no recipe."""


def measure(models: int, rate: float, seconds: float) -> None:
    """One job; prints texts a second and the share of what the models could do."""
    rows = int(models * rate * seconds)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "in.jsonl"
        with path.open("w") as file:
            for n in range(rows):
                text = f"a text of about sixty characters {n:>27}"
                file.write(json.dumps({"id": str(n), "text": text}) + "\n")
        contents = Contents(recipe_json="{}", fingerprint="0" * 16)
        with RayRunner(partial(Sleeping, rate), workers=models) as runner:
            start = time.perf_counter()
            done = embed_corpus(
                runner,
                read_rows([path], unique_ids=False),
                Path(folder) / "out",
                contents,
                runner=runner,
            )
            took = time.perf_counter() - start
    assert done.rows == rows
    print(
        f"{models:>3} models of {rate:,.0f} texts/s: {rows:,} texts in {took:.1f} s, "
        f"{rows / took:,.0f} texts/s, {100 * rows / took / (models * rate):.0f} % of the models'",
        flush=True,
    )


def main() -> None:
    """A line for each number of models."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", default="1,2,4,8")
    parser.add_argument("--rate", type=float, default=500)
    parser.add_argument("--seconds", type=float, default=20, help="for which a model is busy")
    arguments = parser.parse_args()
    for models in arguments.models.split(","):
        measure(int(models), arguments.rate, arguments.seconds)


if __name__ == "__main__":
    main()
