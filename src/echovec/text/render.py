"""Renderer: a prompt bound to a tokenizer, which knows by counting where the text will stand in it.

A `Renderer` is one *pass*: a prompt, the spans that are read from it, and two limits: `max_tokens`
per copy of the text, and the model's own number of positions for the whole prompt. A text that is
too long is cut, every copy alike, so an echo stays an echo and what follows the text (suffix, EOS)
always stays; or it is taken as overlapping windows (drafts.py). The authors' parser cuts each piece
by itself in the same way (`max_length`), instruction included.
"""

from __future__ import annotations

from collections.abc import Sequence

from echovec.errors import InputError, TemplateError
from echovec.text.check import text_problem
from echovec.text.rows import Ids
from echovec.text.template import Slot, Template
from echovec.text.tokenizer import Tokenizer


class Renderer:
    """A pass bound to a tokenizer and limits.

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
        around = self.around(num_instruction)
        room = (self.max_positions - around) // self.template.num_copies
        if room < 1:
            raise TemplateError(
                f"the prompt without the text is {around} tokens and the model takes "
                f"{self.max_positions}: no room for {self.template.num_copies} copies of a text; "
                "shorten the template or the instruction"
            )
        return min(self.max_tokens, room)

    def around(self, num_instruction: int) -> int:
        """Tokens of the whole prompt beside the copies of the text."""
        pieces = self.template.pieces
        num_instructions = sum(isinstance(p, Slot) and p.name == "instruction" for p in pieces)
        around = sum(map(len, self.fixed)) + num_instructions * num_instruction
        around += (self.bos_id is not None) + (self.eos_id is not None)
        return around + self.template.has_placeholder

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
