"""Batcher: texts of many requests through one model.

All of its state is touched by the event loop only; the model's threads get a batch at a time. A
text that finds the model idle is computed at once, with all cores. While the model computes, others
gather, so load fills the batches. Under load each core has a batch of its own and takes the next
as soon as it is done, whatever the others do: cores that share a batch wait for each other
(docs/performance.md). The callers of a batch that is done often ask again at once, so its core
first waits for as many texts to come, for a tenth of the batch's time at most: many small batches
cost more than that.

Requests are served in order, but none takes more than half of a batch while others wait: a short
one does not wait for all of a long one. A text that is on its way already is computed once. Texts
whose callers are all gone are dropped before they are computed.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from echovec.model.threads import threads
from echovec.serve.lane import Lane, Prepared, chunks_of
from echovec.serve.metrics import Metrics
from echovec.serve.problem import Problem, come_back
from echovec.serve.waiting import Vector, Waiting, Wanted

_LOG = logging.getLogger(__name__)
_REST = 0.1
"""How long a core waits after a batch beside others, as a share of the batch's time."""
_ENOUGH = 0.9
"""What ends the wait: so much of the tokens that batches had of late."""
T = TypeVar("T")


class _Rest(NamedTuple):
    """A core that waits for the callers of the batch before."""

    enough: float
    over: asyncio.TimerHandle


