"""Do what a Dockerfile says without Docker: build, start as its user, ask its health check, stop.

    python scripts/replay_image.py FOLDER [--find-links WHEELS]

Needs Linux, root and Python 3.11 in /usr. In place of the base image stands this machine's own
system under an overlay, so that nothing of what is done stays on it, with an empty virtual
environment first on the path; homes and /opt are hidden. RUN steps are run as they stand; the
server runs in a network of its own that has the loopback device only. `--find-links` is a folder of
wheels, for where an index that the Dockerfile names cannot be reached.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
_INSIDE = "ECHOVEC_REPLAY_INSIDE"
_BASE = "/usr/local/base"
_HIDDEN = ("root", "home", "opt", "work")


def instructions(text: str) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile in order, each a word and its argument on one line."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    found = [line.strip().partition(" ") for line in joined.splitlines() if line.strip()]
    return [(word.upper(), rest.strip()) for word, _, rest in found]


@dataclass
class Image:
    """A system at `root` and what the instructions have set so far."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)
    arguments: dict[str, str] = field(default_factory=dict)
    user: str = "0"
    folder: str = "/"
    health: list[str] = field(default_factory=list)
    entrypoint: list[str] = field(default_factory=list)
    stop: str = "SIGTERM"

    def take(self, word: str, rest: str) -> None:
        """Do one instruction."""
        if word in ("FROM", "EXPOSE"):
            return
        step = getattr(self, f"_{word.lower()}", None)
        if step is None:
            raise SystemExit(f"no idea how to replay {word} {rest!r}")
        step(rest)

    def command(self, words: list[str]) -> list[str]:
        """The words, to be run in the image as its user."""
        values = {
            "PATH": f"{_BASE}/bin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            **self.environment,
        }
        if self.user == "0":
            values |= {name: v for name, v in os.environ.items() if name.startswith("PIP_")}
        pairs = [f"{name}={value}" for name, value in values.items() if value]
        where = ["chroot", f"--userspec={self.user}:{self.user}", "--groups=", str(self.root)]
        return [*where, "env", "-i", "-C", self.folder, *pairs, *words]

    def _arg(self, rest: str) -> None:
        name, _, value = rest.partition("=")
        self.arguments[name] = value

    def _env(self, rest: str) -> None:
        self.environment |= dict(pair.split("=", 1) for pair in shlex.split(rest))

    def _workdir(self, rest: str) -> None:
        self.folder = rest
        (self.root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)

    def _copy(self, rest: str) -> None:
        *sources, target = rest.split()
        place = self.root / self.folder.lstrip("/") / target
        for name in sources:
            source = ROOT / name
            if source.is_dir():
                ignore = shutil.ignore_patterns("__pycache__")
                shutil.copytree(source, place, ignore=ignore, dirs_exist_ok=True)
            else:
                shutil.copy(source, place)

    def _run(self, rest: str) -> None:
        pairs = [f"{name}={value}" for name, value in self.arguments.items()]
        print("RUN", rest, flush=True)
        subprocess.run(self.command(["env", *pairs, "sh", "-ec", rest]), check=True)

    def _user(self, rest: str) -> None:
        self.user = rest

    def _healthcheck(self, rest: str) -> None:
        self.health = json.loads(rest[rest.index("CMD") + 3 :])

    def _entrypoint(self, rest: str) -> None:
        self.entrypoint = json.loads(rest)

    def _stopsignal(self, rest: str) -> None:
        self.stop = rest


def mounted(folder: Path, wheels: Path | None) -> Path:
    """This machine's system as the base of an image, at a folder below `folder`."""
    upper, work, root = (folder / name for name in ("upper", "work", "root"))
    for each in (upper, work, root):
        each.mkdir(parents=True, exist_ok=True)
    options = f"lowerdir=/,upperdir={upper},workdir={work}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(root)], check=True)
    subprocess.run(["mount", "-t", "proc", "proc", str(root / "proc")], check=True)
    subprocess.run(["mount", "--rbind", "/dev", str(root / "dev")], check=True)
    for name in _HIDDEN:
        if (root / name).is_dir():
            subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(root / name)], check=True)
    python = shutil.which("python3.11", path="/usr/local/bin:/usr/bin:/bin")
    if python is None:
        raise SystemExit("there is no Python 3.11 in /usr to stand for the base image's")
    inside = ["chroot", str(root), python, "-m", "venv", _BASE]
    subprocess.run(inside, check=True)
    if wheels is not None:
        (root / "opt" / "wheels").mkdir(parents=True)
        subprocess.run(
            ["mount", "--bind", str(wheels.resolve()), str(root / "opt" / "wheels")], check=True
        )
    return root


def served(image: Image, patience: float) -> None:
    """Start what the image starts, wait until it is healthy, stop it; SystemExit if any fails."""
    alone = ["unshare", "--net", "sh", "-c", 'ip link set lo up; exec "$@"', "sh"]
    process = subprocess.Popen([*alone, *image.command(image.entrypoint)])
    until = time.monotonic() + patience
    check = ["nsenter", "--net", f"--target={process.pid}", *image.command(image.health)]
    while subprocess.run(check, stderr=subprocess.DEVNULL, check=False).returncode:
        if process.poll() is not None or time.monotonic() > until:
            process.kill()
            raise SystemExit(f"not healthy within {patience:g} s (exit code {process.poll()})")
        time.sleep(1)
    status = Path(f"/proc/{process.pid}/status").read_text("utf-8")
    uid = re.search(r"^Uid:\s+(\d+)", status, re.MULTILINE)
    print(f"healthy, as user {uid.group(1) if uid else '?'}", flush=True)
    process.send_signal(getattr(signal, image.stop))
    code = process.wait(60)
    print(f"{image.stop}: ended with {code}")
    if code:
        raise SystemExit(1)


def main() -> None:
    """Build, start, check, stop."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, help="empty; some GB")
    parser.add_argument("--find-links", type=Path, help="a folder of wheels")
    parser.add_argument("--patience", type=float, default=600, help="seconds until healthy")
    options = parser.parse_args()
    if not os.environ.get(_INSIDE):  # mounts of our own, gone with this process
        again = ["unshare", "--mount", sys.executable, *sys.argv]
        sys.exit(subprocess.run(again, env={**os.environ, _INSIDE: "1"}, check=False).returncode)
    image = Image(mounted(options.folder.resolve(), options.find_links))
    if options.find_links is not None:
        image.environment["PIP_FIND_LINKS"] = "/opt/wheels"
    for word, rest in instructions((ROOT / "Dockerfile").read_text("utf-8")):
        image.take(word, rest)
    served(image, options.patience)


if __name__ == "__main__":
    main()
