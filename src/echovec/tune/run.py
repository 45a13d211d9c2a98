"""Run: `tune`: from a model and a budget to a folder of recipes with a card."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from echovec.calibrate.kept import texts_hash
from echovec.calibrate.write import Writing
from echovec.errors import InputError, ModelError
from echovec.evaluate.quiet import without_noise
from echovec.files.disk import check_folder, storage_errors
from echovec.presets import LONG_TEXT, recipe_of
from echovec.tune.card import PAGE, Entry, entries_of, write_card
from echovec.tune.cost import Costs
from echovec.tune.dev import DevData
from echovec.tune.found import bound, checked, options_of
from echovec.tune.ledger import Clock, Ledger
from echovec.tune.parts import Sum, Vectors
from echovec.tune.plan import MAX_TOKENS, Plan
from echovec.tune.score import check_libraries
from echovec.tune.search import Search
from echovec.tune.space import FEWEST_TEXTS, KIND_AXES, TARGETS, prompts_of
from echovec.tune.states import KeptStates
from echovec.tune.texts import texts_for

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from echovec.embedder import Embedder


@dataclass(frozen=True)
class Tuned:
    """What was found."""

    entries: tuple[Entry, ...]
    """The recipes found, the best first."""

    folders: Mapping[str, Path]
    """Where each is, by its name."""

    card: Path


def tune(
    embedder: Embedder,
    out: Path,
    *,
    data: Path | None = None,
    budget: float | None = 20.0,
    prompts: Sequence[str] | None = None,
    texts: Sequence[str] | None = None,
    source: str | None = None,
    writing: Writing | None = None,
    work: Path | None = None,
    seed: int = 0,
    say: Callable[[str], None] = lambda line: None,
) -> Tuned:
    """Search for the best recipes of a model and write them to a folder.

    `out` becomes the recipe "best", `out/one-pass` and `out/fast` the two cheaper ones, and
    `out/card.md` says how they were found. What was interrupted goes on from the folder `work`.

    Args:
        embedder: whose model; its recipe plays no part.
        out: where the recipes go.
        data: a folder of sets, of which development splits are used only; None: the model finds
            the halves of texts that it wrote itself.
        budget: minutes; None: the whole sample and no limit.
        prompts: names of `echovec.tune.space.PROMPTS`; by default seven of them.
        texts: unlabelled texts to calibrate on; None: the model writes its own.
        source: where `texts` are from, for the record.
        writing: how the model writes.
        work: where states and scores are kept; by default OUT.work beside `out`.
        seed: what samples are drawn with.
        say: called with lines for people.

    Raises:
        DependencyError: the extra `eval` is not installed.
        InputError: an option or a folder cannot be used, there is no development data, or there
            are fewer distinct texts to calibrate on than what is fitted needs (`FEWEST_TEXTS`).
        StorageError: the disk does not take it.
    """
    check_libraries()
    clock = Clock(budget)
    if budget is not None and budget <= 0:
        raise InputError(f"budget={budget} minutes; give more than 0")
    tell = partial(_tell, clock, say)
    asked = prompts_of(None if prompts is None else tuple(prompts))
    if work is None:
        whole = out.resolve()  # "." has no name of its own
        work = whole.with_name(f"{whole.name}.work")
    for folder in (out, work):
        check_folder(folder)
    tell(f"{embedder!r}; work is kept in {work}")
    given = texts_for(embedder, texts, source, writing, halved=data is None, tell=tell)
    calibration, kinds, origin = given.calibration, given.kinds, given.origin
    if len(calibration) < FEWEST_TEXTS:
        raise InputError(
            f"{len(calibration)} distinct texts to calibrate on; give {FEWEST_TEXTS} or more"
        )
    plan = Plan(embedder, asked, calibration, given.halved, data, work, seed)
    chosen, dev = plan.made(clock, tell)
    kept = {prompt.name: plan.kept(prompt) for prompt in chosen}
    _run_all(kept, calibration, dev.texts, clock, tell)
    by_name = {prompt.name: prompt for prompt in chosen}
    unembedding = partial(_unembedding, embedder)
    vectors = Vectors(kept, unembedding, kinds)
    costs = Costs(embedder, by_name, dev.texts, max_tokens=MAX_TOKENS)
    ledger = Ledger(
        work / f"scores-{_scored_on(kept, dev, calibration, kinds)}.jsonl", dev.tasks, vectors
    )
    filters = vectors.unembedding is not None
    search = Search(
        chosen,
        embedder.backbone.num_layers,
        ledger,
        costs,
        clock,
        filters=filters,
        kinds=len(set(kinds)) > KIND_AXES,
        say=say,
    )
    search.layers()
    search.calibrations()
    found: dict[str, Sum] = {}
    for number, target in enumerate(reversed(TARGETS)):  # the cheaper ones go into the dearer ones
        mix = search.sums(target, 0.9 / (len(TARGETS) - number), list(found.values()))
        if mix is None:
            search.cut.append(f"{target.name}: nothing costs so little")
        else:
            found[target.name] = mix
    tell("intervals")
    mixes = {target.name: found[target.name] for target in TARGETS if target.name in found}
    entries = entries_of(
        _compared(search) | mixes, search.last_layer("echo-eol", "copy"), ledger, vectors, costs
    )
    compared, entries = entries[: -len(mixes)], entries[-len(mixes) :]
    record = f"tuned on {origin}; chosen on {', '.join(t.name for t in dev.tasks)}"
    recipes = {
        one.name: bound(
            embedder,
            recipe_of(
                one.name,
                *vectors.views(one.mix, by_name),
                transforms=vectors.whole(one.mix),
                **LONG_TEXT,
            ),
            record,
        )
        for one in entries
    }
    # Checked beside their place: what gives other vectors never gets there.
    beside = {name: recipe.save(work / "found" / name) for name, recipe in recipes.items()}
    error = checked(embedder, beside, entries, vectors, dev)
    facts = {
        "model": f"{embedder.recipe.model.hash if embedder.recipe.model else ''}",
        "dtype": embedder.backbone.dtype,
        "calibrated on": origin,
        "sample": f"{plan.share:.2f} of the usual one, seed {seed}; texts cut to {MAX_TOKENS} "
        f"tokens while tuning; {len(dev.texts):,} texts",
        "long texts": f"whole up to {LONG_TEXT['max_tokens']:,} tokens, then as windows of as many "
        "that overlap, whose vectors are averaged",
        "prompts": ", ".join(by_name),
        "kinds of text": ", ".join(sorted(set(kinds))),
        "EmbedFilter": "tried" if filters else "not tried: the unembedding cannot be had",
        "vectors of the saved recipes": f"at most {error:.1e} from those that were scored",
        "time": f"{clock.spent / 60:.1f} minutes of {'no limit' if budget is None else budget}",
    }
    with storage_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    write_card(
        out,
        model=embedder.recipe.model.name if embedder.recipe.model else "a model",
        options=options_of(embedder),
        found=entries,
        compared=compared,
        search=search,
        data=dev,
        costs=costs,
        facts=facts,
    )
    folders = {
        name: out if name == TARGETS[0].name else out / name
        for name in reversed(recipes)  # a folder that has the best has all
    }
    for name, folder in folders.items():
        recipes[name].save(folder)
    # Whole paths: "best" alone would be the recipe of that name that ships.
    folders = {name: folders[name].resolve() for name in recipes}
    tell(f"done: {out / PAGE}")
    return Tuned(tuple(entries), folders, out / PAGE)


def _run_all(
    kept: Mapping[str, KeptStates],
    calibration: Sequence[str],
    dev: Sequence[str],
    clock: Clock,
    tell: Callable[[str], None],
) -> None:
    """Run the model for every prompt over all texts, unless the states are there."""

    def jobs() -> Iterator[tuple[str, Callable[[], int]]]:
        for name, states in kept.items():
            for work in (*states.calibrate_on(calibration), *states.choose_on(dev)):
                yield name, work

    todo = list(jobs())
    started, tokens, told = clock.spent, 0, clock.spent
    with without_noise():
        for number, (name, work) in enumerate(todo, 1):
            tokens += work()
            if clock.spent - told > 10 or number == len(todo):
                told = clock.spent
                rate = tokens / max(1e-6, told - started)
                tell(f"states {number}/{len(todo)} ({name}), {rate:,.0f} tokens a second")


def _compared(search: Search) -> dict[str, Sum]:
    """The papers' recipes, and the same views with the same help as ours had."""
    views = {"classical": ("classical", "mean"), "echo": ("echo-eol", "copy")}
    if any(prompt.name == "prompt-eol" for prompt in search.prompts):
        views["prompt-eol"] = ("prompt-eol", "word")
    plain = {name: search.last_layer(*view) for name, view in views.items()}
    helped = {
        f"{name}, best layer and calibration": search.best_of(*view) for name, view in views.items()
    }
    return plain | helped


def _unembedding(embedder: Embedder) -> NDArray[Any] | None:
    from echovec.model.head import unembedding

    model = getattr(embedder.backbone, "model", None)
    path = embedder.model_path
    if model is None:
        return None
    try:
        return unembedding(model, path if isinstance(path, Path) else None)
    except ModelError:
        return None


def _scored_on(
    kept: Mapping[str, KeptStates], dev: DevData, calibration: list[str], kinds: list[str]
) -> str:
    """Names what scores depend on: model, prompts, texts and tasks."""
    content = [
        sorted(states.fingerprint for states in kept.values()),
        texts_hash(dev.texts),
        texts_hash(calibration),
        kinds,
        [
            [
                task.name,
                *({k: v.tolist() for k, v in part.items()} for part in (task.rows, task.gold)),
            ]
            for task in dev.tasks
        ],
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def _tell(clock: Clock, say: Callable[[str], None], line: str) -> None:
    say(f"[{clock.spent / 60:5.1f} min] {line}")
