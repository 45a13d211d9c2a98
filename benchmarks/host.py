"""`python -m benchmarks.host`: what one core does for a text before and beside the model.

Tokenising, planning, laying batches out and giving rows their places, in microseconds a text;
medians of `--repetitions`. A GPU that embeds a small model's sentence in 20 us waits for whatever
of this takes longer. Data from ECHOVEC_DATA.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from benchmarks.workloads import sentences
from echovec import Embedder
from echovec.model.layout import Layout, lay_out
from echovec.text.batch import Chunk

TEXTS, BATCH_TOKENS = 2_500, 65_536


def main() -> None:
    """Print a line for each step and each recipe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipes", default="classical,echo-sentence,best")
    parser.add_argument("--repetitions", type=int, default=7)
    options = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one core, as said

    texts = list(sentences(TEXTS))
    loaded = Embedder.load(precision="fast")
    print("| recipe | tokens | planning | laying | places |\n|---|---|---|---|---|")
    for name in options.recipes.split(","):
        model = Embedder.load(recipe=name, precision="fast")
        planner = model.planner()
        planned = planner(texts, batch_tokens=BATCH_TOKENS)
        chunks = list(planned.chunks)
        whole: dict[str, Callable[[], Any]] = {
            "tokens": partial(loaded.tokenizer.tokenize, texts),
            "planning": partial(planner, texts, batch_tokens=BATCH_TOKENS),
            "laying": partial(list, planned.chunks),
            "places": partial(all_laid_out, chunks),
        }
        took = {step: micro(run, options.repetitions) for step, run in whole.items()}
        took["planning"] -= took["tokens"]
        print(f"| {name} | " + " | ".join(f"{one:.1f}" for one in took.values()) + " |")


def all_laid_out(chunks: Sequence[Chunk]) -> list[Layout]:
    """The places of all rows of all chunks."""
    return [lay_out(batch) for chunk in chunks for batch in chunk]


def micro(run: Callable[[], Any], repetitions: int) -> float:
    """Median microseconds of this process's own time, a text."""
    found = []
    for _ in range(repetitions + 1):
        begin = time.process_time()
        run()
        found.append(time.process_time() - begin)
    return 1e6 * statistics.median(found[1:]) / TEXTS


if __name__ == "__main__":
    main()
