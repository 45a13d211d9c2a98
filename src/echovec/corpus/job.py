"""Embed rows as they come: take a chunk, embed it, write it, forget it.

    rows --chunks--> Embedder.encode --Chunk--> Sink.write

Memory holds one chunk, bounded in rows and in characters, however long the input is. Nothing is
printed here: who wants to know is called back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from echovec.corpus.sink import Chunk, Sink
from echovec.corpus.source import Problem, Row
from echovec.errors import InputError, NonFiniteError

if TYPE_CHECKING:
    from echovec.embedder import Embedder

CHUNK_ROWS = 2048
CHUNK_CHARACTERS = 16_000_000

OnError = Literal["fail", "skip"]
Vectors = NDArray[np.float32]
Flags = NDArray[np.bool_]
OnProblem = Callable[[Problem], object]
Encode = Callable[[list[str]], tuple[Vectors, Flags]]


@dataclass(frozen=True)
class Report:
    """What a job did; rows read = `rows` + `skipped`."""

    rows: int
    """Texts embedded and written."""

    skipped: int
    """Rows left out because they could not be used."""

    truncated: int
    """Texts cut to the token budget, among `rows`."""

    seconds: float
    """Embedding and writing, without loading the model."""


def embed_files(
    embedder: Embedder,
    rows: Iterable[Row | Problem],
    sink: Sink,
    *,
    role: Literal["query", "document"] | None = None,
    instruction: str | None = None,
    on_error: OnError = "fail",
    truncate_dim: int | None = None,
    chunk_rows: int = CHUNK_ROWS,
    progress: Callable[[int], object] | None = None,
    on_problem: OnProblem | None = None,
) -> Report:
    """Embed `rows` (of `read_rows`) into `sink`, in order.

    Args:
        embedder: whatever has `encode` as Embedder has it.
        rows: texts, and the places of those that cannot be used.
        sink: an open Sink; the caller's `with` decides whether its file comes to be.
        role: "query", "document", or None for both sides alike.
        instruction: what the vectors are for; only for recipes that take one.
        on_error: "fail" stops at the first row that cannot be used, "skip" leaves it out.
        truncate_dim: keep the first numbers of each vector only.
        chunk_rows: rows per chunk at most; a chunk also ends at 16 million characters.
        progress: called with the number of rows that each chunk has brought to an end.
        on_problem: called with each row that is skipped.

    Raises:
        InputError: a row cannot be used and `on_error` is "fail"; or every row was skipped.
    """
    start = time.perf_counter()
    written = skipped = truncated = 0

    encode = bind_encode(embedder, role, instruction, truncate_dim)

    def drop(problem: Problem) -> None:
        nonlocal skipped
        if on_error == "fail":
            stop_at(problem)
        skipped += 1
        if on_problem:
            on_problem(problem)

    for rows_in_chunk in take_chunks(rows, chunk_rows, drop):
        chunk = encode_rows(encode, rows_in_chunk, drop)
        if chunk.rows:
            sink.write(chunk)
            written += len(chunk.rows)
            truncated += int(chunk.truncated_N.sum())
        if progress:
            progress(len(rows_in_chunk))
    if not written:
        raise InputError(f"no row is left to write: all {skipped:,} were skipped; see the reasons")
    return Report(written, skipped, truncated, time.perf_counter() - start)


def bind_encode(
    embedder: Embedder,
    role: Literal["query", "document"] | None,
    instruction: str | None,
    truncate_dim: int | None,
) -> Encode:
    """`embedder.encode` with the options of a run: texts to vectors and whether each was cut."""

    def encode(texts: list[str]) -> tuple[Vectors, Flags]:
        return embedder.encode(
            texts,
            role=role,
            instruction=instruction,
            truncate_dim=truncate_dim,
            show_progress_bar=False,
            return_truncated=True,
        )

    return encode


def encode_rows(encode: Encode, rows: list[Row], drop: OnProblem) -> Chunk:
    """Embed `rows` without those that `encode` turns away, such as a text that gives no tokens."""
    while rows:
        try:
            return Chunk(rows, *encode([row.text for row in rows]))
        except InputError as error:
            if error.index is None:
                raise
            reason = _about_the_text(error, error.index)
            # `encode` ends with a next step of its own, for those who hold the list.
            drop(Problem(rows[error.index].where, reason.rsplit("; ", 1)[0]))
            rows = rows[: error.index] + rows[error.index + 1 :]
        except NonFiniteError as error:
            reason = _about_the_text(error, error.row)
            raise NonFiniteError(f"{rows[error.row].where}: {reason}", row=error.row) from error
    return Chunk([], np.zeros((0, 0), np.float32), np.zeros(0, np.bool_))


def _about_the_text(error: Exception, index: int) -> str:
    return str(error).replace(f"texts[{index}]", "the text", 1)


def stop_at(problem: Problem) -> NoReturn:
    """Raise the InputError for a row that cannot be used: where, why, and the next step."""
    raise InputError(
        f"{problem.where}: {problem.reason}; "
        "correct it, or leave such rows out with --on-error skip"
    )


def take_chunks(
    rows: Iterable[Row | Problem], chunk_rows: int, drop: OnProblem
) -> Iterator[list[Row]]:
    """Rows in pieces bounded in rows and characters; problems go to `drop`."""
    chunk: list[Row] = []
    characters = 0
    for row in rows:
        if isinstance(row, Problem):
            drop(row)
            continue
        chunk.append(row)
        characters += row.characters
        if len(chunk) >= chunk_rows or characters >= CHUNK_CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk
