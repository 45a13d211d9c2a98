"""The benchmarks run: peers agree with the oracle, and the packed engine does no needless work."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import families
from echovec import Embedder
from echovec.model.layout import lay_out

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama on disk."""
    path = tmp_path_factory.mktemp("model")
    families.causal_model("llama").save_pretrained(path)
    families.family_tokenizer("llama").save_pretrained(path)
    return path


@pytest.fixture
def _benchmarks_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    for name in [name for name in sys.modules if name.split(".")[0] == "benchmarks"]:
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.usefixtures("_benchmarks_importable")
@pytest.mark.parametrize("name", ["transformers, unsorted", "transformers, sorted by", "packed, e"])
def test_peers_give_the_oracles_vectors(folder: Path, name: str) -> None:
    """A speed counts only beside equal vectors: exact peers agree with the plain engine."""
    from benchmarks.peers import PEERS, Job

    oracle = Embedder.load(folder, engine="plain")
    chosen = next(peer for peer in PEERS if name in peer and "bfloat16" not in peer)
    job = Job(oracle, families.sentences()[::20], "echo", None)
    want = oracle.with_recipe("echo").encode(list(job.texts))
    np.testing.assert_allclose(PEERS[chosen](folder)(job), want, atol=2e-5)


@pytest.mark.usefixtures("_benchmarks_importable")
def test_the_table_shows_ratios() -> None:
    """A run's JSON becomes tables whose ratio is the peers' median over ours."""
    from benchmarks.table import EXACT, tables

    peer = "transformers, sorted, float32"
    row = {
        "name": "sentences",
        "recipe": "echo",
        "texts": 10,
        "tokens": 100,
        "flop": 1e9,
        "seconds": {peer: [6.0, 5.0, 7.0], EXACT: [2.0, 3.0, 1.0]},
        "accuracy": {peer: [0.0, 1.0], EXACT: [1e-6, 1.0]},
    }
    run = {
        "date": "d",
        "commit": "c",
        "cpu": "x",
        "threads": 2,
        "peak": {"float32": 1e9, "bfloat16": 2e9},
        "versions": {"torch": "2"},
        "load_before": 0.0,
        "load_after": 0.0,
        "repetitions": 3,
        "workloads": [row],
        "latency_ms": {peer: [3.0, 1.0, 2.0]},
        "not_run": {"OpenVINO": "ImportError: no", "a": "why", "b": "ImportError: no"},
    }
    row["seconds"] |= {"OpenVINO, float32": [1.0], "other, float32": [4.0]}
    row["accuracy"] |= {"OpenVINO, float32": [0.3, 0.9], "other, float32": [0.0, 1.0]}
    text = tables(run)
    assert "| OpenVINO, float32 | 0.9000 | **0.50x** |" in text
    assert "| other, float32 | 1.0000 | **2.00x** |" in text, "wrong vectors are no peer's best"
    assert "**3.00x**" in text
    assert "| 50% |" in text
    assert "Not run: OpenVINO; b. ImportError: no" in text
    assert "Not run: a. why" in text


@pytest.mark.usefixtures("_benchmarks_importable")
def test_a_peer_in_16_bits_is_not_run_where_it_would_not_be_one(monkeypatch) -> None:
    """Without bfloat16 in the processor "fast" is float32: named with the reason, never timed."""
    from benchmarks import run

    loaded: list[str] = []
    peers = {name: lambda path, name=name: loaded.append(name) for name in run.PEERS}
    monkeypatch.setattr(run, "PEERS", peers)
    monkeypatch.setattr(run, "multiplies_bfloat16", lambda device: False)
    result: dict = {}
    made = run.load(list(peers), Path(), result)
    assert list(made) == loaded == [name for name in peers if name not in result["not_run"]]
    assert set(result["not_run"].values()) == {run.NO_BFLOAT16}
    assert all("bfloat16" in name or "fast" in name for name in result["not_run"])
    assert {"echovec, packed, exact", "OpenVINO, float32"} <= set(loaded)
    assert set(run.peaks(tries=1)) == {"float32"}


def test_work_is_what_the_texts_need() -> None:
    """Rows computed: every token after the shared beginning once; none for padding.

    Attention rectangles hold at most an eighth more than the rows they serve, and the last layer's
    rows are the pooled ones: counts, so a slow machine cannot fail this.
    """
    model = Embedder.from_model(
        families.causal_model("llama"), families.family_tokenizer("llama"), engine="packed"
    )
    rows = needed = square = pooled = hull = 0
    for (batch,) in model.prepare(list(families.sentences()), batch_tokens=2048):
        layout = lay_out(batch)
        rows += len(layout.ids_N)
        needed += len(batch.ids_T) - len(batch) * batch.prefix
        square += sum(group.count * group.length for group in layout.groups)
        pooled += len(batch.pooled[0])
        hull += len(layout.hull_rows_Q)
    assert rows == needed
    assert hull == pooled
    assert square <= 1.125 * rows
