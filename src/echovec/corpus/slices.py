"""Slices: the input cut into the pieces that become shards, the same way in every run.

A slice is a run of consecutive rows of the input, unusable ones counted. It ends at `max_rows`
rows, at 32 million characters, where a slice begins that is done already, or with the input. So
the cuts depend on nothing but the input and what is done, and rows that are added at the end of an
input make slices of their own.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from echovec.corpus.source import Problem, Row
from echovec.files.known import Known, hash_texts

SLICE_CHARACTERS = 32_000_000


@dataclass(frozen=True)
class Slice:
    """Rows `start` to `stop` of the input, of all inputs in order, counted from 0."""

    start: int
    stop: int
    rows: list[Row]
    problems: list[Problem]

    hash: str
    """sha256 over what was read, 64 hex digits: ids, texts and what is kept with them, and why rows
    are unusable. File names are not in it: an input may move."""


def cut(
    rows: Iterable[Row | Problem],
    max_rows: int,
    done: Collection[tuple[int, int]] = (),
    *,
    ids: Known | None = None,
    kept: Sequence[str] = (),
) -> Iterator[Slice]:
    """Cut `rows` into slices; one of `done` (start, stop) ends where it says it does.

    `ids`: those used before, and in the end those of all rows; a second row of an id becomes a
    Problem. None: ids may be there twice. `kept`: names and types of what goes along with rows.
    """
    salt = json.dumps(kept).encode() if kept else b""
    stops = dict(done)
    starts = set(stops)
    start, characters = 0, 0
    piece: list[Row | Problem] = []

    def finished(stop: int) -> bool:
        if start in stops:
            return stop == stops[start]
        return len(piece) >= max_rows or characters >= SLICE_CHARACTERS or stop in starts

    for row in rows:
        piece.append(row)
        characters += row.characters if isinstance(row, Row) else 0
        stop = start + len(piece)
        if finished(stop):
            yield _slice(start, piece, ids, salt)
            start, piece, characters = stop, [], 0
    if piece:
        yield _slice(start, piece, ids, salt)


def _slice(start: int, piece: list[Row | Problem], ids: Known | None, salt: bytes) -> Slice:
    if ids is not None:
        piece = _mark_used_ids(start, piece, ids)
    digest = sha256(salt)
    for row in piece:
        parts = (row.id, row.text) if isinstance(row, Row) else ("", row.reason)
        kind = b"r" if isinstance(row, Row) else b"p"
        encoded = [part.encode("utf-8", "surrogatepass") for part in parts]
        digest.update(b"%s%d,%d:" % (kind, len(encoded[0]), len(encoded[1])) + b"".join(encoded))
        if salt and isinstance(row, Row):
            digest.update(json.dumps(row.kept).encode() + b"\n")
    return Slice(
        start,
        start + len(piece),
        [row for row in piece if isinstance(row, Row)],
        [row for row in piece if isinstance(row, Problem)],
        digest.hexdigest(),
    )


def _mark_used_ids(start: int, piece: list[Row | Problem], ids: Known) -> list[Row | Problem]:
    places = [n for n, row in enumerate(piece) if isinstance(row, Row)]
    hashes = hash_texts(row.id for row in piece if isinstance(row, Row))
    if not places:
        return piece
    found = ids.add(hashes, start + np.array(places, dtype=np.int64))
    marked = list(piece)
    for n, first in zip(places, found.tolist(), strict=True):
        row = piece[n]
        if first != start + n and isinstance(row, Row):
            reason = f'the id "{row.id}" is used before, at row {first} of the input (from 0)'
            marked[n] = Problem(row.where, reason)
    return marked
