"""`echovec reproduce`: names, pages, and what happens where an experiment cannot run."""

from __future__ import annotations

import importlib

import pytest
from typer.testing import CliRunner

from echovec import Embedder
from echovec.cli import app
from echovec.errors import InputError
from echovec.evaluate.reproduce import EXPERIMENTS, experiment, experiments_named
from echovec.evaluate.reproduce.findings import Findings
from echovec.evaluate.reproduce.verdict import Claim, Difference
from echovec.model.tiny import TinyBackbone
from echovec.text.tokenizer import ByteTokenizer

pytest.importorskip("matplotlib")


@pytest.fixture
def tiny(monkeypatch):
    """The tiny backbone whatever model is asked for."""
    embedder = Embedder("echo", ByteTokenizer(), TinyBackbone())
    monkeypatch.setattr(Embedder, "load", lambda *args, **options: embedder)
    return embedder


def invoke(*args):
    return CliRunner().invoke(app, ["reproduce", *map(str, args)])


def stub(name):
    """An experiment that finds what its name is."""

    def run(embedder, data, options):
        claim = Claim(statement=f"{name} works", items=60, difference=Difference(2, 1, 3))
        return Findings(experiment=name, title=name, question="?", claims=(claim,))

    return run


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_has_its_function(name):
    """A name leads to a function with a docstring in the file of that name."""
    found = experiment(name)
    assert callable(found)
    assert found.__doc__
    assert found.__module__.endswith(name.replace("-", "_"))


def test_an_unknown_name_offers_the_nearest():
    """A typo is an error that names what was probably meant."""
    with pytest.raises(InputError, match="did you mean zero-shot"):
        experiment("zeroshot")
    with pytest.raises(InputError, match=r"'foo'; there are toy, zero-shot, .*layers, and all$"):
        experiment("foo")


def test_all_is_every_experiment():
    """`all` runs the whole list in its order."""
    assert list(experiments_named("all")) == list(EXPERIMENTS)
    assert list(experiments_named("toy")) == ["toy"]


def test_toy_writes_its_pages(tiny, tmp_path):
    """The command writes both pages and prints each verdict with its reason."""
    result = invoke("toy", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "toy.html").read_text("utf-8").startswith("<!doctype html>")
    text = (tmp_path / "toy.md").read_text("utf-8")
    assert text.startswith("## Toy triplets")
    assert "```bash\nechovec reproduce toy\n```" in text
    lines = [line for line in result.stdout.splitlines() if " points" in line]
    assert len(lines) == 6


def test_help_names_the_experiments():
    """--help lists every experiment."""
    plain = " ".join(invoke("--help").output.replace("│", " ").split())
    for name in EXPERIMENTS:
        assert name in plain


def test_all_goes_on_past_one_that_cannot_run(tiny, tmp_path, monkeypatch):
    """In `all`, bad input to one experiment leaves the pages of the others, and is the error."""
    module = importlib.import_module("echovec.evaluate.reproduce")

    def broken(embedder, data, options):
        raise InputError("the mask cannot be switched")

    chosen = {"one": stub("one"), "two": broken, "three": stub("three")}
    monkeypatch.setattr(module, "experiments_named", lambda name: chosen)
    result = invoke("all", "--out", tmp_path)
    assert isinstance(result.exception, InputError)
    assert {p.name for p in tmp_path.glob("*.html")} == {"one.html", "three.html"}
    assert "two left out: the mask cannot be switched" in result.stderr


def test_one_that_cannot_run_is_the_error(tiny, tmp_path, monkeypatch):
    """Asked for alone, bad input is an error and no page is written."""
    monkeypatch.delenv("ECHOVEC_DATA", raising=False)
    result = invoke("halves", "--out", tmp_path)
    assert isinstance(result.exception, InputError)
    assert "--data DIR" in str(result.exception)
    assert not list(tmp_path.glob("*.html"))
