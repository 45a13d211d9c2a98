"""The corpus job: millions of texts, each embedded once, into a folder of shards.

    rows --cut--> Slice --known texts out--> Task --Runner--> vectors --Folder.add--> shard

What the manifest has is read again, to see that the input has not changed, and not embedded again.
A text that an earlier shard holds gets its vector from there. Memory: the slices at hand (8,192
rows or 32 million characters each), and five bytes a row to know texts and ids again (known.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from echovec.corpus.folder import Folder
from echovec.corpus.formats import Chunk, Contents
from echovec.corpus.job import Encode, OnError, bind_encode, encode_rows, stop_at, take_chunks
from echovec.corpus.shard import Flags, read_hashes, read_vectors, shard_name, write_shard
from echovec.corpus.slices import Slice, cut
from echovec.corpus.source import Problem, Row
from echovec.errors import InputError
from echovec.files.known import Hashes, Known, Places, hash_texts
from echovec.files.manifest import Entry
from echovec.files.parquet import Vectors

if TYPE_CHECKING:
    from echovec.corpus.mirror import Mirror
    from echovec.embedder import Embedder
    from echovec.recipe import Recipe

SHARD_ROWS = 8192
CHUNK_ROWS = 2048

_SHARD_BITS = 1 << 24  # a place is shard * this + row; a shard never has as many rows


@dataclass(frozen=True)
class Task:
    """One slice, and which of its texts have to be embedded."""

    slice: Slice
    hashes: Hashes
    """Of the texts of all its rows."""
    places: Places
    """Where the vector of each row is already, -1 where it is not."""

    @property
    def new(self) -> list[Row]:
        """The rows whose texts have to be embedded."""
        rows = zip(self.slice.rows, self.places.tolist(), strict=True)
        return [row for row, place in rows if place < 0]


@dataclass(frozen=True)
class Done:
    """A task's new rows with their vectors, and those that the model turned away."""

    chunk: Chunk
    problems: list[Problem]


class HasRecipe(Protocol):
    """What says how its vectors are made."""

    recipe: Recipe


class Runner(Protocol):
    """Embeds the new rows of tasks, here or on other machines; results in the tasks' order."""

    def __call__(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, Done]]:
        """May take a few tasks ahead of the results it gives."""


@dataclass(frozen=True)
class Progress:
    """How far a job is, after each shard; counts are over all runs on the folder."""

    shards: int
    rows: int
    rejected: int
    reused: int
    truncated: int

    resumed: int
    """Rows that were there when this run began."""

    characters: int
    """Of texts embedded in this run."""

    seconds: float
    """Since this run began."""

    @property
    def rows_per_second(self) -> float:
        """Of this run."""
        return (self.rows - self.resumed) / self.seconds if self.seconds else 0.0


def local_runner(encode: Encode) -> Runner:
    """The runner of one process: one task after the other, 2,048 rows at a time."""

    def run(tasks: Iterable[Task]) -> Iterator[tuple[Task, Done]]:
        for task in tasks:
            yield task, embed_new(encode, task.new)
            del task  # or it would be here beside the next slice

    return run


def embed_new(encode: Encode, rows: list[Row]) -> Done:
    """Embed rows in chunks bounded in rows and characters."""
    problems: list[Problem] = []
    pieces = take_chunks(rows, CHUNK_ROWS, problems.append)
    chunks = (encode_rows(encode, piece, problems.append) for piece in pieces)
    return joined(chunks, len(rows), problems)


def joined(chunks: Iterable[Chunk], most: int, problems: list[Problem]) -> Done:
    """A task's chunks, in order and `most` rows at most, as one; each is let go once copied."""
    kept: list[Row] = []
    vectors_ND, truncated_N = np.zeros((0, 0), np.float32), np.zeros(most, np.bool_)
    for chunk in chunks:
        if not chunk.rows:
            continue
        if not kept:
            vectors_ND = np.empty((most, chunk.vectors_ND.shape[1]), np.float32)
        here = slice(len(kept), len(kept) + len(chunk.rows))
        vectors_ND[here], truncated_N[here] = chunk.vectors_ND, chunk.truncated_N
        kept += chunk.rows
        del chunk
    return Done(Chunk(kept, vectors_ND[: len(kept)], truncated_N[: len(kept)]), problems)


