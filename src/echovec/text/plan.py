"""Plan: texts in their prompts, sorted by length and cut into batches under a token budget.

Unsorted padded batches compute 2.2 to 3.9 times the needed tokens on sentences (docs/LOG.md);
sorted by exact token count it is about 1.01. The longest come first: a batch that does not fit
into memory shows itself at once, and the progress bar's estimate errs on the safe side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import numpy as np

from echovec.text.batch import Chunk
from echovec.text.drafts import Drafts


class Plan(Sequence[Chunk]):
    """Chunks of texts, longest first; each is laid when it is asked for.

    A batch holds at most `batch_tokens` tokens, counted as if padded to its longest sequence, and
    at most `batch_size` sequences. Passes run one after the other, so the budget counts the
    longest prompt that a text has in any of them. A sequence longer than the budget is a chunk of
    its own.

    Args:
        passes: for each pass the same texts in the same order.
        batch_tokens: the token budget.
        batch_size: sequences per batch at most.
    """

    def __init__(
        self,
        passes: Sequence[Drafts],
        *,
        batch_tokens: int,
        batch_size: int | None = None,
    ) -> None:
        self._passes = passes
        lengths_S = np.array([one.lengths_S for one in passes]).max(axis=0)
        self._by_length = np.argsort(-lengths_S, kind="stable")
        self._edges = [0]
        while self._edges[-1] < len(self._by_length):
            start = self._edges[-1]
            rows = max(1, batch_tokens // int(lengths_S[self._by_length[start]]))
            self._edges.append(min(start + min(rows, batch_size or rows), len(self._by_length)))

    @property
    def num_texts(self) -> int:
        """Texts that were planned."""
        return self._passes[0].num_texts

    @property
    def num_sequences(self) -> int:
        """Sequences of all chunks: texts, or windows of them."""
        return len(self._by_length)

    def __len__(self) -> int:
        return len(self._edges) - 1

    @overload
    def __getitem__(self, index: int) -> Chunk: ...
    @overload
    def __getitem__(self, index: slice) -> list[Chunk]: ...
    def __getitem__(self, index: int | slice) -> Chunk | list[Chunk]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]  # IndexError past the end: that is what ends a loop
        chosen = self._by_length[self._edges[index] : self._edges[index + 1]]
        return tuple(one.lay(chosen) for one in self._passes)


def plan(passes: Sequence[Drafts], *, batch_tokens: int, batch_size: int | None = None) -> Plan:
    """Sort by length, longest first, and cut into chunks; see `Plan`."""
    return Plan(passes, batch_tokens=batch_tokens, batch_size=batch_size)
