"""Result files: whole or not at all, read back as written, never mistaken for another's."""

from __future__ import annotations

import errno
import json
import math
import os
from pathlib import Path

import pytest

from echovec.errors import InputError, StorageError
from echovec.evaluate.results import (
    Outcome,
    outcome_path,
    read_outcomes,
    result_name,
    write_outcome,
)
from echovec.evaluate.selection import choose


def outcome(**changes) -> Outcome:
    fields = {
        "task": "STSBenchmark",
        "category": "STS",
        "metric": "cosine_spearman",
        "main_score": 0.5,
        "split": "dev",
        "num_items": 2,
        "items": {"kind": "mean", "values": [0.25, 0.75]},
        "interval": (0.4, 0.6),
        "interval_method": "bootstrap",
        "seed": 42,
        "model": "tiny",
        "recipe_name": "echo",
        "fingerprint": "aa",
        "recipe": {"name": "echo"},
        "described": "S S [mean]",
        "texts": 4,
        "tokens": 40,
        "forward_passes": 1,
        "computed_tokens": 40,
        "seconds": 0.5,
        "exact_split": True,
    }
    return Outcome(**fields | changes)


def test_an_outcome_comes_back_as_it_was_written(tmp_path):
    """All fields survive, an interval and the lack of one too, and splits have files apart."""
    written = [outcome(), outcome(split="test", interval=None), outcome(recipe_name="classical")]
    for one in written:
        write_outcome(one, tmp_path)
    found = read_outcomes(tmp_path, tmp_path / "nothing here")
    assert sorted(map(repr, found)) == sorted(map(repr, written))


def test_a_score_that_is_undefined_is_null_in_the_file(tmp_path):
    """NaN is not JSON: strict readers get null, and it is NaN again when it is read back."""

    def refuse(name):
        raise AssertionError(name)

    path = write_outcome(outcome(main_score=math.nan, interval=None), tmp_path)
    assert json.loads(path.read_text(), parse_constant=refuse)["main_score"] is None
    (found,) = read_outcomes(tmp_path)
    assert math.isnan(found.main_score)


def test_a_recipe_without_a_score_is_not_chosen():
    """NaN is neither best nor between others, and no choice where there is nothing else."""
    without = outcome(main_score=math.nan, recipe_name="flat", fingerprint="bb")
    low = outcome(main_score=-0.5, recipe_name="low", fingerprint="cc")
    for candidates in ([without, low, outcome()], [low, without, outcome()]):
        found = choose(candidates)
        assert [name for name, _ in found.scores] == ["echo", "low", "flat"]
        assert found.recipe == "echo"
    with pytest.raises(InputError, match=r"no candidate has a score.*STSBenchmark dev"):
        choose([without])


def test_the_sample_is_in_every_name():
    """A sampled score has another name than a whole one, and no name leaves its folder."""
    whole, sampled = (result_name("org/model", "my recipe", n, 7) for n in (None, 50))
    assert whole == "echovec/org-model--my-recipe"
    assert sampled == "echovec/org-model--my-recipe--sample-50-seed-7"
    assert (
        outcome_path(Path("o"), result_name("../x", "..", None, 1), "f", "t")
        .resolve()
        .is_relative_to(Path("o").resolve())
    )


def test_a_broken_file_is_named(tmp_path):
    """A file that is cut short, or of another format, is an error that names it."""
    path = write_outcome(outcome(), tmp_path)
    whole = path.read_text()
    for broken in (whole[: len(whole) // 2], json.dumps({"format": 99}), "[]"):
        path.write_text(broken)
        with pytest.raises(InputError, match=r"STSBenchmark--dev\.json: not a result"):
            read_outcomes(tmp_path)


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    """A write that fails raises StorageError, keeps the old file and leaves no rest."""
    path = write_outcome(outcome(), tmp_path)

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        write_outcome(outcome(main_score=0.9), tmp_path)
    assert [one.main_score for one in read_outcomes(tmp_path)] == [0.5]
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_the_best_mean_on_development_data_is_chosen():
    """Candidates on the same dev tasks: the best mean wins, and the data are named."""
    found = choose(
        [
            outcome(recipe_name="a", fingerprint="1", main_score=0.4),
            outcome(recipe_name="a", fingerprint="1", main_score=0.9, task="MRPC", split="val"),
            outcome(recipe_name="b", fingerprint="2", main_score=0.5),
            outcome(recipe_name="b", fingerprint="2", main_score=0.7, task="MRPC", split="val"),
        ]
    )
    assert found.recipe == "a"
    assert found.chosen_on == "MRPC val, STSBenchmark dev"
    assert found.scores == (("a", pytest.approx(0.65)), ("b", pytest.approx(0.6)))


@pytest.mark.parametrize("split", ["test", "devtest", "en"])
def test_nothing_is_chosen_on_test_data(split):
    """One outcome of a split that is not a development split is enough to refuse."""
    with pytest.raises(InputError, match=f"nothing may be chosen on test data.*{split}"):
        choose([outcome(), outcome(split=split, recipe_name="b")])


def test_candidates_are_measured_alike():
    """Other tasks, samples or no outcomes at all cannot be compared."""
    with pytest.raises(InputError, match="not measured on the same"):
        choose([outcome(), outcome(recipe_name="b", fingerprint="b", sample=5)])
    with pytest.raises(InputError, match="not measured on the same"):
        choose([outcome(), outcome(recipe_name="b", fingerprint="b", data_revision="other")])
    whole = choose([outcome(seed=1), outcome(recipe_name="b", fingerprint="b", seed=2)])
    assert len(whole.scores) == 2, "the seed of a sample says nothing of a whole task"
    with pytest.raises(InputError, match="no outcomes"):
        choose([])


def test_nothing_is_chosen_on_the_split_that_mteb_reports():
    """A task whose only split is called dev is reported on it, so it is test data."""
    with pytest.raises(InputError, match="nothing may be chosen on test data"):
        choose([outcome(reported=True)])
    with pytest.raises(InputError, match="nothing may be chosen on test data"):
        choose([outcome(task="MSMARCO")])  # also in files that do not say so


def test_a_folder_that_is_a_file_is_a_storage_error(tmp_path):
    """Where no folder can be made, the message names the file that cannot be written."""
    (tmp_path / "file").write_text("", "utf-8")
    with pytest.raises(StorageError, match=r"cannot write .*file.*STSBenchmark--dev\.json"):
        write_outcome(outcome(), tmp_path / "file")
