"""`python -m benchmarks.recipe_speed`: texts a second of the recipes that ship, in turn, medians.

The same real sentences for all, of which each recipe gets as many as take it a few seconds: the
speed of one that runs the model does not depend on how many there are. Everything is counted that
`Embedder.encode` does, tokenising too. Data from ECHOVEC_DATA.
"""

from __future__ import annotations

import argparse
import statistics
import time
from itertools import cycle, islice

from benchmarks.workloads import sentences
from echovec import Embedder
from echovec.presets import fitted_names

PROBE, SECONDS = 32, 4.0
"""So many texts say how many take so long."""


def main() -> None:
    """Time each recipe and print a row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipes", default=",".join((*fitted_names(), "echo")))
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--texts", type=int, default=20_000, help="at most")
    options = parser.parse_args()

    names = options.recipes.split(",")
    real = list(sentences(2_500))
    # Repeated, but no two alike: a text is embedded once.
    texts = [f"{text} {n}" for n, text in enumerate(islice(cycle(real), options.texts))]
    loaded = Embedder.load(precision="exact")
    models = {name: loaded.with_recipe(name) for name in names}
    counts = {name: min(len(texts), probed(models[name], texts)) for name in names}
    rates: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(options.repetitions):
        for name in names:
            rates[name].append(rate(models[name], texts[: counts[name]]))
    print("| recipe | texts a second | from | to | texts timed |\n|---|---:|---:|---:|---:|")
    for name, own in rates.items():
        shown = f"{statistics.median(own):,.0f} | {min(own):,.0f} | {max(own):,.0f}"
        print(f"| {name} | {shown} | {counts[name]:,} |")


def probed(model: Embedder, texts: list[str]) -> int:
    """How many texts take a few seconds."""
    rate(model, texts[:PROBE])  # what is made once
    return max(PROBE, int(SECONDS * rate(model, texts[-PROBE:])))


def rate(model: Embedder, texts: list[str]) -> float:
    """Texts a second."""
    begin = time.perf_counter()
    model.encode(texts, show_progress_bar=False)
    return len(texts) / (time.perf_counter() - begin)


if __name__ == "__main__":
    main()
