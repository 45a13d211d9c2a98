"""Fitting: a recipe whose views are calibrated one by one, on one pass over unlabelled texts.

Each view's vectors are calibrated, scaled to unit length, weighted, and then put together: views
that are calibrated apart count alike, however large the states of their layers are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from echovec.calibrate.kept import self_texts, texts_hash
from echovec.calibrate.write import Writing
from echovec.errors import InputError
from echovec.recipe import ROLES, Recipe, Role
from echovec.vector.calibrate import FITS, fit
from echovec.vector.transform import Normalize, Transform
from echovec.vector.view import View

if TYPE_CHECKING:
    from echovec.embedder import Embedder

RECORD = "calibration"
"""Where a recipe's `versions`, its record, says what it was fitted on."""


def calibrate(
    embedder: Embedder,
    texts: Sequence[str] | None = None,
    method: str = "center-scale",
    *,
    name: str | None = None,
    source: str | None = None,
    writing: Writing | None = None,
    advance: Callable[[int], None] = lambda count: None,
    **options: float,
) -> Embedder:
    """The same embedder with each view calibrated.

    What a view did already stays in front of the calibration; only a scaling to unit length at its
    end moves behind it.

    Args:
        embedder: whose model and recipe.
        texts: unlabelled texts like those to come, a few hundred or more; None: the model writes
            its own (`self_texts`).
        method: "center", "center-scale", "whiten", "remove-top" or "pca".
        name: of the new recipe; by default the old one's and the method.
        source: where `texts` are from, for the record; e.g. a file's name.
        writing: how the model writes, without `texts`.
        advance: called with the number of texts that are there, as the model writes them.
        options: those of the method (`echovec.vector.calibrate`), e.g. `strength=0.5`.

    Returns:
        An embedder on the same model. Its recipe says what it was fitted on.

    Raises:
        InputError: the method or an option is unknown, the texts are too few, or one of them
            cannot be embedded.
    """
    if method not in FITS:
        raise InputError(f"unknown calibration {method!r}; there are {', '.join(FITS)}")
    if texts is None:
        written = self_texts(embedder, writing, advance=advance)
        texts, source = written.texts, "written by the model itself"
    elif writing is not None:
        raise InputError("give texts, or how the model is to write them, not both")
    recipe = embedder.recipe
    fits = _Fits(embedder, list(texts), method, options)
    record = (
        f"{described(method, options)}, fitted on {len(texts):,} texts, "
        f"{source or 'given by the caller'}, sha256:{texts_hash(list(texts))}"
    )
    calibrated = replace(
        recipe,
        name=f"{recipe.name}+{method}" if name is None else name,
        views={role: fits.views(role) for role in ROLES},
    )
    return recorded(embedder, calibrated, record)


def recorded(embedder: Embedder, recipe: Recipe, record: str) -> Embedder:
    """The embedder with another recipe that carries a record of how it was fitted."""
    other = embedder.with_recipe(recipe)
    other.recipe = replace(other.recipe, versions={**other.recipe.versions, RECORD: record})
    return other


def described(method: str, options: dict[str, float]) -> str:
    """A calibration in a few words: "whiten(strength=0.5)"."""
    inside = ", ".join(f"{key}={value:g}" for key, value in sorted(options.items()))
    return f"{method}({inside})" if inside else method


def calibrated_view(
    view: View, z_LND: NDArray[Any], method: str, options: dict[str, float]
) -> View:
    """The view with a calibration fitted on its pooled states, then scaled to unit length.

    Args:
        view: which view.
        z_LND: its states over the texts, a row of L for each layer that it averages
            (`Embedder.states`).
        method: a row of `echovec.vector.calibrate.FITS`.
        options: of the method.
    """
    import torch

    before: tuple[Transform, ...] = view.transforms
    if before and isinstance(before[-1], Normalize):
        before = before[:-1]
    z_ND = torch.from_numpy(np.ascontiguousarray(z_LND)).mean(dim=0)
    for transform in before:
        z_ND = transform(z_ND)
    fitted = fit(method, z_ND.numpy(), **options)
    return replace(view, transforms=(*before, fitted, Normalize()))


class _Fits:
    """The calibrated views of each role; roles with the same views share the pass and the fit."""

    def __init__(
        self, embedder: Embedder, texts: list[str], method: str, options: dict[str, float]
    ) -> None:
        self._embedder = embedder
        self._texts = texts
        self._method = method
        self._options = options
        self._done: dict[tuple[View, ...], tuple[View, ...]] = {}

    def views(self, role: Role) -> tuple[View, ...]:
        """The role's views, calibrated."""
        own = self._embedder.recipe.views[role]
        if own not in self._done:
            states = self._embedder.states(self._texts, role=role)
            self._done[own] = tuple(
                calibrated_view(view, z_LND, self._method, self._options)
                for view, z_LND in zip(own, states, strict=True)
            )
        return self._done[own]
