"""scikit-learn: `EchovecTransformer`, texts to vectors in a pipeline.

    make_pipeline(EchovecTransformer(recipe="best"), LogisticRegression()).fit(texts, labels)

It learns nothing from the texts it is fitted on, so `transform` needs no `fit`. Clones share one
model in memory, and a pickle says how to load it and holds no weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from echovec.errors import DependencyError, InputError
from echovec.plugins.handle import Handle
from echovec.recipe import Role

try:
    from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
except ImportError as error:
    raise DependencyError(
        f'EchovecTransformer needs scikit-learn ({error}): pip install "echovec[plugins]"'
    ) from None

if TYPE_CHECKING:
    from echovec.embedder import Embedder


class EchovecTransformer(
    ClassNamePrefixFeaturesOutMixin,  # type: ignore[misc]
    TransformerMixin,  # type: ignore[misc]
    BaseEstimator,  # type: ignore[misc]
):
    """An embedder as scikit-learn wants it.

    Args:
        model: an `Embedder`, or the name or folder of a model; None for the default model.
        recipe: a preset's name or a recipe file; by default what `Embedder.load` takes.
        role: "query", "document", or None for neither.
        instruction: what the vectors are for, for recipes that take one.
        device: a torch device.
        precision: "exact", "fast" or "int8".
        max_tokens: the token budget per copy.
    """

    def __init__(
        self,
        model: Embedder | str | Path | None = None,
        *,
        recipe: str | Path | None = None,
        role: Role | None = None,
        instruction: str | None = None,
        device: str | None = None,
        precision: str | None = None,
        max_tokens: int | None = None,
    ) -> None:
        self.model = model
        self.recipe = recipe
        self.role = role
        self.instruction = instruction
        self.device = device
        self.precision = precision
        self.max_tokens = max_tokens

    def fit(self, X: Any, y: Any = None) -> EchovecTransformer:
        """Check the texts and load the model; nothing is learnt.

        Raises:
            InputError: `X` is not one text a row.
        """
        texts_of(X)
        self._n_features_out = self._handle().embedder.dimension
        self.n_features_out_ = self._n_features_out
        """Numbers in each vector."""
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Unit vectors of texts, in order: float32 [n, d].

        Raises:
            InputError: `X` is not one text a row, or a text cannot be embedded.
        """
        handle = self._handle()
        vectors = handle.vectors(texts_of(X), self.role, self.instruction)
        self._n_features_out = vectors.shape[1]  # set_output names the columns by it
        return vectors

    def _handle(self) -> Handle:
        """What the parameters name: they may change between calls, by `set_params`."""
        names = (self.model, self.recipe, self.device, self.precision, self.max_tokens)
        if self.__dict__.get("_kept", (None,))[0] != names:
            model, recipe, device, precision, max_tokens = names
            made = Handle(model, recipe, device=device, precision=precision, max_tokens=max_tokens)
            self._kept = (names, made)
        handle: Handle = self._kept[1]
        return handle

    def __copy__(self) -> EchovecTransformer:
        made = type(self).__new__(type(self))
        made.__dict__.update(self.__dict__)
        return made

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        state.pop("_kept", None)
        return state

    def __sklearn_clone__(self) -> EchovecTransformer:
        # The usual clone copies what parameters hold, and that may be a whole model.
        made = type(self)(**self.get_params(deep=False))
        if hasattr(self, "_sklearn_output_config"):
            made._sklearn_output_config = dict(self._sklearn_output_config)
        return made

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        tags.requires_fit = False
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags


def texts_of(X: Any) -> list[str]:
    """The texts of a list, a series, or an array or frame of one column.

    Raises:
        InputError: it is a single text, or holds something else, or several columns.
    """
    if isinstance(X, str):
        raise InputError("X is a single text; give a list of texts")
    if hasattr(X, "to_numpy"):
        X = X.to_numpy()
    if isinstance(X, np.ndarray):
        if X.ndim != 1 and not (X.ndim == 2 and X.shape[1] == 1):
            raise InputError(f"X has the shape {X.shape}; give one text a row")
        X = X.ravel().tolist()
    texts = list(X)
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"X[{row}] is {type(text).__name__}; give one text a row", index=row)
    return texts
