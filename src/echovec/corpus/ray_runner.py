"""The corpus job on a Ray cluster: planning on processors, models in actors, one writer.

    driver: rows -> slices -> pieces --+                      +--> slices in order -> shards
    CPU tasks:            plan a piece: tokenise, pack --+    |
    actors: one model each, loaded once              embed a piece

The driver reads and writes as a job on one machine does, so shards and manifest are the same and a
job may go on here or there. Pieces are planned while models are busy, and each model has a second
piece waiting; slices under way are bounded, and with them the memory. As many slices as there are
models are embedded and not yet written, so that a driver that dies takes no more with it. A task or
an actor that dies is started again by Ray; when the driver dies, the manifest says what is left.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any

from echovec.corpus.formats import Chunk
from echovec.corpus.job import Encode, bind_encode, encode_rows, take_chunks
from echovec.corpus.run import CHUNK_ROWS, Done, Task, joined
from echovec.corpus.source import Problem, Row
from echovec.errors import DependencyError, EchovecError, InputError

if TYPE_CHECKING:
    from echovec.recipe import Recipe
    from echovec.text.planner import Planned, Planner

Load = Callable[[], Any]
"""Makes the embedder, in the process of each actor; has to be picklable."""

WAITING = 2
"""Pieces that an actor has at a time: one in work, one behind it."""

_RETRIES = 5

_PATIENCE = 300.0
"""Seconds for which a model may be out of reach. Where its machine is gone, Ray sees it after some
missed heartbeats and starts the model elsewhere; until then each try fails at once, Ray's too."""


@dataclass(frozen=True)
class Said:
    """What an actor says of its embedder."""

    recipe: Recipe
    fingerprint: str
    planner: Planner | None
    """None if the embedder cannot plan apart from its model: then actors plan too."""


class Model:
    """One embedder in a process of its own; becomes an actor."""

    def __init__(self, load: Load, run: dict[str, Any]) -> None:
        self._load, self._run = load, run

    @cached_property
    def _embedder(self) -> Any:
        # Not in __init__: what goes wrong there comes back as a dead actor, without its reason.
        return self._load()

    def say(self) -> Said:
        """What it is."""
        plan = getattr(self._embedder, "planner", None)
        recipe = self._embedder.recipe
        return Said(recipe, recipe.fingerprint, plan(self._run["role"]) if plan else None)

    def embed(self, piece: Piece) -> Done:
        """A piece's rows to vectors; what was planned is not planned again."""
        problems = list(piece.problems)
        if piece.planned is None:
            encode = bind_encode(self._embedder, **self._run)
        else:
            encode = self._encode_planned(piece.planned)
        return Done(encode_rows(encode, piece.rows, problems.append), problems)

    def _encode_planned(self, planned: Planned) -> Encode:
        def encode(texts: list[str]) -> tuple[Any, Any]:
            from echovec.vector.finish import finish_array

            with planned.naming_places():
                vectors, cut = self._embedder.vectors(planned.chunks, role=self._run["role"])
            finished = finish_array(vectors, truncate_dim=self._run["truncate_dim"])
            return finished[planned.inverse_N], cut[planned.inverse_N]

        return encode


@dataclass(frozen=True)
class Piece:
    """Up to 2,048 rows on their way."""

    rows: list[Row]
    planned: Planned | None = None
    problems: tuple[Problem, ...] = ()
    """Rows that were turned away when planning."""


def plan_piece(planner: Planner | None, rows: list[Row], instruction: str | None) -> Piece:
    """Tokenise and pack; becomes a task of the CPUs."""
    if planner is None:
        return Piece(rows)
    plans: list[Planned] = []

    def encode(texts: list[str]) -> tuple[Any, Any]:
        plans.append(planner(texts, instruction=instruction).laid())
        return None, None

    problems: list[Problem] = []
    kept = encode_rows(encode, rows, problems.append).rows
    return Piece(list(kept), plans[-1] if plans and kept else None, tuple(problems))


