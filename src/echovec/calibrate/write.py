"""Write: a language model writes short texts by itself, to be calibrated on.

Nobody who wants vectors has a calibration corpus at hand, but the model can write one: it starts
from the marker that stood between the documents it was trained on, goes on from the opening of a
kind of text (kinds.py), and each token is drawn from the most likely ones that make up `top_p` of
the probability (nucleus sampling, Holtzman et al., arXiv 1904.09751).

The draws of a text depend on the seed and on its number only, never on the batch: the first hundred
of a thousand texts are the hundred texts of a shorter run (up to rounding of the logits, so on one
machine, in one dtype and with as many threads). Shapes: S texts written at once, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from echovec.calibrate.draw import Drawing, as_text, go_on, line_ends, never_drawn, start_id
from echovec.calibrate.kinds import KINDS
from echovec.errors import InputError, ModelError
from echovec.text.tokenizer import HFTokenizer

if TYPE_CHECKING:
    from torch import Tensor

BATCH = 64
"""Texts written at once: more are hardly faster on a CPU, and their caches need memory."""

MOST_DRAWS = 50
"""How often one text is drawn again before it is the model's fault."""


@dataclass(frozen=True)
class Writing:
    """How texts are written; the defaults are those that docs/calibrate.md has figures for.

    Raises:
        InputError: a number is out of its range.
    """

    count: int = 1_024
    """How many texts."""

    shortest: int = 12
    """Tokens of the shortest text; lengths are drawn evenly."""

    longest: int = 40
    """Tokens of the longest text; a line of a list may be shorter than `shortest`."""

    kinds: tuple[str, ...] = tuple(KINDS)
    """Rows of `echovec.calibrate.kinds.KINDS`, which take turns: text n is of kind n modulo their
    number."""

    top_p: float = 0.95
    """Only the most likely tokens that make up this part of the probability are drawn."""

    temperature: float = 1.0
    """Below 1 likely tokens become likelier, above 1 unlikely ones."""

    seed: int = 0
    """What everything is drawn with."""

    def __post_init__(self) -> None:
        if self.count < 2:
            raise InputError(f"count={self.count}; calibration needs 2 texts at least")
        if not 1 <= self.shortest <= self.longest:
            raise InputError(
                f"texts of {self.shortest} to {self.longest} tokens; give 1 or more, the longest "
                "not below the shortest"
            )
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p={self.top_p}; give a number above 0, at most 1")
        if not self.temperature > 0:
            raise InputError(f"temperature={self.temperature}; give a number above 0")
        if self.seed < 0:
            raise InputError(f"seed={self.seed}; give 0 or more")
        if not self.kinds or not set(self.kinds) <= set(KINDS):
            raise InputError(f"kinds={self.kinds}; give some of {', '.join(KINDS)}")

    def kind(self, number: int) -> str:
        """The kind of the text of this number."""
        return self.kinds[number % len(self.kinds)]


def write_texts(
    model: Any,
    tokenizer: HFTokenizer,
    writing: Writing,
    numbers: Sequence[int],
    *,
    advance: Callable[[int], None] = lambda count: None,
) -> tuple[list[str], int]:
    """Write the texts of these numbers.

    A text that cannot be embedded (blank, or broken Unicode) is drawn again.

    Args:
        model: a Hugging Face causal language model with its head.
        tokenizer: its tokenizer.
        writing: how; its `count` plays no part here.
        numbers: which texts, 0 and up.
        advance: called with the number of texts that have just been finished.

    Returns:
        The texts in the order of `numbers`, and how many were drawn again.

    Raises:
        ModelError: there is no marker to start from, or what the model writes cannot be embedded.
    """
    start = start_id(tokenizer)
    never = never_drawn(tokenizer, int(model.get_output_embeddings().weight.shape[0]))
    openings = _openings(tokenizer, writing, start)
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    room = writing.longest + max(map(len, openings.values())) - 1
    if limit and room >= limit:
        raise InputError(
            f"longest={writing.longest} after the longest opening takes {room} tokens; this model "
            f"takes {limit}"
        )
    ends = line_ends(tokenizer, len(never)) if any(map(_listed, writing.kinds)) else None
    texts: dict[int, str] = {}
    waiting = [_Draw(writing, number, 0) for number in numbers]
    redrawn = 0
    while waiting:
        # Alike lengths together: nobody waits for the longest text of all.
        waiting.sort(key=lambda draw: draw.length)
        again = []
        for draws in _alike(waiting):
            opening = openings[draws[0].kind]
            end = ends if _listed(draws[0].kind) else None
            wrote = _write(model, opening, never, writing, draws, end)
            done = 0
            for draw, ids in zip(draws, wrote, strict=True):
                text = as_text(tokenizer, ids, line=end is not None)
                if text is not None:
                    texts[draw.number] = text
                    done += 1
                elif draw.attempt == MOST_DRAWS:
                    raise ModelError(
                        f"text {draw.number} was blank {MOST_DRAWS} times: this model writes "
                        "nothing that can be embedded; give texts of your own"
                    )
                else:
                    again.append(_Draw(writing, draw.number, draw.attempt + 1))
            advance(done)
        redrawn += len(again)
        waiting = again
    return [texts[number] for number in numbers], redrawn


class _Draw:
    """One attempt at one text: its length and the numbers that its tokens are drawn with."""

    def __init__(self, writing: Writing, number: int, attempt: int) -> None:
        source = np.random.default_rng([writing.seed, number, attempt])
        self.number = number
        self.kind = writing.kind(number)
        self.attempt = attempt
        length = int(source.integers(writing.shortest, writing.longest + 1))
        # A line of a list ends where the model ends it.
        self.length = writing.longest if _listed(self.kind) else length
        self.u: NDArray[np.float64] = source.random(writing.longest)


def _listed(kind: str) -> bool:
    """Whether texts of a kind are lines of a list."""
    return bool(KINDS[kind])


def _alike(draws: Sequence[_Draw]) -> Iterator[list[_Draw]]:
    """Batches of one kind each, in the order given."""
    by_kind: dict[str, list[_Draw]] = {}
    for draw in draws:
        by_kind.setdefault(draw.kind, []).append(draw)
    for own in by_kind.values():
        for first in range(0, len(own), BATCH):
            yield own[first : first + BATCH]


def _write(
    model: Any,
    opening: Sequence[int],
    never: Tensor,
    writing: Writing,
    draws: Sequence[_Draw],
    ends: Tensor | None,
) -> list[list[int]]:
    """What each draw writes after the opening: up to its length or the token that ends its line."""
    u_ST = np.stack([draw.u for draw in draws])[:, : max(draw.length for draw in draws)]
    how = Drawing(never, ends, writing.top_p, writing.temperature)
    rows = go_on(model, [opening] * len(draws), u_ST, how)
    return [row[: draw.length] for row, draw in zip(rows, draws, strict=True)]


def _openings(tokenizer: HFTokenizer, writing: Writing, start: int) -> dict[str, list[int]]:
    """The ids that texts of each kind begin after, the marker before them included."""
    kinds = list(dict.fromkeys(writing.kinds))
    given = [kind for kind in kinds if KINDS[kind]]
    ids = dict(zip(given, tokenizer.tokenize([KINDS[kind] for kind in given]), strict=True))
    return {kind: [start, *map(int, ids.get(kind, ()))] for kind in kinds}
