"""Causal attention of a packed batch: rectangles of queries against a shared prefix and themselves.

Written as batched matrix products over blocks of queries instead of
`scaled_dot_product_attention`: on a CPU its kernel reaches a fifth of the core's rate in bfloat16
(docs/performance.md), and nothing here repeats the key-value heads or builds a mask across texts.
Blocks stop at the diagonal, so the upper triangle is never computed beyond one block. A few queries
in float32 are that kernel's all the same: what counts there is how many steps there are to call.

Shapes: B sequences, L queries of each, M keys of each (prefix included), H heads, G key-value
heads, R = H / G, D head width.
"""

from __future__ import annotations

from functools import lru_cache, partial

import torch
from torch import Tensor
from torch.nn import functional

BLOCK = 128
"""Queries per block: enough for the products, few enough that scores stay in cache."""

FEW = 64
"""Up to so many queries in all, torch's own kernel is faster: 1.4 times for one sequence, with
several of them by blocks is level or better (`python -m benchmarks.products`)."""

MAX_SCORES = 1 << 20
"""Scores computed at once; a long rectangle is cut into fewer sequences at a time."""

KEPT = 1 << 16
"""Numbers of the largest mask that is kept, so that 256 of them are 64 MB at most. A larger one is
made anew for each block: little beside the products of the many keys it is for."""


def attend(
    q_BLHD: Tensor,
    k_BMGD: Tensor,
    v_BMGD: Tensor,
    *,
    scale: float,
    window: int | None = None,
    cap: float | None = None,
) -> Tensor:
    """Attention whose last query sits on the last key; [B, L, H * D].

    Args:
        q_BLHD: queries, the last L positions of each sequence.
        k_BMGD: keys of all its positions.
        v_BMGD: their values.
        scale: what every score is multiplied with.
        window: how many keys back a query sees, itself included; None: all.
        cap: what no scaled score gets beyond; None: there is none.
    """
    B, L, H, D = q_BLHD.shape
    M, G = k_BMGD.shape[1], k_BMGD.shape[2]
    few = B * L <= FEW and cap is None  # torch's own kernel knows of no cap
    if few and q_BLHD.device.type == "cpu" and not torch.is_grad_enabled():
        return _attend_few(q_BLHD, k_BMGD, v_BMGD, scale, window)
    at_once = max(1, MAX_SCORES // (H * min(L, BLOCK) * M))
    if at_once < B:
        parts = [slice(b, b + at_once) for b in range(0, B, at_once)]
        of = partial(attend, scale=scale, window=window, cap=cap)
        return torch.cat([of(q_BLHD[p], k_BMGD[p], v_BMGD[p]) for p in parts])
    R = H // G
    q_BGRLD = q_BLHD.view(B, L, G, R, D).permute(0, 2, 3, 1, 4)
    k_bDM = k_BMGD.permute(0, 2, 3, 1).reshape(B * G, D, M)
    v_bMD = v_BMGD.transpose(1, 2).reshape(B * G, M, D)
    nothing = q_BLHD.new_zeros(1, 1, 1)
    blocks = []
    for first in range(0, L, BLOCK):
        last = min(first + BLOCK, L)
        end = M - L + last
        begin = 0 if window is None else max(0, M - L + first - window + 1)
        q_bnD = q_BGRLD[:, :, :, first:last].reshape(B * G, R * (last - first), D)
        # beta=0: nothing is added; this is the product and its scale in one step.
        scores_bnM = torch.baddbmm(nothing, q_bnD, k_bDM[:, :, begin:end], beta=0, alpha=scale)
        if cap is not None:  # pressed softly between -cap and cap (Gemma 2, arXiv 2408.00118)
            scores_bnM = cap * torch.tanh(scores_bnM / cap)
        _hide(scores_bnM, R, window)
        o_bnD = torch.bmm(_softmax(scores_bnM), v_bMD[:, begin:end])
        blocks.append(o_bnD.view(B, G, R, last - first, D))
    o_BGRLD = blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=3)
    return o_BGRLD.permute(0, 3, 1, 2, 4).reshape(B, L, H * D)


def _attend_few(
    q_BLHD: Tensor, k_BMGD: Tensor, v_BMGD: Tensor, scale: float, window: int | None
) -> Tensor:
    o_BHLD = functional.scaled_dot_product_attention(
        q_BLHD.transpose(1, 2),
        k_BMGD.transpose(1, 2),
        v_BMGD.transpose(1, 2),
        attn_mask=hidden(q_BLHD.shape[1], k_BMGD.shape[1], window, q_BLHD.dtype, q_BLHD.device),
        scale=scale,
        enable_gqa=True,
    )
    return o_BHLD.transpose(1, 2).flatten(2)


def hidden(
    rows: int, keys: int, window: int | None, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """[rows, keys]: 0, or -inf where a query may not look; the last query sits on the last key."""
    made = _kept_hidden if rows * keys <= KEPT else _kept_hidden.__wrapped__
    return made(rows, keys, window, dtype, device)


@lru_cache(maxsize=256)
def _kept_hidden(
    rows: int, keys: int, window: int | None, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """`hidden`, kept for the next block and the next batch."""
    with torch.inference_mode(False):
        scores_1nM = torch.zeros(1, rows, keys, dtype=dtype, device=device)
        _hide(scores_1nM, 1, window)
    return scores_1nM[0]


def _hide(scores_bnM: Tensor, repeats: int, window: int | None) -> None:
    """Put -inf where a query may not look; the last query sits on the last key."""
    b, n, M = scores_bnM.shape
    rows = n // repeats
    scores_bRnM = scores_bnM.view(b, repeats, rows, M)
    if rows > 1:
        scores_bRnM[..., M - rows :] += _above_diagonal(rows, scores_bnM.dtype, scores_bnM.device)
    if window is not None and window < M:
        back_nM = torch.arange(rows)[:, None] + (M - rows) - torch.arange(M)
        scores_bRnM.masked_fill_((back_nM >= window).to(scores_bnM.device), float("-inf"))


@lru_cache(maxsize=BLOCK)
def _above_diagonal(rows: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.full((rows, rows), float("-inf"), dtype=dtype, device=device).triu(1)


def _softmax(scores: Tensor) -> Tensor:
    # torch's bfloat16 softmax is twice as slow on rows that are no multiple of its vector.
    if scores.dtype == torch.bfloat16 and scores.shape[-1] % 32 and not scores.is_cuda:
        return torch.softmax(scores, dim=-1, dtype=torch.float32).to(scores.dtype)
    return torch.softmax(scores, dim=-1)
