"""Drafts: texts that wait, tokenised, to be put into a prompt when they are asked for.

`render` puts texts into the prompt of one pass; `render_passes` drafts the same texts for several,
in as many pieces. A long text is one piece, cut to the budget, or overlapping windows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, overload

import numpy as np
from numpy.typing import NDArray

from echovec.text.batch import Batch, runs
from echovec.text.render import Renderer
from echovec.text.rows import Ids, Rows, tokenized
from echovec.text.template import Fixed
from echovec.text.windows import num_windows, window_starts

Span = tuple[int, int]
LongText = Literal["cut", "windows"]

_AT_ONCE = 1024
"""Sequences that are laid at one time for who goes through all of them."""


@dataclass(frozen=True, eq=False)
class Rendered:
    """One text, or one window of a long text, rendered by a pass."""

    ids: Ids
    """Token ids of the whole prompt, int64 [L]."""

    spans: tuple[Span, ...]
    """The pooled tokens, one span per template of the pass: half-open positions in `ids`."""

    prefix: int
    """How many leading tokens every text of this pass shares: what stands before the first
    `{text}`. They are the same ids in all texts of one `render` call."""

    truncated: bool
    """Whether the text (or the instruction) was cut to fit."""

    placeholder: int | None = None
    """Where the template's `{placeholder}` stands; it is part of the prefix."""

    place: int = 0
    """The text's place in the list that was rendered."""

    share: float = 1.0
    """The part of its text's vector: 1 for a whole text, 1 / n for each of n windows."""


class Drafts(Sequence[Rendered]):
    """All texts of one pass, tokenised; they are put into the prompt when they are asked for.

    A text is one sequence, or one for each of its windows. What is held for a text that waits is
    its ids, four bytes each, which is what keeps memory flat over many texts. Shape suffixes: N
    texts, and of the sequences asked for S sequences, T tokens, P tokens of text of one copy each.

    Args:
        renderer: the pass.
        rows: the ids of each text, in each wording of the prompt.
        counts_N: how many windows each text becomes.
        instruction: ids of what fills the instruction's slot, and whether they were cut.
        cuts: whether a text longer than the budget counts as cut.
    """

    def __init__(
        self,
        renderer: Renderer,
        rows: Mapping[str, Rows],
        counts_N: Ids,
        instruction: tuple[list[int], bool],
        *,
        cuts: bool,
    ) -> None:
        self._renderer = renderer
        self._counts_N = counts_N
        self._instruction, self._cut = instruction
        budget = renderer.text_budget(len(self._instruction))
        self._cut_N = np.full(len(counts_N), self._cut)
        self._places = np.repeat(np.arange(len(counts_N)), counts_N)
        self._copies: dict[str, _Copy] = {}
        for wording, own in rows.items():
            if cuts:
                self._cut_N |= own.sizes_N > budget
            starts = window_starts(own.sizes_N, budget, counts_N)
            sizes = np.minimum(budget, own.sizes_N[self._places] - starts)
            self._copies[wording] = _Copy(own.ids_F, own.begins_N[self._places] + starts, sizes)
        sizes_CS = np.stack([self._copies[one].sizes_S for one in renderer.template.wordings])
        self.lengths_S: Ids = renderer.around(len(self._instruction)) + sizes_CS.sum(axis=0)
        """Tokens of each sequence."""

    @property
    def num_texts(self) -> int:
        """Texts, however many windows each of them is."""
        return len(self._counts_N)

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Rendered: ...
    @overload
    def __getitem__(self, index: slice) -> list[Rendered]: ...
    def __getitem__(self, index: int | slice) -> Rendered | list[Rendered]:
        if isinstance(index, slice):
            chosen = range(*index.indices(len(self)))
            return list(_apart(self.lay(chosen))) if chosen else []
        (one,) = _apart(self.lay([range(len(self))[index]]))
        return one

    def __iter__(self) -> Iterator[Rendered]:
        for start in range(0, len(self), _AT_ONCE):
            yield from self[start : start + _AT_ONCE]

    def lay(self, chosen: Sequence[int] | Ids) -> Batch:
        """The prompts of these sequences, one at least, laid end to end."""
        chosen = np.asarray(chosen, dtype=np.int64)
        renderer, places_S = self._renderer, self._places[chosen]
        offsets_S1 = np.concatenate([[0], np.cumsum(self.lengths_S[chosen])])
        ids_T = np.empty(offsets_S1[-1], dtype=np.int64)
        texts = {wording: copy.texts(chosen) for wording, copy in self._copies.items()}
        at_S = offsets_S1[:-1].copy()  # where the next piece of each prompt goes
        copies: list[tuple[Ids, Ids]] = []
        placeholder = None

        def fill(ids: Sequence[int]) -> None:
            nonlocal at_S
            ids_T[at_S[:, None] + np.arange(len(ids))] = ids
            at_S = at_S + len(ids)

        if renderer.bos_id is not None:
            fill([renderer.bos_id])
        for piece, fixed in zip(renderer.template.pieces, renderer.fixed, strict=True):
            if isinstance(piece, Fixed):
                fill(fixed)
            elif piece.name == "instruction":
                fill(self._instruction)
            elif piece.name == "placeholder":
                placeholder = int(at_S[0])  # in the prefix: the same in all
                fill([renderer.placeholder_id])
            else:
                text_P, sizes_S = texts[piece.wording]
                ids_T[runs(at_S, sizes_S)] = text_P
                copies.append((at_S, at_S + sizes_S))
                at_S = copies[-1][1]
        end = copies[-1][1], at_S
        if renderer.eos_id is not None:
            fill([renderer.eos_id])
        spans = [
            np.stack(renderer.span(t, copies, end, (offsets_S1[:-1], at_S)), axis=1)
            for t in renderer.templates
        ]
        return Batch(
            ids_T=ids_T,
            offsets_S1=offsets_S1,
            spans_SK2=np.stack(spans, axis=1),
            prefix=int(copies[0][0][0]),
            order_S=places_S,
            share_S=1 / self._counts_N[places_S],
            truncated_S=self._cut_N[places_S],
            placeholder=placeholder,
        )


