"""Groups: rows of a map that are alike, found by k-means, each named by its most central text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

NUM_GROUPS = 8
_ROUNDS = 20
_NAME_CHARS = 44


def groups(
    vectors_ND: NDArray[Any],
    texts: Sequence[str | None],
    ids: Sequence[str],
    count: int = NUM_GROUPS,
) -> list[str]:
    """The name of each row's group; the same rows give the same groups.

    Args:
        vectors_ND: unit vectors.
        texts: what the rows are; a group has the name of the row nearest to its mean.
        ids: their names.
        count: how many groups at most.
    """
    x_ND = np.asarray(vectors_ND, np.float32)
    means_KD = _spread(x_ND, min(count, len(x_ND)))
    own_N = (x_ND @ means_KD.T).argmax(axis=1)
    for _ in range(_ROUNDS):
        for group in range(len(means_KD)):
            members = x_ND[own_N == group]
            if len(members):
                mean = members.mean(axis=0)
                means_KD[group] = mean / (np.linalg.norm(mean) or 1)
        before, own_N = own_N, (x_ND @ means_KD.T).argmax(axis=1)
        if np.array_equal(before, own_N):
            break
    central = (x_ND @ means_KD.T).argmax(axis=0)
    names = [_short(texts[row] or ids[row]) for row in central]
    return [names[group] for group in own_N]


def _spread(x_ND: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """Rows far apart to begin with: each the farthest from those before it."""
    centre = x_ND.mean(axis=0)
    chosen = [int((x_ND @ centre).argmax())]
    near_N = x_ND @ x_ND[chosen[0]]
    while len(chosen) < count:
        chosen.append(int(near_N.argmin()))
        near_N = np.maximum(near_N, x_ND @ x_ND[chosen[-1]])
    return x_ND[chosen].copy()


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _NAME_CHARS else text[: _NAME_CHARS - 1] + "…"
