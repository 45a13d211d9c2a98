"""Layout: where every token of a batch goes in the packed pass, in numbers only.

The flat rows are the batch's tokens without the prefix that all its prompts share, sequences sorted
by length, one after the other, no padding but a few rows at the end of the longest
(`rounded_rows`). Attention needs rectangles: sequences of one length form
one without a copy; a run of short sequences that differ by a few tokens is padded to its longest,
in attention only, which costs nothing in the large products and leaves the result exact (a causal
query never sees what stands to its right).

Shape suffixes: S sequences, B sequences of one group, L queries of each, N flat rows, P pooled
rows, Q rows of the hulls.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from echovec.text.batch import Batch

Int = NDArray[np.int64]

SLACK = 1.3
"""How much longer than its shortest the longest of a padded group may be."""

SHORT = 128
"""Rows of a sequence; longer ones are attended to alone, which is 1.04 times as fast: copying them
into a rectangle and back takes longer than calling the steps of another one."""


@dataclass(frozen=True, eq=False)
class Group:
    """A run of B sequences that attend as one rectangle, of `length` queries each."""

    start: int
    """First flat row of the run; its rows follow one another."""

    lengths_B: Int
    """Rows of each sequence."""

    length: int
    """Queries of each: the longest sequence's rows, or the hull's."""

    first: int = 0
    """Where in its sequence (prefix not counted) the first query stands: 0, or the hull's start."""

    hull: bool = False
    """Whether only the `length` rows from `first` on are wanted of each sequence."""

    @property
    def count(self) -> int:
        """Sequences."""
        return len(self.lengths_B)

    @cached_property
    def stop(self) -> int:
        """One past its last flat row."""
        return self.start + int(self.lengths_B.sum())

    @cached_property
    def rows(self) -> int:
        """How many rows come out."""
        return self.count * self.length if self.hull else self.stop - self.start

    @cached_property
    def begins_B(self) -> Int:
        """The first flat row of each sequence."""
        return self.start + _begins(self.lengths_B)

    @cached_property
    def own_begins_B(self) -> Int:
        """Where place 0 of each sequence stands, or would stand, among the rows that come out."""
        if self.hull:
            return np.arange(self.count) * self.length - self.first
        return _begins(self.lengths_B)

    @cached_property
    def pad(self) -> Int | None:
        """The flat row for every place of the rectangle; None where no padding is needed.

        A place to the right of a sequence's end repeats its last row: finite, and seen by nobody.
        """
        if self.hull or (self.lengths_B == self.length).all():
            return None
        places_L = np.arange(self.length)
        place_BL = np.minimum(places_L, self.lengths_B[:, None] - 1)
        return (self.begins_B[:, None] + place_BL).reshape(-1)

    @cached_property
    def unpad(self) -> Int | None:
        """The place in the rectangle of every row of the run; None with `pad`."""
        if self.pad is None:
            return None
        return np.flatnonzero(np.arange(self.length) < self.lengths_B[:, None])


@dataclass(frozen=True, eq=False)
class Layout:
    """One batch laid out; see the module."""

    prefix_ids: Int
    """The ids that all sequences share and that are computed apart; may be empty."""

    ids_N: Int
    positions_N: Int

    groups: tuple[Group, ...]
    """Attention of all rows."""

    hulls: tuple[Group, ...]
    """Attention of the last layer: each sequence's rows from its first to its last pooled one."""

    rows_S2: Int
    """Each sequence's flat rows, half open."""

    hulls_S2: Int
    """Each sequence's hull, half open, counted from its first flat row."""

    hull_rows_Q: Int
    """The flat rows of the hulls, ascending: the only ones the last layer computes in full."""

    pooled_in_hull_P: Int
    """Where each pooled row of the batch stands among the hull rows, in the batch's order."""

    pooled_rows_P: Int
    """Where each pooled row of the batch stands among the flat rows, in the batch's order."""

    flat_rows_T: Int
    """Where each token of the batch stands among the flat rows; -1 in the prefix."""


def lay_out(batch: Batch, *, round_up: Callable[[int], int] = int) -> Layout:
    """Lay a batch out for one packed pass.

    Args:
        batch: what is run.
        round_up: how many rows to have where there are so many. Further rows are put behind the
            longest sequence, repeating its last token: nothing pooled ever sees them. For
            libraries that make a program for each number of rows (`rounded_rows`).
    """
    lengths_S = batch.lengths_S
    starts_S = batch.offsets_S1[:-1]
    spans_SK2 = batch.spans_SK2 - starts_S[:, None, None]
    prefix = int(min(batch.prefix, spans_SK2[:, :, 0].min(), lengths_S.min() - 1))
    prefix_ids = batch.ids_T[:prefix]

    order_S = np.argsort(-lengths_S, kind="stable")
    real_S = lengths_S[order_S] - prefix
    rest_S = real_S.copy()
    rest_S[0] += round_up(int(real_S.sum())) - int(real_S.sum())
    flat_S1 = np.concatenate([[0], np.cumsum(rest_S)])
    # The rows behind a sequence's end are its last token once more, at the same position.
    place_N = np.minimum(
        np.arange(flat_S1[-1]) - np.repeat(flat_S1[:-1], rest_S), np.repeat(real_S - 1, rest_S)
    )
    tokens_N = np.repeat(starts_S[order_S] + prefix, rest_S) + place_N
    flat_rows_T = np.full(len(batch.ids_T), -1, dtype=np.int64)
    flat_rows_T[tokens_N[::-1]] = np.arange(len(tokens_N))[::-1]  # the first row of each token

    hull_starts_S = spans_SK2[order_S, :, 0].min(axis=1) - prefix
    hull_stops_S = spans_SK2[order_S, :, 1].max(axis=1) - prefix
    hull_lengths_S = hull_stops_S - hull_starts_S
    more = round_up(int(hull_lengths_S.sum())) - int(hull_lengths_S.sum())
    hull_lengths_S[0] += min(more, int(rest_S[0] - hull_stops_S[0]))
    more = round_up(int(hull_lengths_S.sum())) - int(hull_lengths_S.sum())
    further = min(more, int(hull_starts_S[0]))
    hull_starts_S[0] -= further
    hull_lengths_S[0] += further
    hull_S1 = np.concatenate([[0], np.cumsum(hull_lengths_S)])
    place_Q = np.arange(hull_S1[-1]) - np.repeat(hull_S1[:-1], hull_lengths_S)
    hull_rows_Q = np.repeat(flat_S1[:-1] + hull_starts_S, hull_lengths_S) + place_Q

    pooled_rows_P = flat_rows_T[batch.pooled[0]]
    return Layout(
        prefix_ids=prefix_ids,
        ids_N=batch.ids_T[tokens_N],
        positions_N=prefix + place_N,
        groups=_groups(rest_S, flat_S1),
        hulls=_hulls(rest_S, flat_S1, hull_starts_S, hull_lengths_S),
        rows_S2=np.stack([flat_S1[:-1], flat_S1[1:]], axis=1),
        hulls_S2=np.stack([hull_starts_S, hull_starts_S + hull_lengths_S], axis=1),
        hull_rows_Q=hull_rows_Q,
        pooled_in_hull_P=np.searchsorted(hull_rows_Q, pooled_rows_P),
        pooled_rows_P=pooled_rows_P,
        flat_rows_T=flat_rows_T,
    )


def rounded_rows(rows: int) -> int:
    """The next multiple of 8, of 32 above 256.

    oneDNN makes and keeps a program for each size of product it meets, in milliseconds and for
    two thirds of a megabyte each, and batches have all sorts of sizes. So they are made alike: at
    most 7 rows more, or 31 in batches of more than 256 (docs/LOG.md, "what oneDNN keeps").
    """
    step = 8 if rows <= 256 else 32
    return -(-rows // step) * step


def _groups(rest_S: Int, flat_S1: Int) -> tuple[Group, ...]:
    """Runs of lengths within SLACK of each other; lengths descend."""
    groups = []
    first = 0
    while first < len(rest_S):
        longest = int(rest_S[first])
        # Exact runs of a good size stay exact; what is left is padded to its longest.
        last = int(np.searchsorted(-rest_S, -longest, side="right"))
        if last - first < 8 and longest <= SHORT:
            last = int(np.searchsorted(-rest_S, -longest / SLACK, side="right"))
        groups.append(Group(int(flat_S1[first]), rest_S[first:last], longest))
        first = last
    return tuple(groups)


def _hulls(rest_S: Int, flat_S1: Int, starts_S: Int, lengths_S: Int) -> tuple[Group, ...]:
    """Runs of sequences alike in length and hull."""
    alike = np.stack([rest_S, starts_S, lengths_S])
    cuts = np.flatnonzero((alike[:, 1:] != alike[:, :-1]).any(axis=0)) + 1
    bounds = [0, *cuts.tolist(), len(rest_S)]
    return tuple(
        Group(int(flat_S1[a]), rest_S[a:b], int(lengths_S[a]), int(starts_S[a]), hull=True)
        for a, b in pairwise(bounds)
    )


def _begins(lengths_B: Int) -> Int:
    """Where each of several runs begins when they lie after one another."""
    return np.concatenate([[0], np.cumsum(lengths_B)[:-1]]).astype(np.int64)
