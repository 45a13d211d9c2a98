"""Schemathesis on a server's own OpenAPI document: good and bad data, all checks.

    python -m benchmarks.serve_schema [EXAMPLES]

Starts a server of the tiny model in a process of its own, and ends with schemathesis' exit code.
Needs schemathesis. NUL is allowed, every phase runs, and 1,000 examples are drawn for each endpoint
unless told otherwise (about ten minutes on two cores).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

STUB = Path(__file__).parents[1] / "tests" / "serve_stub.py"


def command(address: str, examples: int) -> list[str]:
    """How schemathesis is called."""
    program = str(Path(sys.executable).with_name("schemathesis"))
    return [
        *(program, "run", f"{address}/openapi.json", "--checks", "all", "--mode", "all"),
        *("--phases", "examples,coverage,fuzzing,stateful", "--generation-allow-x00", "true"),
        *("--max-examples", str(examples), "--continue-on-failure", "--no-color"),
        *("--generation-database", "none", "--seed", "42"),
    ]


def main(examples: int = 1000) -> int:
    """Run it; returns the exit code."""
    server = subprocess.Popen([sys.executable, STUB, "0"], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        address = server.stdout.readline().strip()
        return subprocess.run(command(address, examples), check=False).returncode
    finally:
        server.terminate()
        print("server ended with", server.wait(60))


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
