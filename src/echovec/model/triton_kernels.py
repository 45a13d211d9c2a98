"""The bodies of `kernels.py`, apart because Triton reads them at import."""

# mypy: ignore-errors
# ruff: noqa: ANN001, ANN201, D103

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def gate(both_ptr, out_ptr, width, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    there = column < width
    left_ptr = both_ptr + row * 2 * width + column
    g = tl.load(left_ptr, mask=there).to(tl.float32)
    u = tl.load(left_ptr + width, mask=there).to(tl.float32)
    out = g / (1.0 + tl.exp(-g)) * u
    tl.store(out_ptr + row * width + column, out.to(out_ptr.dtype.element_ty), mask=there)


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


@triton.jit
def place(
    k_ptr,
    v_ptr,
    prefix_k_ptr,
    prefix_v_ptr,
    rows_ptr,
    cos_ptr,
    sin_ptr,
    out_k_ptr,
    out_v_ptr,
    prefix,
    k_stride,
    v_stride,
    half,
    WIDTH: tl.constexpr,
    TURNS: tl.constexpr,
):
    to = tl.program_id(0).to(tl.int64) * tl.num_programs(1) + tl.program_id(1)
    head = tl.program_id(1)
    row = tl.load(rows_ptr + tl.program_id(0))
    own = row - prefix
    column = tl.arange(0, WIDTH)
    there = column < half
    # Two loads of which one is hidden, in place of a branch.
    mine = column < tl.where(own >= 0, half, 0)
    shared = column < tl.where(own < 0, half, 0)
    prefix_at = (row * tl.num_programs(1) + head) * 2 * half + column
    k_at = k_ptr + own * k_stride + head * 2 * half + column
    v_at = v_ptr + own * v_stride + head * 2 * half + column
    kind = out_k_ptr.dtype.element_ty
    left = tl.load(k_at, mask=mine, other=0.0).to(tl.float32)
    right = tl.load(k_at + half, mask=mine, other=0.0).to(tl.float32)
    if TURNS:
        cos = tl.load(cos_ptr + own * half + column, mask=mine, other=0.0).to(tl.float32)
        sin = tl.load(sin_ptr + own * half + column, mask=mine, other=0.0).to(tl.float32)
        turned = left * cos - right * sin
        right = right * cos + left * sin
        left = turned
    left += tl.load(prefix_k_ptr + prefix_at, mask=shared, other=0.0).to(tl.float32)
    right += tl.load(prefix_k_ptr + prefix_at + half, mask=shared, other=0.0).to(tl.float32)
    out_at = to * 2 * half + column
    tl.store(out_k_ptr + out_at, left.to(kind), mask=there)
    tl.store(out_k_ptr + out_at + half, right.to(kind), mask=there)
    left = tl.load(v_at, mask=mine, other=0.0)
    right = tl.load(v_at + half, mask=mine, other=0.0)
    left += tl.load(prefix_v_ptr + prefix_at, mask=shared, other=0.0)
    right += tl.load(prefix_v_ptr + prefix_at + half, mask=shared, other=0.0)
    tl.store(out_v_ptr + out_at, left, mask=there)
    tl.store(out_v_ptr + out_at + half, right, mask=there)
