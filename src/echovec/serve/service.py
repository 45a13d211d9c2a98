"""Service: embedders by name, and texts to vectors within the server's limits.

A name is asked for as it is, or with a role behind it ("echo:query"), which clients that cannot
send fields of their own use as the model's name. Nothing is loaded by a request: what is not served
is not there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from echovec.embedder import Embedder
from echovec.errors import InputError
from echovec.recipe import Role
from echovec.serve.batcher import Batcher, Lane
from echovec.serve.cache import VectorCache
from echovec.serve.metrics import Metrics
from echovec.serve.problem import Problem
from echovec.serve.settings import Settings
from echovec.text.unique import unique_texts

T = TypeVar("T")
Vectors = NDArray[np.float32]
ALIASES: Mapping[str, Role] = {"query": "query", "document": "document"}
_BATCH_TOKENS = {"cuda": 65_536, "mps": 4_096}


@dataclass(frozen=True, eq=False)
class Served:
    """An embedder under its name."""

    name: str
    embedder: Embedder
    fingerprint: str

    @property
    def takes_dimensions(self) -> bool:
        """Whether vectors may be cut: not if each is several views side by side."""
        return self.embedder.definition.combine != "concat"

    @property
    def takes_instruction(self) -> bool:
        """Whether a prompt of some role has a slot for one."""
        views = self.embedder.definition.views.values()
        return any(view.template.takes_instruction for own in views for view in own)


class Target(NamedTuple):
    """What a request wants its texts embedded by."""

    served: Served
    role: Role | None = None
    instruction: str | None = None
    truncate: bool = True
    """Cut texts beyond the recipe's budget, rather than refuse them."""
    dimensions: int | None = None
    """The first numbers only."""
    normalize: bool = True
    """Unit length."""


class Embedded(NamedTuple):
    """Vectors of a request's texts, and what is to be said about them."""

    vectors: Vectors
    truncated: NDArray[np.bool_]
    tokens: int
    """Of the texts as given."""
    computed_tokens: int
    """Of the prompts that went through the model for this request."""


