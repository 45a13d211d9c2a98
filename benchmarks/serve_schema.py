"""Schemathesis on a server's own OpenAPI document: good and bad data, all checks.

    python -m benchmarks.serve_schema [EXAMPLES [PATH ...]]

Starts a server of the tiny model and a small index in a process of its own, and ends with
schemathesis' exit code. Needs schemathesis. NUL is allowed, every phase runs, and 1,000 examples
are drawn for each endpoint, or for those of the paths named (about ten minutes on two cores).
"""

from __future__ import annotations

import re
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path

STUB = Path(__file__).parents[1] / "tests" / "serve_stub.py"


def command(address: str, examples: int, paths: Sequence[str]) -> list[str]:
    """How schemathesis is called."""
    program = str(Path(sys.executable).with_name("schemathesis"))
    return [
        *(program, "run", f"{address}/openapi.json", "--checks", "all", "--mode", "all"),
        *("--phases", "examples,coverage,fuzzing,stateful", "--generation-allow-x00", "true"),
        *("--max-examples", str(examples), "--continue-on-failure", "--no-color"),
        *("--generation-database", "none", "--seed", "42"),
        *("--request-timeout", "60"),  # a machine that others use is no fault of the server
        *(word for path in paths for word in ("--include-path", path)),
    ]


def answered(address: str) -> str:
    """How often each route answered with each status, as the server counts it."""
    with urllib.request.urlopen(f"{address}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    found: dict[str, list[str]] = {}
    for line in lines:
        if counted := re.match(r'echovec_requests_total\{route="(.*)",status="(.*)"\} (\d+)', line):
            route, status, count = counted.groups()
            found.setdefault(route, []).append(f"{int(count):,} x {status}")
    return "\n".join(f"{route}: {', '.join(counts)}" for route, counts in sorted(found.items()))


def main(examples: str = "1000", *paths: str) -> int:
    """Run it; returns the exit code."""
    started = [sys.executable, str(STUB), "0", "0", "index"]
    server = subprocess.Popen(started, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        address = server.stdout.readline().strip()
        code = subprocess.run(command(address, int(examples), paths), check=False).returncode
        print(answered(address))
        return code
    finally:
        server.terminate()
        print("server ended with", server.wait(60))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
