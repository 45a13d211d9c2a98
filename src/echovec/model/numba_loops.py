"""Numba loops: what lies between a block's products, compiled for this CPU; loops.py is the door.

Nothing here is imported before it is needed: importing compiles, some seconds the first time, and
what was compiled is kept beside this file or in the user's cache.

Each loop takes addresses, so that a call costs two microseconds and other threads run meanwhile.
Rows are read into float32 numbers, computed, and written back once; bfloat16 is read and written
as the upper half of a float32, rounded to the nearest even number. `half` says which of the two.

Why they are written as they are: indices that come straight from `range`, or are unsigned, are
known not to be negative, without which nothing is vectorised; slices count references, so there are
none in inner loops; a maximum of floats is not vectorised, one of their bits is; numpy's exp is not
either; and a branch per dtype outside each inner loop halves what there is to compile. All are in
one file because numba's cache looks at a loop's own file only to see whether it is out of date.

Shapes: N rows, D width, F inner width, O outputs, B sequences, L queries of each, M keys of each, P
prefix rows, G key-value heads, R query heads to each, E head width.
"""

# mypy: ignore-errors
# ruff: noqa: ANN001, ANN201, ANN202, E741

import numpy as np
from numba import carray, cfunc, njit

_FAST = {"fastmath": True, "error_model": "numpy"}
_KEPT = {"cache": True, **_FAST}
_LEVELS = np.float32(127)
_ZERO = np.float32(128)
_TILE = 16
_LOWEST = np.float32(-3e38)


@njit(inline="always", **_FAST)
def _wide(bits):
    return np.uint32(np.uint32(bits) << np.uint32(16)).view(np.float32)


@njit(inline="always", **_FAST)
def _half(number):
    bits = np.float32(number).view(np.uint32)
    odd = np.uint32(np.uint32(bits >> np.uint32(16)) & np.uint32(1))
    return np.uint16(np.uint32(bits + np.uint32(0x7FFF) + odd) >> np.uint32(16))


@njit(inline="always", **_FAST)
def _exp(x):
    # 2^whole * e^rest: the whole part goes into the exponent's bits, the rest through a polynomial.
    x = x if x > np.float32(-87.0) else np.float32(-87.0)
    x = x if x < np.float32(88.0) else np.float32(88.0)
    whole = np.floor(x * np.float32(1.44269504) + np.float32(0.5))
    rest = x - whole * np.float32(0.693359375) + whole * np.float32(2.12194440e-4)
    p = np.float32(1.9875691500e-4)
    p = p * rest + np.float32(1.3981999507e-3)
    p = p * rest + np.float32(8.3334519073e-3)
    p = p * rest + np.float32(4.1665795894e-2)
    p = p * rest + np.float32(1.6666665459e-1)
    p = p * rest + np.float32(5.0000001201e-1)
    p = p * rest * rest + rest + np.float32(1)
    return p * np.uint32((np.int32(whole) + np.int32(127)) << np.int32(23)).view(np.float32)


@cfunc("void(voidptr,int64,int64,int64,voidptr,float32,voidptr)", **_KEPT)
def norm(x_, half, N, D, gain_, eps, out_):
    """Root mean square norm of rows."""
    gain = carray(gain_, (D,), np.float32)
    x16, x32 = carray(x_, (N, D), np.uint16), carray(x_, (N, D), np.float32)
    out16, out32 = carray(out_, (N, D), np.uint16), carray(out_, (N, D), np.float32)
    row = np.empty(D, np.float32)
    for n in range(N):
        if half:
            for i in range(D):
                row[i] = _wide(x16[n, i])
        else:
            for i in range(D):
                row[i] = x32[n, i]
        squares = np.float32(0)
        for i in range(D):
            squares += row[i] * row[i]
        scale = np.float32(1) / np.sqrt(squares / np.float32(D) + eps)
        if half:
            for i in range(D):
                out16[n, i] = _half(row[i] * scale * gain[i])
        else:
            for i in range(D):
                out32[n, i] = row[i] * scale * gain[i]


@njit(inline="always", **_FAST)
def _crossed(x, out, h, step):
    # The four sums and differences of four numbers, one of each quarter, the second `step` places
    # further than the first, the third as much further again. Where a quarter ends it begins anew.
    twice, thrice = step + step, step + step + step
    for i in range(step):
        x[1, h + i] = x[1, i]
    for i in range(twice):
        x[2, h + i] = x[2, i]
    for i in range(thrice):
        x[3, h + i] = x[3, i]
    for i in range(h):
        a, b, c, d = x[0, i], x[1, i + step], x[2, i + twice], x[3, i + thrice]
        left, right, more, less = a + b, a - b, c + d, c - d
        out[0, i] = left + more
        out[1, i] = right + less
        out[2, i] = left - more
        out[3, i] = right - less


