"""Planner: texts to chunks without a model, in a value that other processes can be sent.

`Embedder.encode` plans and computes in one place. A cluster plans on its processors and computes on
its GPUs: `Embedder.planner` gives the first half and `Embedder.vectors` is the second.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Unpack

import numpy as np
from numpy.typing import NDArray

from echovec.errors import InputError, NonFiniteError
from echovec.options import Preparing
from echovec.text.batch import Chunk
from echovec.text.drafts import LongText, render_passes
from echovec.text.plan import Plan, plan
from echovec.text.render import Renderer
from echovec.text.unique import in_callers_list, unique_texts


@dataclass(frozen=True)
class Planned:
    """Texts as chunks."""

    chunks: Sequence[Chunk]
    """Of each text once, longest first; each is laid when it is asked for."""

    inverse_N: NDArray[np.int64]
    """For every text its place among those that the chunks were made of."""

    def laid(self) -> Planned:
        """The same with all chunks laid now, to be sent to where the model is."""
        return replace(self, chunks=list(self.chunks))

    @contextmanager
    def naming_places(self) -> Iterator[None]:
        """Errors inside, which name a place among the chunks' texts, name it in the given list."""
        try:
            yield
        except (InputError, NonFiniteError) as error:
            raise in_callers_list(error, self.inverse_N) from error.__cause__


@dataclass(frozen=True)
class Planner:
    """What decides the chunks of texts of one role."""

    renderers: tuple[Renderer, ...]
    long_text: LongText
    batch_tokens: int
    """Tokens per batch where the caller says nothing."""

    def plan(
        self,
        texts: Sequence[str],
        instruction: str | None = None,
        batch_tokens: int | None = None,
        batch_size: int | None = None,
    ) -> Plan:
        """Every text as it comes, repeats too; see `Embedder.prepare`.

        Raises:
            InputError: a text cannot be embedded; `index` is its place. Or a limit is below 1.
        """
        _check_several(texts)
        for name, limit in (("batch_tokens", batch_tokens), ("batch_size", batch_size)):
            if limit is not None and limit < 1:
                raise InputError(f"{name}={limit}; give 1 or more, or None for the default")
        passes = render_passes(self.renderers, texts, instruction, long_text=self.long_text)
        return plan(passes, batch_tokens=batch_tokens or self.batch_tokens, batch_size=batch_size)

    def __call__(self, texts: Sequence[str], **options: Unpack[Preparing]) -> Planned:
        """Each text once; errors as `plan`."""
        _check_several(texts)
        unique, inverse_N = unique_texts(list(texts))
        planned = Planned((), inverse_N)
        with planned.naming_places():
            return replace(planned, chunks=self.plan(unique, **options))


def _check_several(texts: object) -> None:
    # A string is a sequence of strings: its characters would be taken for texts.
    if isinstance(texts, str):
        raise InputError(f"texts={texts[:40]!r} is one text; give a list of texts")
