"""Passages: texts that a model writes itself, to be asked for where there are no others.

What a model writes from nothing begins and ends in the middle of a sentence, and now and then is a
table or goes round in circles. What is kept are whole sentences, as far as that can be told.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from echovec.calibrate.kept import self_texts
from echovec.calibrate.kinds import OF_ONE_KIND
from echovec.calibrate.write import Writing

if TYPE_CHECKING:
    from echovec.embedder import Embedder

SHORTEST, LONGEST = 60, 88
"""Tokens that are written for a passage."""

FEWEST_WORDS = 12
FEWEST_LETTERS = 0.85
"""The part of a passage that has to be letters and blanks: less is a formula or a table."""

FEWEST_DIFFERENT = 0.5
"""The part of a passage's words that are not repeated."""

_BEGIN = re.compile(r"[.?!] (?=[A-Z])")
_END = re.compile(r"[.?!](?= |$)")


def own_passages(
    embedder: Embedder,
    count: int,
    *,
    seed: int = 0,
    trust_remote_code: bool = False,
    advance: Callable[[int], None] = lambda count: None,
) -> list[str]:
    """Passages out of `count` texts that an embedder's model writes; errors as `self_texts`."""
    writing = Writing(count, SHORTEST, LONGEST, OF_ONE_KIND, seed=seed)
    written = self_texts(embedder, writing, trust_remote_code=trust_remote_code, advance=advance)
    passages = [passage for text in written.texts if (passage := whole_sentences(text))]
    return [passage for passage in dict.fromkeys(passages) if is_sound(passage)]


def whole_sentences(text: str) -> str:
    """From the first beginning of a sentence to the last end of one; "" where there is none."""
    text = " ".join(text.split())
    begin = _BEGIN.search(text)
    if begin is None:
        return ""
    ends = [match.end() for match in _END.finditer(text, begin.end())]
    return text[begin.end() : ends[-1]] if ends else ""


def is_sound(text: str) -> bool:
    """Whether a passage seems to be prose."""
    words = text.casefold().split()
    letters = sum(character.isalpha() or character == " " for character in text)
    return (
        len(words) >= FEWEST_WORDS
        and letters >= FEWEST_LETTERS * len(text)
        and len(set(words)) >= FEWEST_DIFFERENT * len(words)
    )
