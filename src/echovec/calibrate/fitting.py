"""Fitting: a recipe whose views are calibrated one by one, on one pass over unlabelled texts.

Each view's vectors are calibrated, scaled to unit length, weighted, and then put together: views
that are calibrated apart count alike, however large the states of their layers are.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from echovec.calibrate.kept import self_texts, texts_hash
from echovec.calibrate.write import Writing
from echovec.errors import InputError, TruncationWarning
from echovec.recipe import ROLES, Recipe, Role
from echovec.vector.calibrate import FITS, NEEDS_KINDS, check_kinds, fit, options_of
from echovec.vector.transform import Normalize, Transform
from echovec.vector.view import View

if TYPE_CHECKING:
    from echovec.embedder import Embedder

Steps = Sequence[tuple[str, Mapping[str, float]]]
"""Calibrations one after the other: rows of `echovec.vector.calibrate.FITS` and their options."""

RECORD = "calibration"
"""Where a recipe's `versions`, its record, says what it was fitted on."""


def calibrate(
    embedder: Embedder,
    texts: Sequence[str] | None = None,
    method: str | Sequence[str] = "center-scale",
    *,
    kinds: Sequence[str] | None = None,
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
        method: "center", "center-scale", "whiten", "remove-top", "remove-kinds" or "pca"; or
            several, each fitted on what the one before it gives.
        kinds: the kind of each of `texts`, for "remove-kinds"; what the model writes has its own.
        name: of the new recipe; by default the old one's and the method.
        source: where `texts` are from, for the record; e.g. a file's name.
        writing: how the model writes, without `texts`.
        advance: called with the number of texts that are there, as the model writes them.
        options: those of the method (`echovec.vector.calibrate`), e.g. `strength=0.5`; of several
            methods, each takes those that it knows.

    Returns:
        An embedder on the same model. Its recipe says what it was fitted on.

    Texts longer than the recipe's budget are cut, with a TruncationWarning.

    Raises:
        InputError: the method or an option is unknown, the texts are too few, or one of them
            cannot be embedded.
    """
    steps = steps_of([method] if isinstance(method, str) else list(method), options)
    if texts is None and kinds is not None:
        raise InputError("kinds name the kind of each of the texts; give texts too")
    if texts is None:
        written = self_texts(embedder, writing, advance=advance)
        texts, kinds, source = written.texts, written.kinds, "written by the model itself"
    elif writing is not None:
        raise InputError("give texts, or how the model is to write them, not both")
    if isinstance(texts, str):
        raise InputError(f"texts={texts[:40]!r} is one text; give a list of texts")
    texts = list(texts)
    for step, own in steps:
        if step in NEEDS_KINDS:  # said before minutes of embedding
            check_kinds(kinds, len(texts), **own)  # type: ignore[arg-type]
    recipe = embedder.recipe
    fits = _Fits(embedder, texts, steps, kinds)
    record = (
        f"{described(steps)}, fitted on {len(texts):,} texts, "
        f"{source or 'given by the caller'}, sha256:{texts_hash(texts)}"
    )
    calibrated = replace(
        recipe,
        name="+".join([recipe.name, *(step for step, _ in steps)]) if name is None else name,
        views={role: fits.views(role) for role in ROLES},
    )
    return recorded(embedder, calibrated, record)


def recorded(embedder: Embedder, recipe: Recipe, record: str) -> Embedder:
    """The embedder with another recipe that carries a record of how it was fitted."""
    return embedder.with_recipe(replace(recipe, versions={**recipe.versions, RECORD: record}))


def steps_of(methods: Sequence[str], options: Mapping[str, float]) -> Steps:
    """Methods with their options: each takes those that it knows.

    Raises:
        InputError: a method is unknown, there is none, or no method knows an option.
    """
    if unknown := [name for name in methods if name not in FITS]:
        raise InputError(f"unknown calibration {unknown[0]!r}; there are {', '.join(FITS)}")
    if not methods:
        raise InputError(f"no calibration; give one of {', '.join(FITS)}")
    known = {name: options_of(name) for name in methods}
    every = {option for takes in known.values() for option in takes}
    if strangers := sorted(set(options) - every):
        known_ones = f"there are {', '.join(sorted(every))}" if every else "there is none"
        raise InputError(
            f"{', '.join(strangers)}: no option of {' or '.join(methods)}; {known_ones}"
        )
    return [(name, {o: options[o] for o in known[name] if o in options}) for name in methods]


def described(steps: Steps) -> str:
    """Calibrations in a few words: "center-scale, whiten(strength=0.5)"."""
    shown = []
    for method, options in steps:
        inside = ", ".join(f"{key}={value:g}" for key, value in sorted(options.items()))
        shown.append(f"{method}({inside})" if inside else method)
    return ", ".join(shown)


def calibrated_view(
    view: View, z_LND: NDArray[Any], steps: Steps, kinds: Sequence[str] | None = None
) -> View:
    """The view with calibrations fitted on its pooled states, then scaled to unit length.

    Args:
        view: which view.
        z_LND: its states over the texts, a row of L for each layer that it averages
            (`Embedder.states`).
        steps: rows of `echovec.vector.calibrate.FITS` with their options; each is fitted on what
            the one before it gives.
        kinds: the kind of each text.
    """
    import torch

    before: tuple[Transform, ...] = view.transforms
    if before and isinstance(before[-1], Normalize):
        before = before[:-1]
    z_ND = torch.from_numpy(np.ascontiguousarray(z_LND)).mean(dim=0)
    for transform in before:
        z_ND = transform(z_ND)
    for method, options in steps:
        fitted = fit(method, z_ND.numpy(), kinds=kinds, **options)
        before, z_ND = (*before, fitted), fitted(z_ND)
    return replace(view, transforms=(*before, Normalize()))


class _Fits:
    """The calibrated views of each role; roles with the same views share the pass and the fit."""

    def __init__(
        self, embedder: Embedder, texts: list[str], steps: Steps, kinds: Sequence[str] | None
    ) -> None:
        self._embedder = embedder
        self._texts = texts
        self._steps = steps
        self._kinds = kinds
        self._done: dict[tuple[View, ...], tuple[View, ...]] = {}

    def views(self, role: Role) -> tuple[View, ...]:
        """The role's views, calibrated."""
        own = self._embedder.recipe.views[role]
        if own not in self._done:
            _say_cut(self._embedder, self._texts, role)
            states = self._embedder.states(self._texts, role=role)
            self._done[own] = tuple(
                calibrated_view(view, z_LND, self._steps, self._kinds)
                for view, z_LND in zip(own, states, strict=True)
            )
        return self._done[own]


def _say_cut(embedder: Embedder, texts: list[str], role: Role) -> None:
    """Warn where some of the texts are longer than what the recipe reads of them."""
    planned = embedder.planner(role)(texts)
    cut_N = np.zeros(len(planned.inverse_N), dtype=np.bool_)
    for chunk in planned.chunks:
        for batch in chunk:
            cut_N[batch.order_S] |= batch.truncated_S
    if cut_N.any():
        limits = embedder.definition.max_tokens, embedder.backbone.max_positions
        cut = cut_N[planned.inverse_N].tolist()
        warnings.warn(TruncationWarning.of(cut, *limits), stacklevel=4)
