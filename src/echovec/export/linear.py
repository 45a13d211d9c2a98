"""Linear: transforms as the affine maps and normalisations that other runtimes have.

`Center`, `Scale`, `Remove`, `Linear` and `Truncate` are all `z -> z A + b`; neighbours become one.
Composed in float64, so that the one map is as exact as the many. Shapes: D in, E out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from echovec.errors import RecipeError
from echovec.vector.transform import Center, Linear, Normalize, Remove, Scale, Transform, Truncate

Wide = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Affine:
    """`z -> z @ matrix_DE + bias_E`."""

    matrix_DE: Wide
    bias_E: Wide

    def then(self, other: Affine) -> Affine:
        """This map, then another, as one."""
        return Affine(
            self.matrix_DE @ other.matrix_DE, self.bias_E @ other.matrix_DE + other.bias_E
        )


Step = Affine | Normalize
"""What other runtimes have: a dense layer without activation, or scaling to unit length."""


def steps_of(transforms: Iterable[Transform], dim: int, weight: float = 1.0) -> list[Step]:
    """Transforms, then a weight, as few steps.

    Args:
        transforms: in order.
        dim: the width D of what comes in.
        weight: what the result is multiplied by.

    Raises:
        RecipeError: a transform is neither affine nor `Normalize`.
    """
    steps: list[Step] = []
    for transform in transforms:
        if isinstance(transform, Normalize):
            steps.append(transform)
            continue
        affine = _affine(transform, dim)
        dim = affine.matrix_DE.shape[1]
        if steps and isinstance(steps[-1], Affine):
            steps[-1] = steps[-1].then(affine)
        else:
            steps.append(affine)
    if weight != 1:
        scaled = Affine(np.eye(dim) * weight, np.zeros(dim))
        if steps and isinstance(steps[-1], Affine):
            steps[-1] = steps[-1].then(scaled)
        else:
            steps.append(scaled)
    return steps


def _affine(transform: Any, dim: int) -> Affine:
    if isinstance(transform, Truncate):
        return Affine(np.eye(dim, transform.dim_out(dim)), np.zeros(transform.dim))
    if isinstance(transform, Center):
        return Affine(np.eye(dim), -transform.mean_D.astype(np.float64))
    if isinstance(transform, Scale):
        matrix_DE = np.diag(transform.scale_D.astype(np.float64))
    elif isinstance(transform, Remove):
        directions_KD = transform.directions_KD.astype(np.float64)
        matrix_DE = np.eye(dim) - directions_KD.T @ directions_KD
    elif isinstance(transform, Linear):
        matrix_DE = transform.matrix_DE.astype(np.float64)
    else:
        raise RecipeError(
            f"the transform {type(transform).__name__} is not linear, so no export can hold it; "
            "export a recipe without it"
        )
    return Affine(matrix_DE, -transform.mean_D.astype(np.float64) @ matrix_DE)
