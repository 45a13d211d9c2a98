"""A Ray cluster of this machine, each node a `ray start` of its own, to be killed.

Only what was started here is stopped: `ray stop` would stop every cluster of the machine.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
TOKEN = secrets.token_hex(32)
"""Every cluster's here. Otherwise a token in the home folder, or none, would decide: where it is, a
head asks for it, and nodes that were not told to bring it do not (Ray 2.60)."""


def environment():
    """For Ray's processes and the job's: they import the tests' stubs and what the tests import."""
    paths = [str(HERE), *filter(None, sys.path)]
    quiet = {"RAY_memory_monitor_refresh_ms": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    quiet["RAY_worker_niceness"] = "0"  # or a busy machine starves them
    quiet |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    return {**os.environ, **quiet, "PYTHONPATH": os.pathsep.join(paths)}


class Nodes:
    """A head without CPUs and `count` nodes of four; a context manager."""

    def __init__(self, count):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self._count = count
        # Ray's sockets lie in it, and their names may have no more than 107 bytes.
        self._folder = tempfile.TemporaryDirectory(
            prefix="ray-", dir="/tmp", ignore_cleanup_errors=True
        )
        self.head, self.nodes = None, []

    def __enter__(self):
        port = self.address.partition(":")[2]
        first = ["--head", "--port", port, "--temp-dir", self._folder.name]
        self.head = self._start(*first, "--include-dashboard", "false", "--num-cpus", "0")
        for _ in range(self._count):
            self.nodes.append(self._start("--address", self.address, "--num-cpus", "4"))
        return self

    def __exit__(self, *_):
        for process in (*self.nodes, self.head):
            self.kill(process)
        self._folder.cleanup()

    def models(self, node):
        """Process ids of the models on a node: children of its raylet, its own child."""
        parents, titles = {}, {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                titles[int(folder.name)] = (folder / "cmdline").read_bytes()
                status = (folder / "status").read_text()
            except OSError:  # it ended
                continue
            parents[int(folder.name)] = int(status.split("PPid:")[1].split()[0])
        return [
            pid
            for pid, title in titles.items()
            if title.startswith(b"ray::Model") and parents.get(parents[pid]) == node.pid
        ]

    def kill(self, node):
        """All processes of a node at once, by kill -9."""
        if node and node.poll() is None:
            os.killpg(node.pid, signal.SIGKILL)
            node.wait()

    def _start(self, *options):
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *options]
        log = Path(self._folder.name, f"node{len(self.nodes)}-{time.monotonic_ns()}.log")
        with log.open("w") as file:
            process = subprocess.Popen(
                [*command, "--object-store-memory", "100000000", "--disable-usage-stats"],
                stdout=file,
                stderr=subprocess.STDOUT,
                env=environment(),
                start_new_session=True,
            )
        end = time.monotonic() + 120
        while "Ray runtime started" not in log.read_text():
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(log.read_text())
            time.sleep(0.1)
        return process
