"""Pooling: the hidden states of each span become one vector; plain differentiable functions.

Shapes: T tokens of a batch, D width, S sequences, S2 = [S, 2] half-open positions in T. Sums are
taken in float32 whatever the model computes in (float64 stays float64), over the span's own rows:
a difference of running sums loses 1e-5 on 200 tokens and more on longer batches.

Names are the ecosystem's (sentence-transformers: mean, lasttoken, weightedmean). One more looks at
which tokens they are, and two at what the prompt's last token attends to: w_R, a weight for each of
the R tokens of all spans, one sequence after the other (model/importance.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

CHUNK = 256
"""Tokens within which "selected" compares importance."""

SIF, ZIPF = 1e-4, 0.1
"""The a of "sif", and how often the commonest token comes, as a share of all."""

Pooling = Callable[[Tensor, Tensor], Tensor]
"""`(h_TD, spans_S2) -> z_SD`, float32 (float64 for float64)."""

TokenPooling = Callable[[Tensor, Tensor, Tensor], Tensor]
"""`(h_TD, spans_S2, ids_T) -> z_SD`, float32 (float64 for float64)."""

AttentionPooling = Callable[[Tensor, Tensor, Tensor, float], Tensor]
"""`(h_TD, spans_S2, w_R, threshold) -> z_SD`, float32 (float64 for float64)."""


def mean(h_TD: Tensor, spans_S2: Tensor) -> Tensor:
    """The mean of the span's states: the paper's choice when nothing is trained (section 3)."""
    rows_P, owner_P, _ = _spread(spans_S2)
    lengths_S1 = (spans_S2[:, 1] - spans_S2[:, 0])[:, None]
    return _segment_sum(_wide(h_TD[rows_P]), owner_P, len(spans_S2)) / lengths_S1


def last_token(h_TD: Tensor, spans_S2: Tensor) -> Tensor:
    """The state of the span's last token: the paper's choice after fine-tuning (section 4)."""
    return _wide(h_TD[spans_S2[:, 1] - 1])


def weighted_mean(h_TD: Tensor, spans_S2: Tensor) -> Tensor:
    """The mean weighted by position in the span, 1, 2, ... n (Muennighoff 2022, SGPT).

    The strongest classical baseline: later tokens of a causal model have seen more.
    """
    rows_P, owner_P, place_P = _spread(spans_S2)
    h_PD = _wide(h_TD[rows_P])
    weights_P1 = place_P[:, None].to(h_PD.dtype)
    lengths_S1 = (spans_S2[:, 1] - spans_S2[:, 0])[:, None].to(h_PD.dtype)
    total_S1 = lengths_S1 * (lengths_S1 + 1) / 2
    return _segment_sum(h_PD * weights_P1, owner_P, len(spans_S2)) / total_S1


def sif(h_TD: Tensor, spans_S2: Tensor, ids_T: Tensor) -> Tensor:
    """The mean weighted by how rare each token is: a / (a + p), SIF (Arora et al., ICLR 2017).

    a is 1e-4, the paper's least. Simplified: p is not counted in a corpus. Vocabularies list their
    tokens commonest first (byte pairs in the order in which they were merged), and of the r-th one
    Zipf's law has p = 0.1 / r; so the weight is r / (r + 1000), with r the id + 1.
    """
    rows_P, owner_P, _ = _spread(spans_S2)
    rank_P = (ids_T[rows_P] + 1).to(torch.float32)
    weights_P = rank_P / (rank_P + ZIPF / SIF)
    return _weighted(_wide(h_TD[rows_P]), owner_P, weights_P, len(spans_S2))


def attended(h_TD: Tensor, spans_S2: Tensor, w_R: Tensor, threshold: float) -> Tensor:
    """The mean weighted by attention of the prompt's last token (ReBA, arXiv 2502.20726).

    The paper's sentence vector: the last row of its symmetrised attention map, the largest over
    blocks and heads. Simplified: over the span only, where the paper averages all tokens of all
    copies; and the last token itself is not counted twice, as the symmetry has it.
    """
    rows_P, owner_P, _ = _spread(spans_S2)
    return _weighted(_wide(h_TD[rows_P]), owner_P, w_R, len(spans_S2))


def selected(h_TD: Tensor, spans_S2: Tensor, w_R: Tensor, threshold: float) -> Tensor:
    """The mean of the tokens that a summary prompt attends to (SCSP, Cheng et al. 2026).

    The template ends with the summary prompt, e.g. `Brief summary: "`. A token of importance w (the
    largest over blocks and heads of its share of the attention to its chunk) is kept where
    w > threshold / (tokens of the chunk); the most important one of each text always is.
    Simplified: one prompt at the end in place of one after every chunk, shares taken in each chunk
    of up to 256 tokens as if it alone were seen; chunks are of equal size, not cut at sentences.
    """
    rows_P, owner_P, _ = _spread(spans_S2)
    lengths_S = spans_S2[:, 1] - spans_S2[:, 0]
    runs_S = -(-lengths_S // CHUNK)
    mean_P = (runs_S.to(w_R.dtype) / lengths_S)[owner_P]
    top_S = w_R.new_zeros(len(spans_S2)).scatter_reduce(0, owner_P, w_R, "amax")
    keep_P = (w_R > threshold * mean_P) | (w_R >= top_S[owner_P])
    return _weighted(_wide(h_TD[rows_P]), owner_P, keep_P, len(spans_S2))


POOLINGS: Mapping[str, Pooling] = {
    "mean": mean,
    "lasttoken": last_token,
    "weightedmean": weighted_mean,
}

TOKEN_POOLINGS: Mapping[str, TokenPooling] = {"sif": sif}

ATTENTION_POOLINGS: Mapping[str, AttentionPooling] = {
    "attended": attended,
    "selected": selected,
}

CHUNKS: Mapping[str, int | None] = {"attended": None, "selected": CHUNK}
"""In runs of how many tokens each of these takes shares of the attention; None: none."""


def _wide(h: Tensor) -> Tensor:
    return h if h.dtype == torch.float64 else h.to(torch.float32)


def _spread(spans_S2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Every pooled token: its row in T, its sequence, and its place in the span from 1."""
    lengths_S = spans_S2[:, 1] - spans_S2[:, 0]
    owner_P = torch.repeat_interleave(lengths_S)
    ends_S = torch.cumsum(lengths_S, 0)
    place_P = torch.arange(len(owner_P), device=spans_S2.device) - (ends_S - lengths_S)[owner_P]
    return spans_S2[:, 0][owner_P] + place_P, owner_P, place_P + 1


def _segment_sum(h_PD: Tensor, owner_P: Tensor, num_sequences: int) -> Tensor:
    z_SD = h_PD.new_zeros(num_sequences, h_PD.shape[1])
    return z_SD.index_add(0, owner_P, h_PD)


def _weighted(h_PD: Tensor, owner_P: Tensor, w_P: Tensor, num_sequences: int) -> Tensor:
    weights_P1 = w_P[:, None].to(h_PD.dtype)
    total_S1 = _segment_sum(weights_P1, owner_P, num_sequences)
    return _segment_sum(h_PD * weights_P1, owner_P, num_sequences) / total_S1
