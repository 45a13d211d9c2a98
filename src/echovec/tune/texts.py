"""Texts: what a search calibrates on, and what it finds halves of where there is no data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from echovec.calibrate.kept import self_texts, texts_hash
from echovec.calibrate.kinds import OF_ONE_KIND
from echovec.calibrate.write import Writing

if TYPE_CHECKING:
    from echovec.embedder import Embedder

HALVED = 320
"""Texts that are cut in half."""


@dataclass(frozen=True)
class Texts:
    """Unlabelled texts of a search."""

    calibration: list[str]
    """What recipes are calibrated on, each once."""

    kinds: list[str]
    """The kind of each."""

    halved: list[str]
    """What is to be cut in half; none of it is calibrated on."""

    origin: str
    """Where those to calibrate on are from, for the record."""


def texts_for(
    embedder: Embedder,
    texts: Sequence[str] | None,
    source: str | None,
    writing: Writing | None,
    *,
    halved: bool,
    tell: Callable[[str], None],
) -> Texts:
    """A caller's texts, or those that the model writes.

    Args:
        embedder: whose model writes.
        texts: to calibrate on; None: the model writes them, of all kinds.
        source: where `texts` are from.
        writing: how the model writes.
        halved: whether texts to be halved are asked for.
        tell: called with a line for people.
    """
    writing = writing or Writing()
    own: list[str] = []
    if halved:  # of full length, which lines of a list are not
        free = replace(writing, kinds=OF_ONE_KIND, count=HALVED, seed=writing.seed + 1)
        tell(f"the model writes {free.count:,} texts to be halved")
        own = list(self_texts(embedder, free).texts)
    if texts is not None:
        kind_of = dict.fromkeys(texts, "given")
        origin = source or "given by the caller"
    else:
        tell(f"the model writes {writing.count:,} texts to calibrate on")
        written = self_texts(embedder, writing)
        tell(f"{len(written.texts):,} texts are there")
        kind_of = dict(zip(written.texts, written.kinds, strict=True))
        origin = "written by the model itself"
    unique = list(kind_of)
    origin = f"{len(unique):,} texts, {origin}, sha256:{texts_hash(unique)}"
    return Texts(unique, list(kind_of.values()), own, origin)
