"""Template: how a text is repeated, what stands around it, and which tokens are pooled, as data.

A template is one line, `Template("Repeat the text: {text} Again: {text}")`:

- `{text}` is a slot for the text. Each such slot gets the same ids: the text is tokenised once.
- `{text:bare}` and `{text:sorted}` are slots for the text in another form (wording.py), with ids
  of its own.
- `{instruction}` is a slot for the caller's instruction. What stands between the word and the
  brace is tokenised together with it: `{instruction,}` is the instruction and a comma.
- `{placeholder}` is one token that stands for nothing: token prepending writes into it.
- `{{` and `}}` are braces. Everything else is fixed text, and a special token of the model that
  is written there (`<|im_start|>`) is that special token. Users' texts are never parsed.

Pieces are tokenised apart and joined by ids (render.py), so the pooled span is known by counting.
One blank before a slot belongs to the slot: "Again: " + "cat" would be a lone blank token and
"cat", where the joined text has the one token " cat". Since copies share their ids, one copy that
follows a blank gives the blank to every copy, whatever its wording.

Source: Springer et al., "Repetition Improves Language Model Embeddings", ICLR 2025,
arXiv 2402.15449, sections 2 and 3, appendix D; the authors' released query and document templates.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, get_args

from echovec.errors import TemplateError
from echovec.text.wording import AS_GIVEN, WORDINGS

Marker = Literal["absent", "present", "pooled"]
"""What becomes of BOS or EOS: not there, there, or there and inside the pooled span."""

SLOTS = ("text", "instruction", "placeholder")
_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


@dataclass(frozen=True)
class Fixed:
    """Text of the template itself."""

    text: str


@dataclass(frozen=True)
class Slot:
    """A place that a caller's text fills: `lead` and `tail` are tokenised together with it."""

    name: str
    lead: str = ""
    tail: str = ""
    wording: str = AS_GIVEN
    """A row of `WORDINGS`: the form in which a text stands there."""


Piece = Fixed | Slot


@dataclass(frozen=True)
class Template:
    """A prompt with slots, and what of it is pooled.

    Raises:
        TemplateError: the prompt has no `{text}`, an unknown slot, a lone brace, or nothing
            where `pooled` points to.
    """

    prompt: str
    """The prompt, e.g. "Rewrite the following sentence: {text}"."""

    pooled: int | Literal["end"] = -1
    """Which copy of the text is pooled, counted as in a list (-1 is the last copy), or "end":
    the fixed tokens after the last copy (PromptEOL pools the last of them)."""

    bos: Marker = "present"
    """The begin-of-text token. The authors put it in front of every prompt by hand; a tokenizer
    that has none gets none. What the tokenizer itself would add plays no part."""

    eos: Marker = "absent"
    """The end-of-text token, after everything else; cutting a long text never removes it."""

    instruction: str | None = None
    """What fills `{instruction}` when the caller gives nothing."""

    def __post_init__(self) -> None:
        for field in ("bos", "eos"):
            if getattr(self, field) not in get_args(Marker):
                raise TemplateError(
                    f"{field}={getattr(self, field)!r} is not one of {', '.join(get_args(Marker))}"
                )
        self._check_placeholder()
        self._check_instruction()
        copies = self.num_copies
        if not copies:
            raise TemplateError(
                f"the template {self.prompt!r} has no {{text}} slot; "
                "write {text} where the text goes, twice for echo"
            )
        if self.pooled == "end":
            last = self.pieces[-1]
            if isinstance(last, Slot) and last.name == "text" and self.eos != "pooled":
                raise TemplateError(
                    f"pooled='end' needs fixed text after the last {{text}} in {self.prompt!r}, "
                    "or eos='pooled'"
                )
            if self._after_last_copy_has_slot():
                raise TemplateError(
                    f"pooled='end' cannot pool an {{instruction}} after the last {{text}}: "
                    f"{self.prompt!r}"
                )
        elif not isinstance(self.pooled, int) or not -copies <= self.pooled < copies:
            raise TemplateError(
                f"pooled={self.pooled!r} names no copy: {self.prompt!r} has {copies}; "
                f"use a number from {-copies} to {copies - 1}, or 'end'"
            )
        self._check_pooled_markers()

    @cached_property
    def pieces(self) -> tuple[Piece, ...]:
        """The prompt in order, taken apart: fixed texts and slots, none of them empty."""
        return _own_blanks(_parse(self.prompt))

    @property
    def num_copies(self) -> int:
        """How often the text stands in the prompt; 2 or more is an echo."""
        return len(self.wordings)

    @property
    def wordings(self) -> tuple[str, ...]:
        """The wording of each copy of the text, in order."""
        slots = [piece for piece in self.pieces if isinstance(piece, Slot)]
        return tuple(slot.wording for slot in slots if slot.name == "text")

    @property
    def takes_instruction(self) -> bool:
        """Whether there is an `{instruction}` slot."""
        return any(isinstance(p, Slot) and p.name == "instruction" for p in self.pieces)

    @property
    def has_placeholder(self) -> bool:
        """Whether there is a `{placeholder}`."""
        return any(isinstance(p, Slot) and p.name == "placeholder" for p in self.pieces)

    @property
    def lead(self) -> str:
        """What is tokenised in front of every copy of the text: one blank or nothing."""
        return next(p.lead for p in self.pieces if isinstance(p, Slot) and p.name == "text")

    @property
    def prompt_key(self) -> tuple[str, bool, bool, str | None]:
        """What decides the ids: templates with one key differ in what they pool only."""
        return self.prompt, self.bos != "absent", self.eos != "absent", self.instruction

    def pooling_copy(self, copy: int) -> Template:
        """The same template with another copy pooled (0 is the first): controls need it."""
        return replace(self, pooled=copy)

    def up_to_copy(self, copy: int) -> Template:
        """The prompt of a template that pools a copy, up to that one or a later one (0: the first).

        In a causal model what follows has no say in the states before it: it costs tokens only.
        All of it where the copies would lose the blank that a later one of them follows.
        """
        assert self.pooled != "end"
        found = (match for match in _TOKEN.finditer(self.prompt) if match[1] is not None)
        slots = [(_slot(match[1], match.start(), self.prompt), match.end()) for match in found]
        ends = [end for slot, end in slots if slot.name == "text"]
        pooled = self.pooled if copy == len(ends) - 1 else self.pooled % len(ends)
        cut = replace(self, prompt=self.prompt[: ends[copy]], pooled=pooled)
        return cut if cut.lead == self.lead else self

    def _check_placeholder(self) -> None:
        names = [p.name for p in self.pieces if isinstance(p, Slot)]
        if "placeholder" in names[names.index("text") if "text" in names else 0 :] or (
            names.count("placeholder") > 1
        ):
            raise TemplateError(
                f"{{placeholder}} has to stand once, before the first {{text}}: {self.prompt!r}"
            )

    def _check_instruction(self) -> None:
        tails = {p.tail for p in self.pieces if isinstance(p, Slot) and p.name == "instruction"}
        if len(tails) > 1:
            first, second = sorted(tails)[:2]
            raise TemplateError(
                f"{{instruction{first}}} and {{instruction{second}}} in {self.prompt!r}: an "
                "instruction has the same tokens wherever it stands; write both alike"
            )

    def _after_last_copy_has_slot(self) -> bool:
        after = self.pieces[_last_text(self.pieces) + 1 :]
        return any(isinstance(piece, Slot) for piece in after)

    def _check_pooled_markers(self) -> None:
        # A span is one run of tokens: a pooled marker has to touch what else is pooled.
        pieces = self.pieces
        copy = None if self.pooled == "end" else self.pooled % self.num_copies
        if self.eos == "pooled" and copy is not None:
            last_copy_ends = isinstance(pieces[-1], Slot) and pieces[-1].name == "text"
            if copy != self.num_copies - 1 or not last_copy_ends:
                raise TemplateError(
                    f"eos='pooled' needs the pooled copy at the very end of {self.prompt!r}"
                )
        if self.bos == "pooled":
            first_copy_starts = isinstance(pieces[0], Slot) and pieces[0].name == "text"
            if copy != 0 or not first_copy_starts:
                raise TemplateError(
                    f"bos='pooled' needs the pooled copy at the very start of {self.prompt!r}"
                )


