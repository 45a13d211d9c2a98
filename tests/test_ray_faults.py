"""The corpus job on a real Ray cluster whose processes are killed, again and again.

The table of docs/reliability.md. All nodes are processes of `ray start` on this machine.
"""

import os
import random
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from benchmarks.corpus import real_texts, write_input

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


def embed_while_a_node_dies(path, out, options, shards_before):
    """`ray start` three times, `echovec embed --runner ray` on two, one killed; what it said."""
    command = [sys.executable, "-m", "echovec", "embed", str(path), "-o", f"{out}/", *options]
    with Nodes(2) as nodes:
        command += ["--runner", "ray", "--ray-address", nodes.address, "--workers", "2"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment())
        while len(list(out.glob("rows-*"))) < shards_before:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        assert [len(nodes.models(node)) for node in nodes.nodes] == [1, 1]
        nodes.kill(nodes.nodes[1])
        at = len(list(out.glob("rows-*")))
        _, said = process.communicate(timeout=5000)
        assert process.returncode == 0, said
    print(f"\na node killed after {at} of {len(list(out.glob('rows-*')))} shards; {said[-300:]}")
    assert at < len(list(out.glob("rows-*"))), "it was in the middle"
    return said


def embed_on_this_machine(path, out, options):
    command = [sys.executable, "-m", "echovec", "embed", str(path), "-o", f"{out}/", *options]
    subprocess.run(command, check=True, env=environment())


def test_a_node_is_killed_under_the_command_line(tmp_path):
    """Small shards, and each of them the same bytes as on one machine."""
    rows = 6000
    path, out, plain = write(tmp_path / "in.txt", rows), tmp_path / "out", tmp_path / "plain"
    options = ["--model", saved(tmp_path), "--shard-rows", str(SHARD)]
    said = embed_while_a_node_dies(path, out, options, 10)
    assert f"{rows:,} texts" in said
    embed_on_this_machine(path, plain, options)
    assert shards(out) == shards(plain)
    assert table(out) == table(plain)


def test_two_hundred_thousand_real_texts_while_a_node_dies(tmp_path, data):
    """A made-up model, and each shard the same bytes as on one machine."""
    rows, path, out, plain = 200_000, tmp_path / "in.jsonl", tmp_path / "out", tmp_path / "plain"
    write_input(path, list(islice(real_texts(data), 50_000)), rows, rows)
    options = ["--model", saved(tmp_path, "classical"), "--max-tokens", "16"]
    options += ["--shard-rows", "2048"]
    said = embed_while_a_node_dies(path, out, options, 30)
    assert f"{rows:,} texts" in said
    embed_on_this_machine(path, plain, options)
    assert shards(out) == shards(plain)
    assert [id for id, _ in ids_and_vectors(out)] == [f"r{n}" for n in range(rows)]


def test_twenty_thousand_real_texts_through_the_default_model_while_a_node_dies(
    tmp_path, data, default_model
):
    """The vectors that one machine gives, up to rounding: its batches share the cores otherwise."""
    rows, path, out, plain = 20_000, tmp_path / "in.jsonl", tmp_path / "out", tmp_path / "plain"
    short = dict.fromkeys(text for text in real_texts(data) if 15 <= len(text) <= 60)
    write_input(path, list(islice(short, rows)), rows, rows)
    options = ["--recipe", "classical", "--shard-rows", "512"]
    said = embed_while_a_node_dies(path, out, options, 12)
    assert f"{rows:,} texts" in said
    embed_on_this_machine(path, plain, options)
    ours, theirs = list(ids_and_vectors(out)), list(ids_and_vectors(plain))
    assert [id for id, _ in ours] == [id for id, _ in theirs] == [f"r{n}" for n in range(rows)]
    apart = max(float(np.abs(a - b).max()) for (_, a), (_, b) in zip(ours, theirs, strict=True))
    print(f"largest difference of a number: {apart:.1e}")
    assert apart <= 1e-5


def ids_and_vectors(folder):
    """Of all rows in the input's order."""
    entries, _ = manifest.read(folder / "manifest.jsonl")
    for entry in sorted(entries, key=lambda entry: entry.start):
        rows = pq.read_table(folder / entry.file, columns=["id", "embedding"])
        vectors = rows["embedding"].combine_chunks().flatten().to_numpy()
        yield from zip(rows["id"].to_pylist(), vectors.reshape(len(rows), -1), strict=True)
