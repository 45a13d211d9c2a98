"""Batch: many rendered texts laid end to end, sorted by length, under a token budget.

A batch is numpy arrays only, so it travels through queues and processes; tensors are made in the
backbone. Shape suffixes: T tokens of the batch, S sequences, S1 = S + 1, S2 = [S, 2].

Unsorted padded batches compute 2.2 to 3.9 times the needed tokens on sentences (docs/LOG.md);
sorted by exact token count it is about 1.01. The longest come first: a batch that does not fit
into memory shows itself at once, and the progress bar's estimate errs on the safe side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from echovec.text.render import Rendered

Int = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Batch:
    """Rendered texts laid end to end."""

    ids_T: Int
    """Token ids of all sequences, one after the other."""

    offsets_S1: Int
    """Sequence s is `ids_T[offsets_S1[s]:offsets_S1[s + 1]]`."""

    spans_S2: Int
    """The pooled tokens of each sequence: half-open positions in `ids_T`."""

    order_S: Int
    """The place of each sequence in the list that was planned."""

    truncated_S: NDArray[np.bool_]
    """Whether each text was cut to fit."""

    def __len__(self) -> int:
        return len(self.order_S)

    @property
    def lengths_S(self) -> Int:
        """Tokens of each sequence."""
        return np.diff(self.offsets_S1)

    @property
    def positions_T(self) -> Int:
        """The position of each token in its own sequence, from 0."""
        return np.arange(len(self.ids_T)) - np.repeat(self.offsets_S1[:-1], self.lengths_S)

    def select(self, rows: Sequence[int] | Int) -> Batch:
        """The batch of these sequences only, in the order given."""
        rows = np.asarray(rows, dtype=np.int64)
        starts, lengths = self.offsets_S1[:-1][rows], self.lengths_S[rows]
        offsets_S1 = np.concatenate([[0], np.cumsum(lengths)])
        shift_S1 = (offsets_S1[:-1] - starts)[:, None]
        pieces = [self.ids_T[s : s + n] for s, n in zip(starts, lengths, strict=True)]
        return Batch(
            ids_T=np.concatenate(pieces) if pieces else np.zeros(0, np.int64),
            offsets_S1=offsets_S1,
            spans_S2=self.spans_S2[rows] + shift_S1,
            order_S=self.order_S[rows],
            truncated_S=self.truncated_S[rows],
        )

    def halves(self) -> tuple[Batch, Batch]:
        """Two batches of half the sequences each; needs two sequences at least."""
        middle = len(self) // 2
        return self.select(np.arange(middle)), self.select(np.arange(middle, len(self)))


def lay(rendered: Sequence[Rendered], order: Sequence[int] | Int) -> Batch:
    """Lay the rendered texts end to end as one batch; `order` says where they came from."""
    lengths = np.array([len(r.ids) for r in rendered], dtype=np.int64)
    offsets_S1 = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    spans = np.array([r.span for r in rendered], dtype=np.int64).reshape(-1, 2)
    return Batch(
        ids_T=np.concatenate([r.ids for r in rendered]),
        offsets_S1=offsets_S1,
        spans_S2=spans + offsets_S1[:-1, None],
        order_S=np.asarray(order, dtype=np.int64),
        truncated_S=np.array([r.truncated for r in rendered], dtype=np.bool_),
    )


def plan(
    rendered: Sequence[Rendered], *, batch_tokens: int, batch_size: int | None = None
) -> list[Batch]:
    """Sort by length, longest first, and cut into batches.

    A batch holds at most `batch_tokens` tokens, counted as if padded to its longest sequence, and
    at most `batch_size` sequences. A sequence longer than the budget is a batch of its own.
    """
    lengths = np.array([len(r.ids) for r in rendered], dtype=np.int64)
    by_length = np.argsort(-lengths, kind="stable")
    batches, start = [], 0
    while start < len(by_length):
        rows = max(1, batch_tokens // int(lengths[by_length[start]]))
        rows = min(rows, batch_size or rows)
        chosen = by_length[start : start + rows]
        batches.append(lay([rendered[i] for i in chosen], chosen))
        start += rows
    return batches
