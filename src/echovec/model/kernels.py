"""Kernels: elementwise steps of a block in one pass over memory each, in Triton, for a GPU.

For inference: nothing here has a gradient, so callers ask `usable` first and else take the stock
torch steps, which tests compare these with.

Shapes: N rows, F inner width, X query and key heads, E head width.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import Tensor

_INSTALLED = importlib.util.find_spec("triton") is not None  # it comes with torch's CUDA builds
_BLOCK = 1024
_kernels: dict[str, Any] = {}


def usable(x: Tensor) -> bool:
    """Whether a kernel may run on this tensor: on CUDA, with Triton, where no gradient is kept."""
    return x.is_cuda and _INSTALLED and not torch.is_grad_enabled()


def gate(gate_NF: Tensor, up_NF: Tensor) -> Tensor:
    """silu(gate) * up, written over `gate`."""
    size = gate_NF.numel()
    grid = ((size + _BLOCK - 1) // _BLOCK,)
    _kernel("gate")[grid](gate_NF, up_NF, size, BLOCK=_BLOCK)
    return gate_NF


def turn_plain(qk_NXE: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions, in torch: the twin of `turn`. `cos` and `sin` are [N, 1, E / 2]."""
    left, right = qk_NXE.chunk(2, dim=-1)
    return torch.cat(
        [torch.addcmul(left * cos, right, sin, value=-1), torch.addcmul(right * cos, left, sin)],
        dim=-1,
    )


def turn(qk_NXE: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions, written over `qk_NXE`, whose rows may be parts of longer ones."""
    N, X, E = qk_NXE.shape
    half = E // 2
    width = 1 << (half - 1).bit_length()
    _kernel("turn")[(N, X)](qk_NXE, cos, sin, qk_NXE.stride(0), qk_NXE.stride(1), half, WIDTH=width)
    return qk_NXE


def _kernel(name: str) -> Any:
    """A kernel by name, compiled at its first call; importing this module imports no Triton."""
    if not _kernels:
        from echovec.model import triton_kernels

        _kernels.update(gate=triton_kernels.gate, turn=triton_kernels.turn)
    return _kernels[name]