def _parse(prompt: str) -> list[Piece]:
    pieces: list[Piece] = []
    fixed, done = "", 0
    for match in _TOKEN.finditer(prompt):
        fixed += prompt[done : match.start()]
        done = match.end()
        if match[0] in ("{{", "}}"):
            fixed += match[0][0]
            continue
        if match[1] is None:
            raise TemplateError(
                f"a lone {match[0]!r} at character {match.start()} of {prompt!r}; "
                "write {{ or }} for a brace"
            )
        if fixed:
            pieces.append(Fixed(fixed))
        fixed = ""
        pieces.append(_slot(match[1], match.start(), prompt))
    fixed += prompt[done:]
    if fixed:
        pieces.append(Fixed(fixed))
    return pieces


def _slot(inside: str, at: int, prompt: str) -> Slot:
    for name in SLOTS:
        tail = inside.removeprefix(name)
        if inside.startswith(name) and not tail[:1].isalnum() and tail[:1] != "_":
            if name == "text" and tail.startswith(":"):
                return Slot(name, wording=_wording(tail[1:], inside, at, prompt))
            if name != "instruction" and tail:
                raise TemplateError(
                    f"{{{inside}}} at character {at} of {prompt!r}: nothing may be added to "
                    f"{{{name}}}; only an instruction is tokenised together with what follows"
                )
            return Slot(name, tail=tail)
    raise TemplateError(
        f"unknown slot {{{inside}}} at character {at} of {prompt!r}; "
        "the slots are {text}, {instruction} and {placeholder}, and {{ }} are braces"
    )


def _wording(name: str, inside: str, at: int, prompt: str) -> str:
    if name == AS_GIVEN or name not in WORDINGS:
        known = ", ".join(f"{{text:{one}}}" for one in WORDINGS if one != AS_GIVEN)
        raise TemplateError(
            f"unknown wording {{{inside}}} at character {at} of {prompt!r}; there are {{text}}, "
            f"the text as it was given, and {known}"
        )
    return name


def _own_blanks(pieces: list[Piece]) -> tuple[Piece, ...]:
    owned: list[Piece] = []
    for piece in pieces:
        before = owned[-1] if owned else None
        if isinstance(piece, Slot) and isinstance(before, Fixed) and before.text.endswith(" "):
            owned[-1:] = [Fixed(before.text[:-1])] if before.text != " " else []
            piece = replace(piece, lead=" ")
        owned.append(piece)
    # Copies share their ids, so a blank before one copy is a blank before every copy; likewise for
    # an instruction that stands twice.
    led = {p.name for p in owned if isinstance(p, Slot) and p.lead}
    return tuple(
        replace(p, lead=" ") if isinstance(p, Slot) and p.name in led else p for p in owned
    )


def _last_text(pieces: tuple[Piece, ...]) -> int:
    return max(i for i, p in enumerate(pieces) if isinstance(p, Slot) and p.name == "text")
