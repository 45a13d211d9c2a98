"""Token budget: echo and a single copy at the same number of text tokens (figure 4).

At a budget of B tokens a single copy has the first B tokens of a text and echo the first B / 2,
twice: echo pays for its second copy with half of the text.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from echovec.errors import ModelError
from echovec.evaluate.report_parts import Cell, Plot, Series, Table
from echovec.evaluate.reproduce.bidirectional import SWITCHED
from echovec.evaluate.reproduce.comparison import Comparison
from echovec.evaluate.reproduce.findings import Findings, Options
from echovec.evaluate.reproduce.recipes import common_settings
from echovec.evaluate.reproduce.scores import compare_on_tasks, data_settings
from echovec.evaluate.reproduce.verdict import Claim
from echovec.presets import preset

if TYPE_CHECKING:
    from echovec.embedder import Embedder
    from echovec.recipe import Recipe

BUDGETS = (8, 16, 32, 64, 128, 256)
SIZE = 50
TASKS = ("STSBenchmark", "Emotion", "XQuAD-en-retrieval")
"""Two tasks of short texts and one of long ones, where budgets matter."""


def token_budget(embedder: Embedder, data: Path | None, options: Options) -> Findings:
    """Six budgets on three tasks of the folder `data`, 50 items of each by default."""
    bases = {"echo": preset("echo"), "classical": preset("classical")}
    if _can_switch(embedder):
        bases[SWITCHED] = preset(SWITCHED)
    methods = {
        _name(method, budget): at_budget(recipe, method, budget)
        for method, recipe in bases.items()
        for budget in BUDGETS
    }
    found = compare_on_tasks(embedder, methods, data, options, size=SIZE, tasks=TASKS)
    return Findings(
        experiment="token-budget",
        title="Token budget: is a second copy worth half of the text?",
        question=(
            "At the same number of text tokens, echo has to do with half of what a single copy "
            "reads. From which length on does that pay?"
        ),
        claims=_claims(found, list(bases)),
        tables=(_table(found, list(bases)), _differences(found, list(bases))),
        plots=(_plot(found, list(bases)),),
        settings=common_settings(embedder, bases.values(), **data_settings(found, options)),
        notes=(
            "The prompt's own words are not counted in the budget.",
            "Texts shorter than a budget are whole, so the curves flatten where most are.",
            *(
                ()
                if SWITCHED in bases
                else ("The mask of this model cannot be switched: that curve is missing.",)
            ),
        ),
    )


def at_budget(recipe: Recipe, method: str, budget: int) -> Recipe:
    """The recipe at a budget of text tokens in all copies together."""
    copies = recipe.views["symmetric"][0].template.num_copies
    return replace(recipe, name=f"{method}-{budget}-tokens", max_tokens=max(1, budget // copies))


def _name(method: str, budget: int) -> str:
    return f"{method}, {budget}"


def _can_switch(embedder: Embedder) -> bool:
    try:
        embedder.with_recipe(SWITCHED).encode("Can the mask be switched?")
    except ModelError:
        return False
    return True


def _claims(found: Comparison, methods: list[str]) -> tuple[Claim, ...]:
    paper = "figure 4: echo beats the causal single copy at every budget (MTEB-MINI, no numbers)"
    claims = [
        found.claim(
            f"At {budget} tokens echo beats a single copy",
            _name("echo", budget),
            _name("classical", budget),
            paper=paper,
        )
        for budget in (64, *(b for b in BUDGETS if b != 64))
    ]
    if SWITCHED in methods:
        claims += [
            found.claim(
                "At 256 tokens echo beats the single copy without its causal mask",
                _name("echo", 256),
                _name(SWITCHED, 256),
                paper="figure 4: so above about 64 tokens",
            ),
            found.claim(
                "At 16 tokens the single copy without its causal mask beats echo",
                _name(SWITCHED, 16),
                _name("echo", 16),
                paper="figure 4: so below about 64 tokens",
            ),
        ]
    return tuple(claims)


def _table(found: Comparison, methods: list[str]) -> Table:
    rows: list[tuple[Cell, ...]] = [
        (str(budget), *(found.mean(_name(method, budget)) for method in methods))
        for budget in BUDGETS
    ]
    title = f"Mean of {len(found.tasks)} tasks, score x 100"
    return Table(title, ("text tokens", *methods), tuple(rows))


def _differences(found: Comparison, methods: list[str]) -> Table:
    others = [method for method in methods if method != "echo"]
    rows: list[tuple[Cell, ...]] = [
        (
            str(budget),
            *(found.difference(_name("echo", budget), _name(other, budget)) for other in others),
        )
        for budget in BUDGETS
    ]
    return Table("Echo less the others, points", ("text tokens", *others), tuple(rows))


def _plot(found: Comparison, methods: list[str]) -> Plot:
    return Plot(
        title="By token budget",
        kind="lines",
        series=tuple(
            Series(method, tuple(found.mean(_name(method, budget)) for budget in BUDGETS))
            for method in methods
        ),
        ticks=tuple(map(str, BUDGETS)),
        axis="score x 100, mean of tasks",
        places="text tokens in all copies together",
        caption="The band is the 95 % interval.",
    )
