"""Adapted: linear modules with low-rank adapters (LoRA, arXiv 2106.09685) as one product.

PEFT runs a module and its adapter one after the other, in float32 where the adapter is kept in it,
and each of the modules that read the same input (queries, keys and values; gate and up) apart. Here
they are one product of the frozen weights and one thin one of the adapters, in the input's dtype,
with the backward pass written by hand: the weights are never kept by autograd, and the input's
gradient is summed in the product. Same numbers up to rounding; gradients arrive in the adapters'
own dtype.

What is not plain LoRA (dropout in training, DoRA, other kinds of adapters, several at once) runs as
PEFT has it.

Shapes: N rows, I inputs, O outputs of all modules, R ranks of all adapters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, eq=False)
class _Part:
    """One module: its frozen weight, and its adapter where it has one."""

    weight: Tensor
    bias: Tensor | None
    down_RI: Tensor | None = None
    up_OR: Tensor | None = None
    scale: float = 1.0


def product(modules: Sequence[nn.Module], x_NI: Tensor) -> Tensor | None:
    """The modules' outputs side by side, [N, O]; None if one of them is of another kind."""
    parts = [_part(module) for module in modules]
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    if all(part.down_RI is None for part in known):
        return None  # nothing to fuse with: plain modules are called as they are
    tensors: list[Tensor | None] = []
    for part in known:
        tensors += [part.weight, part.bias, part.down_RI, part.up_OR]
    result: Tensor = _Product.apply(x_NI, [part.scale for part in known], *tensors)  # type: ignore[no-untyped-call]
    return result


def _part(module: nn.Module) -> _Part | None:
    if type(module) is nn.Linear:
        return _Part(module.weight, module.bias) if not module.weight.requires_grad else None
    # PEFT is an extra and stays unimported: its class is known by name.
    known = type(module).__module__.startswith("peft.tuners.lora.")
    if type(module).__name__ != "Linear" or not known:
        return None
    lora: Any = module
    base = lora.base_layer
    if type(base) is not nn.Linear or base.weight.requires_grad:
        return None
    if lora.disable_adapters or lora.merged:
        return _Part(base.weight, base.bias) if not lora.merged else None
    active = [name for name in lora.active_adapters if name in lora.lora_A]
    if not active:
        return _Part(base.weight, base.bias)
    name = active[0]
    dropout = lora.lora_dropout[name]
    drops = dropout.training and not isinstance(dropout, nn.Identity) and dropout.p > 0
    if len(active) > 1 or name in lora.lora_variant or drops or lora.lora_bias[name]:
        return None
    down, up = lora.lora_A[name].weight, lora.lora_B[name].weight
    return _Part(base.weight, base.bias, down, up, float(lora.scaling[name]))


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scales: list[float], *tensors: Tensor | None) -> Tensor:
        weights, biases, downs, ups = (tensors[i::4] for i in range(4))
        frozen = _joined(weights)
        bias = None
        if any(b is not None for b in biases):
            bias = torch.cat(
                [w.new_zeros(len(w)) if b is None else b for w, b in zip(weights, biases)]  # type: ignore[union-attr, arg-type] # noqa: B905
            )
        y = functional.linear(x, frozen, bias)
        down, up = _thin(x.dtype, scales, weights, downs, ups)
        inner = x @ down.t()
        y.addmm_(inner, up.t())
        ctx.save_for_backward(x, inner, *tensors)
        ctx.scales = scales
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        (dy,) = grads
        x, inner, *tensors = ctx.saved_tensors
        weights, _, downs, ups = (tensors[i::4] for i in range(4))
        dy = dy.contiguous()
        down, up = _thin(x.dtype, ctx.scales, weights, downs, ups)
        dinner = dy @ up
        dx = None
        if ctx.needs_input_grad[0]:
            dx = (dy @ _joined(weights)).addmm_(dinner, down)
        ddown = dinner.t() @ x
        dtensors: list[Tensor | None] = []
        row = rank = 0
        for weight, d, u, scale in zip(weights, downs, ups, ctx.scales, strict=True):
            rows = slice(row, row + len(weight))
            row += len(weight)
            if d is None or u is None:
                dtensors += [None, None, None, None]
                continue
            ranks = slice(rank, rank + len(d))
            rank += len(d)
            dup = (dy[:, rows].t() @ inner[:, ranks]).to(u.dtype).mul_(scale)
            dtensors += [None, None, ddown[ranks].to(d.dtype), dup]
        return dx, None, *dtensors


def _joined(weights: Sequence[Any]) -> Tensor:
    return weights[0] if len(weights) == 1 else torch.cat(list(weights))


def _thin(
    dtype: torch.dtype,
    scales: Sequence[float],
    weights: Sequence[Any],
    downs: Sequence[Any],
    ups: Sequence[Any],
) -> tuple[Tensor, Tensor]:
    """All adapters as one pair: down [R, I], and up [O, R] with the scales in it."""
    down = torch.cat([d.to(dtype) for d in downs if d is not None])
    up = down.new_zeros(sum(len(w) for w in weights), len(down))
    row = rank = 0
    for weight, d, u, scale in zip(weights, downs, ups, scales, strict=True):
        if d is not None:
            up[row : row + len(weight), rank : rank + len(d)] = u * scale
            rank += len(d)
        row += len(weight)
    return down, up
