"""`python -m benchmarks.int8 [--texts N] [--rates]`: what 16 and 8 bits cost in accuracy, and gain.

The packed engine's vectors beside its own in float32: the lowest and the mean cosine of N sentences
of STSBenchmark test (by default all), Spearman's correlation of its pairs, and seconds.
Then 8 bits with one of its parts left out, so that each is seen to be needed. `--rates` times the
products of 8 bits, rounding and scales included, beside those of 16 and 32. Needs the data folder
(`ECHOVEC_DATA`).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from scipy.stats import spearmanr

from benchmarks.products import SHAPES
from benchmarks.workloads import INSTRUCTION, pieces, rows, sentences
from echovec import Embedder
from echovec.model.linear import HalfStored, OneDNN
from echovec.model.quantized import Quantized

ROWS = (24, 256, 2048)
FEW = 60


@dataclass(frozen=True)
class Trial:
    """One way to round: what `echovec.model.quantized` is set to."""

    name: str
    moved: float = 0.5
    massive: float = 30
    modules: tuple[str, ...] = ("q_proj", "gate_proj", "o_proj", "down_proj")


TRIALS = (
    Trial("as it is"),
    Trial("large inputs not moved", moved=0.0),
    Trial("moved by 0.3", moved=0.3),
    Trial("moved by 0.7", moved=0.7),
    Trial("massive inputs rounded too", massive=float("inf")),
    Trial("without queries, keys and values", modules=("gate_proj", "o_proj", "down_proj")),
    Trial("without gate and up", modules=("q_proj", "o_proj", "down_proj")),
    Trial("without out", modules=("q_proj", "gate_proj", "down_proj")),
    Trial("without down", modules=("q_proj", "gate_proj", "o_proj")),
)


def main() -> None:
    """Print a line for each dtype and each way to round, or for each product."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=2552)
    parser.add_argument("--rates", action="store_true")
    options = parser.parse_args()
    with torch.inference_mode():
        if options.rates:
            rates()
        else:
            for recipe in ("echo-sentence", "echo-instruct", "best"):
                dtypes(recipe, options.texts)
            trials()


def dtypes(recipe: str, count: int) -> None:
    """Each dtype of the packed engine on the pairs of STSBenchmark test."""
    pairs = list(rows("STSBenchmark/test.jsonl.gz"))
    labels = [pair["score"] for pair in pairs]
    texts = list(sentences(count))
    want = None
    for dtype in ("float32", "bfloat16", "int8"):
        model = Embedder.load(recipe=recipe, dtype=dtype, engine="packed")
        model.encode(texts[:8])
        begin = time.perf_counter()
        got = model.encode(texts)
        took = time.perf_counter() - begin
        want = got if want is None else want
        cosines = (got * want).sum(1)
        line = f"{recipe}, {dtype}: {took:.1f} s, {len(texts)} texts"
        line += f", cosine {cosines.min():.5f} lowest, {cosines.mean():.5f}"
        left, right = (
            model.encode([p[side] for p in pairs]) for side in ("sentence1", "sentence2")
        )
        rho = spearmanr((left * right).sum(1), labels).statistic
        print(f"{line}, Spearman {100 * rho:.2f}", flush=True)


def trials() -> None:
    """8 bits with one of its parts left out: lowest and mean cosine."""
    oracle: Any = Embedder.load(recipe="echo-sentence", dtype="float32", engine="plain")
    texts = list(sentences(FEW))
    passages = list(pieces(oracle.tokenizer, 6, 120, 180))
    works: dict[str, Callable[[Embedder], np.ndarray[Any, Any]]] = {
        "sentences": lambda model: model.encode(texts),
        "passages": lambda model: model.encode(passages),
        "instructed": lambda model: model.with_recipe("echo-instruct").encode_query(
            texts, instruction=INSTRUCTION
        ),
    }
    want = {name: run(oracle) for name, run in works.items()}
    for trial in TRIALS:
        with ExitStack() as stack:
            for name, value in (
                ("MIGRATION", trial.moved),
                ("MASSIVE", trial.massive),
                ("_MODULES", trial.modules),
            ):
                stack.enter_context(patch(f"echovec.model.quantized.{name}", value))
            model = Embedder.load(recipe="echo-sentence", dtype="int8")
        told = []
        for name, run in works.items():
            cosines = (run(model) * want[name]).sum(1)
            told.append(f"{name} {cosines.min():.4f} lowest, {cosines.mean():.4f}")
        print(f"{trial.name}: {'; '.join(told)}", flush=True)


def rates() -> None:
    """GFLOP/s of each product of a block, one thread."""
    torch.set_num_threads(1)
    for outputs, inputs in dict.fromkeys(SHAPES):
        weight_OI = torch.randn(outputs, inputs).bfloat16()
        for count in ROWS:
            x_NI = torch.randn(count, inputs)
            half_NI = x_NI.bfloat16()
            wide, narrow = HalfStored(weight_OI.float()), OneDNN(weight_OI)
            quantized = Quantized(weight_OI, x_NI.abs().amax(0))
            ways: dict[str, Callable[[], object]] = {
                "float32": partial(wide, x_NI),
                "bfloat16": partial(narrow, half_NI),
                "8 bits": partial(quantized, half_NI),
            }
            work = 2e-9 * count * outputs * inputs
            told = ", ".join(f"{name} {work / seconds(way):,.0f}" for name, way in ways.items())
            print(f"{count} x {inputs} x {outputs}: {told} GFLOP/s", flush=True)


def seconds(way: Callable[[], object], repetitions: int = 30) -> float:
    """Median."""
    took = []
    for _ in range(repetitions + 3):
        begin = time.perf_counter()
        way()
        took.append(time.perf_counter() - begin)
    return statistics.median(took[3:])


if __name__ == "__main__":
    main()
