"""Lane: what texts that share a batch have in common, and a text made ready for its batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from echovec.embedder import Embedder
from echovec.recipe import Role
from echovec.text.batch import Chunk, join

_ONE_CHUNK = 1 << 60


class Lane(NamedTuple):
    """Texts that may share a batch: those of one embedder, role and instruction."""

    embedder: Embedder
    role: Role | None
    instruction: str | None

    @property
    def shares(self) -> bool:
        """Whether batches of it may run beside others."""
        return self.embedder.workers(self.role) > 1

    def prepare(self, texts: Sequence[str]) -> list[Prepared]:
        """Each text's own sequences; see `Embedder.prepare` for errors."""
        (chunk,) = self.embedder.prepare(
            texts, role=self.role, instruction=self.instruction, batch_tokens=_ONE_CHUNK
        )
        rows = np.argsort(chunk[0].order_S, kind="stable")
        edges = np.searchsorted(chunk[0].order_S[rows], np.arange(len(texts) + 1))
        return [
            Prepared(text, tuple(batch.select(rows[edges[i] : edges[i + 1]]) for batch in chunk))
            for i, text in enumerate(texts)
        ]


class Prepared(NamedTuple):
    """A text and its sequences: one, or one for each of its windows."""

    text: str
    chunk: Chunk

    @property
    def lengths_S(self) -> NDArray[np.int64]:
        """The longest prompt that each sequence has in any pass, in tokens."""
        longest: NDArray[np.int64] = np.max([batch.lengths_S for batch in self.chunk], axis=0)
        return longest

    @property
    def truncated(self) -> bool:
        """Whether the text was cut to fit."""
        return any(bool(batch.truncated_S.any()) for batch in self.chunk)

    @property
    def tokens(self) -> int:
        """What goes through the model, all passes together."""
        return sum(len(batch.ids_T) for batch in self.chunk)


def chunks_of(prepared: Sequence[Prepared], batch_tokens: int) -> list[Chunk]:
    """Prepared texts of one lane as chunks, longest first; places are those in `prepared`.

    As in `Plan`, a chunk's tokens are counted as if padded to its longest sequence.
    """
    counts = [len(one.chunk[0]) for one in prepared]
    place_S = np.repeat(np.arange(len(prepared)), counts)
    length_S = np.concatenate([one.lengths_S for one in prepared])
    passes = [join(batches) for batches in zip(*(one.chunk for one in prepared), strict=True)]
    by_length = np.argsort(-length_S, kind="stable")
    chunks: list[Chunk] = []
    start = 0
    while start < len(by_length):
        stop = start + max(1, batch_tokens // int(length_S[by_length[start]]))
        rows = by_length[start:stop]
        chunks.append(tuple(batch.select(rows).at(place_S[rows]) for batch in passes))
        start = stop
    return chunks
