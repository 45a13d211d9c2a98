"""Recorded: passes that a card has recorded once and replays (CUDA graphs).

A small model's pass on a GPU is some hundreds of short kernels, and asking for them one by one
takes longer than computing them. CUDA can record what is asked for and replay it in one call; what
is replayed reads and writes the same memory every time. So a pass is a function of one buffer of
numbers (feed.py), which is filled before each replay, and its results are copied out after it.

A pass is recorded when its sizes come for the second time. The recording is held to what the pass
gives without it; should it fail or give anything else, a log line says so and none is used again.

Only where ECHOVEC_CUDA_GRAPHS=1 asks for it: not timed on a card yet.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from echovec.model.device import sent
from echovec.model.layout import Int
from echovec.model.switch import is_on

Pass = Callable[[Tensor], list[Tensor]]
"""Numbers on the device to states, on that device alone: no copies to or from it, no waiting."""

KEPT = 32
"""Recordings; what was not asked for longest goes first. They share the memory of what they
compute."""

_FAR = 0.2
"""How far a row of a replay may be from the pass without it, of its length. Products of another
number of rows are rounded otherwise, which moves them little; a wrong row is not near."""

_log = logging.getLogger("echovec")


@dataclass(frozen=True, eq=False)
class Recording:
    """One pass, and the memory that it reads and writes."""

    numbers: Tensor
    outputs: list[Tensor]
    replay: Callable[[], Any]
    run: Pass
    """Kept for what it holds: the card knows addresses only."""


Record = Callable[[Pass, Tensor], Recording]
"""Records a pass over these numbers; what it computes by then counts for nothing."""


def recorded(device: torch.device) -> Recorded | None:
    """What keeps recordings for a device, or None: it has none, or nobody asked for them."""
    asked = device.type == "cuda" and is_on("ECHOVEC_CUDA_GRAPHS")
    return Recorded(device) if asked else None


class Recorded:
    """Passes of one model on one device, which may be asked for from several threads.

    Args:
        device: where they run.
        record: how they are recorded; tests have one for a CPU.
    """

    def __init__(self, device: torch.device, record: Record | None = None) -> None:
        self._device = device
        self._record = record or OnCuda()
        # None: came once. What was asked for last stands last.
        self._kept: dict[Hashable, Recording | None] = {}
        self._usable = True
        self._lock = Lock()
        self._done: torch.cuda.Event | None = None

    def forget(self) -> None:
        """Drop all recordings."""
        with self._lock:
            self._kept.clear()

    def __call__(
        self,
        key: Hashable,
        numbers: Callable[[], Int],
        run: Pass,
        plainly: Callable[[], list[Tensor]],
    ) -> list[Tensor]:
        """States of a pass, one tensor for each layer asked for.

        Args:
            key: equal for passes that one recording serves.
            numbers: what this pass reads, as large as the recording is; called if it is needed.
            run: the pass over such numbers. Its states may have more rows than `plainly`'s, behind.
            plainly: the same states without a recording.
        """
        with self._lock:
            came_before = key in self._kept
            recording = self._kept[key] = self._kept.pop(key, None)
            while len(self._kept) > KEPT:
                del self._kept[next(iter(self._kept))]
        if not self._usable or not came_before:
            return plainly()
        if recording is not None:
            return self._replayed(recording, numbers())
        wanted = plainly()
        reason = self._recorded(key, numbers(), run, wanted)
        if reason and self._usable:
            self._usable = False
            self.forget()
            _log.warning("passes cannot be recorded on %s (%s): slower", self._device, reason)
        return wanted

    def _recorded(self, key: Hashable, numbers: Int, run: Pass, wanted: list[Tensor]) -> str:
        """Record, hold the recording to the states wanted, and keep it; or why not."""
        try:
            with torch.inference_mode(False):  # it is written to in any mode
                buffer = sent(numbers, self._device).clone()
            with self._lock, self._there(), torch.inference_mode():
                recording = self._record(run, buffer)
            found = self._replayed(recording, numbers)
            if any(map(_far, found, wanted)):
                return "a replay does not give the states of the pass"
        except RuntimeError as error:  # what torch raises whatever CUDA does not like
            return str(error).strip().partition("\n")[0] or "it does not say why"
        with self._lock:
            self._kept[key] = recording
        return ""

    def _replayed(self, recording: Recording, numbers: Int) -> list[Tensor]:
        # Recordings share memory, so one ends before the next begins.
        with self._lock, self._there():
            if self._done is not None:
                self._done.wait()
            recording.numbers.copy_(sent(numbers, self._device), non_blocking=True)
            recording.replay()
            states = [output.clone() for output in recording.outputs]
            if self._device.type == "cuda":
                self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]
                self._done.record()
        return states

    def _there(self) -> AbstractContextManager[Any]:
        """With the streams of the device: those of another one may be this thread's."""
        cuda = self._device.type == "cuda"
        return torch.cuda.device(self._device) if cuda else nullcontext()


class OnCuda:
    """CUDA graphs that share their memory."""

    def __init__(self) -> None:
        self._pool: Any = None
        self._aside: torch.cuda.Stream | None = None  # one: memory is kept for each stream

    def __call__(self, run: Pass, numbers: Tensor) -> Recording:
        """Record a pass over these numbers."""
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        aside = self._aside = self._aside or torch.cuda.Stream()  # type: ignore[no-untyped-call]
        here = torch.cuda.current_stream()
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            run(numbers)  # kernels that are compiled and loaded at their first call are, by this
        here.wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        # Other threads may go on asking for memory meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            outputs = run(numbers)
        return Recording(numbers, outputs, graph.replay, run)


def _far(found: Tensor, wanted: Tensor) -> bool:
    """Whether any row is, NaN included; rows that have to be NaN or infinite tell nothing."""
    found, wanted = found[: len(wanted)].float(), wanted.float()
    length = torch.linalg.vector_norm
    near = length(found - wanted, dim=-1) <= _FAR * length(wanted, dim=-1)
    return not bool((near | ~wanted.isfinite().all(dim=-1)).all())
