"""Transform: what happens to vectors after pooling; frozen dataclasses, rows in one table.

A transform is called with `z_SD` (float32, [S, D]) and returns [S, D']; a vector comes out the same
alone and in any batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from echovec.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


class Transform(Protocol):
    """`z_SD -> z_SD'`: a frozen dataclass with numbers or texts as fields."""

    def __call__(self, z_SD: Tensor) -> Tensor:
        """Transform vectors, one per row."""


@dataclass(frozen=True)
class Truncate:
    """Keep the first `dim` numbers of each vector (Matryoshka)."""

    dim: int
    """How many numbers to keep, at least 1."""

    def __call__(self, z_SD: Tensor) -> Tensor:
        """Cut to `dim` columns; InputError if the vectors are narrower."""
        if not 1 <= self.dim <= z_SD.shape[1]:
            raise InputError(
                f"cannot truncate vectors of {z_SD.shape[1]} numbers to {self.dim}; "
                f"give 1 to {z_SD.shape[1]}"
            )
        return z_SD[:, : self.dim]


@dataclass(frozen=True)
class Normalize:
    """Scale each vector to unit length, so that the dot product is the cosine."""

    def __call__(self, z_SD: Tensor) -> Tensor:
        """Divide by the Euclidean length; a zero vector stays zero."""
        lengths_S1 = z_SD.norm(dim=1, keepdim=True)
        unit_SD: Tensor = z_SD / lengths_S1.clamp_min(1e-30)
        return unit_SD


TRANSFORMS: Mapping[str, type[Truncate] | type[Normalize]] = {
    "truncate": Truncate,
    "normalize": Normalize,
}
