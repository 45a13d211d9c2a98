"""Tiny: a causal backbone without weights to fetch; the fake that ships, for tests and examples.

Each block adds to every token the mean of all tokens so far, through a fixed random matrix:
causal, position-aware, deterministic, and small enough to check by hand. Its vectors mean nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from echovec.model.backbone import hash_weights, layer_index
from echovec.text.batch import Batch


class TinyBackbone:
    """A made-up causal model over ids 0 to `vocab_size - 1`."""

    dtype = "float32"

    def __init__(
        self,
        *,
        dim: int = 32,
        num_layers: int = 2,
        vocab_size: int = 258,
        max_positions: int | None = 4096,
        seed: int = 0,
    ) -> None:
        numbers: dict[str, Any] = {
            "generator": torch.Generator().manual_seed(seed),
            "dtype": torch.float32,
        }
        self.dim = dim
        self.num_layers = num_layers
        self.max_positions = max_positions
        self._embed_VD = torch.randn(vocab_size, dim, **numbers)
        self._mix_LDD = torch.randn(num_layers, dim, dim, **numbers) / dim**0.5

    def forward(
        self,
        batch: Batch,
        layers: Sequence[int] = (-1,),
        *,
        pooled_only: bool = False,
        float32: bool = False,
    ) -> list[Tensor]:
        """Hidden states of each layer asked for, [T, D], or [P, D] with `pooled_only`."""
        wanted = [layer_index(layer, self.num_layers) for layer in layers]
        sequences = torch.split(torch.tensor(batch.ids_T), batch.lengths_S.tolist())
        per_sequence = [self._states(ids_L) for ids_L in sequences]
        chosen = [torch.cat([states[layer] for states in per_sequence]) for layer in wanted]
        if not pooled_only:
            return chosen
        rows_P = torch.from_numpy(batch.pooled[0])
        return [h_TD[rows_P] for h_TD in chosen]

    def weights_hash(self) -> str:
        """Hash of the random tables."""
        return hash_weights("tiny", {"embed": self._embed_VD, "mix": self._mix_LDD})

    def _states(self, ids_L: Tensor) -> list[Tensor]:
        h_LD = self._embed_VD[ids_L]
        count_L1 = torch.arange(1, len(ids_L) + 1)[:, None]
        states = [h_LD]
        for mix_DD in self._mix_LDD:
            h_LD = torch.tanh(h_LD + (h_LD.cumsum(0) / count_L1) @ mix_DD)
            states.append(h_LD)
        return states
