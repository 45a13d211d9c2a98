"""Start: what transformers made of a model's small files, kept for the next time.

    <cache>/models/NAME/.start.json

Importing transformers and reading a model with it takes about as long as everything else until the
first vector of a small model. What comes of it is little: a configuration with its defaults filled
in, the angles of positions, a tokenizer. That is written down once, beside the copies of models
that are our own (the default model, converted GGUF files), if it gives what transformers gave.
Later the weights are read into a skeleton (skeleton.py) and texts go to the `tokenizers` library
itself. With another version of these libraries, other files, or anything that is not as expected,
the model is read by transformers as ever, which also says what is wrong with it.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from echovec.errors import StorageError
from echovec.files.disk import write_file
from echovec.model import cache
from echovec.model.backbone import is_out_of_memory
from echovec.model.families import why_not
from echovec.model.hashed import config_text
from echovec.model.skeleton import Attention, Config, Skeleton
from echovec.text.kept_tokenizer import KeptTokenizer, told_of
from echovec.text.tokenizer import HFTokenizer
from echovec.version import __version__

FILE = ".start.json"
"""Its name begins with a dot: it is none of the files that the copy's manifest lists."""

_FORMAT = 1
"""Counted up whenever the same files would give another start."""

_WEIGHTS = "model.safetensors"
_EMBEDDINGS = "embed_tokens.weight"

_log = logging.getLogger("echovec")


@dataclass(frozen=True, eq=False)
class Started:
    """A model and its tokenizer, read without transformers."""

    model: Skeleton
    tokenizer: KeptTokenizer


def copy_of(source: Path | str) -> Path | None:
    """The folder of a model if it is a copy of the cache's, which nobody else writes to."""
    if not isinstance(source, Path) or source.parent != cache.copies_dir():
        return None
    return source if (source / cache.MANIFEST).is_file() else None


def read(copy: Path, dtype: torch.dtype, read_tokenizer: Callable[[], Any]) -> Started | None:
    """A model without its head, if a start is kept for it.

    Args:
        copy: its folder, see `copy_of`.
        dtype: what its weights are to be.
        read_tokenizer: reads the tokenizer by transformers, for who asks for that one.
    """
    try:
        sha256, _, text = (copy / FILE).read_text("utf-8").partition("\n")
        if sha256 != _digest(text):
            _log.warning("%s is damaged: the model is read by transformers", copy / FILE)
            return None
        told = json.loads(text)
        if told["key"] != _key(copy):
            return None
        tokenizer = KeptTokenizer(told["tokenizer"], read_tokenizer)
        model = _with_weights(_skeleton(told), copy, dtype)
        return Started(model, tokenizer)
    except FileNotFoundError:
        return None
    except Exception as error:  # the libraries decide which; transformers says it better
        if is_out_of_memory(error):
            raise
        _log.debug("%s is read by transformers: %s", copy, error)
        return None


def keep(copy: Path, model: Any, tokenizer: HFTokenizer) -> None:
    """Write down what the next start needs, if it gives what this one gave.

    Args:
        copy: the model's folder, see `copy_of`.
        model: as transformers read it.
        tokenizer: as transformers read it.
    """
    if type(model).__name__ != Skeleton.family or why_not(model) is not None:
        return
    told = {
        "key": _key(copy),
        "config": model.config.to_dict(),
        "turns": model.rotary_emb.inv_freq.tolist(),
        "turned": float(model.rotary_emb.attention_scaling),
        "tokenizer": told_of(tokenizer),
    }
    text = json.dumps(told, default=str)
    if told["tokenizer"] is None or not _same(_skeleton(json.loads(text)), model):
        _log.debug("%s will be read by transformers again: nothing less gives the same", copy)
        return
    try:
        write_file(copy / FILE, f"{_digest(text)}\n{text}".encode())
    except StorageError as error:
        _log.debug("the start of %s is not kept: %s", copy, error)


def _skeleton(told: Mapping[str, Any]) -> Skeleton:
    turns = torch.tensor(told["turns"], dtype=torch.float32)
    return Skeleton(Config(told["config"]), turns, float(told["turned"]))


def _with_weights(skeleton: Skeleton, folder: Path, dtype: torch.dtype) -> Skeleton:
    from safetensors import safe_open

    with safe_open(folder / _WEIGHTS, framework="pt") as file:
        head = "model." if f"model.{_EMBEDDINGS}" in file.keys() else ""  # noqa: SIM118 - no mapping
        state = {name: file.get_tensor(head + name).to(dtype) for name in skeleton.state_dict()}
    skeleton.load_state_dict(state, assign=True)
    return skeleton.requires_grad_(False)


def _same(skeleton: Skeleton, model: Any) -> bool:
    """Whether the packed engine takes the same out of both."""
    ours, theirs = skeleton.state_dict(), model.state_dict()
    if {name: x.shape for name, x in ours.items()} != {name: x.shape for name, x in theirs.items()}:
        return False
    like, block = model.embed_tokens.weight.new_zeros(1), model.layers[0]
    last = int(model.config.max_position_embeddings) - 1
    positions = torch.tensor([[0, 1, min(77, last), last]], device=like.device)
    tables = zip(
        skeleton.rotary_emb.to(like.device)(like, positions),
        model.rotary_emb(like, positions),
        strict=True,
    )
    return (
        why_not(skeleton) is None
        and config_text(skeleton.config) == config_text(model.config)
        and all(torch.equal(own, other) for own, other in tables)
        and Attention(skeleton.config).scaling == block.self_attn.scaling
        and skeleton.norm.variance_epsilon == block.input_layernorm.variance_epsilon
    )


def _digest(text: str) -> str:
    """A checksum, the first line: a bit that flips on the disk would move ids in silence."""
    return hashlib.sha256(text.encode()).hexdigest()


def _key(copy: Path) -> str:
    """By what a start is known: the copy's small files as they are now, and what reads them."""
    versions = [version(name) for name in ("transformers", "tokenizers", "torch")]
    digest = hashlib.sha256(json.dumps([_FORMAT, __version__, *versions]).encode())
    for file in sorted(copy.glob("[!.]*")):
        if file.suffix != ".safetensors" and file.name != cache.MANIFEST:
            digest.update(f"{file.name} {cache.sha256_of(file)} ".encode())
    return digest.hexdigest()
