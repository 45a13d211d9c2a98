"""Module: an embedder as a sentence-transformers module, so that its trainer and losses drive it.

One module from texts to vectors. sentence-transformers has a model and a pooling in two; here the
backbone returns pooled rows only, which is what makes the last layer cheap, so both are one. The
features are padded tensors, as losses that cut batches into mini-batches expect them; the packed
backbone drops the padding before its first product.

Shapes: S sequences, T tokens of the longest, K spans of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from sentence_transformers.base.modules import InputModule
from torch import Tensor, nn

from echovec.embedder import Embedder
from echovec.errors import RecipeError
from echovec.recipe import ROLES, Role
from echovec.text.batch import Batch
from echovec.vector.passes import passes_of

_ALL = 1 << 40  # a budget that holds every batch: mini-batches are the loss's business


class EchoModule(InputModule):  # type: ignore[misc]
    """Texts to vectors with an embedder whose model is being trained.

    Args:
        embedder: made by `Embedder.from_model` around `model`'s inner model.
        model: what holds the parameters, e.g. a PEFT model.

    Raises:
        RecipeError: the recipe has several prompts for one text, or cuts long ones into windows.
    """

    def __init__(self, embedder: Embedder, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.embedder = embedder
        self.tokenizer = cast(Any, embedder.tokenizer).inner
        recipe = embedder.definition
        if recipe.long_text != "cut":
            raise RecipeError(f"long_text={recipe.long_text!r} cannot be trained; use 'cut'")
        if any(len(passes_of(views)) > 1 for views in recipe.views.values()):
            raise RecipeError(
                f"{recipe.name}: a recipe whose views have several prompts cannot be trained; take "
                "one that has a single prompt, such as one-pass"
            )

    def preprocess(
        self, inputs: Sequence[Any], prompt: str | None = None, **options: Any
    ) -> dict[str, Any]:
        """Texts to features; `prompt` is the instruction, `task` the role."""
        role = _role(options.get("task"))
        (chunk,) = self.embedder.prepare(
            list(inputs), role=role, instruction=prompt or None, batch_tokens=_ALL
        )
        return _padded(chunk[0].select(np.argsort(chunk[0].order_S, kind="stable")), role)

    def forward(self, features: dict[str, Any], **options: Any) -> dict[str, Any]:
        """Adds `sentence_embedding`, float32 [S, D], not normalised."""
        batch = _batch(features)
        vectors = self.embedder.forward((batch,), role=_role(features.get("role")))
        return {**features, "sentence_embedding": vectors}

    def get_embedding_dimension(self) -> int:
        """Numbers in each vector."""
        return self.embedder.dimension

    def save(self, output_path: str, *args: Any, **options: Any) -> None:
        """Write the adapter, or the whole model where there is none."""
        cast(Any, self.model).save_pretrained(Path(output_path))


def _role(name: Any) -> Role | None:
    return name if name in ROLES and name != "symmetric" else None


def _padded(batch: Batch, role: Role | None) -> dict[str, Any]:
    lengths_S = batch.lengths_S
    column_T = np.arange(int(lengths_S.max()))
    mask_ST = column_T < lengths_S[:, None]
    ids_ST = np.zeros(mask_ST.shape, dtype=np.int64)
    ids_ST[mask_ST] = batch.ids_T
    spans_SK2 = batch.spans_SK2 - batch.offsets_S1[:-1, None, None]
    return {
        "input_ids": torch.from_numpy(ids_ST),
        "attention_mask": torch.from_numpy(mask_ST.astype(np.int64)),
        "spans": torch.from_numpy(spans_SK2.reshape(len(batch), 1, -1)),
        "prefix": torch.full((len(batch),), batch.prefix),
        "role": role,
    }


def _batch(features: dict[str, Any]) -> Batch:
    mask_ST = _numpy(features["attention_mask"]).astype(bool)
    lengths_S = mask_ST.sum(axis=1)
    offsets_S1 = np.concatenate([[0], np.cumsum(lengths_S)])
    count = len(lengths_S)
    spans_SK2 = _numpy(features["spans"]).reshape(count, -1, 2)
    return Batch(
        ids_T=_numpy(features["input_ids"])[mask_ST],
        offsets_S1=offsets_S1,
        spans_SK2=spans_SK2 + offsets_S1[:-1, None, None],
        prefix=int(features["prefix"].min()),
        order_S=np.arange(count),
        share_S=np.ones(count),
        truncated_S=np.zeros(count, dtype=np.bool_),
    )


def _numpy(tensor: Tensor) -> Any:
    return tensor.detach().cpu().numpy()
