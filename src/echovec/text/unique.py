"""Unique: identical texts are computed once, and errors name places in the caller's list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from echovec.errors import InputError, NonFiniteError
from echovec.text.check import text_problem


def unique_texts(texts: Sequence[Any]) -> tuple[list[str], NDArray[np.int64]]:
    """Check texts and drop repeats.

    Returns:
        Each text once, in order of first occurrence, and for every given text its place there:
        `[unique[i] for i in inverse]` is the given list.

    Raises:
        InputError: a text cannot be embedded; `index` is its place.
    """
    for index, text in enumerate(texts):
        if problem := text_problem(text):
            raise InputError(f"texts[{index}] {problem}; drop it or give it words", index=index)
    place: dict[str, int] = {}
    inverse = [place.setdefault(text, len(place)) for text in texts]
    return list(place), np.array(inverse, dtype=np.int64)


def in_callers_list(
    error: InputError | NonFiniteError, inverse: NDArray[np.int64]
) -> InputError | NonFiniteError:
    """The same error, naming the text's first place in the caller's list."""
    place = error.index if isinstance(error, InputError) else error.row
    if place is None:
        return error
    first = int(np.flatnonzero(inverse == place)[0])
    said = str(error).replace(f"texts[{place}]", f"texts[{first}]", 1)
    if isinstance(error, InputError):
        return InputError(said, index=first)
    return NonFiniteError(said, row=first)
