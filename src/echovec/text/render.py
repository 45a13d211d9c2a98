"""Rendered: one text in its prompt, as ids, with the pooled span known by counting.

A `Renderer` is a template bound to a tokenizer and to two limits: `max_tokens` per copy of the
text, and the model's own number of positions for the whole prompt. When a text is too long every
copy is cut alike, so an echo stays an echo, and what follows the text (suffix, EOS) always stays.
The authors' parser cuts each piece by itself in the same way (`max_length`), instruction included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from echovec.errors import InputError, TemplateError
from echovec.text.check import text_problem
from echovec.text.template import Fixed, Slot, Template
from echovec.text.tokenizer import Tokenizer

Ids = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Rendered:
    """One text rendered by a template."""

    ids: Ids
    """Token ids of the whole prompt, int64 [L]."""

    span: tuple[int, int]
    """The pooled tokens: half-open positions in `ids`."""

    truncated: bool
    """Whether the text (or the instruction) was cut to fit."""


class Renderer:
    """A template bound to a tokenizer and limits: `render` turns texts into Rendered.

    Args:
        template: what stands around the text.
        tokenizer: text -> ids.
        max_tokens: budget for each copy of the text, in tokens.
        max_positions: the model's limit for the whole prompt, in tokens; None: no limit.

    Raises:
        TemplateError: the template wants an EOS that the tokenizer lacks, or leaves no room for
            a text within `max_positions`.
    """

    def __init__(
        self,
        template: Template,
        tokenizer: Tokenizer,
        *,
        max_tokens: int = 512,
        max_positions: int | None = None,
    ) -> None:
        if max_tokens < 1:
            raise InputError(f"max_tokens={max_tokens} leaves no text; give at least 1")
        if template.eos != "absent" and tokenizer.eos_id is None:
            raise TemplateError(
                "the template ends with EOS but this tokenizer has none; use eos='absent'"
            )
        self.template = template
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.max_positions = max_positions
        self._has_bos = template.bos != "absent" and tokenizer.bos_id is not None
        self._fixed = self._tokenize_fixed()

    @property
    def bos_id(self) -> int | None:
        """The BOS id that stands in front of every prompt, or None."""
        return self.tokenizer.bos_id if self._has_bos else None

    @property
    def eos_id(self) -> int | None:
        """The EOS id that ends every prompt, or None."""
        return self.tokenizer.eos_id if self.template.eos != "absent" else None

    def render(self, texts: Sequence[str], instruction: str | None = None) -> list[Rendered]:
        """Render texts, in order.

        Raises:
            InputError: a text is empty, not a text, not valid Unicode, or has no tokens; the
                error's `index` is its place. Or an instruction is missing or not taken.
        """
        for index, text in enumerate(texts):
            if problem := text_problem(text):
                raise InputError(f"texts[{index}] {problem}; drop it or give it words", index=index)
        instruction_ids, instruction_cut = self._instruction_ids(instruction)
        budget = self._text_budget(len(instruction_ids))
        lead = "" if self.tokenizer.adds_blank else self.template.lead
        rows = self.tokenizer.tokenize([lead + text for text in texts])
        rendered = []
        for index, row in enumerate(rows):
            if not row:
                raise InputError(
                    f"texts[{index}] has no tokens ({texts[index][:40]!r}): this tokenizer drops "
                    "all of it; drop the text",
                    index=index,
                )
            cut = len(row) > budget
            ids, span = self._join(row[:budget], instruction_ids)
            rendered.append(Rendered(ids, span, cut or instruction_cut))
        return rendered

    def _join(self, text_ids: list[int], instruction_ids: list[int]) -> tuple[Ids, tuple[int, int]]:
        template = self.template
        ids: list[int] = []
        copies: list[tuple[int, int]] = []
        if self._has_bos and self.tokenizer.bos_id is not None:
            ids.append(self.tokenizer.bos_id)
        for piece, fixed in zip(template.pieces, self._fixed, strict=True):
            if isinstance(piece, Fixed):
                ids += fixed
            elif piece.name == "instruction":
                ids += instruction_ids
            else:
                copies.append((len(ids), len(ids) + len(text_ids)))
                ids += text_ids
        after = copies[-1][1]
        start, stop = (after, len(ids)) if template.pooled == "end" else copies[template.pooled]
        if template.bos == "pooled" and self._has_bos:
            start = 0
        if self.eos_id is not None:
            ids.append(self.eos_id)
            if template.eos == "pooled":
                stop = len(ids)
        return np.array(ids, dtype=np.int64), (start, stop)

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

    def _instruction_ids(self, instruction: str | None) -> tuple[list[int], bool]:
        template = self.template
        slot = next((p for p in template.pieces if isinstance(p, Slot) and p.name != "text"), None)
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

    def _text_budget(self, num_instruction: int) -> int:
        if self.max_positions is None:
            return self.max_tokens
        pieces = self.template.pieces
        num_instructions = sum(isinstance(p, Slot) and p.name == "instruction" for p in pieces)
        around = sum(map(len, self._fixed)) + num_instructions * num_instruction
        around += (self.bos_id is not None) + (self.eos_id is not None)
        room = (self.max_positions - around) // self.template.num_copies
        if room < 1:
            raise TemplateError(
                f"the prompt without the text is {around} tokens and the model takes "
                f"{self.max_positions}: no room for {self.template.num_copies} copies of a text; "
                "shorten the template or the instruction"
            )
        return min(self.max_tokens, room)
