"""Progress: one bar over everything that is to be embedded, with the time that is left.

Its unit is characters, prompts included (`weight_of`): texts differ too much in length for a count
of texts to say when it will be done.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from echovec.evaluate.run import Step


class Progress:
    """A bar on standard error, on a terminal only; `with` it around a run.

    What was not known before it was reached makes the bar longer instead of overfull.
    """

    def __init__(self) -> None:
        from tqdm import tqdm

        self._bar = tqdm(
            total=0,
            unit="",
            disable=None,
            leave=False,
            smoothing=0.1,
            bar_format="embedding {percentage:3.0f}% |{bar:30}| {elapsed}, about {remaining} left",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.close()

    def expect(self, steps: Sequence[Step]) -> None:
        """Set the end of the bar by a plan."""
        self._bar.total = sum(one.weight for step in steps for one in step.work or ())
        self._bar.refresh()

    def advance(self, weight: int) -> None:
        """Texts of this weight have been embedded."""
        if self._bar.total is not None and self._bar.n + weight > self._bar.total:
            self._bar.total = self._bar.n + weight
        self._bar.update(weight)
