"""Kept: texts that a model wrote are kept in the cache, by the model's hash and the settings.

    <cache>/texts/KEY/00000-00128.json    a block of texts, whole or not there, with its sha256

A block is written as soon as it is finished, so what was interrupted goes on where it stopped, and
a longer run takes over the blocks of a shorter one. A damaged block is written again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from echovec.calibrate.draw import dtype_of, start_id, with_head
from echovec.calibrate.write import Writing, write_texts
from echovec.errors import InputError
from echovec.model import cache
from echovec.text.tokenizer import HFTokenizer

if TYPE_CHECKING:
    from echovec.embedder import Embedder

BLOCK = 128
"""Texts in a file: about ten seconds of work of a small model on two cores."""

Block = tuple[list[str], int]
"""Texts, and how many were drawn again."""

_METHOD = 1
"""Counted up whenever the same settings would give other texts."""

log = logging.getLogger("echovec")


@dataclass(frozen=True)
class Written:
    """What a model wrote."""

    texts: tuple[str, ...]

    kinds: tuple[str, ...]
    """The kind of each (`echovec.calibrate.kinds`)."""

    redrawn: int
    """How many texts could not be embedded and were drawn again."""

    new: int
    """How many were written now; the others came from the cache."""

    @property
    def sha256(self) -> str:
        """Hash of the texts, in hex."""
        return texts_hash(self.texts)


def self_texts(
    embedder: Embedder,
    writing: Writing | None = None,
    *,
    trust_remote_code: bool = False,
    advance: Callable[[int], None] = lambda count: None,
) -> Written:
    """Short texts that the embedder's own model writes, kept in the cache folder.

    The model is loaded a second time, with its head, and let go of afterwards; not at all where
    all texts are in the cache.

    Args:
        embedder: whose model, on its device, in bfloat16 where that multiplies it natively; its
            recipe plays no part.
        writing: how many, how long, and how they are drawn.
        trust_remote_code: whether Python code that comes with the model may run.
        advance: called with the number of texts that are there, as they come.

    Raises:
        InputError: the model lives in memory only.
        ModelError: it cannot be loaded with its head, or writes nothing that can be embedded.
        StorageError: the cache cannot be written.
    """
    writing = Writing() if writing is None else writing
    tokenizer = embedder.tokenizer
    if not isinstance(tokenizer, HFTokenizer):
        raise InputError(
            f"{type(tokenizer).__name__} belongs to no language model that can write; give texts"
        )
    settings = {name: value for name, value in asdict(writing).items() if name != "count"}
    folder = cache.cache_dir() / "texts" / key_of(_METHOD, embedder, tokenizer, settings)
    model = None

    def write(numbers: range) -> Block:
        nonlocal model
        model = model or with_head(embedder, trust_remote_code=trust_remote_code)
        return write_texts(model, tokenizer, writing, numbers, advance=advance)

    texts: list[str] = []
    redrawn = new = 0
    for (wrote, again), is_new in in_blocks(folder, writing.count, write, advance=advance):
        texts += wrote
        redrawn += again
        new += is_new * len(wrote)
    kinds = tuple(map(writing.kind, range(writing.count)))
    return Written(tuple(texts), kinds, redrawn, new)


def in_blocks(
    folder: Path,
    count: int,
    write: Callable[[range], Block],
    *,
    advance: Callable[[int], None] = lambda count: None,
) -> Iterator[tuple[Block, bool]]:
    """Texts 0 to `count` in blocks, and whether each was written now, or else lay in the folder.

    Args:
        folder: where they are kept.
        count: how many texts.
        write: makes the texts of these numbers; it tells how it gets on itself.
        advance: called with the number of texts that lay there.

    Raises:
        StorageError: the folder cannot be written.
    """
    for first in range(0, count, BLOCK):
        last = min(first + BLOCK, count)
        file = folder / f"{first:05}-{last:05}.json"
        block = _read(file, last - first)
        is_new = block is None
        if block is None:
            block = write(range(first, last))
            _keep(file, block)
        else:
            advance(last - first)
        yield block, is_new


def texts_hash(texts: list[str] | tuple[str, ...]) -> str:
    """sha256 of texts, in hex: in this order, and where one ends and the next begins."""
    return hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()


def key_of(method: Any, embedder: Embedder, tokenizer: HFTokenizer, *more: Any) -> str:
    """The name of the folder of what a model writes: by the model, where it begins, and `more`."""
    identity = embedder.identity
    model = [identity.hash, identity.tokenizer_hash, dtype_of(embedder), start_id(tokenizer)]
    content = json.dumps([method, *model, *more], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def _read(file: Path, count: int) -> Block | None:
    """A block as it was written, or None."""
    if not file.is_file():
        return None
    try:
        block: dict[str, Any] = json.loads(file.read_text("utf-8"))
        texts, redrawn = block["texts"], block["redrawn"]
        whole = (
            len(texts) == count
            and isinstance(redrawn, int)
            and block["sha256"] == texts_hash(texts)
        )
    except (OSError, ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        log.warning("the cached texts %s are damaged: written again", file)
        return None
    return texts, redrawn


def _keep(file: Path, block: Block) -> None:
    texts, redrawn = block
    kept = {"texts": texts, "redrawn": redrawn, "sha256": texts_hash(texts)}
    with cache.disk_errors():
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_name(f"{cache.PART}{file.name}-{os.getpid()}")
        part.write_text(json.dumps(kept, ensure_ascii=False, indent=1) + "\n", "utf-8")
        cache.publish(part, file)
