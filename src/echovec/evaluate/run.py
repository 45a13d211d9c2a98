"""Run: recipes on tasks: what there is to do, then doing it, task by task.

A task is loaded once and evaluated with every recipe before the next, so what is finished is
always comparable. A task whose outcome is on disk is not evaluated again, and a text whose vector
is in the cache is not embedded again; a killed run goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from echovec.errors import EchovecError, InputError, NotAvailableError, StorageError
from echovec.evaluate.encoder import MtebEncoder, task_instruction
from echovec.evaluate.hub import HubTask
from echovec.evaluate.local import LocalTask
from echovec.evaluate.method import Method
from echovec.evaluate.results import TEST, Outcome
from echovec.evaluate.sample import sample_task
from echovec.evaluate.shards import Shards
from echovec.evaluate.suites import Source, find_tasks
from echovec.evaluate.texts import Asked, texts_of
from echovec.evaluate.vectors import Vectors, count_tokens, weight_of

if TYPE_CHECKING:
    from echovec.embedder import AnyRecipe, Embedder

CACHE = "vectors"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Work:
    """What a recipe has to do on a task."""

    recipe: str
    texts: int
    """Distinct texts of the task."""

    missing: int
    """Texts to embed: neither in the cache nor part of an earlier task."""

    tokens: int
    """Tokens of their whole prompts; 0 if not counted."""

    weight: int
    """Their share of the work, see `weight_of`."""


@dataclass(frozen=True)
class Step:
    """A task, and what each recipe has to do on it."""

    source: Source
    split: str
    task: Any
    """The loaded task, or None: loaded when it is reached."""

    work: tuple[Work, ...] | None
    """For each recipe that is not finished; None if not known before."""

    finished: tuple[Outcome, ...]
    """Outcomes of earlier runs."""


class Evaluation:
    """Recipes on tasks.

    Args:
        embedder: the model; its own recipe plays no part.
        recipes: recipes, or what names them.
        tasks: suites, categories or tasks (suites.py).
        out: folder for results.
        data: folder of local sets.
        sample: at most so many items of each task (sample.py); None for whole tasks.
        seed: what samples are drawn with.
        split: "test", or a development split.
        cache: folder for vectors; by default `vectors` in `out`.
        batch_tokens: tokens per batch, padding included.
        max_tokens: budget per copy of a text; by default each recipe's.
        chosen_on: the data that decided the recipes, if something was chosen (selection.py).
        say: called with a line for people when something is finished.
        advance: called with the weights of texts as they are embedded.

    Raises:
        InputError: a task or recipe is unknown, or two recipes are the same.
    """

    def __init__(
        self,
        embedder: Embedder,
        recipes: Sequence[AnyRecipe],
        tasks: Sequence[str],
        *,
        out: Path,
        data: Path | None = None,
        sample: int | None = None,
        seed: int = 42,
        split: str = TEST,
        cache: Path | None = None,
        batch_tokens: int | None = None,
        max_tokens: int | None = None,
        chosen_on: str | None = None,
        say: Say = lambda line: None,
        advance: Callable[[int], object] = lambda weight: None,
    ) -> None:
        self.found = find_tasks(tasks, data, split)
        self.sample = sample
        self.seed = seed
        self.say = say
        self.methods: list[Method] = []
        opened: dict[tuple[str, str], Shards] = {}
        for recipe in recipes:
            bound = embedder.with_recipe(recipe, max_tokens=max_tokens)
            vectors = Vectors(
                bound,
                cache or out / CACHE,
                batch_tokens=batch_tokens,
                opened=opened,
                advance=advance,
            )
            encoder = MtebEncoder(bound, vectors=vectors, sample=sample, seed=seed)
            self.methods.append(Method(encoder, out, sample, seed, chosen_on))
        names = [method.name for method in self.methods]
        if doubled := sorted({name for name in names if names.count(name) > 1}):
            raise InputError(f"two recipes have one name: {', '.join(doubled)}; rename one")

    def plan(self, *, count_tokens: bool = False) -> list[Step]:
        """What there is to do. Local tasks are loaded for it; tasks of the hub are not.

        Args:
            count_tokens: also tokenise every text that is to be embedded.

        Raises:
            InputError: a local file is broken.
        """
        seen: set[tuple[str, str, str]] = set()
        return [self._step(source, split, seen, count_tokens) for source, split in self.found.tasks]

    def run(self, steps: Sequence[Step] | None = None) -> list[Outcome]:
        """Evaluate what is not finished; all outcomes, task by task.

        A task that fails does not keep the others from being evaluated; after a failure to reach
        the hub no other task of the hub is tried.

        Raises:
            StorageError: the disk is full, at once.
            EchovecError: the first failure, after everything else is done.
        """
        outcomes: list[Outcome] = []
        failures: list[EchovecError] = []
        unreachable: NotAvailableError | None = None
        for step in self.plan() if steps is None else steps:
            if unreachable is not None and isinstance(step.source, HubTask):
                self.say(f"{step.source.name}: left out, the hub was not reached before")
                continue
            try:
                outcomes += self._outcomes(step)
            except StorageError:
                raise
            except EchovecError as error:
                if isinstance(error, NotAvailableError) and _no_network(error):
                    unreachable = error
                failures.append(error)
                self.say(f"{step.source.name}: failed: {error}")
        if failures:
            raise failures[0]
        return outcomes

    def _outcomes(self, step: Step) -> list[Outcome]:
        source, split = step.source, step.split
        if isinstance(source, HubTask) and source.parts:
            return self._aggregate(source, split)
        done = {outcome.name: outcome for outcome in step.finished}
        pending = [method for method in self.methods if method.name not in done]
        task = step.task
        if pending and task is None:
            task = self._load(source, split)
        for method in pending:
            outcome = method.run(source, task, split)
            done[outcome.name] = outcome
            self.say(_line(outcome))
        return [method.marked(done[method.name]) for method in self.methods]

    def _aggregate(self, source: HubTask, split: str) -> list[Outcome]:
        """The parts with every recipe, then what mteb makes of them."""
        parts = [self._outcomes(self._step(p, split, set(), False)) for p in source.parts]
        task = source.unloaded()
        outcomes = []
        for number, method in enumerate(self.methods):
            outcome = method.finished(source, split)
            if outcome is None:
                outcome = method.combine(source, task, [of_part[number] for of_part in parts])
                self.say(_line(outcome))
            outcomes.append(method.marked(outcome))
        return outcomes

    def _step(
        self, source: Source, split: str, seen: set[tuple[str, str, str]], tokens: bool
    ) -> Step:
        finished = [method.finished(source, split) for method in self.methods]
        known = tuple(outcome for outcome in finished if outcome is not None)
        if len(known) == len(self.methods):
            return Step(source, split, None, (), known)
        if not isinstance(source, LocalTask):
            return Step(source, split, None, None, known)
        task = self._load(source, split)
        pending = [m for m, done in zip(self.methods, finished, strict=True) if done is None]
        asked = texts_of(task, split)
        if asked is None:
            return Step(source, split, task, None, known)
        work = tuple(_work(method, task, asked, seen, tokens) for method in pending)
        return Step(source, split, task, work, known)

    def _load(self, source: Source, split: str) -> Any:
        task = source.make(split)
        if self.sample is not None:
            sample_task(task, split, self.sample, self.seed)
        return task


def evaluate(
    embedder: Embedder,
    recipes: Sequence[AnyRecipe],
    tasks: Sequence[str],
    *,
    out: str | Path,
    **options: Any,
) -> list[Outcome]:
    """Evaluate recipes on tasks; `options` are those of `Evaluation`.

    Returns:
        The outcomes, task by task, each with every recipe in order.
    """
    return Evaluation(embedder, recipes, tasks, out=Path(out), **options).run()


def _work(
    method: Method, task: Any, asked: list[Asked], seen: set[tuple[str, str, str]], tokens: bool
) -> Work:
    vectors = method.vectors
    fingerprint = vectors.fingerprint
    distinct: set[tuple[str, str]] = set()
    missing = counted = weight = 0
    for role, texts in asked:
        instruction = task_instruction(task.metadata, role)
        variant = vectors.variant(role, instruction)
        distinct.update((variant, text) for text in texts)
        new = [
            text
            for text in vectors.missing(texts, role, instruction)
            if (fingerprint, variant, text) not in seen
        ]
        seen.update((fingerprint, variant, text) for text in new)
        missing += len(new)
        weight += sum(map(weight_of, new))
        if tokens and new:
            chunks = vectors.chunks(new, role, instruction)
            counted += int(count_tokens(chunks, len(new)).sum())
    return Work(method.recipe_name, len(distinct), missing, counted, weight)


def _no_network(error: NotAvailableError) -> bool:
    cause = error.__cause__
    # The libraries below have their own names for it, with several bases.
    return isinstance(cause, ConnectionError | TimeoutError) or "Connect" in type(cause).__name__


def _line(outcome: Outcome) -> str:
    score = f"{100 * outcome.main_score:.2f}"
    if outcome.interval is not None:
        low, high = outcome.interval
        score += f" ({100 * low:.1f} to {100 * high:.1f})"
    return f"{outcome.task}, {outcome.recipe_name}: {score}"