class Service:
    """Embedders by name; the first is the one of routes that name none.

    Args:
        embedders: name -> embedder; those that share a backbone share its queue and its thread.
        settings: the limits.

    Raises:
        InputError: there is no embedder, or a name holds a colon or a blank.
    """

    def __init__(self, embedders: Mapping[str, Embedder], settings: Settings | None = None) -> None:
        if not embedders:
            raise InputError("there is nothing to serve; give one embedder at least")
        for name in embedders:
            if not name or ":" in name or name != "".join(name.split()):
                raise InputError(f"{name!r} is no name to serve by; leave out blanks and colons")
        self.settings = settings or Settings()
        self.metrics = Metrics()
        self.draining = False
        self.served = {
            name: Served(name, embedder, embedder.recipe.fingerprint)
            for name, embedder in embedders.items()
        }
        self._cache = (
            VectorCache(self.settings.cache, self.settings.cache_rows)
            if self.settings.cache
            else None
        )
        self._batchers: dict[int, Batcher] = {}
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="echovec-text")

    @property
    def names(self) -> list[str]:
        """Every name that a request may use, roles included."""
        return [n for name in self.served for n in (name, *(f"{name}:{r}" for r in ALIASES))]

    @property
    def first(self) -> Served:
        """What routes without a model's name use."""
        return next(iter(self.served.values()))

    def find(self, name: str) -> tuple[Served, Role | None]:
        """What is served by this name, and the role behind it.

        Raises:
            Problem: 404; nothing is.
        """
        base, colon, role = name.partition(":")
        if base in self.served and (not colon or role in ALIASES):
            return self.served[base], ALIASES.get(role)
        raise Problem(
            404,
            f"no model {name[:80]!r} is served here; there are {', '.join(self.served)}, "
            "each also with ':query' or ':document'",
            param="model",
            code="model_not_found",
        )

    async def embed(
        self,
        target: Target,
        texts: Sequence[str],
        param: str,
        *,
        dimensions_param: str = "dimensions",
    ) -> Embedded:
        """The texts' vectors.

        Args:
            target: by what.
            texts: one at least.
            param: the field that they came in, for errors: "input" gives "input[3]".
            dimensions_param: the field that `target.dimensions` came in.

        Raises:
            Problem: 400, a text or option cannot be used; 429, the queue is full.
        """
        served = target.served
        _check_dimensions(target, dimensions_param)
        unique, inverse, tokens_of = await self.check(served, texts, param)
        rows, cut, computed = await self._rows(target, unique, inverse, param)
        if not target.truncate:
            for index in np.flatnonzero(cut[inverse])[:1]:
                raise _too_long(served, int(index), int(tokens_of[index]), param)
        self.metrics.truncated.inc(int(cut[inverse].sum()))
        vectors = finished(rows, target.dimensions, target.normalize)[inverse]
        return Embedded(vectors, cut[inverse], int(tokens_of.sum()), computed)

    async def check(
        self, served: Served, texts: Sequence[str], param: str
    ) -> tuple[list[str], NDArray[np.int64], NDArray[np.int64]]:
        """Each text once, for each its place there, and how many tokens each has.

        Raises:
            Problem: 400; a text cannot be embedded, or is too long, or all together are.
        """
        settings = self.settings
        try:
            unique, inverse = unique_texts(texts)
        except InputError as error:
            raise bad_text(error, param) from None
        tokens_of = (await self.run(_count, served, unique))[inverse]
        for index in np.flatnonzero(tokens_of > settings.max_text_tokens)[:1]:
            raise Problem(
                400,
                f"{param}[{index}] has {tokens_of[index]:,} tokens, and a text may have "
                f"{settings.max_text_tokens:,}; split it",
                param=f"{param}[{index}]",
                code="context_length_exceeded",
            )
        total = int(tokens_of.sum())
        if total > settings.max_request_tokens:
            raise Problem(
                400,
                f"{param} has {total:,} tokens, and a request may have "
                f"{settings.max_request_tokens:,}; send fewer texts",
                param=param,
                code="max_tokens_per_request",
            )
        return unique, inverse, tokens_of

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function that computes without the model, off the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

    @property
    def batchers(self) -> list[Batcher]:
        """The queues there are."""
        return list(self._batchers.values())

    def close(self) -> None:
        """End the threads and close the cache."""
        for batcher in self.batchers:
            batcher.close()
        self._threads.shutdown(wait=True, cancel_futures=True)
        if self._cache is not None:
            self._cache.close()

    # -- inside -------------------------------------------------------------------------------

    async def _rows(
        self, target: Target, unique: list[str], inverse: NDArray[np.int64], param: str
    ) -> tuple[Vectors, NDArray[np.bool_], int]:
        """Of each text its vector as the model gives it, and whether it was cut; and tokens run."""
        served = target.served
        lane = Lane(served.embedder, target.role, target.instruction)
        rows = np.zeros((len(unique), served.embedder.dimension), np.float32)
        cut = np.zeros(len(unique), np.bool_)
        missing = list(range(len(unique)))
        keys: list[bytes] = []
        if self._cache is not None:
            cache = self._cache
            keys = [cache.key(served.fingerprint, lane.role, lane.instruction, t) for t in unique]
            found = await self.run(cache.get, keys, served.embedder.dimension)
            for place, (vector, was_cut) in found.items():
                rows[place], cut[place] = vector, was_cut
            missing = [place for place in missing if place not in found]
            self.metrics.cached.inc(len(found))
        if not missing:
            return rows, cut, 0
        try:
            prepared = await self.run(lane.prepare, [unique[place] for place in missing])
        except InputError as error:
            if error.index is not None:
                first = int(np.flatnonzero(inverse == missing[error.index])[0])
                said = str(error).replace(f"texts[{error.index}]", f"texts[{first}]", 1)
                raise bad_text(InputError(said, index=first), param) from None
            raise Problem(400, str(error), param="instruction") from None
        cut[missing] = [one.truncated for one in prepared]
        if not target.truncate and cut.any():
            return rows, cut, 0  # refused by the caller, before anything is computed
        rows[missing] = await self._batcher(served.embedder).vectors(lane, prepared)
        if self._cache is not None:
            fresh = [(keys[place], rows[place], bool(cut[place])) for place in missing]
            await self.run(self._cache.put, fresh)
        return rows, cut, sum(one.tokens for one in prepared)

    def _batcher(self, embedder: Embedder) -> Batcher:
        backbone = embedder.backbone
        found = self._batchers.get(id(backbone))
        if found is None:
            device = getattr(getattr(backbone, "model", None), "device", None)
            own = _BATCH_TOKENS.get(getattr(device, "type", "cpu"), 2_048)
            found = self._batchers[id(backbone)] = Batcher(
                batch_tokens=self.settings.batch_tokens or own,
                group=max(1, int(getattr(backbone, "workers", 1))),
                max_waiting_tokens=self.settings.max_waiting_tokens,
                metrics=self.metrics,
            )
        return found


def finished(rows: Vectors, dimensions: int | None, normalize: bool) -> Vectors:
    """Vectors as they are sent: cut, then of unit length; a vector of zeros stays so."""
    rows = rows[:, :dimensions]
    if normalize:
        length = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
        rows = (rows / np.where(length == 0, 1, length)).astype(np.float32)
    return rows


def bad_text(error: InputError, param: str) -> Problem:
    """A text that cannot be embedded, as an answer."""
    where = f"{param}[{error.index}]"
    said = str(error).replace(f"texts[{error.index}]", where, 1)
    return Problem(400, said, param=where, code="invalid_text")


def _count(served: Served, texts: Sequence[str]) -> NDArray[np.int64]:
    return np.array([len(row) for row in served.embedder.tokenizer.tokenize(texts)], np.int64)


def _check_dimensions(target: Target, param: str) -> None:
    dimensions, served = target.dimensions, target.served
    if dimensions is None:
        return
    if not served.takes_dimensions:
        raise Problem(
            400,
            f"{served.name} sets vectors side by side, and the first numbers alone would leave "
            f"some of them out; leave {param!r} out",
            param=param,
        )
    if not 1 <= dimensions <= served.embedder.dimension:
        raise Problem(
            400,
            f"{param}={dimensions}; {served.name} has vectors of 1 to {served.embedder.dimension}",
            param=param,
        )


def _too_long(served: Served, index: int, tokens: int, param: str) -> Problem:
    limit = served.embedder.definition.max_tokens
    return Problem(
        400,
        f"{param}[{index}] has {tokens:,} tokens, beyond the {limit:,} that {served.name} "
        "embeds; ask for it to be cut, or split it",
        param=f"{param}[{index}]",
        code="context_length_exceeded",
    )