@dataclass(eq=False)
class _Open:
    """A task under way: its pieces, by their number, as they come back."""

    task: Task
    pieces: list[Done | None] = field(default_factory=list)

    @property
    def done(self) -> bool:
        return all(piece is not None for piece in self.pieces)


class RayRunner:
    """A Runner on Ray; a context manager that starts models and stops them.

    Args:
        load: makes the embedder, in each actor.
        role: this, `instruction` and `truncate_dim` are as for `encode`.
        instruction: what the vectors are for.
        truncate_dim: keep the first numbers of each vector only.
        address: of a running cluster ("auto", "ray://host:10001", "host:6379"); None starts Ray
            on this machine for the time of the job.
        workers: models; by default one for each GPU of the cluster, or each two CPUs without any.
        gpus_per_worker: may be a fraction; by default 1 where the cluster has GPUs, else 0.

    Raises:
        DependencyError: ray is not installed.
        InputError: wrong numbers, no cluster there, or models of two fingerprints (both shown).
    """

    def __init__(
        self,
        load: Load,
        *,
        role: str | None = None,
        instruction: str | None = None,
        truncate_dim: int | None = None,
        address: str | None = None,
        workers: int | None = None,
        gpus_per_worker: float | None = None,
    ) -> None:
        if workers is not None and workers < 1:
            raise InputError(f"workers={workers}; give at least 1")
        if gpus_per_worker is not None and gpus_per_worker < 0:
            raise InputError(f"gpus_per_worker={gpus_per_worker}; give 0 or more")
        self._load = load
        self._run = {"role": role, "instruction": instruction, "truncate_dim": truncate_dim}
        self._address, self._workers, self._gpus = address, workers, gpus_per_worker
        self._started = False
        self._actors: list[Any] = []
        self.recipe: Recipe

    def __enter__(self) -> RayRunner:
        ray = _door()
        if not ray.is_initialized():
            try:
                _knock(self._address)
                ray.init(
                    address=self._address,
                    log_to_driver=False,
                    logging_level="error",
                    **(self._local() if self._address is None else {}),
                )
            except (OSError, RuntimeError, ValueError) as error:
                raise InputError(
                    f"no Ray cluster answers at {self._address or 'this machine'} "
                    f"({str(error).splitlines()[0]}); give the address that `ray start --head` "
                    "names, or leave it out for a cluster of this machine alone"
                ) from error
            self._started = True
        try:
            self._start(ray)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        ray = _door()
        for actor in self._actors:
            ray.kill(actor)
        self._actors = []
        if self._started:
            ray.shutdown()
            self._started = False

    @property
    def workers(self) -> int:
        """Models at work."""
        return len(self._actors)

    def _local(self) -> dict[str, Any]:
        """For a cluster of this machine alone."""
        return {
            # A model each and a CPU to plan on, however few cores there are.
            "num_cpus": max(os.cpu_count() or 1, (self._workers or 1) + 1),
            "include_dashboard": False,
            # Workers import what this process imports.
            "runtime_env": {"env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}},
        }

    def _start(self, ray: Any) -> None:
        resources = ray.cluster_resources()
        gpus = self._gpus if self._gpus is not None else float(resources.get("GPU", 0) >= 1)
        most = resources.get("GPU", 0) / gpus if gpus else resources.get("CPU", 1) / 2
        workers = self._workers or max(1, int(most))
        actor = ray.remote(
            num_cpus=1,
            num_gpus=gpus,
            max_restarts=-1,
            max_task_retries=_RETRIES,
            scheduling_strategy="SPREAD",  # else a machine gets models until half of it is taken
        )(Model)
        self._actors = [actor.remote(self._load, self._run) for _ in range(workers)]
        said: list[Said] = _get(ray, [one.say.remote() for one in self._actors])
        prints = sorted({one.fingerprint for one in said})
        if len(prints) > 1:
            raise InputError(
                f"the cluster's models have fingerprints {' and '.join(prints)}: their vectors "
                "cannot be compared; give --dtype and --device, and the same model everywhere"
            )
        self.recipe, self.fingerprint = said[0].recipe, prints[0]
        self._planner = ray.put(said[0].planner)
        self._plan = ray.remote(num_cpus=0.5, max_retries=_RETRIES)(plan_piece)

    # -- the work -----------------------------------------------------------------------------

    def __call__(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, Done]]:
        """See `Runner`; `workers` slices are embedded at a time, and two more planned."""
        ray = _door()
        source, opened = iter(tasks), deque[_Open]()
        planned = deque[tuple[_Open, int, Any]]()
        working: dict[Any, tuple[_Open, int, int, Any]] = {}
        load = [0] * len(self._actors)
        exhausted, reached = False, time.monotonic()
        while True:
            while not exhausted and len(opened) < len(self._actors) + 2:
                task = next(source, None)
                if task is None:
                    exhausted = True
                else:
                    opened.append(self._open(task, planned))
            # A slice counts until it is written, which it is when we are asked for the next.
            embedded = list(islice(opened, self.workers))
            while planned and min(load) < WAITING and planned[0][0] in embedded:
                slot = load.index(min(load))
                one, number, piece = planned.popleft()
                working[self._actors[slot].embed.remote(piece)] = (one, number, slot, piece)
                load[slot] += 1
            if opened and opened[0].done:
                one = opened.popleft()
                yield one.task, _as_one(one)
                continue  # it is written: another slice may be embedded, before we wait for any
            if not opened and exhausted:
                return
            (ready,), _ = ray.wait(list(working), num_returns=1)
            one, number, slot, piece = working.pop(ready)
            load[slot] -= 1
            try:
                one.pieces[number] = _get(ray, ready)
                reached = time.monotonic()
            except _UnreachableError:
                if time.monotonic() - reached > _PATIENCE:
                    raise
                planned.appendleft((one, number, piece))
                time.sleep(1)

    def _open(self, task: Task, planned: deque[tuple[_Open, int, Any]]) -> _Open:
        one = _Open(task)
        problems: list[Problem] = []  # there are none here: the job has set them aside
        for rows in take_chunks(task.new, CHUNK_ROWS, problems.append):
            piece = self._plan.remote(self._planner, rows, self._run["instruction"])
            planned.append((one, len(one.pieces), piece))
            one.pieces.append(None)
        return one


