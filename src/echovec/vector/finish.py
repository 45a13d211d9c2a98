"""Finish: what `encode` does to vectors last: fewer numbers, unit length."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from echovec.vector.transform import Normalize, Truncate

_ROWS_AT_ONCE = 4096


def finish(z_ND: Tensor, *, truncate_dim: int | None = None, normalize: bool = True) -> Tensor:
    """The first `truncate_dim` numbers of each vector, then unit length; may change `z_ND`.

    Raises:
        InputError: more numbers than there are.
    """
    if truncate_dim is not None:
        z_ND = Truncate(truncate_dim)(z_ND).contiguous()
    if normalize:
        with torch.inference_mode():  # in place: a second copy may be gigabytes
            for rows in torch.split(z_ND, _ROWS_AT_ONCE):
                rows.copy_(Normalize()(rows))
    return z_ND


def finish_array(
    vectors: NDArray[np.float32], *, truncate_dim: int | None, normalize: bool = True
) -> NDArray[np.float32]:
    """`finish` for an array; may change it."""
    finished: NDArray[np.float32] = finish(
        torch.from_numpy(vectors), truncate_dim=truncate_dim, normalize=normalize
    ).numpy()
    return finished