@dataclass(frozen=True, eq=False)
class _Copy:
    """One wording of all texts: S sequences that lie in one array of F ids."""

    ids_F: NDArray[np.int32]
    begins_S: Ids
    sizes_S: Ids

    def texts(self, chosen: Ids) -> tuple[NDArray[np.int32], Ids]:
        """The ids of these sequences' texts, end to end, and how many each has."""
        sizes_S = self.sizes_S[chosen]
        return self.ids_F[runs(self.begins_S[chosen], sizes_S)], sizes_S


def _apart(batch: Batch) -> Iterator[Rendered]:
    """The sequences of a batch, each for itself."""
    for s, (start, stop) in enumerate(pairwise(batch.offsets_S1.tolist())):
        yield Rendered(
            ids=batch.ids_T[start:stop].copy(),
            spans=tuple((a - start, b - start) for a, b in batch.spans_SK2[s].tolist()),
            prefix=batch.prefix,
            truncated=bool(batch.truncated_S[s]),
            placeholder=batch.placeholder,
            place=int(batch.order_S[s]),
            share=float(batch.share_S[s]),
        )


def render(
    renderer: Renderer,
    texts: Sequence[str],
    instruction: str | None = None,
    *,
    long_text: LongText = "cut",
) -> list[Rendered]:
    """Render texts by one pass, in order; errors as `render_passes`."""
    return list(render_passes([renderer], texts, instruction, long_text=long_text)[0])


def render_passes(
    renderers: Sequence[Renderer],
    texts: Sequence[str],
    instruction: str | None = None,
    *,
    long_text: LongText = "cut",
) -> list[Drafts]:
    """Render texts by several passes: one list per pass, as many pieces of each text in all.

    With "cut", a text is one piece, cut to what each pass has room for. With "windows" a text that
    any pass cannot hold is as many windows in every pass, evenly spaced, the first at its beginning
    and the last at its end, an eighth of each or more in common. They are as long as each pass has
    room for: the same where `max_tokens` decides, and not the model's positions.

    Raises:
        InputError: a text is empty, not a text, not valid Unicode, or has no tokens; the error's
            `index` is its place. Or an instruction is missing, or no pass takes one.
    """
    takers = [r for r in renderers if r.template.takes_instruction]
    wanted = [instruction if r in takers or not takers else None for r in renderers]
    instructions = [r.instruction_ids(w) for r, w in zip(renderers, wanted, strict=True)]
    budgets = [r.text_budget(len(ids)) for r, (ids, _) in zip(renderers, instructions, strict=True)]
    # Copies in one wording that follow the same blank have the same rows: tokenised once.
    asked = {(w, r.template.lead): r for r in renderers for w in r.template.wordings}
    found = {
        (wording, lead): tokenized(
            r.tokenizer, texts, wording=wording, lead=lead, share=r.text_share
        )
        for (wording, lead), r in asked.items()
    }
    rows = [{w: found[w, r.template.lead] for w in r.template.wordings} for r in renderers]
    counts_N = np.ones(len(texts), dtype=np.int64)
    if long_text == "windows":
        for own, budget in zip(rows, budgets, strict=True):
            for one in own.values():
                counts_N = np.maximum(counts_N, num_windows(one.sizes_N, budget))
    return [
        Drafts(renderer, own, counts_N, ids, cuts=long_text == "cut")
        for renderer, own, ids in zip(renderers, rows, instructions, strict=True)
    ]
