"""`echovec eval`: recipes on tasks, by mteb's own metrics, from the hub or from local files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from echovec.cli.counts import counted
from echovec.cli.options import Device, MaxTokens, Model, Precision, Revision

if TYPE_CHECKING:
    from echovec.evaluate.results import Outcome
    from echovec.evaluate.run import Evaluation, Step


def evaluate(
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Where results and vectors go.")
    ],
    recipe: Annotated[
        str, typer.Option(metavar="R[,R2...]", help="Recipes' names or .json files.")
    ] = "echo",
    tasks: Annotated[
        str | None,
        typer.Option(
            metavar="T[,T2...]",
            help="Tasks, categories (sts, retrieval, ...), or suites: local, mteb-eng-56, "
            "mteb-mini. By default local, if there is --data.",
        ),
    ] = None,
    model: Model = None,
    revision: Revision = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", envvar="ECHOVEC_DATA", help="Folder of data sets."),
    ] = None,
    sample: Annotated[
        int | None,
        typer.Option(min=2, help="A quick look: at most so many items of each task."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="What the sample is drawn with.")] = 42,
    split: Annotated[
        str, typer.Option(help="test; or dev, to choose something by the scores.")
    ] = "test",
    chosen_on: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="The data that decided the recipes; goes into reports."),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where vectors are kept; by default OUT/vectors."),
    ] = None,
    batch_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens per batch, padding included.")
    ] = None,
    max_tokens: MaxTokens = None,
    device: Device = None,
    precision: Precision = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what there is to do, with token counts.")
    ] = False,
) -> None:
    """Score recipes on tasks: mteb's metrics and result files, with intervals beside them."""
    from tqdm import tqdm

    from echovec import Embedder
    from echovec.errors import InputError
    from echovec.evaluate.progress import Progress
    from echovec.evaluate.run import Evaluation
    from echovec.evaluate.suites import find_tasks
    from echovec.presets import as_recipe

    if tasks is None and data is None:
        raise InputError(
            "say which tasks: --tasks T[,T2...], or --data DIR to take all tasks of a folder"
        )
    recipes, names = _names(recipe, "--recipe"), _names(tasks or "local", "--tasks")
    for name in recipes:  # a typo shall not wait for the model
        as_recipe(name)
    find_tasks(names, data, split)
    embedder = Embedder.load(
        model, recipes[0], device=device, precision=precision, revision=revision
    )
    with Progress() as progress:
        evaluation = Evaluation(
            embedder,
            recipes,
            names,
            out=out,
            data=data,
            sample=sample,
            seed=seed,
            split=split,
            cache=cache,
            batch_tokens=batch_tokens,
            max_tokens=max_tokens,
            chosen_on=chosen_on,
            say=lambda line: tqdm.write(line, file=sys.stderr),
            advance=progress.advance,
        )
        steps = evaluation.plan(count_tokens=dry_run)
        _show_plan(evaluation, steps)
        if dry_run:
            return
        progress.expect(steps)
        outcomes = evaluation.run(steps)
    _show(outcomes, evaluation)
    print(f"results -> {out}; a page of them: echovec report {out}", file=sys.stderr)


def _names(text: str, option: str) -> list[str]:
    from echovec.errors import InputError

    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise InputError(f"{option} {text!r} names nothing")
    return names


def _show_plan(evaluation: Evaluation, steps: list[Step]) -> None:
    """Tasks, texts and, if counted, tokens; on standard error."""
    for name, reason in evaluation.found.left_out.items():
        print(f"left out: {name}: {reason}", file=sys.stderr)
    unknown = [step.source.name for step in steps if step.work is None]
    finished = sum(not step.work and step.work is not None for step in steps)
    print(
        f"{counted(len(steps), 'task')}, {finished} of them finished"
        + (f", {len(unknown)} to be counted when fetched" if unknown else ""),
        file=sys.stderr,
    )
    for method in evaluation.methods:
        works = [
            (step.source.name, work)
            for step in steps
            for work in step.work or ()
            if work.recipe == method.recipe_name
        ]
        missing = sum(work.missing for _, work in works)
        tokens = sum(work.tokens for _, work in works)
        texts = sum(work.texts for _, work in works)
        cost = f", {counted(tokens, 'token')}" if tokens else ""
        print(
            f"{method.recipe_name}: {counted(texts, 'text')}, {missing:,} to embed{cost}",
            file=sys.stderr,
        )
        for name, work in works if tokens else ():
            print(
                f"  {name}: {counted(work.texts, 'text')}, {work.missing:,} to embed, "
                f"{counted(work.tokens, 'token')}",
                file=sys.stderr,
            )


def _show(outcomes: list[Outcome], evaluation: Evaluation) -> None:
    """A table of tasks by recipes on standard output."""
    from rich.console import Console
    from rich.table import Table

    title = "mteb's main scores x 100, with 95 % intervals"
    if evaluation.sample is not None:
        title += f"; SAMPLE of at most {evaluation.sample} items, seed {evaluation.seed}"
    table = Table(title=title)
    table.add_column("task")
    table.add_column("metric")
    table.add_column("split")
    table.add_column("items", justify="right")
    for method in evaluation.methods:
        table.add_column(method.recipe_name, justify="right")
    width = len(evaluation.methods)
    for start in range(0, len(outcomes), width):
        row = outcomes[start : start + width]
        one = row[0]
        name = one.task if one.exact_split else f"{one.task} *"
        items = f"{one.num_items:,}" if one.num_items else ""
        table.add_row(name, one.metric, one.split, items, *map(_score, row))
    Console(width=None if sys.stdout.isatty() else 40 + 26 * (width + 2)).print(table)
    if any(not one.exact_split for one in outcomes):
        print("* not mteb's exact test split: compare recipes here, not with published scores")
    blank, cut = sum(o.blank for o in outcomes), sum(o.truncated for o in outcomes)
    if blank:
        print(f"{counted(blank, 'blank text')} with a vector of zeros", file=sys.stderr)
    if cut:
        print(
            f"{counted(cut, 'text')} cut to the token budget or the model's limit", file=sys.stderr
        )


def _score(outcome: Outcome) -> str:
    shown = f"{100 * outcome.main_score:.2f}"
    if outcome.interval is None:
        return shown
    low, high = outcome.interval
    return f"{shown} [{100 * low:.1f}, {100 * high:.1f}]"
