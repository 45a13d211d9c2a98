"""Wording: in which form a text stands in a copy; not all copies of an echo need to be alike.

`{text}` in a prompt is the text as it was given. `{text:bare}` is its words in lower case without
punctuation, `{text:sorted}` the same words in alphabetical order, `{text:reversed}` the same words
from the last to the first. The model has read the text as it is in the first copy; what is pooled
of a bare copy after it depends less on how the text was typed, and what is pooled of a sorted one
less on the order in which things were said.

To add a wording, add a row.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping

AS_GIVEN = ""
"""The name of the wording that changes nothing."""


def bare(text: str) -> str:
    """The words in lower case, without punctuation around them, one blank between; never empty.

    Marks inside a word stay ("don't", "3.5", "e-mail"), and so do symbols that are no punctuation
    ("$"). A text of nothing but punctuation stays as it is.
    """
    words = (_without_edges(word) for word in text.lower().split())
    return " ".join(word for word in words if word) or text


def in_order(text: str) -> str:
    """The bare words in the order of their characters' code points, repeated ones too."""
    return " ".join(sorted(bare(text).split())) or text


def backwards(text: str) -> str:
    """The bare words, the last one first."""
    return " ".join(reversed(bare(text).split())) or text


def _without_edges(word: str) -> str:
    if word.isalnum():  # most are, and there is no mark in them
        return word
    start, stop = 0, len(word)
    while start < stop and _is_mark(word[start]):
        start += 1
    while start < stop and _is_mark(word[stop - 1]):
        stop -= 1
    return word[start:stop]


def _is_mark(character: str) -> bool:
    return unicodedata.category(character).startswith("P")


WORDINGS: Mapping[str, Callable[[str], str]] = {
    AS_GIVEN: str,
    "bare": bare,
    "sorted": in_order,
    "reversed": backwards,
}
"""What a slot may name after its colon: a function that gives a text that is not empty."""
