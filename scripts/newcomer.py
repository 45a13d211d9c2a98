"""A newcomer's first minutes: an empty environment, the built wheel, every block of the quickstart.

    python scripts/newcomer.py                        with your index's ordinary torch
    python scripts/newcomer.py --wheel dist/x.whl -- --constraint constraints.txt

What stands after `--` goes to pip. Prints what was downloaded and how long each step and each block
took; exit code 0 if every block of docs/quickstart.md ran and printed what the page says.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "quickstart.md"
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def program(page: str, bin_folder: Path) -> str:
    """The page's blocks as one Python program: commands are run, outputs compared.

    It prints a line for each block that is run: seconds, processor seconds, and its last line.
    """
    lines = [
        "import contextlib, io, os, subprocess, time",
        "said, names, before = '', {}, (0, 0)",
        "def now(): own = os.times(); return own.elapsed, sum(own[:4])",
        "def took(block, before):",
        "    wall, processor = (b - a for a, b in zip(before, now()))",
        "    print(f'  {wall:6.1f} s {processor:6.1f} s  {block[:60]}', flush=True)",
    ]
    for language, code in _FENCE.findall(page):
        if language in ("python", "bash"):
            lines.append("before = now()")
        if language == "python":
            lines += [
                "out = io.StringIO()",
                f"with contextlib.redirect_stdout(out): exec({code!r}, names)",
                "said = out.getvalue()",
            ]
        elif language == "bash":
            for line in code.splitlines():
                first, *rest = shlex.split(line)
                command = [str(bin_folder / first), *rest]
                lines.append(f"subprocess.run({command!r}, check=True, stdout=subprocess.DEVNULL)")
        elif language == "output":
            lines.append(f"assert said == {code!r}, said")
        if language in ("python", "bash"):
            lines.append(f"took({code.splitlines()[-1]!r}, before)")
    return "\n".join(lines)


def main() -> None:
    """Build, download, install, run; one line for each step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wheel", type=Path, help="a wheel that is built already")
    parser.add_argument("pip", nargs="*", help="more arguments for pip, after --")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        wheel = given.wheel or _built(folder)
        print(f"wheel: {wheel.name}, {wheel.stat().st_size / 1e6:.1f} MB")
        environment = folder / "environment"
        venv.create(environment, with_pip=True)
        bin_folder = environment / ("Scripts" if os.name == "nt" else "bin")
        pip = [str(bin_folder / "pip"), "--disable-pip-version-check", "-q"]
        cache = folder / "downloads"
        more = [*given.pip, str(wheel.resolve())]
        seconds = _timed([*pip, "download", "-d", str(cache), *more])
        size = sum(file.stat().st_size for file in cache.iterdir()) / 1e6
        count = len(list(cache.iterdir()))
        print(f"downloaded: {count} files, {size:.0f} MB, {seconds:.0f} s")
        offline = ["install", "--no-index", "--find-links", str(cache), str(wheel.resolve())]
        print(f"installed: {_timed([*pip, *offline]):.0f} s")
        work = folder / "work"
        work.mkdir()
        code = program(PAGE.read_text("utf-8"), bin_folder)
        run = [str(bin_folder / "python"), "-I", "-c", code]
        print("each block: seconds, processor seconds, its last line", flush=True)
        print(f"quickstart: {_timed(run, cwd=work, quiet=False):.0f} s, every block")


def _built(folder: Path) -> Path:
    out = folder / "dist"
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(out), str(ROOT)]
    subprocess.run(command, check=True)
    return next(out.glob("*.whl"))


def _timed(command: list[str], cwd: Path | None = None, *, quiet: bool = True) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, cwd=cwd, stdout=subprocess.DEVNULL if quiet else None)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
