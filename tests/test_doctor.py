"""`echovec doctor`: findings are right, faults are found and say what to do, nothing private."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from typer.testing import CliRunner

from echovec import Embedder
from echovec.cli import app
from echovec.doctor import installed as room
from echovec.doctor import self_test
from echovec.doctor.finding import Finding, without_home
from echovec.doctor.installed import installed
from echovec.doctor.machine import kernels_work, machine
from echovec.doctor.models import models
from echovec.train.tiny import tiny_model


def embedder():
    return Embedder.from_model(*tiny_model(), self_test.recipe(), engine="packed")


def states(findings):
    return {finding.topic: finding.state for finding in findings}


def test_the_self_test_passes_where_all_is_well():
    """Oracle, span, alone, cached and saved are well on both engines."""
    for made in (embedder(), Embedder.from_model(*tiny_model(), self_test.recipe())):
        found = list(self_test.self_test(made, "a made-up model"))
        assert [finding.line() for finding in found if finding.state != "ok"] == []
        assert len(found) == 6


def test_a_wrong_vector_is_found(monkeypatch):
    """Control: an engine that pools one token too few fails the oracle, and says what to do."""
    made = embedder()
    whole = made.backbone.forward

    def shifted(batch, *args, **options):
        return [h.roll(1, dims=0) for h in whole(batch, *args, **options)]

    monkeypatch.setattr(made.backbone, "forward", shifted)
    found = {finding.topic: finding for finding in self_test.self_test(made, "x")}
    assert found["oracle"].state == "FAIL"
    assert "report" in found["oracle"].to_do


def test_vectors_that_depend_on_their_neighbours_are_found(monkeypatch):
    """Control: an engine that mixes what is in a batch fails the check of texts alone."""
    made = embedder()
    whole = made.backbone.forward

    def mixed(batch, *args, **options):
        return [h + len(batch) * h.roll(1, dims=1) for h in whole(batch, *args, **options)]

    monkeypatch.setattr(made.backbone, "forward", mixed)
    assert not self_test.alone(made)[0]


def test_a_cache_that_gives_other_vectors_is_found(monkeypatch):
    """Control: an engine that computes otherwise once it forgot fails the check of caches."""
    made = embedder()
    whole = made.backbone.forward

    def turned(*args, **options):
        return [h.roll(1, dims=1) for h in whole(*args, **options)]

    def forget():
        monkeypatch.setattr(made.backbone, "forward", turned)

    monkeypatch.setattr(made.backbone, "forget", forget)
    assert not self_test.cached(made)[0]


def test_a_recipe_that_changes_on_the_disk_is_found(monkeypatch):
    """Control: a recipe that is read with another budget than was written has lost its print."""
    from dataclasses import replace

    from echovec import Recipe

    made = embedder()
    other = replace(made.recipe, max_tokens=7)
    monkeypatch.setattr(Recipe, "load", lambda _: other)
    holds, found = self_test.saved(made)
    assert not holds
    assert "is lost by saving" in found


def test_a_wrong_span_is_found():
    """Control: a recipe that pools the first copy is not the self-test's echo."""
    from dataclasses import replace

    recipe = self_test.recipe()
    (view,) = recipe.views["symmetric"]
    first = replace(view, template=view.template.pooling_copy(0))
    wrong = replace(recipe, views=dict.fromkeys(recipe.views, (first,)))
    holds, _ = self_test.span(embedder().with_recipe(wrong))
    assert not holds
    assert not self_test.oracle(embedder().with_recipe(wrong))[0]


def test_an_error_is_a_finding(monkeypatch):
    """A check that raises does not end the report."""

    def broken(made):
        raise RuntimeError("no kernel image\nsecond line")

    monkeypatch.setattr(self_test, "alone", broken)
    found = {finding.topic: finding for finding in self_test.self_test(embedder(), "x")}
    assert found["alone and in batch"].found == "RuntimeError: no kernel image"
    assert found["saved recipe"].state == "ok"


def test_what_is_not_installed_or_too_old_says_what_to_install(monkeypatch):
    """A missing or old dependency fails with the pip command; a missing extra is a note."""
    lines = ["torch>=2.11", "numpy>=99", "absent-one>=1", "absent-two>=2; extra == 'serve'"]
    monkeypatch.setattr(room, "requires", lambda name: lines)
    found = {finding.topic: finding for finding in installed()}
    assert found["torch"].state == "ok"
    assert found["numpy"].to_do == "pip install 'numpy>=99'"
    assert found["absent-one"].state == "FAIL"
    assert found["extra serve"].state == "note"
    assert "echovec[serve]" in found["extra serve"].to_do


def test_the_machine_is_described():
    """Device, precision, threads and memory each have a line."""
    assert set(states(machine())) >= {"device", "precision", "threads", "memory", "settings"}


@pytest.mark.parametrize(("native", "state"), [(True, "ok"), (False, "note")])
def test_a_machine_without_bfloat16_is_told(native, state, monkeypatch):
    """What "fast" is here is said before it is asked for."""
    from echovec.model import precision

    monkeypatch.setattr(precision, "multiplies_bfloat16", lambda _: native)
    found = next(finding for finding in machine() if finding.topic == "precision")
    assert found.state == state
    assert ("float32 here" in found.to_do) is not native


