"""`python -m benchmarks.loops [--repetitions N]`: the packed engine with and without its loops.

How long compiling takes (NUMBA_CACHE_DIR at an empty folder: as the first time on a machine). Then
alternating in one process, each dtype: sentences, passages, one sentence; medians and their ratio.
Then each loop beside torch's steps for the same, one thread. `--shares`: what 60 sentences spend
their time on, each dtype, one thread. Needs numba and the data folder (`ECHOVEC_DATA`).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.products import often
from benchmarks.workloads import pieces, sentences
from echovec import Embedder
from echovec.model import loops
from echovec.model.blocks import scaled
from echovec.model.linear import HalfStored, OneDNN
from echovec.model.quantized import Quantized
from echovec.model.tiles import Tiles


def main() -> None:
    """Print a line for each dtype and workload, then one for each loop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--shares", action="store_true")
    options = parser.parse_args()
    if options.shares:
        torch.set_num_threads(1)
        for dtype in ("float32", "bfloat16", "int8"):
            shares(dtype)
        return
    begin = time.perf_counter()
    loops.ready()
    print(f"loops compiled, or read, in {time.perf_counter() - begin:.1f} s", flush=True)
    for dtype in ("float32", "bfloat16"):
        model = Embedder.load(recipe="echo-sentence", dtype=dtype, engine="packed")
        texts = list(sentences(120))
        works = {
            "120 sentences": texts,
            "14 passages": list(pieces(model.tokenizer, 14, 120, 180)),
            "one sentence, 10 times": texts[:1],
        }
        for work, chosen in works.items():
            times = 10 if len(chosen) == 1 else 1
            tell(f"{dtype}, {work}", partial(again, model, chosen, times), options.repetitions)
    torch.set_num_threads(1)
    with torch.inference_mode():
        each_loop(options.repetitions)


def shares(dtype: str) -> None:
    """Clocks around products, attention, and each loop outside it; products include their own."""
    took: dict[str, float] = {}

    def clocked(name: str, inner: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **options: Any) -> Any:
            begin = time.perf_counter()
            done = inner(*args, **options)
            took[name] = took.get(name, 0.0) + time.perf_counter() - begin
            return done

        return run

    model = Embedder.load(recipe="echo-sentence", dtype=dtype, engine="packed")
    texts = list(sentences(60))
    model.encode(texts)
    places = (
        ("products", HalfStored, "__call__"),
        ("products", OneDNN, "_unary"),
        ("products", OneDNN, "_binary"),
        ("products, rounding among them", Quantized, "parts"),
        ("attention", Tiles, "__call__"),
        ("norms", loops, "norm"),
        ("gates", loops, "gate"),
        ("rounding", loops, "quantize"),
        ("scaling back", loops, "dequantize"),
    )
    with ExitStack() as stack:
        for name, where, what in places:
            inner = getattr(where, what)
            stack.enter_context(patch.object(where, what, clocked(name, inner)))
        begin = time.perf_counter()
        for _ in range(5):
            model.encode(texts)
        total = time.perf_counter() - begin
    told = ", ".join(f"{name} {each / total:.1%}" for name, each in took.items())
    print(f"{dtype}: {total / 5:.2f} s; {told}", flush=True)


def again(model: Embedder, texts: list[str], times: int) -> None:
    """Embed texts so many times."""
    for _ in range(times):
        model.encode(texts)


def tell(name: str, run: Callable[[], object], repetitions: int) -> None:
    """Time one thing with loops and without, in turn."""
    took: dict[bool, list[float]] = {True: [], False: []}
    for repetition in range(repetitions + 1):
        for compiled, found in took.items():
            known = loops._compiled() if compiled else None
            with patch.object(loops, "_compiled", lambda known=known: known):
                begin = time.perf_counter()
                run()
                if repetition:  # the first warms up
                    found.append(1000 * (time.perf_counter() - begin))
    with_loops, without = (statistics.median(took[compiled]) for compiled in (True, False))
    ratio = without / with_loops
    print(f"{name}: {with_loops:,.1f} ms, without loops {without:,.1f}, {ratio:.2f}x", flush=True)


def each_loop(repetitions: int) -> None:
    """Each loop on 1,200 rows of the default model's widths, 20 times."""
    gain = torch.randn(576)
    for dtype in (torch.float32, torch.bfloat16):
        x_ND, both_NE = torch.randn(1200, 576).to(dtype), torch.randn(1200, 3072).to(dtype)

        def norm(x: Tensor = x_ND, dtype: torch.dtype = dtype) -> Tensor:
            if loops.usable(x):
                return loops.norm(x, gain, 1e-5)
            return scaled(x.float(), gain, 1e-5).to(dtype)

        def gate(both: Tensor = both_NE) -> Tensor:
            if loops.usable(both):
                return loops.gate(both)
            left, right = both.chunk(2, dim=-1)
            return functional.silu(left).mul_(right)

        for name, run in (("norm", norm), ("gate", gate)):
            tell(f"{name}, {dtype}, 20 times 1,200 rows", partial(often, run), repetitions)
    x_ND = torch.randn(1200, 576).bfloat16()
    begin = time.perf_counter()
    often(lambda: loops.quantize(x_ND, gain.abs()))
    took = 1e6 * (time.perf_counter() - begin) / 20 / 1200
    print(f"quantize, one row of 576: {took:.2f} microseconds", flush=True)


if __name__ == "__main__":
    main()
