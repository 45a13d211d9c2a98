"""`echovec reproduce EXPERIMENT`: an experiment of the paper, on any model, with a verdict."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from echovec.cli.options import Device, Dtype, Model, Precision
from echovec.evaluate.reproduce import EXPERIMENTS

if TYPE_CHECKING:
    from echovec.errors import EchovecError
    from echovec.evaluate.reproduce.findings import Findings


def reproduce(
    experiment: Annotated[
        str, typer.Argument(metavar="EXPERIMENT", help=f"{', '.join(EXPERIMENTS)}; or all.")
    ],
    model: Model = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", envvar="ECHOVEC_DATA", help="Folder of data sets."),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the pages go.")] = Path(
        "reproduce"
    ),
    sample: Annotated[
        int | None,
        typer.Option(min=0, help="Items of each task at most, 0 for all; else the experiment's."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="What samples are drawn with.")] = 42,
    device: Device = None,
    dtype: Dtype = None,
    precision: Precision = None,
) -> None:
    """Run an experiment of the paper and say whether its claims hold here."""
    from echovec import Embedder
    from echovec.errors import InputError, NotAvailableError
    from echovec.evaluate.reproduce import experiments_named
    from echovec.evaluate.reproduce.findings import Options
    from echovec.evaluate.reproduce.page import write_findings

    chosen = experiments_named(experiment)
    embedder = Embedder.load(model, "echo", device=device, dtype=dtype, precision=precision)
    options = Options(sample=sample, seed=seed, cache=out / "cache", say=_say)
    failed: list[EchovecError] = []
    for name, run in chosen.items():
        begun = time.perf_counter()
        try:
            findings = run(embedder, data, options)
        except (InputError, NotAvailableError) as error:
            if len(chosen) == 1:
                raise
            _say(f"echovec: {name} left out: {error}")  # the others are worth having
            failed.append(error)
            continue
        command = _command(name, model, data, sample, seed, precision)
        settings = {"command": command, **findings.settings}
        page, text = write_findings(replace(findings, settings=settings), out)
        _say(f"{name}: {time.perf_counter() - begun:.0f} s -> {page}, {text}")
        _print(findings)
    if failed:
        raise failed[0]


def _command(
    name: str,
    model: str | None,
    data: Path | None,
    sample: int | None,
    seed: int,
    precision: str | None,
) -> str:
    """What to type to get the same page; folders are the reader's own."""
    words = [f"echovec reproduce {name}"]
    words += [f"--model {model}"] if model else []
    words += ["--data DIR"] if data and name != "toy" else []
    words += [f"--sample {sample}"] if sample is not None else []
    words += [f"--seed {seed}"] if seed != 42 else []
    words += [f"--precision {precision}"] if precision else []
    return " ".join(words)


def _print(findings: Findings) -> None:
    for claim in findings.claims:
        print(f"{claim.verdict}: {claim.statement}. {claim.reason}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