def test_processors_are_those_that_this_process_may_use(monkeypatch):
    """One thread on the one of 64 processors that a container gives is right."""
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5}, raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    found = next(finding for finding in machine() if finding.topic == "threads")
    assert (found.state, found.found) == ("ok", "torch uses 1 of 1 processors")


@pytest.mark.parametrize("ready", [True, False])
def test_a_card_without_kernels_is_told_how_to_get_them(ready):
    """What is missing is a note with its next step; what works asks for nothing."""
    found = kernels_work(ready)
    assert found.state == ("ok" if ready else "note")
    assert ("gcc" in found.to_do) is not ready


def test_a_broken_copy_in_the_cache_fails(tmp_path, monkeypatch):
    """A damaged model is found by its hash, and the way to remove it is named."""
    monkeypatch.setenv("ECHOVEC_CACHE", str(tmp_path))
    (tmp_path / "models" / "broken-copy").mkdir(parents=True)
    found = next(finding for finding in models() if finding.topic == "cached model")
    assert found.state == "FAIL"
    assert "--remove broken-copy" in found.to_do


@pytest.mark.parametrize(("free", "writable"), [(10**9, True), (10**8, True), (10**9, False)])
def test_a_cache_without_room_is_told(free, writable, tmp_path, monkeypatch):
    """A disk that is full or not to be written to is noted before a model is fetched."""
    monkeypatch.setenv("ECHOVEC_CACHE", str(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    monkeypatch.setattr(os, "access", lambda *_: writable)
    found = next(finding for finding in models() if finding.topic == "model cache")
    assert found.state == ("ok" if free == 10**9 and writable else "note")
    assert ("ECHOVEC_CACHE" in found.to_do) is (found.state == "note")


def test_a_model_in_the_home_folder_is_named_without_it(tmp_path, monkeypatch):
    """In the line of the self-test as in an error about it."""
    from echovec.doctor.report import _self_test
    from plugins_stub import saved

    monkeypatch.setenv("HOME", str(tmp_path))
    (error,) = _self_test(str(tmp_path / "absent"))
    assert (error.state, str(tmp_path) in error.found) == ("FAIL", False)
    assert "~/absent" in error.found
    first = next(_self_test(saved(tmp_path)))
    assert first.found.startswith("on ~/echo,")


@pytest.mark.parametrize("there", [False, True])
def test_a_setting_that_names_no_model_fails(tmp_path, monkeypatch, there):
    """ECHOVEC_MODEL_DIR that no model is in is wrong, and what is missing is said."""
    folder = tmp_path / "model"
    if there:
        folder.mkdir()
    monkeypatch.setenv("ECHOVEC_MODEL_DIR", str(folder))
    found = next(finding for finding in models() if finding.topic == "default model")
    assert found.state == "FAIL"
    assert ("has no config.json" if there else "does not exist") in found.found
    assert "unset it" in found.to_do


def test_the_self_test_takes_the_model_that_the_setting_names(tmp_path, monkeypatch):
    """A folder in ECHOVEC_MODEL_DIR is the default model, so vectors of it are looked at."""
    from echovec.doctor.report import findings
    from plugins_stub import saved

    loaded = []
    monkeypatch.setenv("ECHOVEC_MODEL_DIR", saved(tmp_path))
    monkeypatch.setattr(Embedder, "load", lambda model, *_: loaded.append(model) or embedder())
    (line,) = [finding.found for finding in findings() if finding.topic == "self-test"]
    assert loaded == [None]
    assert line.startswith("on the default model")


def test_no_extra_of_developers_is_offered():
    """Extras that this project's own checks need are nobody else's lack."""
    import tomllib

    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))
    extras = project["project"]["optional-dependencies"]
    own = {name for name in extras if name.startswith("dev") or name in ("all", "bench", "docs")}
    assert own == set(room._FOR_DEVELOPERS)


def test_nothing_private_is_in_it(tmp_path, monkeypatch):
    """The home folder is `~`, settings are named without their values, JSON holds the same."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ECHOVEC_CACHE", str(tmp_path / "secret-cache"))
    monkeypatch.setenv("ECHOVEC_DATA", "/secret-place")
    result = CliRunner().invoke(app, ["doctor", "--quick", "--json"])
    found = json.loads(result.output)
    assert {"topic", "state", "found", "to_do"} == set(found[0])
    assert str(tmp_path) not in result.output
    assert "secret-place" not in result.output
    assert "ECHOVEC_DATA" in result.output
    assert without_home(Path.home() / "x") == "~/x"


def test_the_exit_code_says_whether_something_is_wrong(monkeypatch):
    """0 where nothing fails, 1 where something does; advice stands under its line."""
    from echovec.doctor import report

    for state, code in (("note", 0), ("FAIL", 1)):
        finding = Finding("thing", state, "found", "do this")
        monkeypatch.setattr(report, "findings", lambda *a, f=finding, **k: iter([f]))
        result = CliRunner().invoke(app, ["doctor"])
        assert result.exit_code == code
        assert "-> do this" in result.output


@pytest.mark.slow
def test_the_whole_report_is_well_here():
    """Everything, the self-test included, without a failure on the machine of these tests."""
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 0, result.output