def embed_corpus(
    embedder: Embedder | HasRecipe,
    rows: Iterable[Row | Problem],
    folder: str | Path,
    contents: Contents,
    *,
    shard_rows: int = SHARD_ROWS,
    on_error: OnError = "skip",
    overwrite: bool = False,
    repair: bool = False,
    runner: Runner | None = None,
    mirror: Mirror | None = None,
    on_start: Callable[[Folder], object] | None = None,
    on_progress: Callable[[Progress], object] | None = None,
) -> Progress:
    """Embed `rows` (of `read_rows`) into `folder`, going on where an earlier run ended.

    Args:
        embedder: has `encode` and `recipe` as Embedder has them; with a `runner` only `recipe`.
        rows: texts, and the places of those that cannot be used.
        folder: made if need be, see folder.py.
        contents: what decides the vectors beside the texts.
        shard_rows: rows of input to a shard; the same in every run on a folder.
        on_error: "skip" writes rows that cannot be used to rejected.jsonl, "fail" stops at one.
        overwrite: begin anew, with another recipe or changed input.
        repair: check every shard by its hash and do again what is damaged.
        runner: where the work is done; by default here.
        mirror: what also gets every finished shard.
        on_start: called with the open folder before the work begins.
        on_progress: called after each shard.

    Returns:
        The last Progress.

    Raises:
        InputError: another recipe or other options than before, changed input, or a bad row.
        StorageError: the disk fails, a shard is damaged, or another job is at work on the folder.
    """
    if not 0 < shard_rows < _SHARD_BITS:
        raise InputError(f"shard_rows={shard_rows}; give 1 to {_SHARD_BITS - 1:,}")
    if runner is None:
        model: Any = embedder
        runner = local_runner(
            bind_encode(model, contents.role, contents.instruction, contents.truncate_dim)
        )
    recipe = embedder.recipe
    with (
        Folder(
            Path(folder),
            recipe,
            contents,
            shard_rows=shard_rows,
            overwrite=overwrite,
            repair=repair,
        ) as opened,
        Known(opened.path) as texts,
        Known(opened.path) as ids,
        mirror or nullcontext(),
    ):
        if on_start:
            on_start(opened)
        if mirror:
            mirror.begin(opened, overwrite=overwrite, verify=repair)
        versions = dict(getattr(recipe, "versions", {}))
        job = _Job(opened, contents, on_error, versions, texts, ids)
        for task, done in runner(job.tasks(rows, shard_rows)):
            job.write(task, done)
            del task, done
            if mirror:
                mirror.push(opened)
            if on_progress:
                on_progress(job.progress)
        opened.finish()
        if mirror:
            mirror.finish(opened)
        return job.progress


