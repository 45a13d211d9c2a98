"""Feed: the numbers that a pass with ragged attention reads, in one buffer.

One copy brings all of them to the card, where a dozen small ones would each cost a call. And a pass
that reads nothing else but this buffer can be recorded once and replayed (recorded.py): then the
parts are made as large as a few sizes allow (`Sizes.rounded`), so that one recording serves many
batches. What is added repeats the last number of each part: rows that no sequence holds, and
sequences without rows. Every step but attention works on each row by itself, and attention follows
its edges, so nothing that is added reaches a row that counts.

Shapes: N flat rows, Q rows of the hulls, P pooled rows, K key rows, S sequences.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from echovec.model.layout import Int, Layout


@dataclass(frozen=True)
class Sizes:
    """How many of each there are, or is room for."""

    rows: int
    hull_rows: int
    pooled: int
    keys: int
    """Key rows: the prefix before each sequence, and its own."""

    sequences: int
    most_rows: int
    """Of one sequence."""

    most_hull_rows: int
    most_keys: int

    def rounded(self) -> Sizes:
        """One of few: 16 to an octave, so on average 3 % more; what is only a limit, 1."""
        sequences = _power(self.sequences)
        prefix = (self.keys - self.rows) // self.sequences
        rows = _stepped(self.rows)
        return Sizes(
            rows=rows,
            hull_rows=_stepped(self.hull_rows),
            pooled=_stepped(self.hull_rows),  # all pooled rows are in hulls
            keys=rows + prefix * sequences,
            sequences=sequences,
            most_rows=_power(self.most_rows),
            most_hull_rows=_power(self.most_hull_rows),
            most_keys=_power(self.most_keys),
        )

    def parts(self) -> tuple[int, ...]:
        """How long the parts of the buffer are, in the order of `Fed`."""
        N, Q, P, K, S1 = self.rows, self.hull_rows, self.pooled, self.keys, self.sequences + 1
        return (N, N, P, Q, P, K, S1, S1, K, S1, S1)


class Feed:
    """The numbers of a layout.

    Args:
        layout: of the batch.
        prefix: how many rows the shared prefix has.
    """

    def __init__(self, layout: Layout, prefix: int) -> None:
        self._layout, self._prefix = layout, prefix

    @cached_property
    def sizes(self) -> Sizes:
        """As many as there are."""
        hulls_S = self._layout.hulls_S2[:, 1] - self._layout.hulls_S2[:, 0]
        rows_S = self._layout.rows_S2[:, 1] - self._layout.rows_S2[:, 0]
        return Sizes(
            rows=int(rows_S.sum()),
            hull_rows=int(hulls_S.sum()),
            pooled=len(self._layout.pooled_rows_P),
            keys=int(rows_S.sum()) + self._prefix * len(rows_S),
            sequences=len(rows_S),
            most_rows=int(rows_S.max()),
            most_hull_rows=int(hulls_S.max()),
            most_keys=self._prefix + int(rows_S.max()),
        )

    def numbers(self, sizes: Sizes) -> Int:
        """All of them in one array, each part filled up to its size with its last number."""
        layout = self._layout
        begins_S, ends_S = layout.rows_S2[:, 0], layout.rows_S2[:, 1]
        hull_ends_S = begins_S + layout.hulls_S2[:, 1]
        parts = (
            layout.ids_N,
            layout.positions_N,
            layout.pooled_rows_P,
            layout.hull_rows_Q,
            layout.pooled_in_hull_P,
            *self._keys(begins_S, ends_S, ends_S - begins_S),
            *self._keys(begins_S, hull_ends_S, layout.hulls_S2[:, 1] - layout.hulls_S2[:, 0]),
        )
        lengths = sizes.parts()
        buffer = np.empty(sum(lengths), dtype=np.int64)
        begin = 0
        for part, length in zip(parts, lengths, strict=True):
            buffer[begin : begin + len(part)] = part
            buffer[begin + len(part) : begin + length] = part[-1]
            begin += length
        return buffer

    def _keys(self, begins_S: Int, ends_S: Int, queries_S: Int) -> tuple[Int, Int, Int]:
        """Key rows, and where each sequence begins among the queries and among them."""
        keys_S = self._prefix + ends_S - begins_S
        edges_S1 = _edges(keys_S)
        place_K = np.arange(edges_S1[-1]) - np.repeat(edges_S1[:-1], keys_S)
        own_K = np.repeat(begins_S, keys_S) + place_K
        return np.where(place_K < self._prefix, place_K, own_K), _edges(queries_S), edges_S1


@dataclass(frozen=True, eq=False)
class Edges:
    """Who attends to whom."""

    key_rows_K: Tensor
    """Rows of the prefix and the flat rows, laid after one another, that are looked at."""

    query_edges_S1: Tensor
    """Where each sequence begins among the rows that ask: int32."""

    key_edges_S1: Tensor
    """Where it begins among the key rows: int32."""


@dataclass(frozen=True, eq=False)
class Fed:
    """A feed on the device: views of one buffer."""

    sizes: Sizes
    ids_N: Tensor
    positions_N: Tensor
    pooled_rows_P: Tensor
    hull_rows_Q: Tensor
    pooled_in_hull_P: Tensor
    every: Edges
    """All rows ask."""

    hulls: Edges
    """Only the rows of the hulls do."""

    @staticmethod
    def of(buffer: Tensor, sizes: Sizes) -> Fed:
        """The parts of a buffer that has room for these sizes."""
        ids, positions, pooled, hull, in_hull, *edges = torch.split(buffer, list(sizes.parts()))
        every, hulls = (
            Edges(keys, queries_S1.int(), keys_S1.int())
            for keys, queries_S1, keys_S1 in (edges[:3], edges[3:])
        )
        return Fed(sizes, ids, positions, pooled, hull, in_hull, every, hulls)


def _stepped(count: int) -> int:
    """The next of 16 steps to an octave."""
    step = max(16, _power(count) // 32)
    return -(-count // step) * step


def _power(count: int) -> int:
    """The next power of two, at least 16."""
    return max(16, 1 << (count - 1).bit_length())


def _edges(lengths_S: Int) -> Int:
    return np.concatenate([[0], np.cumsum(lengths_S)])
