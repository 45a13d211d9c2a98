"""The command line: one file per verb, no logic. `main` turns errors into messages and exit codes.

Exit codes: 0 done, 2 bad input or option, 3 model or extra not available, 4 disk, 130 Ctrl-C.
"""

from __future__ import annotations

import gc
import sys
import warnings
from typing import Annotated, Any

import typer

from echovec.cli import (
    calibrate,
    cluster,
    compare,
    dedup,
    demo,
    doctor,
    embed,
    eval,
    export,
    index,
    map,
    mine,
    models,
    pairs,
    recipes,
    report,
    reproduce,
    search,
    serve,
    train,
    tune,
)
from echovec.errors import EchovecError
from echovec.version import __version__

app = typer.Typer(
    name="echovec",
    help="Any language model, as the best text embedder it can be.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("embed")(embed.embed)
app.command("calibrate")(calibrate.calibrate)
app.command("cluster")(cluster.cluster)
app.command("compare")(compare.compare)
app.command("dedup")(dedup.dedup)
app.command("demo")(demo.demo)
app.command("doctor")(doctor.doctor)
app.command("eval")(eval.evaluate)
app.command("export")(export.export)
app.command("index")(index.index)
app.command("map")(map.map_index)
app.command("mine")(mine.mine)
app.command("pairs")(pairs.pairs)
app.command("models")(models.models)
app.command("recipes")(recipes.recipes)
app.command("report")(report.report)
app.command("reproduce")(reproduce.reproduce)
app.command("search")(search.search)
app.command("serve")(serve.serve)
app.command("train")(train.train)
app.command("tune")(tune.tune)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line: the entry point `echovec`."""
    warnings.showwarning = _show_warning
    # Importing torch and transformers makes a million objects and no garbage: looking for some
    # after every 700 of them costs 0.7 s of a 5 s start (docs/LOG.md).
    gc.set_threshold(100_000, 20, 20)
    try:
        app()
    except EchovecError as error:
        print(f"echovec: error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except SystemExit as stop:  # typer has turned Ctrl-C into this, quietly
        if stop.code == 130:
            print("\nechovec: stopped by Ctrl-C", file=sys.stderr)
        raise


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    # Only our own and users' warnings concern a stranger at the terminal.
    if issubclass(category, UserWarning):
        print(f"echovec: warning: {message}", file=sys.stderr)
