"""EmbedFilter: keep a window of the spectrum of the unembedding matrix.

The right singular vectors of the matrix that turns hidden states into logits are an axis system of
the hidden states. At its strong end lies what makes frequent tokens likely, at its weak end what
hardly reaches the output. Neither says much about a text: the middle is kept. One matrix product,
nothing is fitted on text.

Source: "Your UnEmbedding Matrix is Secretly a Feature Lens for Text Embeddings", arXiv 2606.07502.
Their window is the middle half; a one-sided window that drops the weak end only did better for one
small model, so both are here. Meant for the last layer, whose states meet the unembedding.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from echovec.errors import InputError
from echovec.vector.transform import Linear

Window = Literal["middle", "top"]


def embed_filter(
    unembedding_VD: NDArray[Any],
    *,
    keep: float = 0.5,
    window: Window = "middle",
    narrow: bool = False,
) -> Linear:
    """The filter of a model's unembedding matrix.

    Args:
        unembedding_VD: a row for each token of the vocabulary.
        keep: the part of the D axes that is kept, above 0 and at most 1.
        window: "middle", or "top": drop the weak end only.
        narrow: whether vectors become as wide as there are axes kept; else they keep their
            dimensions (the cosines are the same), so that several views may be summed.

    Raises:
        InputError: an option is out of its range.
    """
    dim = unembedding_VD.shape[1]
    start, stop = kept(dim, keep, window)
    wide_VD = np.asarray(unembedding_VD, dtype=np.float64)
    # The right singular vectors are the eigenvectors of this: D x D in place of V x D.
    _, axes_DD = np.linalg.eigh(wide_VD.T @ wide_VD)
    axes_DK = axes_DD[:, ::-1][:, start:stop]
    matrix = axes_DK if narrow else axes_DK @ axes_DK.T
    return Linear(np.zeros(dim, dtype=np.float32), matrix.astype(np.float32))


def kept(dim: int, keep: float, window: Window) -> tuple[int, int]:
    """Which axes are kept, strongest first, as a half-open range."""
    if not 0 < keep <= 1:
        raise InputError(f"keep={keep}; give a number above 0, at most 1")
    if window not in ("middle", "top"):
        raise InputError(f"window={window!r}; there are 'middle' and 'top'")
    count = max(1, round(keep * dim))
    start = (dim - count) // 2 if window == "middle" else 0
    return start, start + count