class Batcher:
    """The queue of one model, and the threads that compute with it.

    Args:
        batch_tokens: tokens of one batch.
        workers: how many batches may run at once.
        max_waiting_tokens: what may wait; beyond it `vectors` raises a Problem 429.
        metrics: what to count in.
    """

    def __init__(
        self, *, batch_tokens: int, workers: int, max_waiting_tokens: int, metrics: Metrics
    ) -> None:
        self.batch_tokens = batch_tokens
        self.workers = workers
        self._max_waiting = max_waiting_tokens
        self._metrics = metrics
        self._waiting = Waiting(self._count, self._drop)
        self._known: dict[tuple[Lane, str], Wanted] = {}
        self._turns: deque[asyncio.Future[None]] = deque()
        self._running = 0
        self._busy = 0  # tokens of the batches that run
        self._alone = False
        self._resting: list[_Rest] = []
        self._usual = 0.0  # tokens of a batch beside others, of late
        self._tasks: set[asyncio.Task[None]] = set()
        # What runs alone has all cores; of several batches at once each has one.
        self._whole = threads(1, "echovec-model")
        self._cores = threads(workers, "echovec-core", cores=1)
        self._rate = 1000.0

    async def vectors(self, lane: Lane, prepared: Sequence[Prepared]) -> list[Vector]:
        """The vector [dimension] of each text, not normalised; waits for its turn.

        Raises:
            Problem: 429, the queue is full; 500, a text has no finite vector.
        """
        wanted = [self._known.get((lane, one.text)) for one in prepared]
        new = [p for p, known in zip(prepared, wanted, strict=True) if known is None]
        waiting, added = self._waiting.tokens, sum(one.tokens for one in new)
        if waiting and added and waiting + added > self._max_waiting:
            raise self.full()
        self._metrics.shared.inc(len(prepared) - len(new))
        loop = asyncio.get_running_loop()
        fresh = [Wanted(lane, one, loop.create_future()) for one in new]
        self._known |= {(lane, one.prepared.text): one for one in fresh}
        self._waiting.add(fresh)
        mine = [self._known[lane, one.text] for one in prepared]
        for one in mine:
            one.callers += 1
        loop.call_soon(self._start)  # what comes in the same turn of the loop goes together
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
            if not all(one.callers or one.done.done() for one in mine):
                self._waiting.drop_left()

    async def in_turn(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function that has the model to itself, once the batches that run are done."""
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        self._turns.append(turn)
        loop.call_soon(self._start)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it had come
                self._end()
            raise
        call = self._whole.submit(function, *arguments)
        # When it is over, and not when its caller leaves: it has the model until then.
        call.add_done_callback(lambda _: loop.call_soon_threadsafe(self._end))
        return await asyncio.wrap_future(call)

    @property
    def seconds(self) -> float:
        """About how long what waits will take."""
        return self._waiting.tokens / self._rate

    def full(self) -> Problem:
        """The answer where there is no room."""
        wait = min(60, max(1, math.ceil(self.seconds)))
        return come_back(wait, f"the queue is full ({self._waiting.tokens:,} tokens wait)")

    def close(self) -> None:
        """Let the threads end when they have done what they do."""
        for pool in (self._whole, self._cores):
            pool.shutdown(wait=True, cancel_futures=True)

    # -- inside -------------------------------------------------------------------------------

    def _start(self) -> None:
        """Begin what may begin now: functions first, then texts in their order."""
        while not self._alone and self._running < self.workers:
            while self._turns and self._turns[0].cancelled():
                self._turns.popleft()
            if self._turns:
                if not self._running:
                    self._running, self._alone = 1, True
                    self._turns.popleft().set_result(None)
                return
            first = self._waiting.first()
            if first is None or not self._begin(first):
                return

    def _begin(self, first: Wanted) -> bool:
        """Begin a batch with `first`, if it may begin now."""
        waiting, most = self._waiting, self.batch_tokens
        if self.workers > 1 and first.lane.shares:
            if not self._running and not self._resting:
                self._usual = 0.0  # the load is over: what comes now is for all cores
            free = self.workers - self._running
            if free <= len(self._resting) and not self._wake(waiting.tokens):
                return False
            # As much as others have, but no less than of late.
            like = -(-(self._busy + waiting.tokens) // self.workers)
            most = min(most, max(int(self._usual), like))
            # One text alone is done soonest by all cores together.
            self._alone = not self._running and waiting.texts == 1
        elif self._running:
            return False
        else:
            self._alone = True
        self._running += 1
        batch = waiting.take(most)
        self._busy += _tokens(batch)
        work = self._run(batch, self._alone)
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    def _wake(self, tokens: int) -> bool:
        """Whether a core that rests has enough to do now; it rests no more then."""
        for rest in self._resting:
            if tokens >= rest.enough:
                rest.over.cancel()
                self._resting.remove(rest)
                return True
        return False

    def _rest(self, tokens: int, seconds: float) -> None:
        """A batch beside others is done: its core waits for its callers to ask again."""

        def over() -> None:
            self._resting.remove(rest)
            self._start()

        timer = asyncio.get_running_loop().call_later(_REST * seconds, over)
        self._usual += 0.3 * (min(tokens, self.batch_tokens) - self._usual)
        rest = _Rest(_ENOUGH * self._usual, timer)
        self._resting.append(rest)

    def _end(self) -> None:
        self._running -= 1
        self._alone = False
        self._start()

    async def _run(self, batch: Sequence[Wanted], alone: bool) -> None:
        begun = time.perf_counter()
        pool, workers = (self._whole, None) if alone else (self._cores, 1)
        loop = asyncio.get_running_loop()
        results = await loop.run_in_executor(pool, self._compute, batch, workers)
        seconds = time.perf_counter() - begun
        tokens = _tokens(batch)
        self._busy -= tokens
        at_once = 1 if alone else self.workers
        self._rate += 0.2 * (at_once * tokens / max(seconds, 1e-6) - self._rate)
        self._metrics.tokens.inc(tokens)
        self._metrics.model_seconds.inc(seconds)
        self._metrics.batch_fill.observe(tokens / self.batch_tokens)
        self._metrics.batch_texts.observe(len(batch))
        for one, result in zip(batch, results, strict=True):
            self._forget(one)
            if isinstance(result, Problem):
                self._metrics.failed.inc()
                one.done.set_exception(result)
                one.done.exception()  # seen, even if nobody waits any more
            else:
                one.done.set_result(result)
        if not alone:
            self._rest(tokens, seconds)
        self._end()

    def _compute(self, batch: Sequence[Wanted], workers: int | None) -> list[Vector | Problem]:
        """In a model's thread: the vectors of a batch; what fails is found by halving."""
        lane = batch[0].lane
        try:
            chunks = chunks_of([one.prepared for one in batch], self.batch_tokens)
            vectors, _ = lane.embedder.vectors(chunks, role=lane.role, workers=workers)
            return list(vectors)
        except Exception as error:
            if len(batch) == 1:
                # The kind only: a message may hold the text.
                _LOG.error("a text has no vector: %s", type(error).__name__)
                return [_no_vector(error)]
            middle = len(batch) // 2
            halves = batch[:middle], batch[middle:]
            return [one for half in halves for one in self._compute(half, workers)]

    def _drop(self, one: Wanted) -> None:
        self._metrics.dropped.inc()
        self._forget(one)
        one.done.cancel()

    def _forget(self, one: Wanted) -> None:
        del self._known[one.lane, one.prepared.text]

    def _count(self, tokens: int, texts: int) -> None:
        self._metrics.waiting_tokens.inc(tokens)
        self._metrics.waiting_texts.inc(texts)


def _tokens(batch: Sequence[Wanted]) -> int:
    return sum(one.prepared.tokens for one in batch)


def _no_vector(error: Exception) -> Problem:
    return Problem(
        500,
        f"the model has no vector for a text ({type(error).__name__}); the server's log says when",
        code="no_vector",
    )
