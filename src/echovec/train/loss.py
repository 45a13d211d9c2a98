"""Loss: InfoNCE over a whole batch, sentence-transformers' own; what memory allows runs once."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import losses
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from echovec.train.run import Run

_SCORE_ROWS = 256


def make_loss(run: Run, transformer: SentenceTransformer) -> nn.Module:
    """InfoNCE over the batch, cached or not, Matryoshka around it where asked for."""
    options: dict[str, Any] = {
        "scale": 1 / run.temperature,
        "gather_across_devices": run.across_devices and torch.distributed.is_initialized(),
    }
    if run.symmetric_loss:
        options |= {
            "directions": ("query_to_doc", "doc_to_query"),
            "partition_mode": "per_direction",
        }
    loss: nn.Module
    if not run.mini_batch_tokens:
        loss = losses.MultipleNegativesRankingLoss(transformer, **options)
    else:
        kept = run.mini_batch_tokens if run.kept_tokens is None else run.kept_tokens
        loss = PartlyCached(
            transformer,
            kept_tokens=kept,
            # Rows of the score matrix at a time: each holds a number for every text of the batch.
            mini_batch_size=min(run.batch_size, _SCORE_ROWS),
            mini_batch_num_tokens=run.mini_batch_tokens,
            **options,
        )
    if run.matryoshka:
        loss = losses.MatryoshkaLoss(transformer, loss, list(run.matryoshka))
    return loss


class PartlyCached(losses.CachedMultipleNegativesRankingLoss):  # type: ignore[misc]
    """GradCache that does not forget what it has room for.

    GradCache runs every mini-batch twice: once for the vectors, and once more, when the loss has
    said how they should move, for the graph that carries this back to the weights. Here the first
    mini-batches keep their graphs from the first time. They are also the first to be gone back
    through and let go of, before any other graph is made: so with `kept_tokens` as large as a
    mini-batch the peak of memory is where it was, and a batch that fits runs once.

    Args:
        model: as the class it is made from has it, like all that is not named here.
        kept_tokens: mini-batches keep their graphs until one does not fit in so many tokens.
    """

    def __init__(self, model: SentenceTransformer, *, kept_tokens: int, **options: Any) -> None:
        super().__init__(model, **options)
        self.kept_tokens = kept_tokens
        self._room = 0
        self._last = 0
        self._kept: dict[tuple[int, int], Tensor] = {}

    def forward_cached(
        self, sentence_features: Iterable[dict[str, Any]], labels: Tensor | None = None
    ) -> Tensor:
        """The loss; its backward pass goes through what was kept and runs the rest again."""
        columns = list(sentence_features)
        self._room, self._last = self.kept_tokens, id(columns[-1])
        self._kept.clear()  # of a batch whose backward pass has not come: it runs again then
        loss: Tensor = super().forward_cached(columns, labels)
        return loss

    def embed_minibatch(
        self,
        sentence_feature: dict[str, Any],
        begin: int,
        end: int,
        with_grad: bool,
        copy_random_state: bool,
        **options: Any,
    ) -> Any:
        """Vectors of some rows of a column; asked for `with_grad` it is the second time."""
        # A column lives as long as the hook that goes back through it, so nobody else has its id.
        place = (id(sentence_feature), begin)
        if with_grad and place in self._kept:
            return self._kept.pop(place), None
        keeps = copy_random_state and self._has_room(sentence_feature, begin, end)
        distributed = keeps and isinstance(self.model, DistributedDataParallel)
        with self.model.no_sync() if distributed else nullcontext():
            vectors, state = super().embed_minibatch(
                sentence_feature, begin, end, with_grad or keeps, copy_random_state, **options
            )
        if keeps:
            self._kept[place] = vectors
        return vectors, state

    def _has_room(self, column: dict[str, Any], begin: int, end: int) -> bool:
        """Whether a mini-batch is kept, and the room that is then left."""
        mask_ST = column["attention_mask"]
        # Processes add their gradients up in the last one's backward pass, which must be a new one.
        meets = isinstance(self.model, DistributedDataParallel)
        if meets and id(column) == self._last and end >= len(mask_ST):
            return False
        tokens = int(mask_ST[begin:end].sum())
        fits = tokens <= self._room
        self._room = self._room - tokens if fits else 0
        return fits
