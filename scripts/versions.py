"""The lowest and the newest versions that echovec says it works with, tried: does it?

    python scripts/versions.py lowest         what pyproject.toml's bounds allow at the least
    python scripts/versions.py newest         what the package index has now
    python scripts/versions.py lowest --folder DIR --install-only

Makes a virtual environment, installs the package with the extras eval, train and serve, prints what
came, and runs the tests of the core on made-up models. torch stays at the version given (that of
the environment this runs in), because another one may be several GB. Exit code: that of pytest, or
pip's if the versions do not go together.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import tomllib
import venv
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
EXTRAS = ("eval", "train", "serve")
CORE = (
    *("template", "render", "batch", "pooling", "transform", "calibrate", "recipe", "reader"),
    *("plain", "packed", "adapter", "parts", "convert", "embedder", "extend"),
    *("cli_embed", "corpus", "evaluate_run", "train_run", "export", "plugins_mteb"),
)
"""Tests of every room that an outside library reaches into; tests/test_NAME.py."""


def requirements(pyproject: str, extras: Sequence[str] = EXTRAS) -> list[Requirement]:
    """What the package and these extras require, torch left out."""
    project = tomllib.loads(pyproject)["project"]
    lines = list(project["dependencies"])
    for extra in extras:
        lines += project["optional-dependencies"][extra]
    found = [Requirement(line) for line in lines]
    return [one for one in found if one.name != "torch"]


def lowest(requirement: Requirement) -> str:
    """A requirement at its lower bound: "numpy>=2.0" is "numpy==2.0"."""
    (bound,) = [one.version for one in requirement.specifier if one.operator == ">="]
    return f"{requirement.name}=={bound}"


def main() -> None:
    """Make the environment, say what is in it, run the tests."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("which", choices=["lowest", "newest"])
    parser.add_argument("--torch", default=version("torch"), help="its version in both")
    parser.add_argument("--folder", type=Path, help="of the environment; kept, and used again")
    parser.add_argument("--install-only", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch) / "environment"
        python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
        wanted = requirements((ROOT / "pyproject.toml").read_text("utf-8"))
        names = sorted({one.name for one in wanted} | {"torch"})
        if not python.is_file():
            venv.create(folder, with_pip=True)
        exact = [lowest(one) for one in wanted] if given.which == "lowest" else []
        package = f"{ROOT}[dev,{','.join(EXTRAS)}]"
        pip = [str(python), "-m", "pip", "install", "-q", "--no-compile", "--upgrade"]
        _run([*pip, f"torch=={given.torch}", *sorted(set(exact)), package])
        say = "import sys; from importlib.metadata import version as v\n"
        say += "for n in sys.argv[1:]: print(f'{n:<24}{v(n)}')"
        _run([str(python), "-c", say, *names])
        if given.install_only:
            return
        tests = [f"tests/test_{name}.py" for name in CORE]
        # Old versions may warn of what is new: here only a failure counts.
        _run([str(python), "-m", "pytest", "-q", "-W", "default", *tests], cwd=ROOT)


def _run(command: list[str], cwd: Path | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, check=False)
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    main()
