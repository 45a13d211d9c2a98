"""`echovec eval`: the table, the plan, and errors with exit codes."""

from __future__ import annotations

import sys

import pytest

from evaluate_data import embedder, make_sets

pytest.importorskip("mteb")

import echovec
from echovec.cli import main
from echovec.evaluate import interval as interval_module


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    return make_sets(tmp_path_factory.mktemp("sets"))


@pytest.fixture
def run(monkeypatch, capsys, sets):
    """Run the command line with a tiny model; the exit code, standard output and error."""
    monkeypatch.setattr(interval_module, "RESAMPLES", 20)
    monkeypatch.setattr(
        echovec.Embedder, "load", lambda model=None, recipe="echo", **_: embedder(recipe)
    )
    monkeypatch.delenv("ECHOVEC_DATA", raising=False)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["echovec", "eval", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capsys.readouterr()
        return stop.value.code or 0, out, err

    return run


def test_a_table_of_tasks_by_recipes(run, sets, tmp_path):
    """Each task is a row, each recipe a column; the sample is in the title, files in the folder."""
    options = ["--data", sets, "--tasks", "sts,Search", "--sample", 12, "--out", tmp_path]
    code, out, err = run("--recipe", "classical,echo", *options)
    assert code == 0, err
    assert "SAMPLE of at most 12 items, seed 42" in out
    assert "Alike *" in out
    assert "Search *" in out
    assert "classical" in out
    assert "not mteb's exact test split" in out
    assert "classical: 72 texts, 72 to embed" in err
    assert len(list(tmp_path.rglob("Alike.json"))) == 4


def test_a_dry_run_counts_and_writes_nothing(run, sets, tmp_path):
    """The plan has tokens by task and recipe; the output folder stays away."""
    code, out, err = run("--data", sets, "--out", tmp_path / "o", "--dry-run")
    assert (code, out) == (0, "")
    assert "7 tasks, 0 of them finished" in err
    assert "left out: train_more" in err
    assert "  Alike: 80 texts, 80 to embed, " in err
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    "typo", [("--recipe", "echo,ecko"), ("--recipe", "echo,no.json"), ("--tasks", "Alike,Alikke")]
)
def test_a_wrong_name_is_known_before_a_model_is_loaded(run, sets, tmp_path, monkeypatch, typo):
    """A typo in a later name of a list is named at once."""
    monkeypatch.setattr(echovec.Embedder, "load", lambda *_, **__: pytest.fail("loaded"))
    code, _, err = run("--data", sets, "--out", tmp_path, *typo)
    assert code == 2
    assert typo[1].partition(",")[2] in err


@pytest.mark.parametrize("verb", ["eval", "reproduce"])
def test_a_seed_below_0_is_refused(monkeypatch, capsys, tmp_path, verb):
    """No sample can be drawn with it, so it is a wrong option and no traceback."""
    arguments = {"eval": [], "reproduce": ["toy"]}[verb]
    options = ["--out", str(tmp_path), "--seed", "-1"]
    monkeypatch.setattr(echovec.Embedder, "load", lambda *_, **__: pytest.fail("loaded"))
    monkeypatch.setattr(sys, "argv", ["echovec", verb, *arguments, *options])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert "--seed" in capsys.readouterr().err


def test_the_environment_names_the_data(run, sets, tmp_path, monkeypatch):
    """ECHOVEC_DATA stands for --data."""
    monkeypatch.setenv("ECHOVEC_DATA", str(sets))
    code, _, err = run("--tasks", "Alike", "--out", tmp_path, "--dry-run")
    assert code == 0
    assert "1 task, 0 of them finished" in err


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--tasks", "Alke"], 2, "did you mean Alike"),
        (["--tasks", ","], 2, "names nothing"),
        (["--tasks", "Alike", "--split", "train"], 2, "has no split 'train'"),
        (["--tasks", "BIOSSES"], 3, "cannot fetch BIOSSES"),
        (["--tasks", "Alike", "--sample", "1"], 2, "sample"),
    ],
    ids=["typo", "nothing", "split", "network", "sample"],
)
def test_errors_have_exit_codes(run, sets, tmp_path, options, code, said):
    """Bad names exit 2 and what is not available exits 3, with a message that helps."""
    found, _, err = run("--data", sets, "--out", tmp_path, *options)
    assert found == code
    assert said in err


def test_neither_tasks_nor_data_is_refused(run, tmp_path):
    """There is no default suite without a folder."""
    code, _, err = run("--out", tmp_path)
    assert code == 2
    assert "say which tasks" in err
