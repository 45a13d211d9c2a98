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
from echovec.serve.batcher import Batcher
from echovec.serve.cache import VectorCache
from echovec.serve.metrics import Metrics
from echovec.serve.problem import Problem
from echovec.serve.ready import Target, Vectors, counted, ready
from echovec.serve.settings import Settings
from echovec.vector.finish import finish_array

T = TypeVar("T")
SHORT = 400
"""Characters, all texts of a request together, that are tokenised in the event loop itself: a
request then costs 1.48 ms of processor time, and 1.89 with a thread that is woken (docs/LOG.md)."""
ALIASES: Mapping[str, Role] = {"query": "query", "document": "document"}


@dataclass(frozen=True, eq=False)
class Served:
    """An embedder under its name."""

    name: str
    embedder: Embedder

    @property
    def fingerprint(self) -> str:
        """What its vectors are known by."""
        return self.embedder.recipe.fingerprint

    @property
    def takes_dimensions(self) -> bool:
        """Whether vectors may be cut: not if each is several views side by side."""
        return self.embedder.definition.combine != "concat"

    @property
    def takes_instruction(self) -> bool:
        """Whether a prompt of some role has a slot for one."""
        views = self.embedder.definition.views.values()
        return any(view.template.takes_instruction for own in views for view in own)

    def target(self, role: Role | None = None, **options: Any) -> Target:
        """This, for a role and with further fields of `Target`."""
        return Target(self.name, self.embedder, role, **options)


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
        self.served = {name: Served(name, embedder) for name, embedder in embedders.items()}
        for served in self.served.values():  # hashes now what the first request would wait for
            served.fingerprint  # noqa: B018
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

    @property
    def batchers(self) -> list[Batcher]:
        """The queues there are."""
        return list(self._batchers.values())

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
        self._check_dimensions(target, dimensions_param)
        arguments = (target, texts, param, self.settings, self._cache)
        # A short text is ready sooner than a thread is woken; a file is waited for elsewhere.
        short = self._cache is None and sum(map(len, texts)) <= SHORT
        one = ready(*arguments) if short else await self.run(ready, *arguments)
        if one.missing:
            vectors = await self._batcher(target.embedder).vectors(target.lane, one.prepared)
            one.rows[one.missing] = vectors
        self.metrics.cached.inc(len(one.rows) - len(one.missing))
        if self._cache is not None and one.missing:
            fresh = [(one.keys[i], one.rows[i], bool(one.cut[i])) for i in one.missing]
            await self.run(self._cache.put, fresh)
        cut = one.cut[one.inverse]
        self.metrics.truncated.inc(int(cut.sum()))
        return Embedded(
            finish_array(one.rows, truncate_dim=target.dimensions, normalize=target.normalize)[
                one.inverse
            ],
            cut,
            int(one.tokens.sum()),
            sum(prepared.tokens for prepared in one.prepared),
        )

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function that computes without the model, off the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

    async def in_turn(self, served: Served, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function that computes with a model, when it is its turn."""
        return await self._batcher(served.embedder).in_turn(function, *arguments)

    def check(self, served: Served, texts: Sequence[str], param: str) -> None:
        """Whether texts may be embedded at all.

        Raises:
            Problem: 400; a text cannot be, or is too long, or all together are.
        """
        counted(served.embedder, texts, param, self.settings)

    def close(self) -> None:
        """End the threads and close the cache."""
        for batcher in self.batchers:
            batcher.close()
        self._threads.shutdown(wait=True, cancel_futures=True)
        if self._cache is not None:
            self._cache.close()

    # -- inside -------------------------------------------------------------------------------

    def _batcher(self, embedder: Embedder) -> Batcher:
        backbone = embedder.backbone
        found = self._batchers.get(id(backbone))
        if found is None:
            found = self._batchers[id(backbone)] = Batcher(
                batch_tokens=self.settings.batch_tokens or embedder.batch_tokens,
                workers=max(1, int(getattr(backbone, "workers", 1))),
                max_waiting_tokens=self.settings.max_waiting_tokens,
                metrics=self.metrics,
            )
        return found

    def _check_dimensions(self, target: Target, param: str) -> None:
        dimensions, served = target.dimensions, self.served[target.name]
        if dimensions is None:
            return
        if not served.takes_dimensions:
            raise Problem(
                400,
                f"{served.name} sets vectors side by side, and the first numbers alone would leave "
                f"some of them out; leave {param!r} out",
                param=param,
            )
        width = served.embedder.dimension
        if not 1 <= dimensions <= width:
            raise Problem(
                400,
                f"{param}={dimensions}; {served.name} has vectors of 1 to {width}",
                param=param,
            )