def _as_one(one: _Open) -> Done:
    pieces = [piece for piece in one.pieces if piece is not None]
    problems = [problem for piece in pieces for problem in piece.problems]
    # Rows came back as copies; the job knows its own by identity.
    own = {row.id: row for row in one.task.new}
    chunks = (
        Chunk([own[row.id] for row in p.chunk.rows], p.chunk.vectors_ND, p.chunk.truncated_N)
        for p in pieces
    )
    return joined(chunks, len(own), problems)


class _UnreachableError(EchovecError):
    """A model cannot be reached now."""


def _get(ray: Any, refs: Any) -> Any:
    """Results, with our own errors as they were raised and Ray's in words."""
    try:
        return ray.get(refs)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, EchovecError):
            raise cause from error
        said = str(cause or error).splitlines() or [type(cause or error).__name__]
        raise EchovecError(f"a worker failed: {said[-1]}") from error
    except ray.exceptions.RayError as error:
        unreachable = isinstance(error, ray.exceptions.ActorUnavailableError)
        raise (_UnreachableError if unreachable else EchovecError)(
            f"the cluster failed: {str(error).splitlines()[0]}; what is in the manifest is safe, "
            "the same command goes on"
        ) from error


def _knock(address: str | None) -> None:
    """Whether anybody listens at host:port: Ray itself tries for minutes before it says so."""
    host, _, port = (address or "").rpartition(":")
    if host and port.isdigit() and "/" not in host:
        socket.create_connection((host, int(port)), timeout=10).close()


def _door() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
    try:
        import ray
    except ImportError as error:
        raise DependencyError(
            f'--runner ray needs ray ({error}): pip install "echovec[ray]"'
        ) from None
    return ray
