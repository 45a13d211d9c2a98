"""States: the pooled states of every view at every layer, from one run per prompt, kept on disk.

    FOLDER/PROMPT-FINGERPRINT/HASH.npy    a block of texts: [V, L, n, D]

Everything that is tried afterwards is arithmetic on these. Texts to calibrate on are kept in
float32; texts to choose by in float16, as distances from the calibration texts' mean in units of
their standard deviation, so that the error is 0.05 % of each number however large a layer's states
are. A block is written by rename: what was interrupted goes on where it stopped.

Shapes: V views of the prompt, L layers (1 to the last, or layer 0 alone), N texts, D width.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from echovec.errors import StorageError
from echovec.presets import recipe_of
from echovec.tune.space import Prompt

if TYPE_CHECKING:
    from echovec.embedder import Embedder

Array = NDArray[np.float32]
BLOCK = 256
"""Texts in a file."""

_LARGEST = 6e4
"""The largest number that float16 holds is 65,504."""


class KeptStates:
    """States of one prompt.

    Args:
        embedder: whose model.
        prompt: which run, and what is read from it.
        folder: where blocks are kept.
        max_tokens: budget for each copy of a text.
    """

    def __init__(
        self, embedder: Embedder, prompt: Prompt, folder: Path, *, max_tokens: int
    ) -> None:
        self.prompt = prompt
        self._views = list(prompt.views)
        recipe = recipe_of(prompt.name, *prompt.views.values(), max_tokens=max_tokens)
        self._embedder = embedder.with_recipe(recipe)
        self._layers = prompt.layers(embedder.backbone.num_layers)
        self._folder = folder / f"{prompt.name}-{self._embedder.recipe.fingerprint}"
        self._calibration: list[list[str]] = []
        self._from = ""
        self._dev: list[list[str]] = []
        self._centre: tuple[Array, Array] | None = None

    @property
    def fingerprint(self) -> str:
        """The recipe's, which names the model, the prompt and the token budget."""
        return self._embedder.recipe.fingerprint

    def tokens(self, texts: Sequence[str]) -> int:
        """How many tokens one run over these texts is."""
        chunks = self._embedder.prepare(list(dict.fromkeys(texts)))
        return sum(len(batch.ids_T) for chunk in chunks for batch in chunk)

    def calibrate_on(self, texts: Sequence[str]) -> Iterator[Callable[[], int]]:
        """Work to do for these texts: each call runs a block and gives its tokens; 0 if kept."""
        self._calibration = list(_blocks(texts))
        self._centre = None
        self._from = hashlib.sha256(json.dumps(self._calibration).encode()).hexdigest()
        for block in self._calibration:
            yield lambda block=block: self._run(block, dev=False)  # type: ignore[misc]

    def choose_on(self, texts: Sequence[str]) -> Iterator[Callable[[], int]]:
        """The same for texts to choose by; the calibration's blocks have to be there."""
        self._dev = list(_blocks(texts))
        for block in self._dev:
            yield lambda block=block: self._run(block, dev=True)  # type: ignore[misc]

    def calibration(self, view: str, layers: Sequence[int]) -> Array:
        """The mean of these layers over the calibration texts: z_ND, float32."""
        return self._mean(self._calibration, view, layers, dev=False)

    def dev(self, view: str, layers: Sequence[int]) -> Array:
        """The mean of these layers over the texts to choose by: z_ND, float32."""
        return self._mean(self._dev, view, layers, dev=True)

    def _mean(
        self, blocks: list[list[str]], view: str, layers: Sequence[int], *, dev: bool
    ) -> Array:
        at = self._views.index(view)
        rows = [self._layers.index(layer) for layer in layers]
        parts = []
        for block in blocks:
            own_LND = np.load(self._file(block, dev=dev), mmap_mode="r")[at][rows]
            if dev:
                mean_VLD, unit_VLD = self._centred()
                own_LND = own_LND.astype(np.float32) * unit_VLD[at, rows, None]
                own_LND += mean_VLD[at, rows, None]
            parts.append(own_LND.mean(axis=0))
        return np.concatenate(parts)

    def _centred(self) -> tuple[Array, Array]:
        """Mean and standard deviation of each number over the calibration texts: [V, L, D]."""
        if self._centre is None:
            shape = (len(self._views), len(self._layers), self._embedder.backbone.dim)
            count, total, squares = 0, np.zeros(shape), np.zeros(shape)
            for block in self._calibration:
                own_VLND = np.load(self._file(block, dev=False), mmap_mode="r").astype(np.float64)
                count += own_VLND.shape[2]
                total += own_VLND.sum(axis=2)
                squares += (own_VLND**2).sum(axis=2)
            mean = total / count
            unit = np.sqrt(np.maximum(squares / count - mean**2, 0))
            unit[unit < 1e-6 * np.median(unit)] = 1.0
            self._centre = mean.astype(np.float32), unit.astype(np.float32)
        return self._centre

    def _run(self, block: list[str], *, dev: bool) -> int:
        file = self._file(block, dev=dev)
        if self._whole(file, len(block)):
            return 0
        own_VLND = np.stack(self._embedder.states(block, self._layers))
        if dev:
            mean_VLD, unit_VLD = self._centred()
            own_VLND = (own_VLND - mean_VLD[:, :, None]) / unit_VLD[:, :, None]
            own_VLND = np.clip(own_VLND, -_LARGEST, _LARGEST).astype(np.float16)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            part = file.with_name(f".part-{file.name}-{os.getpid()}")
            with part.open("wb") as opened:
                np.save(opened, own_VLND)
            part.replace(file)
        except OSError as error:
            raise StorageError(
                f"cannot keep states in {file.parent}: {error.strerror or error}; free space, or "
                "choose another folder with --work"
            ) from error
        return self.tokens(block)

    def _whole(self, file: Path, count: int) -> bool:
        try:
            shape = np.load(file, mmap_mode="r").shape
        except (OSError, ValueError):
            return False
        return bool(shape[:3] == (len(self._views), len(self._layers), count))

    def _file(self, block: list[str], *, dev: bool) -> Path:
        # What dev blocks are measured from belongs to their name.
        named = json.dumps([block, self._from if dev else None])
        return self._folder / f"{hashlib.sha256(named.encode()).hexdigest()[:24]}.npy"


def _blocks(texts: Sequence[str]) -> Iterator[list[str]]:
    for first in range(0, len(texts), BLOCK):
        yield list(texts[first : first + BLOCK])
