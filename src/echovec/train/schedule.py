"""Schedule: which rows each step sees, decided before the first one.

Every batch comes from one set (the paper, section 5.1), sets are drawn by the rows they have left,
and inside a batch no text is another row's answer: the same anchor or positive twice, a positive
that stands as somebody's negative, another positive that any row of the set names for an anchor, or
two rows of one label would be pushed apart and pulled together at once. Decided beforehand from the
seed, a resumed run or another number of processes sees the same batches.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from echovec.errors import TrainingError
from echovec.train.data import Example, TrainingSet, answers_of

_Answers = Mapping[str, set[str]]


@dataclass(frozen=True)
class Step:
    """The rows of one batch: places in one set."""

    of: int
    """Which set."""

    rows: tuple[int, ...]

    batch: tuple[int, ...] = ()
    """Where these are one process's part: the rows of all."""

    @property
    def all_rows(self) -> tuple[int, ...]:
        """The whole batch, which decides what is the same in all processes."""
        return self.batch or self.rows

    def part(self, rank: int, world: int) -> Step:
        """What one of several processes takes of it.

        Raises:
            TrainingError: it cannot be shared out without leaving rows over.
        """
        if len(self.rows) % world:
            raise TrainingError(
                f"batch_size={len(self.rows)} is not a multiple of {world} processes"
            )
        size = len(self.rows) // world
        return Step(self.of, self.rows[rank * size : (rank + 1) * size], self.rows)


def schedule(
    sets: Sequence[TrainingSet], *, batch_size: int, steps: int | None, seed: int
) -> list[Step]:
    """The batches of a run.

    Args:
        sets: what is trained on.
        batch_size: rows of each batch.
        steps: how many batches; None for one epoch. Sets begin anew, in another order, as often
            as it takes.
        seed: of the order.

    Raises:
        TrainingError: no set has a whole batch of rows that fit together.
    """
    drawn = random.Random(seed)
    answers = [answers_of(one.examples, symmetric=one.source.symmetric) for one in sets]
    plan: list[Step] = []
    while steps is None or len(plan) < steps:
        epoch: list[Step] = []
        for place, one in enumerate(sets):
            epoch += _epoch(one, place, answers[place], batch_size, drawn)
        if not epoch:
            most = max((f"{len(one):,} in {one.name}" for one in sets), default="none")
            raise TrainingError(
                f"batch_size={batch_size} is more than any set has rows that fit together "
                f"({most}); make it smaller"
            )
        drawn.shuffle(epoch)
        plan += epoch
        if steps is None:
            break
    return plan[:steps]


def _epoch(
    one: TrainingSet, place: int, answers: _Answers, batch_size: int, drawn: random.Random
) -> list[Step]:
    rows = list(range(len(one)))
    drawn.shuffle(rows)
    waiting = deque(rows[: max(1, round(len(rows) * one.source.ratio))])
    batches = []
    while len(waiting) >= batch_size:
        chosen = _batch(one.examples, answers, waiting, batch_size)
        if len(chosen) < batch_size:
            break  # what is left repeats itself too much for a whole batch
        batches.append(Step(place, tuple(chosen)))
    return batches


def _batch(
    examples: Sequence[Example], answers: _Answers, waiting: deque[int], batch_size: int
) -> list[int]:
    """The first rows that fit together, taken from those that wait; the others keep their order."""
    chosen: list[int] = []
    passed: list[int] = []
    shown: set[str] = set()  # every text of the batch
    wanted: set[str] = set()  # its anchors and all answers to them
    labels: set[str] = set()
    while waiting and len(chosen) < batch_size:
        row = waiting.popleft()
        example = examples[row]
        own = {example.anchor, *answers[example.anchor]}
        texts = {example.anchor, example.positive, *example.negatives}
        alike = example.label != "" and example.label in labels
        if alike or own & shown or texts & wanted:
            passed.append(row)
            continue
        chosen.append(row)
        shown |= texts
        wanted |= own
        labels.add(example.label)
    waiting.extendleft(reversed(passed))
    return chosen
