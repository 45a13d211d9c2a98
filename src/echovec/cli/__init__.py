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
    compare,
    demo,
    embed,
    eval,
    export,
    index,
    mine,
    models,
    recipes,
    report,
    reproduce,
app.command("serve")(serve.serve)
