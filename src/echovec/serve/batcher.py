"""Batcher: texts of many requests through one model.

All of its state is touched by the event loop only; the model's thread gets one group of texts after
the other. A text that finds the model idle is computed at once; while the model computes, others
gather, so load fills the batches and nobody waits for a timer. Requests are served in order, but
none takes more than half of a group while others wait: a short one does not wait for all of a long
one. A text that is on its way already is computed once. Texts whose callers are all gone are
dropped before they are computed.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from echovec.embedder import Embedder
from echovec.recipe import Role
from echovec.serve.metrics import Metrics
from echovec.serve.problem import Problem, come_back
from echovec.text.batch import Chunk, join

_LOG = logging.getLogger(__name__)
_ONE_CHUNK = 1 << 60
T = TypeVar("T")


class Lane(NamedTuple):
    """Texts that may share a batch: those of one embedder, role and instruction."""

    embedder: Embedder
    role: Role | None
    instruction: str | None

    def prepare(self, texts: Sequence[str]) -> list[Prepared]:
        """Each text's own sequences; see `Embedder.prepare` for errors."""
        (chunk,) = self.embedder.prepare(
            texts, role=self.role, instruction=self.instruction, batch_tokens=_ONE_CHUNK
        )
        rows = np.argsort(chunk[0].order_S, kind="stable")
        edges = np.searchsorted(chunk[0].order_S[rows], np.arange(len(texts) + 1))
        return [
            Prepared(text, tuple(batch.select(rows[edges[i] : edges[i + 1]]) for batch in chunk))
            for i, text in enumerate(texts)
        ]


class Prepared(NamedTuple):
    """A text and its sequences: one, or one for each of its windows."""

    text: str
    chunk: Chunk

    @property
    def lengths_S(self) -> NDArray[np.int64]:
        """The longest prompt that each sequence has in any pass, in tokens."""
        longest: NDArray[np.int64] = np.max([batch.lengths_S for batch in self.chunk], axis=0)
        return longest

    @property
    def truncated(self) -> bool:
        """Whether the text was cut to fit."""
        return any(bool(batch.truncated_S.any()) for batch in self.chunk)

    @property
    def tokens(self) -> int:
        """What goes through the model, all passes together."""
        return sum(len(batch.ids_T) for batch in self.chunk)


Vector = NDArray[np.float32]


@dataclass(eq=False)
class _Wanted:
    """A text that waits or is being computed."""

    lane: Lane
    prepared: Prepared
    done: asyncio.Future[Vector]
    callers: int = 0


