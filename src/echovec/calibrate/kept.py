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
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from echovec.calibrate.write import Writing, start_id, write_texts
from echovec.errors import InputError, ModelError
from echovec.model import cache
from echovec.text.tokenizer import HFTokenizer

if TYPE_CHECKING:
    from echovec.embedder import Embedder

BLOCK = 128
"""Texts in a file: about ten seconds of work of a small model on two cores."""

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
    folder = cache.cache_dir() / "texts" / _key(embedder, tokenizer, writing)
    texts: list[str] = []
    redrawn = new = 0
    model = None
    for first in range(0, writing.count, BLOCK):
        last = min(first + BLOCK, writing.count)
        file = folder / f"{first:05}-{last:05}.json"
        block = _read(file, last - first)
        if block is not None:
            advance(last - first)
        else:
            model = model or _with_head(embedder, trust_remote_code=trust_remote_code)
            wrote, again = write_texts(
                model, tokenizer, writing, range(first, last), advance=advance
            )
            block = {"texts": wrote, "redrawn": again, "sha256": texts_hash(wrote)}
            _keep(file, block)
            new += last - first
        texts += block["texts"]
        redrawn += block["redrawn"]
    kinds = tuple(map(writing.kind, range(writing.count)))
    return Written(tuple(texts), kinds, redrawn, new)


def texts_hash(texts: list[str] | tuple[str, ...]) -> str:
    """sha256 of texts, in hex: in this order, and where one ends and the next begins."""
    return hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()


def _key(embedder: Embedder, tokenizer: HFTokenizer, writing: Writing) -> str:
    settings = {name: value for name, value in asdict(writing).items() if name != "count"}
    identity = embedder.identity
    content = [
        _METHOD,
        identity.hash,
        identity.tokenizer_hash,
        _dtype(embedder),
        start_id(tokenizer),
        settings,
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def _read(file: Path, count: int) -> dict[str, Any] | None:
    """A block as it was written, or None."""
    if not file.is_file():
        return None
    try:
        block: dict[str, Any] = json.loads(file.read_text("utf-8"))
        whole = (
            len(block["texts"]) == count
            and isinstance(block["redrawn"], int)
            and block["sha256"] == texts_hash(block["texts"])
        )
    except (OSError, ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        log.warning("the cached texts %s are damaged: written again", file)
        return None
    return block


def _keep(file: Path, block: dict[str, Any]) -> None:
    with cache.disk_errors():
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_name(f"{cache.PART}{file.name}-{os.getpid()}")
        part.write_text(json.dumps(block, ensure_ascii=False, indent=1) + "\n", "utf-8")
        cache.publish(part, file)


def _with_head(embedder: Embedder, *, trust_remote_code: bool) -> Any:
    path = embedder.model_path
    if path is None:
        raise InputError(
            "this model lives in memory only, so it cannot be loaded with its head to write texts; "
            "give texts to calibrate on"
        )
    import torch
    from transformers import AutoModelForCausalLM

    from echovec.model.load import quiet_transformers

    try:
        with quiet_transformers():
            model = AutoModelForCausalLM.from_pretrained(
                str(path),
                dtype=getattr(torch, _dtype(embedder)),
                use_safetensors=True,
                trust_remote_code=trust_remote_code,
            )
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise ModelError(
            f"cannot load {str(path)!r} with its head: {str(error).strip().splitlines()[0]}; give "
            "texts to calibrate on"
        ) from error
    return model.to(_device(embedder)).eval()


def _device(embedder: Embedder) -> str:
    return str(getattr(getattr(embedder.backbone, "model", None), "device", "cpu"))


def _dtype(embedder: Embedder) -> str:
    from echovec.model.precision import multiplies_bfloat16

    return "bfloat16" if multiplies_bfloat16(_device(embedder)) else "float32"
