"""Batch: many texts in their prompts, laid end to end.

A batch is numpy arrays only, so it travels through queues and processes; tensors are made in the
backbone. One batch is one pass; a *chunk* is a batch for each pass, of the same texts in the same
order. Shape suffixes: T tokens of the batch, S sequences, S1 = S + 1, K spans of each sequence,
SK2 = [S, K, 2], P pooled tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Int = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Batch:
    """Rendered texts laid end to end."""

    ids_T: Int
    """Token ids of all sequences, one after the other."""

    offsets_S1: Int
    """Sequence s is `ids_T[offsets_S1[s]:offsets_S1[s + 1]]`."""

    spans_SK2: Int
    """The pooled tokens of each sequence, K spans of each: half-open positions in `ids_T`."""

    prefix: int
    """How many leading tokens all sequences share, the same ids in each."""

    order_S: Int
    """The place of each sequence's text in the list that was planned."""

    share_S: NDArray[np.float64]
    """Each sequence's part of its text's vector: 1, or 1 / n for each of n windows."""

    truncated_S: NDArray[np.bool_]
    """Whether each text was cut to fit."""

    placeholder: int | None = None
    """The position of the template's `{placeholder}`, the same in every sequence."""

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

    @cached_property
    def pooled(self) -> tuple[Int, Int]:
        """All pooled tokens, once each: `(rows_P, spans_SK2)`.

        `rows_P` are their places in T, ascending; the spans are those of the batch as half-open
        positions in P. A span has all its tokens in P, so it stays one run.
        """
        edges_T1 = np.zeros(len(self.ids_T) + 1, dtype=np.int64)
        np.add.at(edges_T1, self.spans_SK2[..., 0], 1)
        np.add.at(edges_T1, self.spans_SK2[..., 1], -1)
        is_pooled_T = np.cumsum(edges_T1)[:-1] > 0
        before_T1 = np.concatenate([[0], np.cumsum(is_pooled_T)])
        return np.flatnonzero(is_pooled_T), before_T1[self.spans_SK2]

    def select(self, rows: Sequence[int] | Int) -> Batch:
        """The batch of these sequences only, in the order given."""
        rows = np.asarray(rows, dtype=np.int64)
        starts, lengths = self.offsets_S1[:-1][rows], self.lengths_S[rows]
        offsets_S1 = np.concatenate([[0], np.cumsum(lengths)])
        shift_S11 = (offsets_S1[:-1] - starts)[:, None, None]
        return Batch(
            ids_T=self.ids_T[runs(starts, lengths)],
            offsets_S1=offsets_S1,
            spans_SK2=self.spans_SK2[rows] + shift_S11,
            prefix=self.prefix,
            order_S=self.order_S[rows],
            share_S=self.share_S[rows],
            truncated_S=self.truncated_S[rows],
            placeholder=self.placeholder,
        )

    def at(self, order_S: Int) -> Batch:
        """The same sequences as those of other places in a list."""
        return replace(self, order_S=order_S)

    def halves(self) -> tuple[Batch, Batch]:
        """Two batches of half the sequences each; needs two sequences at least."""
        middle = len(self) // 2
        return self.select(np.arange(middle)), self.select(np.arange(middle, len(self)))


Chunk = tuple[Batch, ...]
"""One batch for each pass, of the same texts in the same order."""


def join(batches: Sequence[Batch]) -> Batch:
    """Batches of one pass laid end to end as one; `order_S` counts their sequences anew.

    The prefix is part of a pass: batches whose instructions differ do not go together.
    """
    starts = np.cumsum([0, *(len(batch.ids_T) for batch in batches)])
    ends = [b.offsets_S1[1:] + start for b, start in zip(batches, starts, strict=False)]
    spans = [b.spans_SK2 + start for b, start in zip(batches, starts, strict=False)]
    return Batch(
        ids_T=np.concatenate([batch.ids_T for batch in batches]),
        offsets_S1=np.concatenate([[0], *ends]).astype(np.int64),
        spans_SK2=np.concatenate(spans),
        prefix=min(batch.prefix for batch in batches),
        order_S=np.arange(sum(map(len, batches))),
        share_S=np.concatenate([batch.share_S for batch in batches]),
        truncated_S=np.concatenate([batch.truncated_S for batch in batches]),
        placeholder=batches[0].placeholder,
    )


def runs(begins: Int, sizes: Int) -> Int:
    """`begin, begin + 1, ...` of each of several runs, one after the other."""
    return np.repeat(begins - (np.cumsum(sizes) - sizes), sizes) + np.arange(sizes.sum())
