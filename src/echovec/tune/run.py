"""Run: `tune`: from a model and a budget to a folder of recipes with a card."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from echovec.calibrate.fitting import RECORD
from echovec.calibrate.kept import texts_hash
from echovec.calibrate.write import Writing
from echovec.errors import InputError, ModelError
from echovec.evaluate.quiet import without_noise
from echovec.evaluate.results import write_whole
from echovec.files.disk import check_folder, storage_errors
from echovec.model.store import is_default
from echovec.presets import LONG_TEXT, recipe_of
from echovec.tune.card import PAGE, Entry, entries_of, write_card
from echovec.tune.cost import Costs
from echovec.tune.dev import DevData
from echovec.tune.ledger import Clock, Ledger
from echovec.tune.parts import Sum, Vectors
from echovec.tune.samples import halves, read_dev
from echovec.tune.score import check_libraries
from echovec.tune.search import Search
from echovec.tune.space import FEWEST_TEXTS, KIND_AXES, NEEDED, TARGETS, Prompt, prompts_of
from echovec.tune.states import KeptStates
from echovec.tune.texts import texts_for

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from echovec.embedder import Embedder
    from echovec.recipe import Recipe

MAX_TOKENS = 192
"""Budget for each copy of a text while tuning: long texts would take the time of many short ones.
The recipes that are found keep the usual budget."""

_STATES_SHARE = 0.5
"""The part of the budget that runs of the model may take."""

_LEAST_SHARE = 0.3
"""Below this part of the usual sample, prompts are left out instead."""

_CHECKED = 24


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
    plan = _Plan(embedder, asked, calibration, given.halved, data, work, seed)
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
        one.name: _bound(
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
    error = _checked(embedder, beside, entries, vectors, dev)
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
        options=_options(embedder),
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


class _Plan:
    """How much is sampled, and from how many prompts, so that the budget suffices; kept on disk."""

    def __init__(
        self,
        embedder: Embedder,
        prompts: Sequence[Prompt],
        calibration: list[str],
        own: list[str],
        data: Path | None,
        work: Path,
        seed: int,
    ) -> None:
        self._embedder = embedder
        self._prompts = list(prompts)
        self._calibration = calibration
        self._own = own
        self._data = data
        self._work = work
        self._seed = seed
        self.share = 1.0

    def kept(self, prompt: Prompt) -> KeptStates:
        """The states of a prompt."""
        return KeptStates(self._embedder, prompt, self._work / "states", max_tokens=MAX_TOKENS)

    def made(self, clock: Clock, tell: Callable[[str], None]) -> tuple[list[Prompt], DevData]:
        """The prompts and the data that the budget has time for."""
        kept = {prompt.name: self.kept(prompt) for prompt in self._prompts}
        whole = self._dev(1.0)
        file = self._work / "plan.json"
        names = list(kept)
        key = [clock.budget, names, texts_hash(whole.texts), texts_hash(self._calibration)]
        earlier = _read_json(file)
        if earlier.get("key") == json.loads(json.dumps(key)):
            names, self.share = earlier["prompts"], earlier["share"]
        elif clock.budget < float("inf"):
            speed = self._speed(kept[names[0]], clock, earlier.get("speed"), tell)
            base = {name: kept[name].tokens(self._calibration) for name in names}
            all_texts = {name: kept[name].tokens(whole.texts) for name in names}
            tokens = speed * max(0.0, _STATES_SHARE * clock.budget - clock.spent)
            while True:
                room = tokens - sum(base[name] for name in names[1:])
                share = room / sum(all_texts[name] for name in names)
                spare = [name for name in names if name not in NEEDED]
                if share >= _LEAST_SHARE or not spare:
                    break
                names.remove(spare[-1])
            self.share = round(float(np.clip(share, 0.1, 1.0)), 2)
            _write_json(file, {"key": key, "prompts": names, "share": self.share, "speed": speed})
        dev = whole if self.share == 1.0 else self._dev(self.share)
        tell(
            f"{len(dev.tasks)} tasks, {len(dev.texts):,} texts (share {self.share:.2f}), "
            f"{len(names)} prompts: {', '.join(names)}"
        )
        return [prompt for prompt in self._prompts if prompt.name in names], dev

    def _dev(self, share: float) -> DevData:
        if self._data is None:
            return halves(self._own[: max(20, round(share * len(self._own)))])
        return read_dev(self._data, share=share, seed=self._seed)

    def _speed(
        self, kept: KeptStates, clock: Clock, earlier: Any, tell: Callable[[str], None]
    ) -> float:
        """Tokens a second, measured on work that has to be done anyway."""
        before, tokens = clock.spent, 0
        with without_noise():
            for work in kept.calibrate_on(self._calibration):
                tokens += work()
        seconds = clock.spent - before
        if not tokens:  # all of it was there
            return float(earlier or 1_000.0)
        tell(f"{tokens / seconds:,.0f} tokens a second")
        return tokens / seconds


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


def _options(embedder: Embedder) -> str:
    """What tells `echovec eval` the model; nothing of the default one, or of one in memory only."""
    recipe, adapter = embedder.recipe, embedder.adapter_path
    path = recipe.model and recipe.model.path
    if adapter is not None:
        path = str(adapter.parent)
    words = [f"--model {shlex.quote(path)}"] if path and not is_default(path) else []
    if recipe.model and recipe.model.revision:
        words.append(f"--revision {recipe.model.revision}")
    if recipe.precision != "exact":
        words.append(f"--precision {recipe.precision}")
    return "".join(f" {word}" for word in words)


def _bound(embedder: Embedder, recipe: Recipe, record: str) -> Recipe:
    bound = embedder.with_recipe(recipe).recipe
    return replace(bound, versions={**bound.versions, RECORD: record})


def _checked(
    embedder: Embedder,
    folders: Mapping[str, Path],
    entries: Sequence[Entry],
    vectors: Vectors,
    dev: DevData,
) -> float:
    """The largest difference between saved recipes' vectors and those that were scored.

    Raises:
        ModelError: they are not the same vectors.
    """
    short = sorted(range(len(dev.texts)), key=lambda i: len(dev.texts[i]))[:_CHECKED]
    texts = [dev.texts[i] for i in short]
    worst = 0.0
    for one in entries:
        own = embedder.with_recipe(folders[one.name]).encode(texts, show_progress_bar=False)
        worst = max(worst, float(np.abs(own - vectors.of(one.mix)[short]).max()))
    limit = 0.01 if embedder.recipe.precision == "exact" else 0.1
    if worst > limit:
        raise ModelError(
            f"the saved recipes give other vectors than those that were scored ({worst:.3f}); "
            "remove the work folder and tune again"
        )
    return worst


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


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _write_json(file: Path, content: Mapping[str, Any]) -> None:
    write_whole(file, json.dumps(content).encode())
