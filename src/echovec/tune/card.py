"""Card: what was tried, what was chosen on what, how good it is there, and what it costs."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from echovec.errors import StorageError
from echovec.evaluate.report_page import markdown_text, write_text
from echovec.tune.cost import Cost, Costs
from echovec.tune.dev import DevData
from echovec.tune.ledger import Ledger
from echovec.tune.parts import Sum, Vectors
from echovec.tune.plots import bar_plot, line_plot, point_plot
from echovec.tune.score import Scores, mean_replicates, middle
from echovec.tune.search import Search
from echovec.tune.space import TARGETS, USUAL

PAGE = "card.md"


@dataclass(frozen=True)
class Entry:
    """A line of the card: a recipe, found or compared with."""

    name: str
    mix: Sum
    scores: Scores
    interval: tuple[float, float]
    gain: tuple[float, float, float]
    """Over the paper's echo on the same draws: the difference and its interval."""
    cost: Cost


def entries_of(
    mixes: Mapping[str, Sum], echo: Sum, ledger: Ledger, vectors: Vectors, costs: Costs
) -> list[Entry]:
    """Score recipes with intervals, by name."""
    than_R = mean_replicates(ledger.tasks, vectors.of(echo))
    entries = []
    for name, mix in mixes.items():
        scores = ledger.score(mix)
        own_R = mean_replicates(ledger.tasks, vectors.of(mix))
        gain = scores.mean - ledger.score(echo).mean
        gains = (gain, *middle(own_R - than_R))
        entries.append(Entry(name, mix, scores, middle(own_R), gains, costs.of(mix)))
    return entries


def write_card(
    folder: Path,
    *,
    model: str,
    options: str,
    found: Sequence[Entry],
    compared: Sequence[Entry],
    search: Search,
    data: DevData,
    costs: Costs,
    facts: Mapping[str, str],
) -> None:
    """Write `card.md` and its three pictures.

    Args:
        folder: where; it is there.
        model: its name.
        options: what tells a command the model, with a blank before it.
        found: the recipes found.
        compared: what they are compared with.
        search: what was tried.
        data: what was chosen on.
        costs: of all recipes.
        facts: what else is to be said.

    Raises:
        StorageError: the disk does not take it.
    """
    try:
        _pictures(folder, [*compared, *found], search, costs)
    except OSError as error:
        raise StorageError(f"cannot write to {folder}: {error.strerror or error}") from error
    best = TARGETS[0].name
    # "./best": the name alone would be the recipe that ships.
    at = str(folder) if len(folder.parts) > 1 else f"./{folder}"
    recipes = ",".join(at if one.name == best else f"{at}/{one.name}" for one in found)
    command = (
        f"echovec eval --recipe {shlex.quote(f'{recipes},echo')}{options} --data DIR -o RESULTS "
        "--chosen-on 'development data'"
    )
    alone = len(search.ledger.single())
    lines = [
        f"# Tuned recipes for {model}",
        "",
        "Chosen on the development data below and nothing else. These scores are therefore a",
        "little too good: what counts are tests, which no part of this saw:",
        "",
        "```bash",
        command,
        "```",
        "",
        "## Recipes",
        "",
        *_recipes([*compared, *found], costs),
        "",
        *(f"- **{one.name}**: {one.mix.shown}" for one in [*found, *compared]),
        "",
        "Score: the mean over categories x 100, with the 95 % bootstrap interval over items. Gain:",
        "over the paper's echo on the same draws. Tokens: of all these texts, times classical's.",
        "",
        *_left_out(found, search.ledger),
        "## Data",
        "",
        *_data(data),
        "",
        "## What was tried",
        "",
        f"{len(search.ledger.scores):,} recipes were scored, {alone:,} of them of one view.",
        "",
        *_best_views(search),
        "",
        "![score by layer](layers.svg)",
        "![score by calibration](methods.svg)",
        "![quality against cost](cost.svg)",
        "",
        "## Facts",
        "",
        *(f"- {name}: {value}" for name, value in facts.items()),
        *(f"- cut short by the budget: {stage}" for stage in search.cut),
        "",
    ]
    write_text(folder / PAGE, "\n".join(lines))


