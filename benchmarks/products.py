"""`python -m benchmarks.products`: oneDNN's products with what follows them inside, and in place.

Alternating in one process, float32, medians; which of the two a processor gets is decided by
`echovec.model.linear.fuses_slowly`. Needs the data folder (`ECHOVEC_DATA`).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks.workloads import pieces, sentences
from echovec import Embedder
from echovec.model.linear import InPlace, OneDNN

KINDS = (OneDNN, InPlace)
REPETITIONS = 6


def main() -> None:
    """Print a line for one product and one for each workload."""
    x_NI, weight_OI = torch.randn(2048, 576), torch.randn(1536, 576)
    gates = {kind.__name__: kind(weight_OI) for kind in KINDS}
    inside: dict[str, Callable[[], Tensor]] = {
        "alone": lambda: gates["OneDNN"](x_NI),
        "activated, OneDNN": lambda: gates["OneDNN"].activated(x_NI, "silu"),
        "activated, InPlace": lambda: gates["InPlace"].activated(x_NI, "silu"),
    }
    with torch.inference_mode():
        tell("one product, 2,048 x 576 x 1,536", inside)
    models = {kind.__name__: load(kind) for kind in KINDS}
    texts = list(sentences(100))
    passages = list(pieces(models["OneDNN"].tokenizer, 10, 120, 180))
    for work, chosen in (("100 sentences", texts), ("10 passages", passages), ("one", texts[:1])):
        tell(work, {name: partial(model.encode, chosen) for name, model in models.items()})


def load(kind: type[OneDNN]) -> Embedder:
    """The default model with products of one kind."""
    with patch("echovec.model.weights.fuses_slowly", lambda dtype: kind is InPlace):
        return Embedder.load(recipe="echo-sentence", precision="exact", engine="packed")


def tell(work: str, ways: Mapping[str, Callable[[], object]]) -> None:
    """Run the ways in turn and print the median of each in milliseconds."""
    took: dict[str, list[float]] = {name: [] for name in ways}
    for repetition in range(REPETITIONS + 1):
        for name, way in ways.items():
            begin = time.perf_counter()
            way()
            if repetition:  # the first warms up
                took[name].append(1000 * (time.perf_counter() - begin))
    shown = ", ".join(f"{name} {statistics.median(each):,.1f}" for name, each in took.items())
    print(f"{work}: {shown} ms", flush=True)


if __name__ == "__main__":
    main()
