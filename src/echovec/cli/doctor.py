"""`echovec doctor`: what is installed, what the machine can do, whether vectors are right on it."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer


def doctor(
    model: Annotated[
        str | None,
        typer.Option(help="What to test on; the default model where it is here."),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Without the self-test.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="A list of findings as JSON.")] = False,
) -> None:
    """Report on this installation: fit for a bug report, without texts, names or secrets.

    Exit code 1 if something is wrong; each such line says what to do.
    """
    from echovec.doctor.report import findings

    failed = False
    found = []
    for finding in findings(model, self_test=not quick):
        failed |= finding.state == "FAIL"
        if as_json:
            found.append(asdict(finding))
        else:
            print(finding.line(), flush=True)
    if as_json:
        print(json.dumps(found, indent=1))
    raise typer.Exit(1 if failed else 0)
