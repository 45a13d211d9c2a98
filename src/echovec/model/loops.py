"""Loops: what lies between a block's products, in one pass over the rows each, on a CPU.

The door to numba (`pip install echovec[fast]`), which compiles them (numba_loops.py) without a
compiler on the machine. Callers ask `usable` first and else take the stock torch steps, which tests
compare these with. torch does the same in several passes, each with memory of its own to write: a
norm of bfloat16 is 3.4 times as fast (`python -m benchmarks.products`).

For inference: nothing here has a gradient. Shapes: N rows, D width, F inner width, O outputs.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import time
from functools import lru_cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

_INSTALLED = importlib.util.find_spec("numba") is not None
_DTYPES = (torch.float32, torch.bfloat16)
_FEW_THREADS = 4
"""A loop runs in one thread. With more threads than this, torch's steps are for many rows."""

_FEW_ROWS = 256
_SLOW = 2.0  # seconds: compiling is worth a word
_log = logging.getLogger("echovec")


def usable(x: Tensor) -> bool:
    """Whether loops may run on these rows: on a CPU, with numba, where no gradient is kept."""
    return (
        x.device.type == "cpu"
        and x.dtype in _DTYPES
        and not torch.is_grad_enabled()
        and (torch.get_num_threads() <= _FEW_THREADS or len(x) <= _FEW_ROWS)
        and _compiled() is not None
    )


def ready() -> bool:
    """Whether there are loops on this machine; compiles them, or reads what was compiled."""
    return _compiled() is not None


def norm(x_ND: Tensor, gain_D: Tensor, eps: float) -> Tensor:
    """Root mean square norm; the gain in float32."""
    x_ND = x_ND.contiguous()
    out_ND = torch.empty_like(x_ND)
    _loops().norm.ctypes(
        x_ND.data_ptr(), _half(x_ND), *x_ND.shape, gain_D.data_ptr(), eps, out_ND.data_ptr()
    )
    return out_ND


SPREAD = 64
"""How many numbers of a row each becomes a sum of; widths must be multiples of it."""


def spread(x_ND: Tensor) -> Tensor:
    """Rows of float32 whose numbers are sums of 64 of `x`'s, with all signs mixed.

    Products of two rows become `SPREAD` times as large, and what stood out in one place is shared
    by 64 (a Hadamard transform of parts, in another order: QuaRot, arXiv 2404.00456).
    """
    out_ND = x_ND.clone(memory_format=torch.contiguous_format)
    room = out_ND.new_empty(4 * out_ND.shape[1])
    _loops().spread.ctypes(out_ND.data_ptr(), *out_ND.shape, room.data_ptr())
    return out_ND


def quantize(x_ND: Tensor, by_D: Tensor) -> tuple[Tensor, Tensor]:
    """Rows times `by_D` (float32), spread, in 8 bits with 128 for zero; each row's scale.

    8 bits hold no NaN and no infinity: a row with one has NaN for its scale.
    """
    x_ND = x_ND.contiguous()
    out_ND = x_ND.new_empty(x_ND.shape, dtype=torch.uint8)
    # float32 by name: torch's default is the process's to change, and the loop takes addresses.
    step_N = x_ND.new_empty(len(x_ND), dtype=torch.float32)
    room = x_ND.new_empty(4 * x_ND.shape[1], dtype=torch.float32)
    _loops().quantize.ctypes(
        x_ND.data_ptr(),
        _half(x_ND),
        *x_ND.shape,
        by_D.data_ptr(),
        out_ND.data_ptr(),
        step_N.data_ptr(),
        room.data_ptr(),
    )
    return out_ND, step_N


def dequantize(y_NO: Tensor, step_N: Tensor, other_NO: Tensor | None = None) -> Tensor:
    """Each row times its number, plus another tensor; written over `y_NO`."""
    more = y_NO if other_NO is None else other_NO.contiguous()
    _loops().dequantize.ctypes(
        y_NO.data_ptr(),
        _half(y_NO),
        *y_NO.shape,
        step_N.data_ptr(),
        more.data_ptr(),
        other_NO is not None,
    )
    return y_NO


def gate(x_NE: Tensor, step_N: Tensor | None = None) -> Tensor:
    """silu(left) * right of rows [left, right], [N, F]; each row times its number before."""
    x_NE = x_NE.contiguous()
    N, F = len(x_NE), x_NE.shape[1] // 2
    out_NF = x_NE.new_empty(N, F)
    step = out_NF if step_N is None else step_N
    _loops().gate.ctypes(
        x_NE.data_ptr(),
        _half(x_NE),
        N,
        F,
        step.data_ptr(),
        step_N is not None,
        out_NF.data_ptr(),
    )
    return out_NF


def loop(name: str) -> Any:
    """A loop by name, to be called with addresses; see numba_loops.py."""
    return getattr(_loops(), name).ctypes


def _half(x: Tensor) -> bool:
    return x.dtype == torch.bfloat16


def _loops() -> ModuleType:
    loops = _compiled()
    assert loops is not None, "usable was asked before"
    return loops


@lru_cache
def _compiled() -> ModuleType | None:
    """The compiled loops; None without numba, or where it cannot compile or keep them."""
    if not _INSTALLED or os.environ.get("NUMBA_DISABLE_JIT", "0") != "0":
        return None
    begin = time.perf_counter()
    try:
        from echovec.model import numba_loops
    except Exception as error:  # numba raises what it likes, and torch's steps do the same
        said = next(
            (line for line in str(error).splitlines() if line.strip()), type(error).__name__
        )
        _log.warning("numba cannot compile the loops (%s); torch's steps run: slower", said)
        return None
    if (took := time.perf_counter() - begin) > _SLOW:
        _log.info("loops compiled in %.0f s, once for this machine", took)
    return numba_loops
