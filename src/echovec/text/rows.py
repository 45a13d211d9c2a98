"""Rows: the token ids of many texts, each by itself, before they stand in any prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import overload

import numpy as np
from numpy.typing import NDArray

from echovec.errors import InputError
from echovec.text.check import text_problem
from echovec.text.tokenizer import Tokenizer
from echovec.text.wording import AS_GIVEN, WORDINGS

Ids = NDArray[np.int64]
Row = NDArray[np.int32]

_AT_ONCE = 1024
"""Texts whose ids are lists at one time: a list takes nine times the room of an array."""


@dataclass(frozen=True, eq=False)
class Rows(Sequence[Row]):
    """The ids of many texts: N rows that lie in one array of F ids."""

    ids_F: Row
    begins_N: Ids
    sizes_N: Ids

    def __len__(self) -> int:
        return len(self.sizes_N)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        begin = self.begins_N[index]
        return self.ids_F[begin : begin + self.sizes_N[index]]


def tokenized(
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    wording: str = AS_GIVEN,
    lead: str = "",
    share: float = 1.0,
) -> Rows:
    """The ids of each text.

    Args:
        tokenizer: text -> ids.
        texts: what is embedded.
        wording: the row of `WORDINGS` that each becomes first.
        lead: a blank that a template has before its texts; a tokenizer that adds its own adds none.
        share: how much of each text is kept, rounded up to a token.

    Raises:
        InputError: a text is empty, not a text, not valid Unicode, or has no tokens; the error's
            `index` is its place.
    """
    for index, text in enumerate(texts):
        if problem := text_problem(text):
            raise InputError(f"texts[{index}] {problem}; drop it or give it words", index=index)
    if tokenizer.adds_blank:
        lead = ""
    parts: list[Row] = []
    sizes: list[int] = []
    for start in range(0, len(texts), _AT_ONCE):
        some = texts[start : start + _AT_ONCE]
        if lead or wording != AS_GIVEN:
            some = [lead + WORDINGS[wording](text) for text in some]
        rows = tokenizer.tokenize(some)
        parts.append(np.fromiter(chain.from_iterable(rows), dtype=np.int32))
        sizes += map(len, rows)
    ids_F = np.concatenate([np.zeros(0, np.int32), *parts])
    sizes_N = np.array(sizes, dtype=np.int64)
    if not sizes_N.all():
        index = int(np.flatnonzero(sizes_N == 0)[0])
        raise InputError(
            f"texts[{index}] has no tokens ({texts[index][:40]!r}): this tokenizer drops "
            "all of it; drop the text",
            index=index,
        )
    begins_N = np.cumsum(sizes_N) - sizes_N
    return Rows(ids_F, begins_N, np.ceil(share * sizes_N).astype(np.int64))
