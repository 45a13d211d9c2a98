"""Kernels: elementwise steps of a block in one pass over memory each, in Triton, for a GPU.

For inference: nothing here has a gradient, so callers ask `usable` first and else take the stock
torch steps, which tests compare these with. So does the first call on each device: Triton needs a C
compiler, which slim images lack, and a kernel that does not do what its twin does is not used.

Shapes: N rows, F inner width, X heads of any kind, H query heads, G key-value heads, E head width,
A rows of the shared prefix, K key rows.
"""

from __future__ import annotations

import importlib.util
import logging
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

_INSTALLED = importlib.util.find_spec("triton") is not None  # it comes with torch's CUDA builds
_BLOCK = 1024
_kernels: dict[str, Any] = {}
_log = logging.getLogger("echovec")


def usable(x: Tensor) -> bool:
    """Whether a kernel may run on this tensor: on CUDA, where it works and no gradient is kept."""
    return x.is_cuda and not torch.is_grad_enabled() and ready(x.device)


def ready(device: torch.device) -> bool:
    """Whether there are kernels for a device."""
    return _INSTALLED and works(device)


@lru_cache
def works(device: torch.device) -> bool:
    """Whether the kernels compile for a device and agree with their twins; if not, it is said."""
    try:
        differs = [name for name, got, want in _trial(device) if not torch.allclose(got, want)]
    except Exception as error:  # Triton raises what it likes, and torch's steps do the same
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = lines[-1] if lines else type(error).__name__
    else:
        reason = f"wrong numbers from {', '.join(differs)}" if differs else ""
    if reason:
        _log.warning(
            "Triton's kernels cannot be used on %s (%s); torch's steps run: slower. Triton needs "
            "a C compiler: apt install gcc, or set CC",
            device,
            reason,
        )
    return not reason


def _trial(device: torch.device) -> list[tuple[str, Tensor, Tensor]]:
    """Each kernel's name, and what it and its twin make of a few numbers."""
    numbers: dict[str, Any] = {"dtype": torch.float32, "device": device}
    x_NXE = torch.linspace(-2, 2, 3 * 4 * 8, **numbers).reshape(3, 4, 8)
    q_NHE, k_NGE, v_NGE = torch.split(x_NXE, [2, 1, 1], dim=1)
    prefix_2AGE = torch.linspace(3, 5, 2 * 2 * 8, **numbers).reshape(2, 2, 1, 8)
    rows_K = torch.tensor([0, 1, 2, 3, 0, 1, 4], device=device)
    angle = torch.linspace(0, 3, 3 * 4, **numbers).reshape(3, 1, 4)
    turning = angle.cos(), angle.sin()
    begin = prefix_2AGE[0], prefix_2AGE[1], rows_K, turning
    left, right = x_NXE.flatten(1).chunk(2, dim=1)
    placed, wanted = place(k_NGE, v_NGE, *begin), place_plain(k_NGE, v_NGE, *begin)
    return [
        ("gate", gate(x_NXE.flatten(1)), torch.nn.functional.silu(left) * right),
        ("place", torch.cat(placed), torch.cat(wanted)),
        ("turn", turn(q_NHE.clone(), *turning), turn_plain(q_NHE, *turning)),
    ]


def gate(both_NF2: Tensor) -> Tensor:
    """silu(left) * right of rows [left, right] that follow one another."""
    N, F = len(both_NF2), both_NF2.shape[1] // 2
    out_NF = both_NF2.new_empty(N, F)
    block = min(_BLOCK, 1 << (F - 1).bit_length())
    while F % block and block > 128:  # no block is half empty where one of this size can be had
        block //= 2
    with _on(both_NF2):
        _kernel("gate")[(N, -(-F // block))](both_NF2, out_NF, F, BLOCK=block)
    return out_NF


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
    strides = qk_NXE.stride(0), qk_NXE.stride(1)
    with _on(qk_NXE):
        _kernel("turn")[(N, X)](qk_NXE, cos, sin, *strides, half, WIDTH=width)
    return qk_NXE


def place_plain(
    k_NGE: Tensor,
    v_NGE: Tensor,
    prefix_k: Tensor,
    prefix_v: Tensor,
    rows_K: Tensor,
    turn: tuple[Tensor, Tensor] | None,
) -> tuple[Tensor, Tensor]:
    """Keys and values [K, G, E] in the order that attention reads them: the twin of `place`."""
    if turn is not None:
        k_NGE = turn_plain(k_NGE, *turn)
    return torch.cat([prefix_k, k_NGE])[rows_K], torch.cat([prefix_v, v_NGE])[rows_K]


def place(
    k_NGE: Tensor,
    v_NGE: Tensor,
    prefix_k: Tensor,
    prefix_v: Tensor,
    rows_K: Tensor,
    turn: tuple[Tensor, Tensor] | None,
) -> tuple[Tensor, Tensor]:
    """Keys and values [K, G, E] in the order that attention reads them, in one pass.

    Args:
        k_NGE: keys, not turned yet; rows may be parts of longer ones, as of `v_NGE`.
        v_NGE: values.
        prefix_k: keys [A, G, E] of the shared prefix, turned.
        prefix_v: values of it.
        rows_K: which rows, of the prefix and the others laid after one another.
        turn: cosines and sines [N, 1, E / 2] to turn keys by, or None: not to.
    """
    G, E = k_NGE.shape[1:]
    k_KGE, v_KGE = (x.new_empty(len(rows_K), G, E) for x in (k_NGE, v_NGE))
    cos, sin = (k_NGE, k_NGE) if turn is None else turn
    half = E // 2
    with _on(k_NGE):
        _kernel("place")[(len(rows_K), G)](
            k_NGE,
            v_NGE,
            prefix_k,
            prefix_v,
            rows_K,
            cos,
            sin,
            k_KGE,
            v_KGE,
            len(prefix_k),
            k_NGE.stride(0),
            v_NGE.stride(0),
            half,
            WIDTH=1 << (half - 1).bit_length(),
            TURNS=turn is not None,
        )
    return k_KGE, v_KGE


def _on(x: Tensor) -> AbstractContextManager[None]:
    """Where a tensor is: Triton launches on the thread's current device, wherever tensors are."""
    return torch.cuda.device_of(x)  # type: ignore[no-untyped-call]


def _kernel(name: str) -> Any:
    """A kernel by name, compiled at its first call; importing this module imports no Triton."""
    if not _kernels:
        from echovec.model import triton_kernels

        _kernels.update(
            gate=triton_kernels.gate, turn=triton_kernels.turn, place=triton_kernels.place
        )
    return _kernels[name]