@njit(inline="always", **_FAST)
def _spread(one, two, width):
    # Each number becomes a sum of 64, all signs mixed: a Hadamard transform but for the order of
    # its numbers. Crossing quarters that are turned against each other keeps every loop long.
    h = np.uint64(width)
    _crossed(one, two, h, np.uint64(0))
    _crossed(two, one, h, np.uint64(width // 4))
    _crossed(one, two, h, np.uint64(width // 16))


@cfunc("void(voidptr,int64,int64,voidptr)", **_KEPT)
def spread(x_, N, D, room_):
    """Rows of float32, each spread out as `quantize` does it; written over. Room is for 4 D."""
    h = D // 4
    x = carray(x_, (N, 4, h), np.float32)
    room = carray(room_, (2, 4, 2 * h), np.float32)
    one, two = room[0], room[1]
    for n in range(N):
        for k in range(4):
            for i in range(h):
                one[k, i] = x[n, k, i]
        _spread(one, two, h)
        for k in range(4):
            for i in range(h):
                x[n, k, i] = two[k, i]


@cfunc("void(voidptr,int64,int64,int64,voidptr,voidptr,voidptr,voidptr)", **_KEPT)
def quantize(x_, half, N, D, by_, out_, scale_, room_):
    """Rows times `by`, spread, in 8 bits around 128; and what one step is worth in each row."""
    h = D // 4
    by = carray(by_, (4, h), np.float32)
    x16, x32 = carray(x_, (N, 4, h), np.uint16), carray(x_, (N, 4, h), np.float32)
    out, scale = carray(out_, (N, 4, h), np.uint8), carray(scale_, (N,), np.float32)
    # Memory from outside: numba counts references to its own whenever it is handed on.
    room, room_bits = (
        carray(room_, (2, 4, 2 * h), np.float32),
        carray(room_, (2, 4, 2 * h), np.int32),
    )
    one, two, bits = room[0], room[1], room_bits[1]
    for n in range(N):
        for k in range(4):
            if half:
                for i in range(h):
                    one[k, i] = _wide(x16[n, k, i]) * by[k, i]
            else:
                for i in range(h):
                    one[k, i] = x32[n, k, i] * by[k, i]
        _spread(one, two, h)
        top = np.int32(0)
        for k in range(4):
            for i in range(h):
                size = np.int32(bits[k, i] & np.int32(0x7FFFFFFF))
                top = size if size > top else top
        if top >= np.int32(0x7F800000):  # infinity or NaN, which whole numbers cannot say
            scale[n] = np.float32(np.nan)
            steps = np.float32(0)
            for k in range(4):
                for i in range(h):
                    two[k, i] = np.float32(0)
        else:
            most = np.int32(top).view(np.float32)
            most = most if most > np.float32(1e-30) else np.float32(1e-30)
            scale[n] = most / _LEVELS
            steps = _LEVELS / most
        for k in range(4):
            for i in range(h):
                # Positive by the zero point: cutting off the fraction rounds to the nearest.
                out[n, k, i] = np.uint8(np.int32(two[k, i] * steps + (_ZERO + np.float32(0.5))))


@cfunc("void(voidptr,int64,int64,int64,voidptr,voidptr,int64)", **_KEPT)
def dequantize(y_, half, N, O, scale_, other_, more):
    """Each row times its number, plus another tensor where there is one; written over."""
    y16, y32 = carray(y_, (N, O), np.uint16), carray(y_, (N, O), np.float32)
    o16, o32 = carray(other_, (N, O), np.uint16), carray(other_, (N, O), np.float32)
    scale = carray(scale_, (N,), np.float32)
    for n in range(N):
        by = scale[n]
        if half and more:
            for i in range(O):
                y16[n, i] = _half(_wide(y16[n, i]) * by + _wide(o16[n, i]))
        elif half:
            for i in range(O):
                y16[n, i] = _half(_wide(y16[n, i]) * by)
        elif more:
            for i in range(O):
                y32[n, i] = y32[n, i] * by + o32[n, i]
        else:
            for i in range(O):
                y32[n, i] = y32[n, i] * by


@cfunc("void(voidptr,int64,int64,int64,voidptr,int64,voidptr)", **_KEPT)
def gate(x_, half, N, F, scale_, scaled, out_):
    """silu(left) * right of rows [left, right], each row times its number first where asked."""
    x16, x32 = carray(x_, (N, 2, F), np.uint16), carray(x_, (N, 2, F), np.float32)
    out16, out32 = carray(out_, (N, F), np.uint16), carray(out_, (N, F), np.float32)
    scale = carray(scale_, (N,), np.float32)
    for n in range(N):
        by = scale[n] if scaled else np.float32(1)
        if half:
            for i in range(F):
                left, right = _wide(x16[n, 0, i]) * by, _wide(x16[n, 1, i]) * by
                out16[n, i] = _half(left * right / (np.float32(1) + _exp(-left)))
        else:
            for i in range(F):
                left, right = x32[n, 0, i] * by, x32[n, 1, i] * by
                out32[n, i] = left * right / (np.float32(1) + _exp(-left))


@cfunc(
    "void(voidptr,int64,int64,voidptr,voidptr,int64,int64,int64,int64,int64,int64,int64,int64,"
    "voidptr,voidptr,int64,int64,voidptr,voidptr,int64,float32,voidptr,voidptr,voidptr,voidptr,"
    "voidptr)",
    **_KEPT,
)
def place(
    x_, half, N, begins_, lengths_, B, first, L, P, G, R, E, most,
    cos_, sin_, positions, rotary, query_gain_, key_gain_, normed, eps, prefix_k_, prefix_v_,
    q_, k_, v_,
):  # fmt: skip
    """Queries, keys and values of a rectangle out of rows [R G, G, G heads], turned and laid out.

    Sequence `b` has `lengths[b]` rows from `begins[b]`; places behind its end, up to `most`, repeat
    the last. Queries are the places `first` to `first + L`; keys the prefix and all `most` places.
    """
    H = G * R
    X = H + 2 * G
    W = E // 2
    M = P + most
    begins, lengths = carray(begins_, (B,), np.int64), carray(lengths_, (B,), np.int64)
    x16, x32 = carray(x_, (N, X, 2, W), np.uint16), carray(x_, (N, X, 2, W), np.float32)
    cos = carray(cos_, (positions, W), np.float32)
    sin = carray(sin_, (positions, W), np.float32)
    gain = np.ones((2, 2, W), np.float32)
    if normed:
        query_gain = carray(query_gain_, (2, W), np.float32)
        key_gain = carray(key_gain_, (2, W), np.float32)
        for side in range(2):
            for i in range(W):
                gain[0, side, i] = query_gain[side, i]
                gain[1, side, i] = key_gain[side, i]
    q16, q32 = carray(q_, (B * H * L, 2, W), np.uint16), carray(q_, (B * H * L, 2, W), np.float32)
    k16, k32 = carray(k_, (B * G * M, 2, W), np.uint16), carray(k_, (B * G * M, 2, W), np.float32)
    v16, v32 = carray(v_, (B * G * M, 2, W), np.uint16), carray(v_, (B * G * M, 2, W), np.float32)
    pk16, pk32 = carray(prefix_k_, (P, G, E), np.uint16), carray(prefix_k_, (P, G, E), np.float32)
    pv16, pv32 = carray(prefix_v_, (P, G, E), np.uint16), carray(prefix_v_, (P, G, E), np.float32)
    kf16, kf32 = carray(k_, (B * G, M, E), np.uint16), carray(k_, (B * G, M, E), np.float32)
    vf16, vf32 = carray(v_, (B * G, M, E), np.uint16), carray(v_, (B * G, M, E), np.float32)
    one = np.empty((2, W), np.float32)
    for b in range(B):
        for g in range(G):
            for p in range(P):
                if half:
                    for i in range(E):
                        kf16[b * G + g, p, i] = pk16[p, g, i]
                        vf16[b * G + g, p, i] = pv16[p, g, i]
                else:
                    for i in range(E):
                        kf32[b * G + g, p, i] = pk32[p, g, i]
                        vf32[b * G + g, p, i] = pv32[p, g, i]
        for j in range(most):
            n = begins[b] + min(j, lengths[b] - 1)
            asks = first <= j < first + L
            for head in range(X):
                if head < H and not asks:
                    continue
                if head >= H + G:  # a value: as it is
                    row = (b * G + head - H - G) * M + P + j
                    if half:
                        for side in range(2):
                            for i in range(W):
                                v16[row, side, i] = x16[n, head, side, i]
                    else:
                        for side in range(2):
                            for i in range(W):
                                v32[row, side, i] = x32[n, head, side, i]
                    continue
                key = head >= H
                if half:
                    for i in range(W):
                        one[0, i] = _wide(x16[n, head, 0, i])
                        one[1, i] = _wide(x16[n, head, 1, i])
                else:
                    for i in range(W):
                        one[0, i] = x32[n, head, 0, i]
                        one[1, i] = x32[n, head, 1, i]
                if normed:
                    squares = np.float32(0)
                    for i in range(W):
                        squares += one[0, i] * one[0, i] + one[1, i] * one[1, i]
                    scale = np.float32(1) / np.sqrt(squares / np.float32(E) + eps)
                    which = 1 if key else 0
                    for i in range(W):
                        one[0, i] *= scale * gain[which, 0, i]
                        one[1, i] *= scale * gain[which, 1, i]
                if rotary:
                    for i in range(W):
                        left, right = one[0, i], one[1, i]
                        one[0, i] = left * cos[P + j, i] - right * sin[P + j, i]
                        one[1, i] = right * cos[P + j, i] + left * sin[P + j, i]
                if key:
                    row = (b * G + head - H) * M + P + j
                    if half:
                        for side in range(2):
                            for i in range(W):
                                k16[row, side, i] = _half(one[side, i])
                    else:
                        for side in range(2):
                            for i in range(W):
                                k32[row, side, i] = one[side, i]
                else:
                    row = ((b * G + head // R) * L + j - first) * R + head % R
                    if half:
                        for side in range(2):
                            for i in range(W):
                                q16[row, side, i] = _half(one[side, i])
                    else:
                        for side in range(2):
                            for i in range(W):
                                q32[row, side, i] = one[side, i]


@cfunc("void(voidptr,int64,int64,int64,int64,int64,int64,int64,float32)", **_KEPT)
def softmax(scores_, half, heads, L, R, M, before, window, scale):
    """Softmax of `scale * scores`, written over; what a query may not see becomes 0.

    Rows are `heads` x L queries x R; query `l` sees the keys up to `before + l`, `window` of them.
    """
    rows = heads * L * R
    s16, s32 = carray(scores_, (rows, M), np.uint16), carray(scores_, (rows, M), np.float32)
    width = (M + 15) // 16 * 16
    tile, spoilt = np.empty((_TILE, width), np.float32), np.empty(_TILE, np.float32)
    bits, flat = tile.view(np.int32), tile.reshape(_TILE * width)
    for begin in range(0, rows, _TILE):
        count = min(_TILE, rows - begin)
        # The exponentials of several rows are one long loop: of one row it would be too short.
        for r in range(count):
            n = begin + r
            seen = before + n // R % L + 1
            if half:
                for i in range(M):
                    tile[r, i] = _wide(s16[n, i])
            else:
                for i in range(M):
                    tile[r, i] = s32[n, i]
            for i in range(seen, width):
                tile[r, i] = _LOWEST
            for i in range(seen - window):
                tile[r, i] = _LOWEST
            # Of negative numbers all bits but the sign are turned, so that bits order as numbers.
            top, size = np.int32(-0x7FFFFFFF), np.int32(0)
            for i in range(width):
                order = bits[r, i]
                large = np.int32(order & np.int32(0x7FFFFFFF))
                size = large if large > size else size
                order = np.int32(order ^ np.int32(np.int32(order >> 31) & np.int32(0x7FFFFFFF)))
                top = order if order > top else top
            top = np.int32(top ^ np.int32(np.int32(top >> 31) & np.int32(0x7FFFFFFF)))
            most = np.int32(top).view(np.float32)
            # Infinity or NaN, of either sign, which `_exp` would make finite.
            if size >= np.int32(0x7F800000):
                spoilt[r] = np.float32(np.nan)
                most = np.float32(0)
            else:
                spoilt[r] = np.float32(1)
            for i in range(width):
                tile[r, i] = (tile[r, i] - most) * scale
        for i in range(count * width):
            flat[i] = _exp(flat[i])
        for r in range(count):
            n = begin + r
            seen = before + n // R % L + 1
            total = np.float32(0)
            for i in range(seen):
                total += tile[r, i]
            total = spoilt[r] / total
            for i in range(seen, M):
                tile[r, i] = np.float32(0)
            for i in range(seen - window):
                tile[r, i] = np.float32(0)
            if half:
                for i in range(M):
                    s16[n, i] = _half(tile[r, i] * total)
            else:
                for i in range(M):
                    s32[n, i] = tile[r, i] * total


@cfunc(
    "void(voidptr,int64,int64,int64,int64,int64,int64,int64,voidptr,voidptr,int64,voidptr)", **_KEPT
)
def gather(o_, half, B, first, L, G, R, E, begins_, lengths_, N, out_):
    """Outputs [B, G, L, R, E] into rows [N, G R E]: place `first + l` of each sequence."""
    begins, lengths = carray(begins_, (B,), np.int64), carray(lengths_, (B,), np.int64)
    o16, o32 = carray(o_, (B * G * L * R, E), np.uint16), carray(o_, (B * G * L * R, E), np.float32)
    out16 = carray(out_, (N, G * R, E), np.uint16)
    out32 = carray(out_, (N, G * R, E), np.float32)
    for b in range(B):
        for j in range(min(L, lengths[b] - first)):
            for head in range(G * R):
                row = ((b * G + head // R) * L + j) * R + head % R
                n = begins[b] + first + j
                if half:
                    for i in range(E):
                        out16[n, head, i] = o16[row, i]
                else:
                    for i in range(E):
                        out32[n, head, i] = o32[row, i]
