"""Parts: a view at some layers with a calibration, and sums of such parts, as arithmetic.

What is computed here from kept states equals what the finished recipe computes from texts: the same
transforms are called. Shapes: N texts, D width.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from echovec.errors import InputError
from echovec.tune.space import NONE, Method, Prompt
from echovec.tune.states import KeptStates
from echovec.vector.calibrate import fit
from echovec.vector.spectrum import embed_filter
from echovec.vector.transform import Normalize, Transform
from echovec.vector.view import View

Array = NDArray[np.float32]
_KEPT = 1_500_000_000
"""Bytes of vectors that stay in memory: those that sums are made of."""


@dataclass(frozen=True)
class Part:
    """One thing to read from one prompt, and its calibration."""

    prompt: str
    """A prompt's name."""

    read: str
    """One of the prompt's views."""

    layers: tuple[int, ...]
    """Averaged; 1 to the model's number of blocks, or 0, the token embeddings."""

    method: Method

    @property
    def shown(self) -> str:
        """In a few words, as tables have it."""
        layers = "+".join(map(str, self.layers))
        return f"{self.prompt} {self.read}, layer {layers}, {self.method.shown}"


@dataclass(frozen=True)
class Sum:
    """Parts with weights, and what happens to their sum."""

    parts: tuple[tuple[Part, float], ...]

    whole: Method = NONE

    @property
    def prompts(self) -> dict[str, set[str]]:
        """What is read from each prompt."""
        read: dict[str, set[str]] = {}
        for part, _ in self.parts:
            read.setdefault(part.prompt, set()).add(part.read)
        return read

    @property
    def shown(self) -> str:
        """In a few words."""
        parts = "; ".join(f"{weight:g} x {part.shown}" for part, weight in self.parts)
        return parts if self.whole == NONE else f"{parts}; then {self.whole.shown}"


@dataclass(frozen=True, eq=False)
class _Unit:
    """A part's unit vectors, and what was done to its states before they had unit length."""

    calibration: Array
    dev: Array
    transforms: tuple[Transform, ...]

    def vectors(self, which: str) -> Array:
        return self.dev if which == "dev" else self.calibration


class Vectors:
    """Vectors of parts and sums over the texts to choose by.

    Args:
        kept: states of each prompt.
        unembedding: gives the unembedding matrix, or None where it cannot be had.
        kinds: the kind of each text to calibrate on.
    """

    def __init__(
        self,
        kept: Mapping[str, KeptStates],
        unembedding: Callable[[], NDArray[Any] | None],
        kinds: Sequence[str] | None = None,
    ) -> None:
        self._kept = kept
        self._kinds = kinds
        self._read_unembedding = unembedding
        self._filters: dict[tuple[str, float], Transform] = {}
        self._units: OrderedDict[Part, _Unit] = OrderedDict()

    @cached_property
    def unembedding(self) -> NDArray[Any] | None:
        """The unembedding matrix [V, D], or None."""
        return self._read_unembedding()

    def of(self, mix: Sum) -> Array:
        """Unit vectors of the texts to choose by: z_ND."""
        return self._apply(self._added(mix, "dev"), self.whole(mix))

    def whole(self, mix: Sum) -> tuple[Transform, ...]:
        """What happens to the sum, fitted on the calibration texts' sums."""
        return self._fitted(mix.whole, self._added(mix, "calibration"), ())

    def views(self, mix: Sum, prompts: Mapping[str, Prompt]) -> tuple[View, ...]:
        """The views that compute this sum from texts."""
        read = mix.prompts
        views = []
        for part, weight in mix.parts:
            view = prompts[part.prompt].reading(read[part.prompt])[part.read]
            layer = part.layers[0] if len(part.layers) == 1 else part.layers
            transforms = (*self._unit(part).transforms, Normalize())
            views.append(replace(view, layer=layer, weight=weight, transforms=transforms))
        return tuple(views)

    def _added(self, mix: Sum, which: str) -> Array:
        return np.asarray(
            sum(np.float32(weight) * self._unit(part).vectors(which) for part, weight in mix.parts)
        )

    def _unit(self, part: Part) -> _Unit:
        """Unit vectors over calibration and dev texts, and the transforms before that."""
        if part in self._units:
            self._units.move_to_end(part)
            return self._units[part]
        states = self._kept[part.prompt]
        calibration = states.calibration(part.read, part.layers)
        first = (self._filter(part.method.window),) if part.method.window else ()
        transforms = first + self._fitted(part.method, calibration, first)
        dev = states.dev(part.read, part.layers)
        units = _Unit(
            self._apply(calibration, transforms), self._apply(dev, transforms), transforms
        )
        self._units[part] = units
        while len(self._units) > max(4, _KEPT // (units.dev.nbytes + units.calibration.nbytes)):
            self._units.popitem(last=False)
        return units

    def _fitted(
        self, method: Method, z_ND: Array, before: tuple[Transform, ...]
    ) -> tuple[Transform, ...]:
        """A method's steps, each fitted on what those before it make of these vectors."""
        fitted: tuple[Transform, ...] = ()
        for name, options in method.steps:
            given_ND = self._apply(z_ND, before + fitted, unit=False)
            fitted += (fit(name, given_ND, kinds=self._kinds, **dict[str, Any](options)),)
        return fitted

    def _filter(self, window: tuple[str, float]) -> Transform:
        if self.unembedding is None:
            raise InputError("the unembedding matrix cannot be had")
        if window not in self._filters:
            name, keep = window
            self._filters[window] = embed_filter(
                self.unembedding,
                keep=keep,
                window=name,  # type: ignore[arg-type]
            )
        return self._filters[window]

    @staticmethod
    def _apply(z_ND: Array, transforms: tuple[Transform, ...], *, unit: bool = True) -> Array:
        import torch

        vectors = torch.from_numpy(np.ascontiguousarray(z_ND, dtype=np.float32))
        for transform in (*transforms, *((Normalize(),) if unit else ())):
            vectors = transform(vectors)
        result: Array = vectors.numpy()
        return result
