"""Calibration: transforms fitted on the vectors of unlabelled text.

Vectors of a language model share a large common part, and a few dimensions and directions dominate
every cosine. What all texts have in common says nothing about any of them, so it is measured on
text at hand, without labels, and taken out. Everything is fitted in float64 and applied in float32;
a fitted transform is fixed, so a vector comes out the same alone and in any batch.

Shapes: N vectors, D width, K directions or kinds.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from echovec.errors import InputError
from echovec.vector.transform import Array, Center, Linear, Remove, Scale, Transform, check_whole

Floats = NDArray[np.float64]

_DEAD = 1e-6
"""A dimension is constant if it varies less than this part of the median dimension."""


def center(z_ND: Floats) -> Center:
    """Subtract the mean."""
    return Center(_narrow(z_ND.mean(axis=0)))


def center_scale(z_ND: Floats) -> Scale:
    """Subtract the mean and divide each dimension by its standard deviation.

    A dimension that is constant here is centred only.
    """
    std_D = z_ND.std(axis=0)
    alive = std_D > _DEAD * np.median(std_D)
    scale_D = np.divide(1.0, std_D, where=alive, out=np.ones_like(std_D))
    return Scale(_narrow(z_ND.mean(axis=0)), _narrow(scale_D))


def whiten(z_ND: Floats, *, strength: float = 1.0, shrinkage: float = 0.1) -> Linear:
    """Soften what correlates: scale each principal axis by its variance to the -strength / 2.

    BERT-whitening (Su et al., arXiv 2103.15316) has strength 1 and no shrinkage. Strength 0 only
    centres, 1 makes all axes alike. The covariance is drawn towards a ball, `shrinkage` of the way,
    so that axes on which the text at hand hardly varies are not blown up. The result is turned back
    to the dimensions it came from, so that several views may be summed.

    Args:
        z_ND: the vectors.
        strength: 0 to 1.
        shrinkage: 0 to 1; more where there are few vectors.
    """
    _check_range("strength", strength)
    _check_range("shrinkage", shrinkage)
    mean_D, variance_D, axes_DD = _principal(z_ND)
    variance_D = (1 - shrinkage) * variance_D + shrinkage * variance_D.mean()
    if variance_D[-1] <= _DEAD**2 * variance_D[0]:
        raise InputError(
            f"cannot whiten {z_ND.shape[1]} dimensions fitted on {len(z_ND)} vectors: some axes do "
            "not vary at all; give more texts, or shrinkage above 0"
        )
    # Relative to the mean variance, so that the strength does not change the vectors' size.
    scale_D = (variance_D / variance_D.mean()) ** (-strength / 2)
    return Linear(_narrow(mean_D), _narrow((axes_DD * scale_D) @ axes_DD.T))


def remove_top(z_ND: Floats, *, count: int | None = None) -> Remove:
    """Subtract the mean and the strongest principal axes (Mu and Viswanath, arXiv 1702.01417).

    Args:
        z_ND: the vectors.
        count: how many axes; by default one for each hundred dimensions, as the paper has it.
    """
    count = max(1, z_ND.shape[1] // 100) if count is None else count
    _check_count("count", count, z_ND)
    mean_D, _, axes_DD = _principal(z_ND)
    return Remove(_narrow(mean_D), _narrow(axes_DD[:, :count].T))


def pca(z_ND: Floats, *, dim: int) -> Linear:
    """Subtract the mean and keep the `dim` strongest principal axes: narrower vectors."""
    _check_count("dim", dim, z_ND)
    mean_D, _, axes_DD = _principal(z_ND)
    return Linear(_narrow(mean_D), _narrow(axes_DD[:, :dim]))


def remove_kinds(z_ND: Floats, *, kinds: Sequence[str], count: int = 2) -> Remove:
    """Subtract the mean, and the axes along which kinds of text differ most.

    How a text is written (a caption, a question, a headline) moves its vector as what it says does.
    The means of the kinds span where that happens; along the strongest axes between them nothing is
    kept. This is nuisance attribute projection (Solomonoff, Campbell and Boardman 2005, where the
    nuisance is a telephone line). Simplified: the means of the kinds count alike, and what each
    kind varies by plays no part. Best after "center-scale", so that no dimension outweighs others.

    Args:
        z_ND: the vectors.
        kinds: the kind of each vector's text; two at least.
        count: how many axes, fewer than there are kinds.
    """
    names = check_kinds(kinds, len(z_ND), count)
    of_kind_N = np.array([names.index(kind) for kind in kinds])
    mean_KD = np.stack([z_ND[of_kind_N == place].mean(axis=0) for place in range(len(names))])
    _, far_K, axes_KD = np.linalg.svd(mean_KD - mean_KD.mean(axis=0), full_matrices=False)
    # Where means coincide an axis would be any, and what it holds would be lost.
    apart = int((far_K > _DEAD * np.sqrt(z_ND.var(axis=0).sum())).sum())
    if apart < count:
        raise InputError(
            f"count={count}: the means of these {len(names)} kinds of text differ along "
            f"{apart or 'no'} axes; give texts that differ more, or fewer axes"
        )
    return Remove(_narrow(z_ND.mean(axis=0)), _narrow(_signed(axes_KD[:count].T).T))


def check_kinds(kinds: Sequence[str] | None, num_texts: int, count: int = 2) -> list[str]:
    """The names of the kinds that `remove_kinds` is to tell apart.

    Args:
        kinds: the kind of each text; None: all of one.
        num_texts: how many texts there are.
        count: how many axes are to be removed.

    Raises:
        InputError: the kinds are not those of the texts, or too few for so many axes; or `count`
            is no whole number.
    """
    check_whole("count", count)
    if kinds is not None and len(kinds) != num_texts:
        raise InputError(f"{len(kinds)} kinds for {num_texts} texts; name the kind of each")
    names = sorted(set(kinds or ["one kind"]))
    if len(names) < 2:
        raise InputError(
            f"remove-kinds needs texts of two kinds at least, and these are all of {names[0]!r}; "
            "give texts of several kinds, or let the model write them"
        )
    if not 1 <= count < len(names):
        raise InputError(
            f"count={count}: {len(names)} kinds differ along {len(names) - 1} axes; give 1 to that"
        )
    return names


FITS: Mapping[str, Callable[..., Transform]] = {
    "center": center,
    "center-scale": center_scale,
    "whiten": whiten,
    "remove-top": remove_top,
    "remove-kinds": remove_kinds,
    "pca": pca,
}

NEEDS_KINDS = frozenset({"remove-kinds"})
"""Rows of `FITS` that have to know what kind of text each vector is of."""


def fit(
    name: str, z_ND: NDArray[Any], *, kinds: Sequence[str] | None = None, **options: Any
) -> Transform:
    """Fit the transform of this name on vectors of unlabelled text.

    Args:
        name: a row of `FITS`.
        z_ND: the vectors as they come out of pooling, not normalised.
        kinds: the kind of each vector's text, for rows in `NEEDS_KINDS`; others pass it over.
        options: what that row takes.

    Raises:
        InputError: the name or an option is unknown or unusable, or the vectors are too few or
            not finite.
    """
    if name not in FITS:
        raise InputError(f"unknown calibration {name!r}; there are {', '.join(FITS)}")
    known = options_of(name)
    if unknown := sorted(set(options) - set(known)):
        raise InputError(f"{name} takes {known or 'no options'}, not {unknown}")
    wide_ND = np.asarray(z_ND, dtype=np.float64)
    if wide_ND.ndim != 2 or len(wide_ND) < 2:
        raise InputError(
            f"calibration needs the vectors of 2 texts at least, got an array of {wide_ND.shape}"
        )
    if not np.isfinite(wide_ND).all():
        raise InputError("calibration vectors hold NaN or infinity; embed the texts again")
    if (wide_ND == wide_ND[0]).all():
        raise InputError(f"all {len(wide_ND)} calibration vectors are the same; give other texts")
    if name in NEEDS_KINDS:
        options["kinds"] = kinds if kinds is not None else ["one kind"] * len(wide_ND)
    return FITS[name](wide_ND, **options)


def options_of(name: str) -> list[str]:
    """What a row of `FITS` can be told, besides the vectors and their kinds."""
    return [key for key in list(inspect.signature(FITS[name]).parameters)[1:] if key != "kinds"]


def _principal(z_ND: Floats) -> tuple[Floats, Floats, Floats]:
    """Mean, variance along each principal axis, and the axes as columns; strongest first."""
    mean_D = z_ND.mean(axis=0)
    c_ND = z_ND - mean_D
    variance_D, axes_DD = np.linalg.eigh(c_ND.T @ c_ND / len(z_ND))
    return mean_D, np.maximum(variance_D[::-1], 0.0), _signed(axes_DD[:, ::-1])


def _signed(axes_DK: Floats) -> Floats:
    """The axes, columns, each with its largest number above 0.

    Signs are arbitrary; fixed here so that one set of vectors gives one fingerprint.
    """
    largest = np.abs(axes_DK).argmax(axis=0)
    signed: Floats = axes_DK * np.sign(axes_DK[largest, np.arange(axes_DK.shape[1])])
    return signed


def _narrow(array: Floats) -> Array:
    return array.astype(np.float32)


def _check_range(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise InputError(f"{name}={value}; give a number from 0 to 1")


def _check_count(name: str, value: int, z_ND: Floats) -> None:
    check_whole(name, value)
    most = min(z_ND.shape[1], len(z_ND) - 1)
    if not 1 <= value <= most:
        raise InputError(
            f"{name}={value}: {len(z_ND)} vectors of {z_ND.shape[1]} numbers have at most {most} "
            "principal axes; give fewer, or more texts"
        )
