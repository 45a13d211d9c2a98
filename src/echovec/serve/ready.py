"""Ready: the texts of a request checked, counted, looked up and prepared; all before the model.

It is one call in a thread of its own, so that the event loop goes on and no request waits for more
threads than it must.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from echovec.embedder import Embedder
from echovec.errors import InputError
from echovec.recipe import Role
from echovec.serve.cache import VectorCache
from echovec.serve.lane import Lane, Prepared
from echovec.serve.problem import Problem
from echovec.serve.settings import Settings
from echovec.text.unique import unique_texts

Vectors = NDArray[np.float32]
Ints = NDArray[np.int64]


class Target(NamedTuple):
    """What a request wants its texts embedded by."""

    name: str
    embedder: Embedder
    role: Role | None = None
    instruction: str | None = None
    truncate: bool = True
    """Cut texts beyond the recipe's budget, rather than refuse them."""
    dimensions: int | None = None
    """The first numbers only."""
    normalize: bool = True
    """Unit length."""

    @property
    def lane(self) -> Lane:
        """Where its texts wait."""
        return Lane(self.embedder, self.role, self.instruction)


class Ready(NamedTuple):
    """Texts, each once, with what is known of them."""

    inverse: Ints
    """Of each text of the request, its place here."""
    tokens: Ints
    """Of each text of the request, its tokens."""
    rows: Vectors
    """The vector of each text, as the model gives it; zeros where it is missing."""
    cut: NDArray[np.bool_]
    """Whether each text is cut."""
    missing: list[int]
    """Places of the texts whose vectors are not known."""
    prepared: list[Prepared]
    """Those texts, for the model."""
    keys: list[bytes]
    """The cache's key of each text; empty without a cache."""


def ready(
    target: Target,
    texts: Sequence[str],
    param: str,
    settings: Settings,
    cache: VectorCache | None = None,
) -> Ready:
    """Make texts ready for the model.

    Raises:
        Problem: 400; a text cannot be embedded, or is too long, or all together are.
    """
    unique, inverse, tokens = counted(target.embedder, texts, param, settings)
    rows = np.zeros((len(unique), target.embedder.dimension), np.float32)
    cut = np.zeros(len(unique), np.bool_)
    missing, keys = list(range(len(unique))), []
    if cache is not None:
        where = (target.embedder.recipe.fingerprint, target.role, target.instruction)
        keys = [cache.key(*where, text) for text in unique]
        found = cache.get(keys, target.embedder.dimension)
        for place, (vector, was_cut) in found.items():
            rows[place], cut[place] = vector, was_cut
        missing = [place for place in missing if place not in found]
    prepared: list[Prepared] = []
    if missing:
        try:
            prepared = target.lane.prepare([unique[place] for place in missing])
        except InputError as error:
            if error.index is None:
                raise Problem(400, str(error), param="instruction") from None
            first = int(np.flatnonzero(inverse == missing[error.index])[0])
            raise _bad_text(str(error), error.index, first, param) from None
        cut[missing] = [one.truncated for one in prepared]
    if not target.truncate:
        for index in np.flatnonzero(cut[inverse])[:1]:
            raise _not_whole(target, int(index), int(tokens[index]), param)
    return Ready(inverse, tokens, rows, cut, missing, prepared, keys)


def counted(
    embedder: Embedder, texts: Sequence[str], param: str, settings: Settings
) -> tuple[list[str], Ints, Ints]:
    """Each text once, for each its place there, and how many tokens each has.

    Raises:
        Problem: 400; a text cannot be embedded, or is too long, or all together are.
    """
    try:
        unique, inverse = unique_texts(texts)
    except InputError as error:
        index = error.index or 0
        raise _bad_text(str(error), index, index, param) from None
    rows = embedder.tokenizer.tokenize(unique)
    tokens = np.array([len(row) for row in rows], np.int64)[inverse]
    for index in np.flatnonzero(tokens > settings.max_text_tokens)[:1]:
        raise Problem(
            400,
            f"{param}[{index}] has {tokens[index]:,} tokens, and a text may have "
            f"{settings.max_text_tokens:,}; split it",
            param=f"{param}[{index}]",
            code="context_length_exceeded",
        )
    total = int(tokens.sum())
    if total > settings.max_request_tokens:
        raise Problem(
            400,
            f"{param} has {total:,} tokens, and a request may have "
            f"{settings.max_request_tokens:,}; send fewer texts",
            param=param,
            code="max_tokens_per_request",
        )
    return unique, inverse, tokens


def _bad_text(said: str, place: int, index: int, param: str) -> Problem:
    where = f"{param}[{index}]"
    return Problem(400, said.replace(f"texts[{place}]", where, 1), param=where, code="invalid_text")


def _not_whole(target: Target, index: int, tokens: int, param: str) -> Problem:
    """Why a text would be cut: its instruction is, or there is no room for all of it."""
    limit = target.embedder.definition.max_tokens
    rooms = []
    for renderer in target.embedder.planner(target.role).renderers:
        takes = renderer.template.takes_instruction
        ids, cut = renderer.instruction_ids(target.instruction if takes else None)
        if cut:
            return Problem(
                400,
                f"the instruction has more than the {limit:,} tokens that {target.name} takes; ask "
                "for it to be cut, or shorten it",
                param="instruction",
                code="context_length_exceeded",
            )
        budget, share = renderer.text_budget(len(ids)), renderer.text_share
        whole = int(budget / share)  # of which the share, rounded up, is read
        rooms.append(whole - (math.ceil(share * whole) > budget))
    room = min(rooms)
    return Problem(
        400,
        f"{param}[{index}] has {tokens:,} tokens, and {target.name} has room for {room:,}, a blank "
        "before them included; ask for it to be cut, or split it",
        param=f"{param}[{index}]",
        code="context_length_exceeded",
    )
