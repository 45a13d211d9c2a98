"""`echovec train`: fine-tune an embedder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from echovec.cli.counts import counted


def train(
    run: Annotated[str, typer.Argument(help="A .toml file, or the name of a run that ships.")],
    output: Annotated[
        Path | None,
        typer.Option("--out", "--output", "-o", help="The run's folder; by default its name."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="What the run's relative data paths are relative to.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="key=value; changes one field of the run.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Check the gradients on the first rows, train nothing.")
    ] = False,
    show: Annotated[
        bool, typer.Option("--show", help="Print the run as TOML, train nothing.")
    ] = False,
) -> None:
    """Train an embedder: a contrastive run on pairs, with LoRA; resumed where it was left."""
    from echovec.train.run import read_run

    chosen = read_run(run).changed(settings or [])
    if show:
        typer.echo(chosen.to_toml(), nl=False)
        return
    if check:
        from echovec.train.check import check_run

        findings = check_run(chosen, data=data)
        for finding in findings:
            typer.echo(f"{'ok  ' if finding.holds else 'FAIL'}  {finding.what}: {finding.found}")
        if not all(finding.holds for finding in findings):
            raise typer.Exit(1)
        return
    from echovec.train.job import is_first
    from echovec.train.job import train as run_it

    folder = output or Path(chosen.name)
    done = run_it(chosen, folder, data=data)
    if is_first():
        typer.echo(
            f"{counted(done.steps, 'step')}; the adapter is in {done.folder}: "
            f"Embedder.load({str(folder)!r})"
        )
