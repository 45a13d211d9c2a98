"""What is told of a run while it goes: scores by hand, where they arrive, which trackers exist."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest
from scipy.stats import spearmanr

from echovec.errors import DependencyError, InputError
from echovec.train.run import read_run

pytest.importorskip("peft")
pytest.importorskip("sentence_transformers")
pytestmark = [
    pytest.mark.usefixtures("alone"),
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
]

TINY = read_run("tiny")
WORDS = ("red", "blue", "green", "old", "new", "cold")


@pytest.fixture
def sts(tmp_path):
    """A data folder with a development split of fifteen pairs, and a test split that is broken."""
    folder = tmp_path / "data" / "STSBenchmark"
    folder.mkdir(parents=True)
    pairs = [
        {"sentence1": f"{a} {b}", "sentence2": f"{b} {a} {a}", "score": (i * 7) % 5}
        for i, (a, b) in enumerate((a, b) for a in WORDS for b in WORDS if a < b)
    ]
    with gzip.open(folder / "dev.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(pair) + "\n" for pair in pairs)
    (folder / "test.jsonl.gz").write_bytes(b"not to be opened")
    return tmp_path / "data", pairs


def test_geometry_is_that_of_the_definitions():
    """Alignment, uniformity (Wang & Isola) and recall@1, pair by pair in a loop."""
    from echovec.train.watch import geometry

    drawn = np.random.default_rng(0)
    a, p = drawn.normal(size=(2, 7, 5)).astype(np.float32)
    p[:4] += 3 * a[:4]
    a, p = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, p))
    rows = range(len(a))
    aligned = np.mean([np.sum((a[i] - p[i]) ** 2) for i in rows])
    spread = [np.exp(-2 * np.sum((a[i] - a[j]) ** 2)) for i in rows for j in rows if i < j]
    found = np.mean([max(rows, key=lambda j, i=i: float(a[i] @ p[j])) == i for i in rows])
    assert 0 < found < 1  # else it would say little
    got = geometry(a, p)
    assert got["alignment"] == pytest.approx(aligned, abs=1e-4)
    assert got["uniformity"] == pytest.approx(np.log(np.mean(spread)), abs=1e-4)
    assert got["recall_at_1"] == pytest.approx(found, abs=1e-4)
    assert geometry(a[:1], p[:1])["uniformity"] == 0


def test_development_pairs_are_scored_as_by_hand(sts):
    """Spearman x 100 of the cosines, from the development split alone."""
    from echovec.train.job import build, training_sets
    from echovec.train.watch import Watch

    data, pairs = sts
    parts = build(TINY)
    told = []
    watch = Watch(parts, training_sets(TINY), told.append, data=data)
    score = watch._scores()["sts_dev"]
    encode = parts.embedder.encode
    left, right = (encode([pair[side] for pair in pairs]) for side in ("sentence1", "sentence2"))
    gold = [pair["score"] for pair in pairs]
    assert score == round(100 * spearmanr((left * right).sum(1), gold).statistic, 2)
    assert not told


def test_roles_are_those_of_training(monkeypatch):
    """Held pairs of a set that is not symmetric are a query and a document."""
    from echovec.train.job import build, training_sets
    from echovec.train.watch import Watch

    parts = build(TINY)
    watch = Watch(parts, training_sets(TINY), print, data=None)
    roles = []
    real = watch._encode
    monkeypatch.setattr(watch, "_encode", lambda t, role: roles.append(role) or real(t, role))
    watch._scores()
    symmetric = {one.name: one.source.symmetric for one in training_sets(TINY)}
    assert set(symmetric.values()) == {True, False}
    wanted = [
        pair
        for name in watch._pairs
        for pair in ((None, None) if symmetric[name] else ("query", "document"))
    ]
    assert roles == wanted


def test_scores_come_when_they_are_due_and_reach_whoever_listens(sts, tmp_path, monkeypatch):
    """Before the first step, every so many, after the last; in the log and to a tracker."""
    from transformers import TrainerCallback

    from echovec.train import page, trainer
    from echovec.train.job import train

    heard = []

    class Tracker(TrainerCallback):
        """What W&B and TensorBoard are to the trainer."""

        def on_log(self, args, state, control, logs=None, **_):
            """Numbers by name."""
            heard.append((state.global_step, set(logs)))

    real = trainer.EchoTrainer.__init__

    def init(self, **options):
        options["callbacks"].append(Tracker())
        real(self, **options)

    monkeypatch.setattr(trainer.EchoTrainer, "__init__", init)
    monkeypatch.setattr(page, "_curve", lambda points: "")
    run = TINY.changed(["steps=5", "eval_every=2", "save_every=9"])
    done = train(run, tmp_path / "r", data=sts[0])
    scored = [entry["step"] for entry in done.history if "sts_dev" in entry]
    assert scored == [0, 2, 4, 5]
    assert [step for step, names in heard if "eval_sts_dev" in names] == scored
    assert [step for step, names in heard if "loss" in names] == [1, 2, 3, 4, 5]
    held = {f"{name}_{key}" for name in ("sentences", "pairs") for key in ("alignment",)}
    assert held <= set(done.history[0])
    card = (tmp_path / "r" / "README.md").read_text()
    assert f"| sts_dev | {done.history[-1]['sts_dev']:g} |" in card


def test_trackers_that_are_not_there_are_named_before_anything_is_read(tmp_path, monkeypatch):
    """An unknown one and one that is not installed; nothing is begun."""
    from transformers.integrations import integration_utils

    from echovec.train.job import train

    monkeypatch.setenv("ECHOVEC_REPORT_TO", "paper")
    with pytest.raises(InputError, match="ECHOVEC_REPORT_TO=paper: paper is not supported"):
        train(TINY, tmp_path / "r")
    monkeypatch.setattr(integration_utils, "is_wandb_available", lambda: False)
    monkeypatch.setenv("ECHOVEC_REPORT_TO", "wandb")
    with pytest.raises(DependencyError, match="pip install wandb"):
        train(TINY, tmp_path / "r")
    assert not (tmp_path / "r").exists()
