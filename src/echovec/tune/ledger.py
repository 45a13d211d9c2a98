"""Ledger: every recipe that was scored, on disk as it happens, so that nothing is scored twice."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

from echovec.errors import StorageError
from echovec.tune.dev import DevTask
from echovec.tune.parts import Sum, Vectors
from echovec.tune.score import Scores, score, summed_up
from echovec.tune.space import NONE


class Clock:
    """Time since the start, and what is left of a budget.

    Args:
        minutes: the budget; None: no limit.
    """

    def __init__(self, minutes: float | None) -> None:
        self._start = time.monotonic()
        self.budget = float("inf") if minutes is None else 60 * minutes

    @property
    def spent(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start

    def until(self, share: float) -> float:
        """The moment, in seconds since the start, when this share of what is left is used up."""
        return self.spent + share * max(0.0, self.budget - self.spent)


class Ledger:
    """Scores of sums of parts.

    Args:
        file: where they are kept, a JSON line each; its name says what they were scored on.
        tasks: what is scored.
        vectors: of parts.
    """

    def __init__(self, file: Path, tasks: Sequence[DevTask], vectors: Vectors) -> None:
        self.tasks = tasks
        self.scores: dict[Sum, Scores] = {}
        """Everything that was scored in this run, in order."""
        self._file = file
        self._vectors = vectors
        self._known = _read(file)

    def score(self, mix: Sum) -> Scores:
        """The scores of a sum, computed unless they are known."""
        if mix not in self.scores:
            key = mix.shown
            if key in self._known:
                self.scores[mix] = summed_up(self.tasks, self._known[key])
            else:
                self.scores[mix] = score(self.tasks, self._vectors.of(mix))
                self._write(key, self.scores[mix])
        return self.scores[mix]

    def single(self) -> list[tuple[Sum, Scores]]:
        """Parts that were scored alone, best first."""
        alone = [
            (mix, scores)
            for mix, scores in self.scores.items()
            if len(mix.parts) == 1 and mix.whole == NONE
        ]
        return sorted(alone, key=lambda pair: -pair[1].mean)

    def _write(self, key: str, scores: Scores) -> None:
        line = json.dumps({"recipe": key, "tasks": dict(scores.tasks)}) + "\n"
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("a", encoding="utf-8") as file:
                file.write(line)
        except OSError as error:
            raise StorageError(
                f"cannot write {self._file}: {error.strerror or error}; free space, or choose "
                "another folder with --work"
            ) from error


def _read(file: Path) -> dict[str, dict[str, float]]:
    """What an earlier run wrote; a last line that was cut off is scored again."""
    known: dict[str, dict[str, float]] = {}
    if not file.is_file():
        return known
    text = file.read_text("utf-8", errors="replace")
    for line in text.splitlines():
        try:
            one = json.loads(line)
            known[one["recipe"]] = {name: float(value) for name, value in one["tasks"].items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    if text and not text.endswith("\n"):
        with file.open("a", encoding="utf-8") as opened:
            opened.write("\n")
    return known
