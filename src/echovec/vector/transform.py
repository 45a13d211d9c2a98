"""Transform: what happens to vectors after pooling; frozen dataclasses, rows in one table.

A transform is called with `z_SD` (float32, [S, D]) and returns [S, E]; a vector comes out the same
alone and in any batch. Fixed ones (`Truncate`, `Normalize`) have numbers as fields; fitted ones
(`Center`, `Scale`, `Remove`, `Linear`; calibrate.py and spectrum.py make them) hold arrays, which
are compared by content and written to `recipe.safetensors`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from echovec.errors import InputError, RecipeError

if TYPE_CHECKING:
    from torch import Tensor

Array = NDArray[np.float32]


class Transform(Protocol):
    """`z_SD -> z_SE`: a frozen dataclass with numbers, texts or float32 arrays as fields."""

    def __call__(self, z_SD: Tensor) -> Tensor:
        """Transform vectors, one per row."""

    def dim_out(self, dim_in: int) -> int:
        """The width E of what comes out; InputError if vectors of `dim_in` do not fit."""


@dataclass(frozen=True)
class Truncate:
    """Keep the first `dim` numbers of each vector (Matryoshka)."""

    dim: int
    """How many numbers to keep, at least 1."""

    def __call__(self, z_SD: Tensor) -> Tensor:
        """Cut to `dim` columns; InputError if the vectors are narrower."""
        return z_SD[:, : self.dim_out(z_SD.shape[1])]

    def dim_out(self, dim_in: int) -> int:
        """`dim`."""
        check_whole("dim", self.dim)
        if not 1 <= self.dim <= dim_in:
            raise InputError(
                f"cannot truncate vectors of {dim_in} numbers to {self.dim}; give 1 to {dim_in}"
            )
        return self.dim


@dataclass(frozen=True)
class Normalize:
    """Scale each vector to unit length, so that the dot product is the cosine."""

    def __call__(self, z_SD: Tensor) -> Tensor:
        """Divide by the Euclidean length; a zero vector stays zero."""
        lengths_S1 = z_SD.norm(dim=1, keepdim=True)
        unit_SD: Tensor = z_SD / lengths_S1.clamp_min(1e-30)
        return unit_SD

    def dim_out(self, dim_in: int) -> int:
        """`dim_in`."""
        return dim_in


class Fitted:
    """What transforms with arrays share: float32, finite, compared by content.

    Raises:
        RecipeError: an array holds NaN or infinity.
    """

    def __post_init__(self) -> None:
        for name, value in self._content():
            if isinstance(value, np.ndarray):
                array = np.array(value, dtype=np.float32, order="C")  # nobody else's to change
                if not np.isfinite(array).all():
                    raise RecipeError(f"{type(self).__name__}.{name} holds NaN or infinity")
                object.__setattr__(self, name, array)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, type(self)):
            return NotImplemented
        pairs = zip(self._content(), other._content(), strict=True)
        return all(np.array_equal(a, b) for (_, a), (_, b) in pairs)

    def __hash__(self) -> int:
        return hash(
            (
                type(self),
                *(v.tobytes() if isinstance(v, np.ndarray) else v for _, v in self._content()),
            )
        )

    def _content(self) -> list[tuple[str, Any]]:
        return [(f.name, getattr(self, f.name)) for f in fields(self)]  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class Center(Fitted):
    """Subtract a fixed mean: what all texts have in common says nothing about any of them."""

    mean_D: Array
    """The mean of the vectors it was fitted on."""

    def __call__(self, z_SD: Tensor) -> Tensor:
        """`z - mean`."""
        return z_SD - _like(self.mean_D, z_SD)

    def dim_out(self, dim_in: int) -> int:
        """`dim_in`."""
        return _check_width(self, self.mean_D, dim_in)


@dataclass(frozen=True, eq=False)
class Scale(Fitted):
    """Subtract a fixed mean, then multiply each dimension by a fixed number."""

    mean_D: Array
    """The mean of the vectors it was fitted on."""

    scale_D: Array
    """One over each dimension's standard deviation; 1 for a dimension that is constant."""

    def __call__(self, z_SD: Tensor) -> Tensor:
        """`(z - mean) * scale`."""
        return (z_SD - _like(self.mean_D, z_SD)) * _like(self.scale_D, z_SD)

    def dim_out(self, dim_in: int) -> int:
        """`dim_in`."""
        return _check_width(self, self.mean_D, dim_in)


@dataclass(frozen=True, eq=False)
class Remove(Fitted):
    """Subtract a fixed mean, then what points along K fixed directions."""

    mean_D: Array
    """The mean of the vectors it was fitted on."""

    directions_KD: Array
    """Orthonormal rows."""

    def __call__(self, z_SD: Tensor) -> Tensor:
        """`c - (c V') V` with `c = z - mean`."""
        c_SD = z_SD - _like(self.mean_D, z_SD)
        directions_KD = _like(self.directions_KD, z_SD)
        return c_SD - (c_SD @ directions_KD.T) @ directions_KD

    def dim_out(self, dim_in: int) -> int:
        """`dim_in`."""
        return _check_width(self, self.mean_D, dim_in)


@dataclass(frozen=True, eq=False)
class Linear(Fitted):
    """Subtract a fixed mean, then multiply by a fixed matrix: whitening, PCA, a filter."""

    mean_D: Array
    """What is subtracted; zeros where nothing is."""

    matrix_DE: Array
    """What the rest is multiplied by."""

    def __call__(self, z_SD: Tensor) -> Tensor:
        """`(z - mean) @ matrix`."""
        return (z_SD - _like(self.mean_D, z_SD)) @ _like(self.matrix_DE, z_SD)

    def dim_out(self, dim_in: int) -> int:
        """The matrix's number of columns."""
        _check_width(self, self.mean_D, dim_in)
        return int(self.matrix_DE.shape[1])


TRANSFORMS: Mapping[str, type[Any]] = {
    "truncate": Truncate,
    "normalize": Normalize,
    "center": Center,
    "scale": Scale,
    "remove": Remove,
    "linear": Linear,
}


def check_whole(name: str, value: object) -> None:
    """InputError unless an option is a whole number."""
    if not isinstance(value, (int, np.integer)):
        raise InputError(f"{name}={value!r} is no whole number; give one, such as {name}=2")


def _like(array: Array, z_SD: Tensor) -> Tensor:
    """The array as a tensor beside `z_SD`."""
    import torch

    return torch.from_numpy(array).to(z_SD.device, z_SD.dtype)


def _check_width(transform: object, mean_D: Array, dim_in: int) -> int:
    if len(mean_D) != dim_in:
        raise InputError(
            f"{type(transform).__name__} was fitted on vectors of {len(mean_D)} numbers, these "
            f"have {dim_in}; fit it again on this model and this recipe "
            "(`echovec calibrate`)"
        )
    return dim_in