def _recipes(entries: Sequence[Entry], costs: Costs) -> list[str]:
    categories = list(entries[0].scores.categories)
    lines = [
        "| recipe | score | gain over echo | " + " | ".join(categories) + " | tokens | passes |",
        "|---|---|---|" + "---|" * len(categories) + "---|---|",
    ]
    for one in entries:
        own = " | ".join(f"{one.scores.categories[name]:.1f}" for name in categories)
        low, high = one.interval
        lines.append(
            f"| {one.name} | {one.scores.mean:.1f} ({low:.1f} to {high:.1f}) "
            f"| {one.gain[0]:+.1f} ({one.gain[1]:+.1f} to {one.gain[2]:+.1f}) | {own} "
            f"| {one.cost.tokens / costs.compared['classical']:.2f} | {one.cost.passes} |"
        )
    return lines


def _left_out(found: Sequence[Entry], ledger: Ledger) -> list[str]:
    """Each view of each found recipe left out, and alone."""
    lines: list[str] = []
    for one in found:
        if len(one.mix.parts) < 2:
            continue
        lines += [
            f"## {one.name}: each view left out, and alone",
            "",
            "| view | without it | alone |",
            "|---|---|---|",
        ]
        for part, weight in one.mix.parts:
            rest = tuple(pair for pair in one.mix.parts if pair[0] != part)
            without = ledger.score(Sum(rest, one.mix.whole)).mean - one.scores.mean
            alone = ledger.score(Sum(((part, 1.0),))).mean
            lines.append(f"| {weight:g} x {part.shown} | {without:+.2f} | {alone:.1f} |")
        lines.append("")
    return lines


def _data(data: DevData) -> list[str]:
    lines = ["| task | category | split | texts |", "|---|---|---|---|"]
    for task in data.tasks:
        count = sum(len(rows) for rows in task.rows.values())
        name = markdown_text(task.name)
        lines.append(f"| {name} | {task.category} | {task.split} | {count:,} |")
    lines.append("")
    lines += [
        f"- not used: {markdown_text(name)}: {markdown_text(why)}"
        for name, why in data.left_out.items()
    ]
    return lines


def _best_views(search: Search) -> list[str]:
    lines = ["| view | last layer, nothing fitted | best alone | with |", "|---|---|---|---|"]
    for prompt, read in search.views:
        plain = search.ledger.score(search.last_layer(prompt, read)).mean
        best = search.best_of(prompt, read)
        part = best.parts[0][0]
        layers = "+".join(map(str, part.layers))
        lines.append(
            f"| {prompt} {read} | {plain:.1f} | {search.ledger.score(best).mean:.1f} "
            f"| layer {layers}, {part.method.shown} |"
        )
    return lines


def _pictures(folder: Path, entries: Sequence[Entry], search: Search, costs: Costs) -> None:
    by_view: dict[str, list[tuple[float, float]]] = {}
    by_method: dict[str, float] = {}
    for mix, scores in search.ledger.single():
        part = mix.parts[0][0]
        if len(part.layers) == 1 and part.method == USUAL:
            by_view.setdefault(f"{part.prompt} {part.read}", []).append(
                (part.layers[0], scores.mean)
            )
        by_method.setdefault(part.method.shown, scores.mean)  # the best comes first
    line_plot(folder / "layers.svg", by_view, x=f"layer, {USUAL.shown}", y="score")
    bar_plot(folder / "methods.svg", by_method, x="score of the best single view with it")
    points = {
        one.name: (one.cost.tokens / costs.compared["classical"], one.scores.mean)
        for one in entries
    }
    point_plot(folder / "cost.svg", points, x="tokens, times classical", y="score")
