"""Texts that were rendered one by one, laid end to end: drafts for tests that make their own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from echovec.text.batch import Batch
from echovec.text.drafts import Rendered


def lay(rendered: Sequence[Rendered]) -> Batch:
    """Lay texts rendered by one pass end to end as one batch."""
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


class Made:
    """In place of `Drafts`: texts that are rendered already."""

    def __init__(self, rendered: Sequence[Rendered]) -> None:
        self._rendered = rendered
        self.lengths_S = np.array([len(r.ids) for r in rendered], dtype=np.int64)
        self.num_texts = 1 + max((r.place for r in rendered), default=-1)

    def lay(self, chosen: Sequence[int]) -> Batch:
        """These of them as one batch."""
        return lay([self._rendered[i] for i in chosen])
