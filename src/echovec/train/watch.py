"""Watch: what a run looks like from outside while it goes: development scores and geometry.

Every `eval_every` steps: alignment and uniformity (Wang & Isola, arXiv 2005.10242) of held pairs,
how often a pair's positive is the nearest of all (recall@1), and, where the data is at hand,
Spearman on STSBenchmark's development split. Never a test set.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch.nn import functional
from transformers import TrainerCallback

from echovec.train.data import TrainingSet
from echovec.train.job import Parts

EVAL = "eval_"
"""What names of scores begin with where they are logged: trackers keep these apart."""

_STS_PAIRS = 300


class Watch(TrainerCallback):  # type: ignore[misc]
    """Scores a run as it goes, to whoever follows its log.

    Args:
        parts: the run's.
        sets: whose held rows are looked at.
        log: the trainer's `log`, which gives numbers by name to all that listen.
        data: the folder with STSBenchmark; None: `ECHOVEC_DATA`.
    """

    def __init__(
        self,
        parts: Parts,
        sets: Sequence[TrainingSet],
        log: Callable[[dict[str, float]], None],
        *,
        data: str | Path | None,
    ) -> None:
        self._parts, self._log = parts, log
        self._pairs = {one.name: one.held for one in sets if one.held}
        self._symmetric = {one.name: one.source.symmetric for one in sets}
        self._sts = _sts_dev(data)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The scores before the first step."""
        if state.global_step == 0:
            self._score(state, control)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The scores after every so many steps, and after the last."""
        due = state.global_step % self._parts.run.eval_every == 0
        if due or state.global_step == state.max_steps:
            self._score(state, control)

    def _score(self, state: Any, control: Any) -> None:
        if not state.is_world_process_zero:
            return
        loss_is_due = control.should_log  # logging resets it
        model = self._parts.transformer
        was_training = model.training
        model.eval()
        try:
            self._log({f"{EVAL}{name}": value for name, value in self._scores().items()})
        finally:
            model.train(was_training)
            control.should_log = loss_is_due

    def _scores(self) -> dict[str, float]:
        scores: dict[str, float] = {}
        for name, pairs in self._pairs.items():
            roles: tuple[Any, Any] = (
                (None, None) if self._symmetric[name] else ("query", "document")
            )
            anchors = self._encode([one.anchor for one in pairs], roles[0])
            positives = self._encode([one.positive for one in pairs], roles[1])
            scores |= {f"{name}_{key}": v for key, v in geometry(anchors, positives).items()}
        if self._sts is not None:
            left, right, gold = self._sts
            vectors = self._encode([*left, *right], None)
            cosines = (vectors[: len(left)] * vectors[len(left) :]).sum(axis=1)
            scores["sts_dev"] = round(100 * float(spearmanr(cosines, gold).statistic), 2)
        return scores

    def _encode(self, texts: list[str], role: Any) -> NDArray[np.float32]:
        vectors, _ = self._parts.embedder.encode(  # cut texts are the run's choice: no warning
            texts, role=role, show_progress_bar=False, return_truncated=True
        )
        return vectors


def geometry(anchors: NDArray[np.float32], positives: NDArray[np.float32]) -> dict[str, float]:
    """Alignment, uniformity and recall@1 of unit vectors [N, D] of pairs.

    Alignment is the mean squared distance of a pair (lower is closer), uniformity the logarithm of
    the mean Gaussian potential of all anchors (lower is more spread).
    """
    a, p = torch.from_numpy(anchors), torch.from_numpy(positives)
    alignment = (a - p).square().sum(dim=1).mean()
    uniformity = (
        functional.pdist(a).square().mul(-2).exp().mean().log() if len(a) > 1 else a.new_zeros(())
    )
    right = (a @ p.T).argmax(dim=1) == torch.arange(len(a))
    return {
        "alignment": round(float(alignment), 4),
        "uniformity": round(float(uniformity), 4),
        "recall_at_1": round(float(right.float().mean()), 4),
    }


def _sts_dev(data: str | Path | None) -> tuple[list[str], list[str], list[float]] | None:
    """The first pairs of STSBenchmark's development split, if the data folder has them."""
    folder = Path(data or os.environ.get("ECHOVEC_DATA") or "../shared/data")
    found = sorted((folder / "STSBenchmark").glob("dev*")) if folder.is_dir() else []
    if not found:
        return None
    from echovec.train.rows import rows_of

    rows = [row for row in rows_of(found[0]) if not isinstance(row, str)]
    rows = rows[:: max(1, len(rows) // _STS_PAIRS)]  # of all its parts
    keys = ("sentence1", "sentence2", "score")
    if not rows or any(key not in rows[0] for key in keys):
        return None
    return (
        [str(row["sentence1"]) for row in rows],
        [str(row["sentence2"]) for row in rows],
        [float(row["score"]) for row in rows],
    )
