"""Plan: texts in their prompts, sorted by length and cut into batches under a token budget.

Unsorted padded batches compute 2.2 to 3.9 times the needed tokens on sentences (docs/LOG.md);
sorted by exact token count it is about 1.01. The longest come first: a batch that does not fit
into memory shows itself at once, and the progress bar's estimate errs on the safe side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

from echovec.text.batch import Batch, Chunk
from echovec.text.render import Drafts, Rendered

Int = NDArray[np.int64]


def lay(rendered: Sequence[Rendered]) -> Batch:
    """Lay texts rendered by one pass end to end as one batch."""
    if isinstance(rendered, Drafts):
        return rendered.lay(range(len(rendered)))
    lengths = np.array([len(r.ids) for r in rendered], dtype=np.int64)
    offsets_S1 = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    spans = np.array([r.spans for r in rendered], dtype=np.int64).reshape(len(rendered), -1, 2)
    return Batch(
        ids_T=np.concatenate([r.ids for r in rendered]),
        offsets_S1=offsets_S1,
        spans_SK2=spans + offsets_S1[:-1, None, None],
        prefix=min(r.prefix for r in rendered),
        order_S=np.array([r.place for r in rendered], dtype=np.int64),
        share_S=np.array([r.share for r in rendered], dtype=np.float64),
        truncated_S=np.array([r.truncated for r in rendered], dtype=np.bool_),
        placeholder=rendered[0].placeholder,
    )


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
        passes: Sequence[Sequence[Rendered]],
        *,
        batch_tokens: int,
        batch_size: int | None = None,
    ) -> None:
        self._passes = passes
        lengths_S = np.array([_lengths(rendered) for rendered in passes]).max(axis=0)
        self._by_length = np.argsort(-lengths_S, kind="stable")
        self._edges = [0]
        while self._edges[-1] < len(self._by_length):
            start = self._edges[-1]
            rows = max(1, batch_tokens // int(lengths_S[self._by_length[start]]))
            self._edges.append(min(start + min(rows, batch_size or rows), len(self._by_length)))

    @property
    def num_texts(self) -> int:
        """Texts that were planned."""
        first = self._passes[0]
        if isinstance(first, Drafts):
            return first.num_texts
        return 1 + max((rendered.place for rendered in first), default=-1)

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
        return tuple(_laid(rendered, chosen) for rendered in self._passes)


def plan(
    passes: Sequence[Sequence[Rendered]], *, batch_tokens: int, batch_size: int | None = None
) -> Plan:
    """Sort by length, longest first, and cut into chunks; see `Plan`."""
    return Plan(passes, batch_tokens=batch_tokens, batch_size=batch_size)


def _laid(rendered: Sequence[Rendered], chosen: Int) -> Batch:
    if isinstance(rendered, Drafts):
        return rendered.lay(chosen)
    return lay([rendered[i] for i in chosen])


def _lengths(rendered: Sequence[Rendered]) -> Int:
    if isinstance(rendered, Drafts):
        return rendered.lengths_S
    return np.array([len(r.ids) for r in rendered], dtype=np.int64)
