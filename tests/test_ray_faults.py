"""The corpus job on a real Ray cluster whose processes are killed, again and again.

The table of docs/reliability.md. All nodes are processes of `ray start` on this machine.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from corpus_stub import Stub, job, shards, table
from echovec.files import manifest
from plugins_stub import saved
from ray_nodes import Nodes, environment

pytest.importorskip("ray", reason="the extra ray")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(5400),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="POSIX signals"),
]

STUB = Path(__file__).with_name("ray_stub.py")
SHARD = 20


@pytest.fixture(scope="module")
def cluster():
    """One for all moments."""
    with Nodes(1) as nodes:
        yield nodes


def write(path, count):
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"text {n}\n" for n in range(count)))
    return path


def start(path, out, seconds, workers, cluster):
    command = [sys.executable, str(STUB), str(path), str(out), str(seconds), str(workers)]
    return subprocess.Popen(
        [*command, cluster.address], stdout=subprocess.PIPE, text=True, env=environment()
    )


def embedded(folder):
    """Texts that models brought to their end, by all models so far."""
    return sum(int(n) for mark in folder.glob("model-*") for n in mark.read_text().split())


def in_manifest(out):
    entries = manifest.read(out / "manifest.jsonl")[0]
    return sum(entry.rows for entry in entries)


def as_if_undisturbed(path, out, plain, count):
    job([path], plain, shard_rows=SHARD)
    assert shards(out) == shards(plain)
    assert table(out) == table(plain)
    assert [text for _, text, _ in table(out)] == [f"text {n}" for n in range(count)]


def test_a_model_is_killed_at_fifty_moments(cluster, tmp_path):
    """One job, two models, fifty times kill -9 to one of them: complete, at most a shard again."""
    moments, rows, out = random.Random(2), 20_000, tmp_path / "out"
    path = write(tmp_path / "in.txt", rows)
    process = start(path, out, 0.025, 2, cluster)
    assert len(process.stdout.readline().split()) == 2
    dead = set()
    for kill in range(50):
        living = []
        while len(living) < 2:
            assert process.poll() is None, f"the job ended after {kill} kills"
            living = sorted(set(tmp_path.glob("model-*")) - dead)
            time.sleep(0.05)
        time.sleep(moments.uniform(0, 2))
        victim = moments.choice(living)
        os.kill(int(victim.name.removeprefix("model-")), signal.SIGKILL)
        dead.add(victim)
    (tmp_path / "fast").touch()
    rest, _ = process.communicate(timeout=1200)
    assert f"done {rows}" in rest
    again = embedded(tmp_path) - rows
    print(f"\n50 kills of a model: {again} texts of {rows} came to their end twice")
    assert again <= 50 * SHARD
    as_if_undisturbed(path, out, tmp_path / "plain", rows)


def test_the_driver_is_killed_at_fifty_moments(cluster, tmp_path):
    """Each time the next driver goes on; what the manifest has is not embedded again."""
    moments, rows, lost, done_jobs = random.Random(3), 200, [], 0
    folder = tmp_path / "job0"
    for kill in range(50):
        path, out = write(folder / "in.txt", rows), folder / "out"
        before, made = embedded(folder), in_manifest(out)
        process = start(path, out, 0.01, 1, cluster)
        assert process.stdout.readline(), "the models are there"
        # A moment is some shards away, and part of one: a busy machine takes long for either.
        there, more = len(shards(out)), moments.randrange(4)
        while len(shards(out)) < there + more and process.poll() is None:
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.5))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kept = in_manifest(out)
        time.sleep(0.5)  # what a model still does when its driver is dead belongs to this moment
        lost.append(embedded(folder) - before - (kept - made))
        if kept == rows or kill == 49:
            stub = Stub()
            done = job([path], out, stub, shard_rows=SHARD)
            assert done.rows == rows
            assert len(stub.seen) == rows - kept
            as_if_undisturbed(path, out, folder / "plain", rows)
            done_jobs += 1
            folder = tmp_path / f"job{done_jobs}"
    print(f"\n50 kills of the driver over {done_jobs} jobs; texts embedded in vain: {sorted(lost)}")
    assert done_jobs > 5, "moments at which much was done already are among them"
    assert max(lost) <= SHARD, "with one model at most a shard is embedded and not written"


def test_a_node_is_killed_under_the_command_line(tmp_path):
    """`ray start` three times, `echovec embed --runner ray`, one node gone in the middle."""
    rows = 6000
    path, out = write(tmp_path / "in.txt", rows), tmp_path / "out"
    model = saved(tmp_path)
    embed = [sys.executable, "-m", "echovec", "embed", str(path), "--model", model]
    embed += ["--shard-rows", str(SHARD), "-o"]
    with Nodes(2) as nodes:
        ray = ["--runner", "ray", "--ray-address", nodes.address, "--workers", "2"]
        process = subprocess.Popen(
            [*embed, f"{out}/", *ray], stderr=subprocess.PIPE, text=True, env=environment()
        )
        while len(list(out.glob("rows-*"))) < 10:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        nodes.kill(nodes.nodes[1])
        at = len(list(out.glob("rows-*")))
        _, said = process.communicate(timeout=1200)
        assert process.returncode == 0, said
        assert at < rows // SHARD, "it was in the middle"
    assert f"{rows:,} texts" in said
    print(f"\na node killed after {at} of {rows // SHARD} shards")
    subprocess.run([*embed, f"{tmp_path}/plain/"], check=True, env=environment())
    assert shards(out) == shards(tmp_path / "plain")
    assert table(out) == table(tmp_path / "plain")
