"""Gradients: elementwise steps of a block whose backward pass is written by hand, for training.

torch's own autograd keeps every intermediate of a norm, a rotation or a gate, and sums slices into
buffers full of zeros; on a CPU that took two thirds of a training step. Each function here keeps
its inputs only and gives the same gradients (the twin is the plain step under autograd). Gains of
norms are taken as frozen: `Norm` asks before.

Shapes: N rows, D width, F inner width, X heads, E head width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def norm(x_ND: Tensor, gain_D: Tensor, eps: float) -> Tensor:
    """`x / rms(x) * gain` over the last dimension; differentiable in `x`."""
    result: Tensor = _Norm.apply(x_ND, gain_D, eps)  # type: ignore[no-untyped-call]
    return result


def turn(qk_NXE: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions; `cos` and `sin` are [N, 1, E / 2]."""
    result: Tensor = _Turn.apply(qk_NXE, cos, sin)  # type: ignore[no-untyped-call]
    return result


def gate(both_NF2: Tensor) -> Tensor:
    """`silu(left half) * right half` of [N, 2 F]."""
    result: Tensor = _Gate.apply(both_NF2)  # type: ignore[no-untyped-call]
    return result


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, eps: float) -> Tensor:
        ctx.save_for_backward(x, gain)
        ctx.eps = eps
        return functional.rms_norm(x, gain.shape, gain, eps)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (dy,) = grads
        x, gain = ctx.saved_tensors
        wide = x.float() if x.dtype != torch.float64 else x
        scale = torch.rsqrt(torch.linalg.vecdot(wide, wide)[..., None] / x.shape[-1] + ctx.eps)
        g = (dy * gain).to(wide.dtype)
        # d(x / rms) = g / rms - x * <g, x> / (D * rms^3)
        inner = torch.linalg.vecdot(g, wide)[..., None]
        dx = g.mul_(scale).addcmul_(wide, inner * scale**3, value=-1 / x.shape[-1])
        return dx.to(x.dtype), None, None


class _Turn(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _rotated(x, cos, sin, back=False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return _rotated(grads[0], *ctx.saved_tensors, back=True), None, None


def _rotated(x: Tensor, cos: Tensor, sin: Tensor, *, back: bool) -> Tensor:
    left, right = x.chunk(2, dim=-1)
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    half = x.shape[-1] // 2
    sign = 1 if back else -1
    torch.mul(left, cos, out=out[..., :half]).addcmul_(right, sin, value=sign)
    torch.mul(right, cos, out=out[..., half:]).addcmul_(left, sin, value=-sign)
    return out


class _Gate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, both: Tensor) -> Tensor:
        ctx.save_for_backward(both)
        left, right = both.chunk(2, dim=-1)
        return functional.silu(left).mul_(right)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (dy,) = grads
        (both,) = ctx.saved_tensors
        left, right = both.chunk(2, dim=-1)
        d = torch.empty_like(both)
        dleft, dright = d.chunk(2, dim=-1)
        torch.mul(functional.silu(left), dy, out=dright)
        torch.mul(torch.ops.aten.silu_backward(dy, left), right, out=dleft)
        return (d,)
