"""Waiting: the texts of requests that wait for a model, and which of them go next."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from echovec.serve.lane import Lane, Prepared

Vector = NDArray[np.float32]


@dataclass(eq=False)
class Wanted:
    """A text that waits or is being computed."""

    lane: Lane
    prepared: Prepared
    done: asyncio.Future[Vector]
    callers: int = 0
    """How many requests wait for it; one that waits and has none is to be dropped."""


class Waiting:
    """A queue of requests, each with those of its texts that have not been taken.

    Args:
        count: told of tokens and texts that come, or go (negative).
        drop: told of a text that nobody waits for any more, once it is out.
    """

    def __init__(
        self, count: Callable[[int, int], object], drop: Callable[[Wanted], object]
    ) -> None:
        self.tokens = self.texts = 0
        self._count, self._drop = count, drop
        self._jobs: deque[deque[Wanted]] = deque()

    def add(self, texts: Iterable[Wanted]) -> None:
        """A request's texts, at the end."""
        job = deque(texts)
        if job:
            self._jobs.append(job)
            self._change(sum(one.prepared.tokens for one in job), len(job))

    def first(self) -> Wanted | None:
        """The text that goes next; None if nobody waits."""
        return self._jobs[0][0] if self._jobs else None

    def take(self, most: int) -> list[Wanted]:
        """The next batch, of one lane: requests in order, none with more than half of it.

        One with more than that goes to the end of the queue with the rest of its texts.

        Args:
            most: tokens of the batch; one text always goes.
        """
        batch: list[Wanted] = []
        others: deque[deque[Wanted]] = deque()  # of another lane: they come next
        later: deque[deque[Wanted]] = deque()
        left = most
        while self._jobs and left > 0:
            job = self._jobs.popleft()
            if batch and job[0].lane != batch[0].lane:
                others.append(job)
                continue
            share = left if not self._jobs else min(left, most // 2)
            if not batch:
                share = max(share, job[0].prepared.tokens)
            taken = 0
            while job and taken + job[0].prepared.tokens <= share:
                one = job.popleft()
                self._change(-one.prepared.tokens, -1)
                taken += one.prepared.tokens
                batch.append(one)
            if job and share < left and taken:
                later.append(job)
            elif job:  # the batch is full; it comes first in the next
                self._jobs.appendleft(job)
                break
            left -= taken
        self._jobs = others + self._jobs + later
        return batch

    def drop_left(self) -> None:
        """Drop what nobody waits for any more."""
        left = [one for job in self._jobs for one in job if not one.callers]
        kept = (deque(one for one in job if one.callers) for job in self._jobs)
        self._jobs = deque(job for job in kept if job)
        for one in left:
            self._change(-one.prepared.tokens, -1)
            self._drop(one)

    def _change(self, tokens: int, texts: int) -> None:
        self.tokens += tokens
        self.texts += texts
        self._count(tokens, texts)
