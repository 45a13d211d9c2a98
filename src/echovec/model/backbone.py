"""Backbone: the one seam between text and vectors, and what every backbone shares.

A backbone turns a Batch into hidden states. `plain` runs any Hugging Face causal model and is the
oracle; `tiny` needs no weights and serves tests. A new one is one class with these six members.
Shape suffixes: T tokens of the batch, P pooled tokens, D width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary

from echovec.errors import InputError
from echovec.text.batch import Batch

if TYPE_CHECKING:
    from torch import Tensor


class Backbone(Protocol):
    """Anything that turns a Batch into the hidden states asked for."""

    @property
    def dim(self) -> int:
        """Width D of the hidden states."""

    @property
    def num_layers(self) -> int:
        """Number of blocks; layers are 0 (embeddings) to `num_layers`."""

    @property
    def max_positions(self) -> int | None:
        """The longest prompt the model takes, in tokens, or None."""

    @property
    def dtype(self) -> str:
        """What it computes in, e.g. "float32"."""

    def forward(
        self,
        batch: Batch,
        layers: Sequence[int] = (-1,),
        *,
        pooled_only: bool = False,
        float32: bool = False,
    ) -> list[Tensor]:
        """Hidden states of each layer asked for, in the order asked.

        h_TD, a row for every token of the batch, or with `pooled_only` h_PD, a row for each of
        `batch.pooled[0]`. Differentiable where gradients are on, but for repacked weights and
        other people's engines. `float32` computes in float32 whatever the dtype: the second try
        after a non-finite vector.
        """

    def weights_hash(self) -> str:
        """Hash ("sha256:...") of the configuration and every weight, as float32 values.

        Asked for once, unless the backbone has `has_changed()` too, which says whether its weights
        are others than at first: then of the weights as they are, and at any time.
        """


def hash_now(backbone: Backbone) -> str:
    """The hash of a backbone's weights; one that cannot change is asked once."""
    if hasattr(backbone, "has_changed"):
        return backbone.weights_hash()
    try:
        return _hashes[backbone]
    except TypeError:  # it cannot be the key of a table
        return backbone.weights_hash()
    except KeyError:
        return _hashes.setdefault(backbone, backbone.weights_hash())


def has_changed(backbone: Backbone) -> bool:
    """Whether weights are others than when the backbone was made."""
    told = getattr(backbone, "has_changed", None)
    return told is not None and bool(told())


_hashes: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


def layer_index(layer: int, num_layers: int) -> int:
    """The place of a layer among the `num_layers + 1` states; InputError if there is none."""
    if not -num_layers - 1 <= layer <= num_layers:
        raise InputError(
            f"layer {layer} does not exist: this model has {num_layers} blocks, so layers 0 "
            f"(embeddings) to {num_layers}, or -1 (last) to {-num_layers - 1}"
        )
    return layer % (num_layers + 1)


def hash_weights(config_json: str, tensors: Mapping[str, Tensor]) -> str:
    """Hash a configuration and named tensors.

    Floating tensors are hashed by their float32 values, so a model loaded from float16 files
    into float32 and one kept in float16 have one hash. About 1 s per GB and core.
    """
    import torch

    from echovec.model.threads import sharing

    def digest(name: str) -> bytes:
        tensor = tensors[name].detach()
        values = tensor.float() if tensor.is_floating_point() else tensor
        flat = values.cpu().contiguous().view(-1).view(torch.uint8)
        head = f"{name} {tuple(tensor.shape)} ".encode()
        return hashlib.sha256(head + hashlib.sha256(flat.numpy().data).digest()).digest()

    names = sorted(tensors)
    with sharing(torch.get_num_threads()) as pool:  # hashlib lets go of the GIL
        digests = list(pool.map(digest, names))
    return "sha256:" + hashlib.sha256(config_json.encode() + b"".join(digests)).hexdigest()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on any device; no other error is retried."""
    import torch

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    said = str(error).lower()
    return isinstance(error, RuntimeError) and (
        "out of memory" in said or "can't allocate memory" in said or "not enough memory" in said
    )