class _Job:
    """The state of one run: which texts are known, and how far it is."""

    def __init__(
        self,
        folder: Folder,
        contents: Contents,
        on_error: OnError,
        versions: dict[str, str],
        texts: Known,
        ids: Known,
    ) -> None:
        self._folder, self._contents, self._on_error = folder, contents, on_error
        self._versions, self._known, self._ids = versions, texts, ids
        self._shards: list[Entry] = []
        self._checked: set[int] = set()
        self._start = time.perf_counter()
        for entry in (*folder.entries, *folder.old):
            if entry.file and (folder.path / entry.file).exists():
                self._learn(entry, read_hashes(folder.path / entry.file))
        self._totals = Progress(0, 0, 0, 0, 0, 0, 0, 0.0)
        for entry in folder.entries:
            self._count(entry)
        self._totals = replace(self._totals, resumed=self._totals.rows)

    @property
    def progress(self) -> Progress:
        return replace(self._totals, seconds=time.perf_counter() - self._start)

    def tasks(self, rows: Iterable[Row | Problem], shard_rows: int) -> Iterator[Task]:
        """The slices that are not done; refuses input that is not what was done."""
        done = {entry.start: entry for entry in self._folder.entries}
        spans = [(entry.start, entry.stop) for entry in done.values()]
        end = 0
        for piece in cut(rows, shard_rows, spans, ids=self._ids, kept=self._contents.kept):
            end = piece.stop
            entry = done.get(piece.start)
            if entry:
                self._compare(piece, entry)
                continue
            if piece.problems and self._on_error == "fail":
                stop_at(piece.problems[0])
            hashes = hash_texts(row.text for row in piece.rows)
            yield Task(piece, hashes, self._known.find(hashes))
            del piece, hashes
        last = max((entry.stop for entry in done.values()), default=0)
        if end < last:
            raise InputError(
                f"the input has {end:,} rows, and {self._folder.path} was made of {last:,}; "
                "give the same input to go on, --overwrite to start anew, or another folder"
            )

    def write(self, task: Task, done: Done) -> None:
        """A finished task into its shard; an equal one of before --overwrite is taken over."""
        piece = task.slice
        if done.problems and self._on_error == "fail":
            stop_at(done.problems[0])
        problems = piece.problems + done.problems
        name = shard_name(piece.start, piece.hash)
        adopted = self._folder.adopt(name)
        if adopted and adopted.stop == piece.stop:
            # Its lines in rejected.jsonl went with the old manifest.
            self._folder.add(adopted, problems)
            self._count(adopted)
            return
        chunk, hashes = self._joined(task, done)
        put = partial(write_shard, chunk=chunk, hashes=hashes, contents=self._contents)
        size, digest = self._folder.write(name, put) if chunk.rows else (0, "")
        entry = Entry(
            file=name if chunk.rows else None,
            start=piece.start,
            stop=piece.stop,
            slice=piece.hash,
            rows=len(chunk.rows),
            rejected=len(problems),
            truncated=int(chunk.truncated_N.sum()),
            reused=int((task.places >= 0).sum()),
            bytes=size,
            sha256=digest,
            fingerprint=self._contents.fingerprint,
            versions=self._versions,
        )
        self._folder.add(entry, problems)
        if entry.file:
            self._learn(entry, hashes)
            self._checked.add(len(self._shards) - 1)
        self._count(entry, sum(len(row.text) for row in done.chunk.rows))

    def _joined(self, task: Task, done: Done) -> tuple[Chunk, Hashes]:
        """The slice's rows in order, with vectors new and old."""
        old_N = task.places >= 0
        if not old_N.any() and not done.problems:
            return done.chunk, task.hashes
        # By identity: ids may be anything, and rows are made once.
        at = {id(row): n for n, row in enumerate(done.chunk.rows)}
        kept = [n for n, row in enumerate(task.slice.rows) if old_N[n] or id(row) in at]
        if not kept:
            return done.chunk, task.hashes[:0]
        rows = [task.slice.rows[n] for n in kept]
        places = task.places[kept]
        truncated_N = np.zeros(len(kept), np.bool_)
        vectors_ND: Vectors | None = None
        pieces: list[tuple[Places, int | None]] = [(np.flatnonzero(places < 0), None)]
        shards = places // _SHARD_BITS
        pieces += [(np.flatnonzero(shards == s), int(s)) for s in np.unique(shards[places >= 0])]
        for where, shard in pieces:
            if not len(where):
                continue
            if shard is None:
                order = np.array([at[id(rows[n])] for n in where])
                vectors, truncated = done.chunk.vectors_ND[order], done.chunk.truncated_N[order]
            else:
                vectors, truncated = self._fetch(shard, places[where] % _SHARD_BITS)
            if vectors_ND is None:
                vectors_ND = np.zeros((len(kept), vectors.shape[1]), np.float32)
            vectors_ND[where], truncated_N[where] = vectors, truncated
        assert vectors_ND is not None, "a row that is kept has a vector"
        return Chunk(rows, vectors_ND, truncated_N), task.hashes[kept]

    def _fetch(self, shard: int, rows: Places) -> tuple[Vectors, Flags]:
        entry = self._shards[shard]
        if shard not in self._checked:  # a damaged vector must not spread
            self._folder.check(entry)
            self._checked.add(shard)
        return read_vectors(self._folder.path / str(entry.file), rows)

    def _learn(self, entry: Entry, hashes: Hashes) -> None:
        places = len(self._shards) * _SHARD_BITS + np.arange(len(hashes), dtype=np.int64)
        self._shards.append(entry)
        self._known.add(hashes, places)

    def _count(self, entry: Entry, characters: int = 0) -> None:
        t = self._totals
        self._totals = replace(
            t,
            shards=t.shards + (entry.file is not None),
            rows=t.rows + entry.rows,
            rejected=t.rejected + entry.rejected,
            reused=t.reused + entry.reused,
            truncated=t.truncated + entry.truncated,
            characters=t.characters + characters,
        )

    def _compare(self, piece: Slice, entry: Entry) -> None:
        if piece.hash == entry.slice and piece.stop == entry.stop:
            return
        raise InputError(
            f"the input has changed: rows {entry.start:,} to {entry.stop:,} had the hash "
            f"{entry.slice[:16]} when {self._folder.path} was made and have {piece.hash[:16]} now; "
            "give the same input to go on (more rows may follow at its end), --overwrite to start "
            "anew with the vectors of unchanged texts kept, or another folder"
        )