class Batcher:
    """The queue of one model, and the thread that computes with it.

    Args:
        batch_tokens: tokens of one batch.
        group: how many batches' worth of tokens are taken from the queue at once; they are sorted
            by length together.
        max_waiting_tokens: what may wait; beyond it `vectors` raises a Problem 429.
        metrics: what to count in.
    """

    def __init__(
        self, *, batch_tokens: int, group: int, max_waiting_tokens: int, metrics: Metrics
    ) -> None:
        self.batch_tokens = batch_tokens
        self.group_tokens = batch_tokens * group
        self._max_waiting = max_waiting_tokens
        self._metrics = metrics
        self._queue: deque[deque[_Wanted]] = deque()
        self._waiting = 0
        self._known: dict[tuple[Lane, str], _Wanted] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="echovec-model")
        self._pump: asyncio.Task[None] | None = None
        self._rate = 1000.0

    async def vectors(self, lane: Lane, prepared: Sequence[Prepared]) -> list[Vector]:
        """The vector [dimension] of each text, not normalised; waits for its turn.

        Raises:
            Problem: 429, the queue is full; 500, a text has no finite vector.
        """
        wanted = [self._known.get((lane, one.text)) for one in prepared]
        new = [p for p, known in zip(prepared, wanted, strict=True) if known is None]
        added = sum(one.tokens for one in new)
        if self._waiting and self._waiting + added > self._max_waiting:
            raise self.full()
        self._metrics.shared.inc(len(prepared) - len(new))
        loop = asyncio.get_running_loop()
        fresh = deque(_Wanted(lane, one, loop.create_future()) for one in new)
        for one in fresh:
            self._known[lane, one.prepared.text] = one
        if fresh:
            self._queue.append(fresh.copy())
            self._wait(added, len(fresh))
        mine = [known or fresh.popleft() for known in wanted]
        for one in mine:
            one.callers += 1
        if self._pump is None:
            self._pump = loop.create_task(self._run())
        try:
            # Not awaited one by one: to cancel a task that awaits a future cancels the future too,
            # and others may wait for it.
            done = [one.done for one in mine]
            ready, _ = await asyncio.wait(done, return_when=asyncio.FIRST_EXCEPTION)
            if failed := next((one for one in done if one in ready and one.exception()), None):
                failed.result()
            return [one.result() for one in done]
        finally:
            for one in mine:
                one.callers -= 1

    async def in_turn(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function in the model's thread, between two groups."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, function, *arguments)

    @property
    def seconds(self) -> float:
        """About how long what waits will take."""
        return self._waiting / self._rate

    def full(self) -> Problem:
        """The answer where there is no room."""
        wait = min(60, max(1, math.ceil(self.seconds)))
        return come_back(wait, f"the queue is full ({self._waiting:,} tokens wait)")

    def close(self) -> None:
        """Let the thread end when it has done what it does."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    # -- inside -------------------------------------------------------------------------------

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while group := self._take():
            begun = time.perf_counter()
            results = await loop.run_in_executor(self._thread, self._compute, group)
            seconds = time.perf_counter() - begun
            tokens = sum(one.prepared.tokens for one in group)
            self._rate += 0.2 * (tokens / max(seconds, 1e-6) - self._rate)
            self._metrics.tokens.inc(tokens)
            self._metrics.model_seconds.inc(seconds)
            self._metrics.batch_fill.observe(tokens / self.group_tokens)
            self._metrics.batch_texts.observe(len(group))
            for one, result in zip(group, results, strict=True):
                self._forget(one)
                if isinstance(result, Problem):
                    self._metrics.failed.inc()
                    one.done.set_exception(result)
                    one.done.exception()  # seen, even if nobody waits any more
                else:
                    one.done.set_result(result)
        self._pump = None

    def _take(self) -> list[_Wanted]:
        """The next group, of one lane: requests in order, none with more than half of it.

        One with more than that goes to the end of the queue with the rest of its texts.
        """
        group: list[_Wanted] = []
        others: deque[deque[_Wanted]] = deque()  # of another lane: they come next
        later: deque[deque[_Wanted]] = deque()
        left = self.group_tokens
        while self._queue and left > 0:
            job = self._queue.popleft()
            self._drop_dead(job)
            if job and group and job[0].lane != group[0].lane:
                others.append(job)
                continue
            share = left if not self._queue else min(left, self.group_tokens // 2)
            if job and not group:
                share = max(share, job[0].prepared.tokens)  # one text always goes
            taken = 0
            while job and taken + job[0].prepared.tokens <= share:
                one = job.popleft()
                self._wait(-one.prepared.tokens, -1)
                taken += one.prepared.tokens
                group.append(one)
                self._drop_dead(job)
            if job and share < left and taken:
                later.append(job)
            elif job:  # the group is full; it comes first in the next
                self._queue.appendleft(job)
                break
            left -= taken
        self._queue = others + self._queue + later
        return group

    def _drop_dead(self, job: deque[_Wanted]) -> None:
        """Drop what stands first and nobody waits for."""
        while job and not job[0].callers:
            self._drop(job.popleft())

    def _drop(self, one: _Wanted) -> None:
        self._wait(-one.prepared.tokens, -1)
        self._metrics.dropped.inc()
        self._forget(one)
        one.done.cancel()

    def _forget(self, one: _Wanted) -> None:
        del self._known[one.lane, one.prepared.text]

    def _wait(self, tokens: int, texts: int) -> None:
        self._waiting += tokens
        self._metrics.waiting_tokens.inc(tokens)
        self._metrics.waiting_texts.inc(texts)

    def _compute(self, group: Sequence[_Wanted]) -> list[Vector | Problem]:
        """In the model's thread: the vectors of a group; what fails is found by halving."""
        lane = group[0].lane
        try:
            chunks = chunks_of([one.prepared for one in group], self.batch_tokens)
            vectors, _ = lane.embedder.vectors(chunks, role=lane.role)
            return list(vectors)
        except Exception as error:
            if len(group) == 1:
                # The kind only: a message may hold the text.
                _LOG.error("a text has no vector: %s", type(error).__name__)
                return [_no_vector(error)]
            middle = len(group) // 2
            return [*self._compute(group[:middle]), *self._compute(group[middle:])]


def chunks_of(prepared: Sequence[Prepared], batch_tokens: int) -> list[Chunk]:
    """Prepared texts of one lane as chunks, longest first; places are those in `prepared`.

    As in `Plan`, a chunk's tokens are counted as if padded to its longest sequence.
    """
    counts = [len(one.chunk[0]) for one in prepared]
    place_S = np.repeat(np.arange(len(prepared)), counts)
    length_S = np.concatenate([one.lengths_S for one in prepared])
    passes = [join(batches) for batches in zip(*(one.chunk for one in prepared), strict=True)]
    by_length = np.argsort(-length_S, kind="stable")
    chunks: list[Chunk] = []
    start = 0
    while start < len(by_length):
        stop = start + max(1, batch_tokens // int(length_S[by_length[start]]))
        rows = by_length[start:stop]
        chunks.append(tuple(batch.select(rows).at(place_S[rows]) for batch in passes))
        start = stop
    return chunks


def _no_vector(error: Exception) -> Problem:
    return Problem(
        500,
        f"the model has no vector for a text ({type(error).__name__}); the server's log says when",
        code="no_vector",
    )
