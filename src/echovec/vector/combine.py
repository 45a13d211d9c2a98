"""From the pooled layers of several views to one vector.

Shapes: S sequences, L layers, V views, D width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from echovec.errors import RecipeError
from echovec.vector.transform import Transform
from echovec.vector.view import Combine, View


def combine(
    views: Sequence[View], z_VLSD: Sequence[Tensor], how: Combine, transforms: Sequence[Transform]
) -> Tensor:
    """Each view's layers averaged and transformed, put together, and transformed as one: z_SD.

    Pooling is linear in the states, so the mean of the pooled layers is the pooled mean of layers.
    """
    parts = [
        vector_of(view, z_LSD) * view.weight for view, z_LSD in zip(views, z_VLSD, strict=True)
    ]
    z_SD = torch.cat(parts, dim=1) if how == "concat" else torch.stack(parts).sum(dim=0)
    for transform in transforms:
        z_SD = transform(z_SD)
    return z_SD


def vector_of(view: View, z_LSD: Tensor) -> Tensor:
    """One view's vectors z_SD: its layers averaged, then its own transforms; not weighted."""
    z_SD = z_LSD.mean(dim=0)
    for transform in view.transforms:
        z_SD = transform(z_SD)
    return z_SD


def combined_dim(
    views: Sequence[View], dim: int, how: Combine, transforms: Sequence[Transform]
) -> int:
    """The width of what `combine` gives for hidden states of width `dim`.

    Raises:
        RecipeError: views of unequal width are to be summed.
        InputError: a transform does not fit the width it gets.
    """
    widths = [_through(view.transforms, dim) for view in views]
    if how == "sum" and len(set(widths)) > 1:
        raise RecipeError(f"views of {widths} numbers cannot be summed; use combine='concat'")
    return _through(transforms, sum(widths) if how == "concat" else widths[0])


def _through(transforms: Sequence[Transform], width: int) -> int:
    for transform in transforms:
        width = transform.dim_out(width)
    return width
