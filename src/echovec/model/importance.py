"""Token weights from attention: what the last token of the prompt looks at, block by block.

The largest over blocks and heads is kept as blocks go by, so no attention map outlives its block.
Shapes: S sequences, L padded length, H heads, R tokens of one span of every sequence.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from echovec.model.parts import Importance
from echovec.text.batch import Batch

Int = NDArray[np.int64]


class Folding:
    """Collects the weights asked for; `add` takes the attention of one block."""

    def __init__(
        self, asked: Sequence[Importance], batch: Batch, row_T: Tensor, column_T: Tensor
    ) -> None:
        self._asked = asked
        self._places: list[tuple[Tensor, Tensor, Tensor, int]] = []
        self._largest: list[Tensor | None] = [None] * len(asked)
        for one in asked:
            spans_S2 = batch.spans_SK2[:, one.span]
            lengths_S = spans_S2[:, 1] - spans_S2[:, 0]
            place_R = _places(lengths_S)
            tokens_R = torch.from_numpy(np.repeat(spans_S2[:, 0], lengths_S) + place_R)
            run_R, num_runs = _runs(lengths_S, place_R, one.chunk)
            tokens_R = tokens_R.to(row_T.device)
            runs = torch.from_numpy(run_R).to(row_T.device)
            self._places.append((row_T[tokens_R], column_T[tokens_R], runs, num_runs))

    def add(self, attention_SHL: Tensor) -> None:
        """Take in one block's attention of the last token of each sequence."""
        for number, (one, places) in enumerate(zip(self._asked, self._places, strict=True)):
            row_R, column_R, run_R, num_runs = places
            weight_RH = attention_SHL[row_R, :, column_R].float()
            if one.chunk is not None:
                total_QH = weight_RH.new_zeros(num_runs, weight_RH.shape[1])
                total_QH = total_QH.index_add(0, run_R, weight_RH)
                weight_RH = weight_RH / total_QH.clamp_min(1e-30)[run_R]
            largest_R = weight_RH.amax(dim=1)
            before = self._largest[number]
            self._largest[number] = largest_R if before is None else torch.max(before, largest_R)

    def weights(self) -> list[Tensor]:
        """The weights w_R in the order asked for."""
        return [largest for largest in self._largest if largest is not None]


def _places(lengths_S: Int) -> Int:
    """0, 1, ... n - 1 for each length n."""
    ends_S = np.cumsum(lengths_S)
    places: Int = np.arange(lengths_S.sum()) - np.repeat(ends_S - lengths_S, lengths_S)
    return places


def _runs(lengths_S: Int, place_R: Int, chunk: int | None) -> tuple[Int, int]:
    """The number of the run of `chunk` tokens that each token is in, and how many runs there are.

    A span is cut into runs of equal size, to a token, none longer than `chunk`.
    """
    size = chunk or max(1, int(lengths_S.max(initial=1)))
    runs_S = -(-lengths_S // size)
    first_S = np.cumsum(runs_S) - runs_S
    own_R = place_R * np.repeat(runs_S, lengths_S) // np.repeat(lengths_S, lengths_S)
    return np.repeat(first_S, lengths_S) + own_R, int(runs_S.sum())
