"""`python -m benchmarks.int8 [--rates]`: what 8 bits would cost in accuracy, and gain in speed.

Weights are rounded to 8 bits by output, activations by token, in the plain engine's float32, as a
fused path would do at best; outliers are moved from activations into weights beforehand
(SmoothQuant: Xiao et al., arXiv 2211.10438), which norms and neighbouring products can take up
exactly. Lowest and mean cosine to the vectors as they are. `--rates` times torch's products of 8
bits, their rounding included, beside those of 16 and 32. Needs the data folder (`ECHOVEC_DATA`).
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.products import SHAPES
from benchmarks.workloads import pieces, sentences
from echovec import Embedder
from echovec.model.linear import HalfStored, OneDNN

RECIPE = "echo-sentence"
LEVELS = 127
ROWS = (24, 256, 2048)


@dataclass(frozen=True)
class Trial:
    """One way to round."""

    name: str
    modules: tuple[str, ...] = ("",)
    """Parts of the names of the modules that are rounded."""

    smooth: float | None = 0.5
    """How much of an outlier goes into the weights; None: nothing is moved."""

    by_token: bool = True
    weights: bool = True
    activations: bool = True


TRIALS = (
    Trial("one scale for all tokens", smooth=None, by_token=False),
    Trial("one for each", smooth=None),
    Trial("one for each, weights alone", smooth=None, activations=False),
    Trial("outliers moved by 0.3", smooth=0.3),
    Trial("outliers moved by 0.5"),
    Trial("outliers moved by 0.7", smooth=0.7),
    Trial("all but `down`, 0.5", ("attn", "gate", "up_")),
    Trial("gate and up, 0.5", ("gate", "up_")),
    Trial("attention's, 0.5", ("attn",)),
)


def main() -> None:
    """Print a line for each way to round, or for each product."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rates", action="store_true")
    options = parser.parse_args()
    with torch.inference_mode():
        if options.rates:
            rates()
        else:
            accuracy()


def accuracy() -> None:
    """Vectors of a rounded model beside its own."""
    plain: Any = Embedder.load(recipe=RECIPE, precision="exact", engine="plain")
    model = plain.backbone.model
    work = {
        "sentences": list(sentences(60)),
        "passages": list(pieces(plain.tokenizer, 6, 120, 180)),
    }
    want = {name: plain.encode(texts) for name, texts in work.items()}
    linears = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and "lm_head" not in name
    }
    largest = maxima(linears, partial(plain.encode, list(sentences(160))[100:]))
    kept = {name: module.weight.detach().clone() for name, module in linears.items()}
    for trial in TRIALS:
        hooks = [
            rounded(module, kept[name], largest[name], trial)
            for name, module in linears.items()
            if any(part in name for part in trial.modules)
        ]
        found = Embedder.from_model(model, plain.tokenizer.inner, RECIPE, engine="plain")
        told = []
        for name, texts in work.items():
            z_SD = torch.as_tensor(found.encode(texts)) * torch.as_tensor(want[name])
            told.append(f"{name} {z_SD.sum(1).min():.4f} lowest, {z_SD.sum(1).mean():.4f}")
        print(f"{trial.name}: {'; '.join(told)}", flush=True)
        for hook in hooks:
            hook.remove()
        for name, module in linears.items():
            module.weight.copy_(kept[name])


def maxima(linears: Mapping[str, nn.Module], run: Callable[[], object]) -> dict[str, Tensor]:
    """The largest activation of each input of each linear map."""
    largest: dict[str, Tensor] = {}

    def look(name: str, module: nn.Module, inputs: Any) -> None:
        now = inputs[0].abs().flatten(0, -2).amax(0)
        largest[name] = torch.maximum(largest.get(name, now), now)

    hooks = [
        module.register_forward_pre_hook(partial(look, name)) for name, module in linears.items()
    ]
    run()
    for hook in hooks:
        hook.remove()
    return largest


def rounded(module: nn.Module, weight_OI: Tensor, largest_I: Tensor, trial: Trial) -> Any:
    """Round a module's weights, and its activations whenever it is called."""
    move_I = torch.ones_like(largest_I)
    if trial.smooth is not None:
        most_I = weight_OI.abs().amax(0).clamp_min(1e-5)
        move_I = largest_I.clamp_min(1e-5) ** trial.smooth / most_I ** (1 - trial.smooth)
    moved_OI = weight_OI * move_I
    if trial.weights:
        moved_OI = in_8_bits(moved_OI, by_row=True)
    module.weight.copy_(moved_OI)  # type: ignore[operator]

    def come(module: nn.Module, inputs: Any) -> tuple[Tensor]:
        x = inputs[0] / move_I
        return (in_8_bits(x, by_row=trial.by_token) if trial.activations else x,)

    return module.register_forward_pre_hook(come)


def in_8_bits(x: Tensor, *, by_row: bool) -> Tensor:
    """The nearest of 255 levels, of each row or of all."""
    most = x.abs().amax(-1, keepdim=True) if by_row else x.abs().amax()
    scale = most.clamp_min(1e-12) / LEVELS
    return (x / scale).round_() * scale


def rates() -> None:
    """GFLOP/s of each product of a block, one thread."""
    warnings.simplefilter("ignore")  # torch.ao's products are to be moved
    torch.set_num_threads(1)
    for outputs, inputs in dict.fromkeys(SHAPES):
        weight_OI = torch.randn(outputs, inputs).half().float()
        scale_O = weight_OI.abs().amax(1) / LEVELS
        zero_O = torch.zeros(outputs, dtype=torch.long)
        for rows in ROWS:
            x_NI = torch.randn(rows, inputs)
            wide, narrow = HalfStored(weight_OI), OneDNN(weight_OI.bfloat16())
            ways: dict[str, Callable[[], object]] = {
                "float32": partial(wide, x_NI),
                "bfloat16": partial(narrow, x_NI.bfloat16()),
            }
            usual = torch.backends.quantized.engine
            for engine in ("fbgemm", "onednn"):
                torch.backends.quantized.engine = engine
                packed = torch.ops.quantized.linear_prepack(
                    torch.quantize_per_channel(weight_OI, scale_O, zero_O, 0, torch.qint8), None
                )
                ways[f"8 bits, {engine}"] = partial(
                    torch.ops.quantized.linear_dynamic, x_NI, packed, False
                )
            torch.backends.quantized.engine = usual
            whole_NI = torch.randint(-LEVELS, LEVELS, (rows, inputs)).to(torch.int8)
            turned_IO = torch.randint(-LEVELS, LEVELS, (outputs, inputs)).to(torch.int8).t()
            ways["8 bits, neither rounded nor scaled"] = partial(torch._int_mm, whole_NI, turned_IO)
            work = 2e-9 * rows * outputs * inputs
            told = ", ".join(f"{name} {work / seconds(way):,.0f}" for name, way in ways.items())
            print(f"{rows} x {inputs} x {outputs}: {told} GFLOP/s", flush=True)


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
