"""The command line: one file per verb and one of the options they share, no logic.

`main` turns errors into messages and exit codes.

Exit codes: 0 done, 1 what was looked at is wrong, 2 bad input or option, 3 model or extra not
available, 4 disk, 130 Ctrl-C.
"""

from __future__ import annotations

import errno
import gc
import logging
import os
import sys
import warnings
from typing import Annotated, Any, NoReturn

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
from echovec.errors import EchovecError, StorageError
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
    if sys.stdout is None:  # whoever started us closed it
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - until the end
    warnings.showwarning = _show_warning
    # What speaks where no verb has set up logging, as serve does.
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_Prefixed())
    # Importing torch and transformers makes a million objects and no garbage: looking for some
    # after every 700 of them costs 0.7 s of a 5 s start (docs/LOG.md).
    gc.set_threshold(100_000, 20, 20)
    try:
        _run()
    except OSError as error:
        _cannot_write(error)
    except SystemExit as stop:  # typer has turned Ctrl-C into this, quietly
        if stop.code == 130:
            print("\nechovec: stopped by Ctrl-C", file=sys.stderr)
        try:
            sys.stdout.flush()  # left to Python's end, a full disk would be a grumble and code 120
        except OSError as error:
            _cannot_write(error, stop.code)
        raise


def _run() -> None:
    """The verb; an error of ours becomes its message and its exit code."""
    try:
        app()
    except EchovecError as error:
        print(f"echovec: error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


class _Prefixed(logging.Formatter):
    """Our own log lines as all others of the program; those of libraries as they are."""

    def format(self, record: logging.LogRecord) -> str:
        said = super().format(record)
        ours = record.name.partition(".")[0] == "echovec"
        return f"echovec: {record.levelname.lower()}: {said}" if ours else said


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


def _cannot_write(error: OSError, code: int | str | None = None) -> NoReturn:
    """End with 4 where a disk refuses, with 1 where the reader of a pipe has gone.

    A `code` that says what failed before stays.
    """
    if error.errno not in (*_NO_ROOM, errno.EPIPE):
        raise error
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python's end tries again
    if error.errno == errno.EPIPE:
        sys.exit(code or 1)
    print(
        f"echovec: error: cannot write: {error.strerror}; make room or choose another disk",
        file=sys.stderr,
    )
    sys.exit(code or StorageError.exit_code)


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    # Only our own and users' warnings concern a stranger at the terminal.
    if issubclass(category, UserWarning):
        print(f"echovec: warning: {message}", file=sys.stderr)
