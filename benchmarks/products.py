"""`python -m benchmarks.products [--repetitions N]`: who multiplies, where what follows is done.

The kinds of `echovec.model.linear` alternating in one process, float32, medians; which of them a
processor gets is decided there by `cpu_kind`. One product; all products of a model by the number of
rows, each block with weights of its own, since a model's are too many for the cache; a norm and
attention beside torch's own; texts. Needs the data folder (`ECHOVEC_DATA`).

`--resident KIND` loads the model with products of one kind and prints what is resident then, and
the page faults of 100 sentences; with MALLOC_TRIM_THRESHOLD_=131072 nothing freed is kept.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.workloads import pieces, sentences
from echovec import Embedder
from echovec.model.attend import attend
from echovec.model.blocks import Norm, scaled
from echovec.model.linear import HalfStored, InPlace, Linear, OneDNN

KINDS: tuple[type[OneDNN], ...] = (OneDNN, InPlace, HalfStored)
SHAPES = ((960, 576), (576, 576), (1536, 576), (1536, 576), (576, 1536))
"""Outputs and inputs of a block's products: the default model's."""

LAYERS = 30
OFTEN = 20
ROWS = (8, 16, 25, 46, 128, 512, 2048)


def main() -> None:
    """Print a line for one product, one for each number of rows and one for each workload."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=6)
    parser.add_argument("--resident", choices=[kind.__name__ for kind in KINDS])
    options = parser.parse_args()
    if options.resident:
        resident(options.resident)
        return
    tell = partial(compare, repetitions=options.repetitions)
    with torch.inference_mode():
        one_product(tell)
        all_products(tell)
        beside_products(tell)
    models = {kind.__name__: load(kind) for kind in KINDS}
    texts = list(sentences(100))
    passages = list(pieces(models["OneDNN"].tokenizer, 10, 120, 180))
    for work, chosen in (("100 sentences", texts), ("10 passages", passages), ("one", texts[:1])):
        tell(work, {name: partial(model.encode, chosen) for name, model in models.items()})


def one_product(tell: Callable[..., None]) -> None:
    """One product alone and through an activation."""
    x_NI, weight_OI = torch.randn(2048, 576), half(torch.randn(1536, 576))
    ways: dict[str, Callable[[], object]] = {}
    for kind in KINDS:
        gate = kind(weight_OI)
        ways[f"{kind.__name__} alone"] = partial(gate, x_NI)
        ways[f"{kind.__name__} activated"] = partial(gate.activated, x_NI, "silu")
    tell("one product, 2,048 x 576 x 1,536", ways)


def all_products(tell: Callable[..., None]) -> None:
    """The products of all blocks, whose weights are too many for the cache, by rows."""
    weights = [[half(torch.randn(shape)) for shape in SHAPES] for _ in range(LAYERS)]
    held = {kind.__name__: [[kind(w) for w in layer] for layer in weights] for kind in KINDS}
    for rows in ROWS:
        inputs = {width: torch.randn(rows, width) for _, width in SHAPES}
        ways = {name: partial(_through, layers, inputs) for name, layers in held.items()}
        work = 2e-9 * rows * LAYERS * sum(o * i for o, i in SHAPES)
        tell(f"{LAYERS} blocks, {rows} rows ({work:,.2f} GFLOP)", ways)


def beside_products(tell: Callable[..., None]) -> None:
    """A norm in torch's steps and in ours, attention by blocks and by torch's kernel; often."""
    gain = torch.randn(576)
    for rows in (25, 512, 2048):
        x_ND = torch.randn(rows, 576)
        ways: dict[str, Callable[[], object]] = {
            "torch": partial(often, partial(functional.rms_norm, x_ND, (576,), gain, 1e-5)),
            "ours": partial(often, partial(scaled, x_ND, gain, 1e-5)),
        }
        tell(f"{OFTEN} norms, {rows} rows", ways)
        half_ND, half_D = x_ND.bfloat16(), gain.bfloat16()
        norm = nn.RMSNorm(576, 1e-5, dtype=torch.bfloat16).requires_grad_(requires_grad=False)
        ways = {
            "torch": partial(often, partial(functional.rms_norm, half_ND, (576,), half_D, 1e-5)),
            "ours": partial(often, partial(Norm(norm, 0.0, 1e-5), half_ND)),
        }
        tell(f"{OFTEN} norms of bfloat16, {rows} rows", ways)
    for count, length in ((1, 25), (1, 64), (16, 25), (16, 60), (1, 400)):
        q_BLHD = torch.randn(count, length, 9, 64)
        k_BMGD, v_BMGD = (torch.randn(count, length + 21, 3, 64) for _ in range(2))

        def ours(few: int, q: Tensor = q_BLHD, k: Tensor = k_BMGD, v: Tensor = v_BMGD) -> None:
            with patch("echovec.model.attend.FEW", few):
                often(lambda: attend(q, k, v, scale=0.125))

        ways = {"by blocks": partial(ours, 0), "torch's kernel": partial(ours, count * length)}
        tell(f"{OFTEN} x attention, {count} of {length} queries", ways)


def often(call: Callable[[], object]) -> None:
    """So many calls that a clock can tell."""
    for _ in range(OFTEN):
        call()


def resident(kind: str) -> None:
    """Load the model and print this process's memory, then the page faults of 100 sentences."""
    model = load(next(one for one in KINDS if one.__name__ == kind))
    model.encode(["a text"])
    status = Path("/proc/self/status").read_text().splitlines()
    print(kind, *(" ".join(line.split()) for line in status if line[:5] in ("VmRSS", "VmHWM")))
    for precision in ("exact", "fast"):
        again = Embedder.load(recipe="echo-sentence", precision=precision, engine="packed")
        again.encode(sentences(100))
        before = getrusage(RUSAGE_SELF).ru_minflt
        again.encode(sentences(100))
        print(f"{precision}: {getrusage(RUSAGE_SELF).ru_minflt - before:,} page faults")


def _through(layers: Sequence[Sequence[Linear]], inputs: Mapping[int, Tensor]) -> None:
    for layer in layers:
        for linear, (_, width) in zip(layer, SHAPES, strict=True):
            linear(inputs[width])


def half(weight: Tensor) -> Tensor:
    """Weights as a model published in 16 bits has them."""
    return weight.half().float()


def load(kind: type[OneDNN]) -> Embedder:
    """The default model with products of one kind."""
    with patch("echovec.model.weights.cpu_kind", lambda weight: kind):
        return Embedder.load(recipe="echo-sentence", precision="exact", engine="packed")


def compare(work: str, ways: Mapping[str, Callable[[], object]], *, repetitions: int) -> None:
    """Run the ways in turn and print the median of each in milliseconds."""
    took: dict[str, list[float]] = {name: [] for name in ways}
    for repetition in range(repetitions + 1):
        for name, way in ways.items():
            begin = time.perf_counter()
            way()
            if repetition:  # the first warms up
                took[name].append(1000 * (time.perf_counter() - begin))
    shown = ", ".join(f"{name} {statistics.median(each):,.1f}" for name, each in took.items())
    print(f"{work}: {shown} ms", flush=True)


if __name__ == "__main__":
    main()
