"""Compute: batches through a model, whatever happens.

If memory runs out a batch is halved until it fits. Every vector is checked: a row with NaN or
infinity is computed again in float32, and if that does not help it is an error that names it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from echovec.errors import NonFiniteError, PrecisionWarning
from echovec.model.backbone import is_out_of_memory
from echovec.text.batch import Batch


class Forward(Protocol):
    """A batch to vectors z_SD, in the batch's order."""

    def __call__(self, batch: Batch, *, float32: bool = False) -> Tensor:
        """`float32`: compute in float32 whatever the model's dtype."""


def compute(
    forward: Forward,
    batches: Sequence[Batch],
    *,
    show_progress_bar: bool | None = None,
) -> tuple[Tensor, NDArray[np.bool_]]:
    """Run planned batches and restore the order.

    Args:
        forward: what to run.
        batches: all batches of one plan.
        show_progress_bar: True, False, or None: on a terminal, after half a second.

    Returns:
        float32 vectors z_ND on the CPU and whether each text was cut, in the order planned.

    Raises:
        NonFiniteError: a row stays NaN or infinite; its `row` is the place that was planned.
    """
    num_texts = sum(map(len, batches))
    vectors: Tensor | None = None
    truncated = np.zeros(num_texts, dtype=np.bool_)
    with (
        torch.inference_mode(),
        tqdm(
            total=num_texts,
            unit=" texts",
            disable=None if show_progress_bar is None else not show_progress_bar,
            delay=0.5 if show_progress_bar is None else 0,
        ) as bar,
    ):
        for planned in batches:
            for batch, z_SD in _fitting(forward, planned):
                finite_SD = _finite(forward, batch, z_SD).cpu()
                if vectors is None:
                    vectors = torch.empty(num_texts, finite_SD.shape[1])
                vectors[torch.from_numpy(batch.order_S)] = finite_SD.float()
                truncated[batch.order_S] = batch.truncated_S
                bar.update(len(batch))
    assert vectors is not None, "a plan holds at least one batch"
    return vectors, truncated


def _fitting(forward: Forward, batch: Batch) -> Iterator[tuple[Batch, Tensor]]:
    """Run a batch; if memory runs out, its halves, down to one text."""
    try:
        z_SD = forward(batch)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error) or len(batch) == 1:
            raise
    else:
        yield batch, z_SD
        return
    # Outside the handler, so that the failed call's tensors are free before the next try.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    for half in batch.halves():
        yield from _fitting(forward, half)


def _finite(forward: Forward, batch: Batch, z_SD: Tensor) -> Tensor:
    """The vectors, with non-finite rows computed again in float32."""
    bad = (~torch.isfinite(z_SD).all(dim=1)).nonzero()[:, 0]
    if not len(bad):
        return z_SD
    again = forward(batch.select(bad.cpu().numpy()), float32=True)
    still = (~torch.isfinite(again).all(dim=1)).nonzero()[:, 0]
    if len(still):
        row = int(batch.order_S[int(bad[still[0]])])
        raise NonFiniteError(
            f"the model gave NaN or infinity for texts[{row}], in float32 too; the weights may be "
            "broken: load the model again or check its files",
            row=row,
        )
    warnings.warn(
        f"{len(bad)} vectors were not finite in the model's dtype and were computed again in "
        "float32; load with precision='exact' to avoid this",
        PrecisionWarning,
        stacklevel=2,
    )
    return z_SD.index_copy(0, bad, again.to(z_SD.dtype))
