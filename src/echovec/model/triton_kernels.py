"""The bodies of `kernels.py`, apart because Triton reads them at import."""

# mypy: ignore-errors
# ruff: noqa: ANN001, ANN201, D103

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def gate(gate_ptr, up_ptr, size, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there = at < size
    g = tl.load(gate_ptr + at, mask=there).to(tl.float32)
    u = tl.load(up_ptr + at, mask=there).to(tl.float32)
    out = g / (1.0 + tl.exp(-g)) * u
    tl.store(gate_ptr + at, out.to(gate_ptr.dtype.element_ty), mask=there)


@triton.jit
def turn(x_ptr, cos_ptr, sin_ptr, row_stride, head_stride, half, WIDTH: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, WIDTH)
    there = column < half
    left_ptr = x_ptr + row * row_stride + tl.program_id(1) * head_stride + column
    cos = tl.load(cos_ptr + row * half + column, mask=there).to(tl.float32)
    sin = tl.load(sin_ptr + row * half + column, mask=there).to(tl.float32)
    left = tl.load(left_ptr, mask=there).to(tl.float32)
    right = tl.load(left_ptr + half, mask=there).to(tl.float32)
    tl.store(left_ptr, (left * cos - right * sin).to(x_ptr.dtype.element_ty), mask=there)
    tl.store(left_ptr + half, (right * cos + left * sin).to(x_ptr.dtype.element_ty), mask=there)
