"""Hashed: a model in memory by its hash, which is another once its weights are.

Hashing reads every weight, about a second per GB and core: too dear for each time that somebody
asks. So a hash is kept together with a stamp, and computed again when the stamp is another. The
stamp holds what torch counts (`Tensor._version`: writes in place), where each tensor lies, and one
row and one column of each matrix, since much is written that torch does not count: fused
optimizers, `weight.data`, the merging of adapters. Training and merging change whole rows or whole
columns. What neither torch counts nor a row or column shows, such as a single number written
through `.data`, is not seen by the stamp; `has_changed` hashes.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, NamedTuple

import torch
from torch import Tensor

from echovec.model.backbone import hash_weights

# What transformers writes into a configuration that has no say in the hidden states.
_NOT_THE_MODEL = frozenset(
    {
        "_name_or_path",
        "architectures",
        "dtype",
        "torch_dtype",
        "transformers_version",
        "use_cache",
        "return_dict",
        "output_hidden_states",
        "output_attentions",
        "id2label",
        "label2id",
        "problem_type",
        "chunk_size_feed_forward",
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
        "unk_token_id",
        "is_local",
        "_attn_implementation",
        "attn_implementation",
        "tie_word_embeddings",
    }
)

_MOST = 1 << 20
"""Numbers of a row or column that are looked at."""


class Hashed:
    """The hash of a model's weights, kept for as long as they are the same.

    Args:
        model: a transformers model without its head, adapters of PEFT inside it.
        known_hash: what stands for it as it is now, where that is known.
        read_hash: its own hash as it is now, where an adapter was merged and `known_hash` is
            another; None where nobody hashed it.
    """

    def __init__(
        self, model: Any, known_hash: str | None = None, read_hash: str | None = None
    ) -> None:
        self._model = model
        self._known_hash = known_hash
        self._read_hash = read_hash
        self._first = _stamp(model)
        self._last = None if known_hash is None else (self._first, known_hash)

    def now(self) -> str:
        """The hash of the weights as they are."""
        stamp = _stamp(self._model)  # before the weights: they may be in training
        last = self._last
        if last is not None and last[0] == stamp:
            return last[1]
        found = hash_of(self._model)
        if self._read_hash is None and stamp.values == self._first.values:
            self._read_hash = found
        if self._known_hash is not None and found == self._read_hash:
            found = self._known_hash
        self._last = stamp, found
        return found

    def has_changed(self) -> bool:
        """Whether the weights are others than at first; they are hashed to find out.

        Where they were never hashed before, what the stamp sees has to do.
        """
        if self._read_hash is None:
            return _stamp(self._model).values != self._first.values
        return hash_of(self._model) != self._read_hash


def hash_of(model: Any) -> str:
    """The hash of a model without its head: of its configuration, its adapters, every weight."""
    return hash_weights(config_text(model.config) + _adapters(model), model.state_dict())


def config_text(config: Any) -> str:
    """What of a model's configuration decides its hidden states, as JSON text to be hashed."""
    kept = {k: v for k, v in config.get_text_config().to_dict().items() if k not in _NOT_THE_MODEL}
    return json.dumps(kept, sort_keys=True, default=str)


class _Stamp(NamedTuple):
    places: tuple[int, ...]
    """Where the tensors lie: a model that was moved is the same one, and is hashed again."""

    values: bytes
    """A digest of the rest."""


def _stamp(model: Any) -> _Stamp:
    tensors: dict[str, Tensor] = model.state_dict(keep_vars=True)
    told = [(name, tuple(x.shape), str(x.dtype), _version(x)) for name, x in tensors.items()]
    text = json.dumps([told, config_text(model.config), _adapters(model)])
    digest = hashlib.sha256(text.encode())
    # A tensor that wraps others (quantized, sharded) has no numbers that can be had for little.
    read = [x for x in tensors.values() if not (x.is_meta or hasattr(x, "__tensor_flatten__"))]
    alike: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for x in read:
        alike.setdefault((x.device, x.dtype), []).extend(_lines(x.detach()))
    for lines in alike.values():
        digest.update(torch.cat(lines).view(torch.uint8).cpu().numpy().data)
    return _Stamp(tuple(x.data_ptr() for x in read), digest.digest())


def _version(x: Tensor) -> int:
    """How often torch saw it being written to; it does not count for tensors of inference mode."""
    return -1 if x.is_inference() else x._version


def _lines(x: Tensor) -> list[Tensor]:
    """One row and one column, or all where it has less than two dimensions."""
    if x.dim() < 2 or not x.numel():
        lines = [x.reshape(-1)]
    else:
        rows = x.reshape(-1, x.shape[-1])
        lines = [rows[len(rows) // 2], rows[:, rows.shape[1] // 2]]
    return [line[:: max(1, -(-len(line) // _MOST))] for line in lines]


def _adapters(model: Any) -> str:
    """What of PEFT's adapters is in no tensor: which are switched on, merged, and how much.

    Nothing where there are none.
    """
    # PEFT is an extra and stays unimported: its modules are known by name.
    told = {
        name: {field: value for field, value in sorted(vars(module).items()) if _says(field, value)}
        for name, module in model.named_modules()
        if type(module).__module__.startswith("peft.")
    }
    return json.dumps(told, sort_keys=True) if told else ""


def _says(field: str, value: object) -> bool:
    """Whether a module's attribute is data, and none that training switches or nn.Module keeps."""
    if field == "training" or field in _MODULE_FIELDS:
        return False
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True


_MODULE_FIELDS = frozenset(vars(torch.nn.Module()))
