"""Rendered: one text in its prompt, as ids, with the pooled spans known by counting.

A `Renderer` is one *pass*: a prompt bound to a tokenizer, the spans that are read from it, and two
limits: `max_tokens` per copy of the text, and the model's own number of positions for the whole
prompt. A text that is too long is cut, every copy alike, so an echo stays an echo and what follows
the text (suffix, EOS) always stays; or it is taken as overlapping windows, each of them rendered.
The authors' parser cuts each piece by itself in the same way (`max_length`), instruction included.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Literal, overload

import numpy as np
from numpy.typing import NDArray

from echovec.errors import InputError, TemplateError
from echovec.text.batch import Batch, runs
from echovec.text.check import text_problem
from echovec.text.template import Fixed, Slot, Template
from echovec.text.tokenizer import Tokenizer
from echovec.text.windows import num_windows, window_starts

Ids = NDArray[np.int64]
Row = NDArray[np.int32]
Span = tuple[int, int]
LongText = Literal["cut", "windows"]

_AT_ONCE = 1024
"""Texts whose ids are lists at one time: a list takes nine times the room of an array."""


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


class Renderer:
    """A pass bound to a tokenizer and limits: `render` turns texts into Rendered.

    Args:
        templates: a template, or several that differ only in what they pool.
        tokenizer: text -> ids.
        max_tokens: budget for each copy of the text, in tokens.
        max_positions: the model's limit for the whole prompt, in tokens; None: no limit.
        text_share: how much of each text is kept, rounded up to a token: 0.5 makes an echo as long
            as the classical prompt (the paper's compute-matched comparison, section 5).

    Raises:
        TemplateError: the template wants an EOS that the tokenizer lacks, or leaves no room for
            a text within `max_positions`.
    """

    def __init__(
        self,
        templates: Template | Sequence[Template],
        tokenizer: Tokenizer,
        *,
        max_tokens: int = 512,
        max_positions: int | None = None,
        text_share: float = 1.0,
    ) -> None:
        templates = (templates,) if isinstance(templates, Template) else tuple(templates)
        assert len({t.prompt_key for t in templates}) == 1, "one pass has one prompt"
        if max_tokens < 1:
            raise InputError(f"max_tokens={max_tokens} leaves no text; give at least 1")
        if templates[0].eos != "absent" and tokenizer.eos_id is None:
            raise TemplateError(
                "the template ends with EOS but this tokenizer has none; use eos='absent'"
            )
        self.templates = templates
        self.template = templates[0]
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.max_positions = max_positions
        self.text_share = text_share
        self._has_bos = self.template.bos != "absent" and tokenizer.bos_id is not None
        self.fixed = self._tokenize_fixed()
        """Ids of each piece of the template; an empty list stands for a slot."""

    @property
    def bos_id(self) -> int | None:
        """The BOS id that stands in front of every prompt, or None."""
        return self.tokenizer.bos_id if self._has_bos else None

    @property
    def eos_id(self) -> int | None:
        """The EOS id that ends every prompt, or None."""
        return self.tokenizer.eos_id if self.template.eos != "absent" else None

    def render(
        self,
        texts: Sequence[str],
        instruction: str | None = None,
        *,
        long_text: LongText = "cut",
    ) -> list[Rendered]:
        """Render texts, in order.

        Raises:
            InputError: a text is empty, not a text, not valid Unicode, or has no tokens; the
                error's `index` is its place. Or an instruction is missing or not taken.
        """
        return list(render_passes([self], texts, instruction, long_text=long_text)[0])

    def rows(self, texts: Sequence[str]) -> Rows:
        """The ids of each text by itself, `text_share` of them; errors as `render`."""
        for index, text in enumerate(texts):
            if problem := text_problem(text):
                raise InputError(f"texts[{index}] {problem}; drop it or give it words", index=index)
        lead = "" if self.tokenizer.adds_blank else self.template.lead
        parts: list[Row] = []
        sizes: list[int] = []
        for start in range(0, len(texts), _AT_ONCE):
            some = texts[start : start + _AT_ONCE]
            rows = self.tokenizer.tokenize([lead + text for text in some] if lead else some)
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
        return Rows(ids_F, begins_N, np.ceil(self.text_share * sizes_N).astype(np.int64))

    def instruction_ids(self, instruction: str | None) -> tuple[list[int], bool]:
        """Ids of what fills the instruction's slot, and whether they were cut to the budget."""
        template = self.template
        slots = [p for p in template.pieces if isinstance(p, Slot) and p.name == "instruction"]
        slot = slots[0] if slots else None
        if slot is None:
            if instruction is not None:
                raise InputError(
                    f"this template takes no instruction (got {instruction[:40]!r}); use the "
                    "recipe echo-instruct, or a template with an {instruction} slot"
                )
            return [], False
        chosen = template.instruction if instruction is None else instruction
        if chosen is None:
            raise InputError("this template needs an instruction; give instruction='...'")
        if chosen and (problem := text_problem(chosen)):
            raise InputError(f"the instruction {problem}")
        lead = "" if self.tokenizer.adds_blank else slot.lead
        ids = self.tokenizer.tokenize([lead + chosen + slot.tail])[0]
        return ids[: self.max_tokens], len(ids) > self.max_tokens

    def text_budget(self, num_instruction: int) -> int:
        """The most tokens that one copy of a text may have beside so long an instruction."""
        if self.max_positions is None:
            return self.max_tokens
        around = self.length(0, num_instruction)
        room = (self.max_positions - around) // self.template.num_copies
        if room < 1:
            raise TemplateError(
                f"the prompt without the text is {around} tokens and the model takes "
                f"{self.max_positions}: no room for {self.template.num_copies} copies of a text; "
                "shorten the template or the instruction"
            )
        return min(self.max_tokens, room)

    def length(self, num_text: int, num_instruction: int) -> int:
        """Tokens of the whole prompt around copies of `num_text` tokens."""
        pieces = self.template.pieces
        num_instructions = sum(isinstance(p, Slot) and p.name == "instruction" for p in pieces)
        around = sum(map(len, self.fixed)) + num_instructions * num_instruction
        around += (self.bos_id is not None) + (self.eos_id is not None)
        around += self.template.has_placeholder
        return around + self.template.num_copies * num_text

    def span(
        self,
        template: Template,
        copies: Sequence[tuple[Ids, Ids]],
        end: tuple[Ids, Ids],
        whole: tuple[Ids, Ids],
    ) -> tuple[Ids, Ids]:
        """Where what a template pools begins and stops in each of several prompts.

        Args:
            template: one of this pass.
            copies: where each copy of the text begins and stops.
            end: the same of what follows the last copy, EOS not counted.
            whole: the same of the prompts.
        """
        start, stop = end if template.pooled == "end" else copies[template.pooled]
        if template.bos == "pooled" and self._has_bos:
            start = whole[0]
        return start, whole[1] if template.eos == "pooled" and self.eos_id is not None else stop

    @property
    def placeholder_id(self) -> int:
        """The id that stands where the template's `{placeholder}` does."""
        # Any token does: its state is overwritten, and Fu et al. find that its start does not
        # matter. A marker is none of the text's own.
        markers = (self.tokenizer.bos_id, self.tokenizer.eos_id)
        return next((marker for marker in markers if marker is not None), 0)

    def _tokenize_fixed(self) -> list[list[int]]:
        """Ids of each fixed piece; an empty list stands for a slot."""
        ids: list[list[int]] = []
        for place, piece in enumerate(self.template.pieces):
            if isinstance(piece, Slot):
                ids.append([])
                continue
            text = piece.text
            if self.tokenizer.adds_blank and text.startswith(" "):
                text = text[1:]
            after_bos = place == 0 and self._has_bos
            ids.append(self.tokenizer.tokenize_fixed(text, after_bos=after_bos) if text else [])
        return ids


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


class Drafts(Sequence[Rendered]):
    """All texts of one pass, tokenised; they are put into the prompt when they are asked for.

    A text is one sequence, or one for each of its windows. What is held for a text that waits is
    its ids, four bytes each, which is what keeps memory flat over many texts. Shape suffixes: N
    texts, and of the sequences asked for S sequences, T tokens, P tokens of text of one copy each.

    Args:
        renderer: the pass.
        rows: the ids of each text.
        counts_N: how many windows each text becomes.
        instruction: ids of what fills the instruction's slot, and whether they were cut.
        cuts: whether a text longer than the budget counts as cut.
    """

    def __init__(
        self,
        renderer: Renderer,
        rows: Rows,
        counts_N: Ids,
        instruction: tuple[list[int], bool],
        *,
        cuts: bool,
    ) -> None:
        self._renderer = renderer
        self._rows = rows
        self._counts_N = counts_N
        self._instruction, self._cut = instruction
        budget = renderer.text_budget(len(self._instruction))
        self._cut_N = np.full(len(rows), self._cut)
        if cuts:
            self._cut_N |= rows.sizes_N > budget
        self._places = np.repeat(np.arange(len(rows)), counts_N)
        starts = window_starts(rows.sizes_N, budget, counts_N)
        self._begins = rows.begins_N[self._places] + starts
        self._sizes = np.minimum(budget, rows.sizes_N[self._places] - starts)
        around = renderer.length(0, len(self._instruction))
        self.lengths_S: Ids = around + renderer.template.num_copies * self._sizes
        """Tokens of each sequence."""

    @property
    def num_texts(self) -> int:
        """Texts, however many windows each of them is."""
        return len(self._rows)

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
        renderer, places_S, sizes_S = self._renderer, self._places[chosen], self._sizes[chosen]
        offsets_S1 = np.concatenate([[0], np.cumsum(self.lengths_S[chosen])])
        ids_T = np.empty(offsets_S1[-1], dtype=np.int64)
        text_P = self._rows.ids_F[runs(self._begins[chosen], sizes_S)]
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


def render_passes(
    renderers: Sequence[Renderer],
    texts: Sequence[str],
    instruction: str | None = None,
    *,
    long_text: LongText = "cut",
) -> list[Drafts]:
    """Render texts by several passes: one list per pass, the same pieces of text in each.

    With "cut", a text is one piece, cut to what each pass has room for. With "windows" a text that
    any pass cannot hold is as many windows in every pass, evenly spaced, the first at its beginning
    and the last at its end, an eighth of each or more in common.

    Raises:
        InputError: see `Renderer.render`; an instruction has to be taken by one pass at least.
    """
    takers = [r for r in renderers if r.template.takes_instruction]
    wanted = [instruction if r in takers or not takers else None for r in renderers]
    instructions = [r.instruction_ids(w) for r, w in zip(renderers, wanted, strict=True)]
    budgets = [r.text_budget(len(ids)) for r, (ids, _) in zip(renderers, instructions, strict=True)]
    # Passes whose texts follow the same blank have the same rows: tokenised once.
    by_lead = {r.template.lead: r for r in renderers}
    rows_by_lead = {lead: r.rows(texts) for lead, r in by_lead.items()}
    rows = [rows_by_lead[r.template.lead] for r in renderers]
    counts_N = np.ones(len(texts), dtype=np.int64)
    if long_text == "windows":
        for own, budget in zip(rows, budgets, strict=True):
            counts_N = np.maximum(counts_N, num_windows(own.sizes_N, budget))
    return [
        Drafts(renderer, own, counts_N, ids, cuts=long_text == "cut")
        for renderer, own, ids in zip(renderers, rows, instructions, strict=True)
    ]
