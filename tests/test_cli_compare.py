"""`echovec compare` and `echovec recipes`, with a small fake in place of a model."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
from typer.testing import CliRunner

import echovec
from echovec.cli import app
from echovec.errors import InputError, RecipeError
from echovec.presets import fitted_names, preset_names


class FakeEmbedder:
    """Two numbers per text: its length and a number for the recipe; notes how it was loaded."""

    loaded: ClassVar[list] = []

    def __init__(self, name):
        self.recipe = SimpleNamespace(name=name, fingerprint=f"print-{name}")

    @classmethod
    def load(cls, model=None, recipe="echo", **options):
        """Note the call."""
        cls.loaded.append((model, recipe, options))
        return cls(recipe)

    def with_recipe(self, name):
        """Another recipe."""
        return FakeEmbedder(name)

    def encode(self, texts, *, show_progress_bar=None):
        """Unit vectors [n, 2]."""
        vectors = np.array([[len(text), len(self.recipe.name)] for text in texts], np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def similarity(self, a, b):
        """Cosines of unit vectors."""
        return a @ b.T


@pytest.fixture
def verb(monkeypatch):
    """`echovec compare` with the fake embedder: arguments -> result."""
    monkeypatch.setitem(vars(echovec), "Embedder", FakeEmbedder)
    monkeypatch.setattr(FakeEmbedder, "loaded", [])
    return lambda *arguments: CliRunner().invoke(app, ["compare", *arguments])


def cosine(a, b, name):
    """What the fake must give, worked out apart from it."""
    x, y = (np.array([len(text), len(name)], float) for text in (a, b))
    return x @ y / np.sqrt((x @ x) * (y @ y))


def test_compare_prints_a_row_for_classical_echo_and_each_recipe_asked_for(verb):
    """Rows keep the order, a recipe named twice is one row, and one model is loaded."""
    result = verb("a cat", "two dogs", "--recipe", "prompt-eol", "--recipe", "echo")
    assert result.exit_code == 0, result.output
    rows = [line.split("│")[1:3] for line in result.stdout.splitlines() if line.count("│") == 3]
    names = ["classical", "echo", "prompt-eol"]
    wanted = [[name, f"{cosine('a cat', 'two dogs', name):.4f}"] for name in names]
    assert [[cell.strip() for cell in row] for row in rows] == wanted
    assert len(FakeEmbedder.loaded) == 1
    assert "\x1b" not in result.output


def test_compare_knows_a_wrong_recipe_before_it_loads_a_model(verb):
    """A typo in `--recipe` is named at once."""
    result = verb("a cat", "two dogs", "--recipe", "ecko")
    assert isinstance(result.exception, RecipeError)
    assert "ecko" in str(result.exception)
    assert FakeEmbedder.loaded == []


def test_log_lines_have_the_programs_prefix():
    """Those of the package alone; what a library logs is not ours."""
    code = """
import logging, sys
from echovec import cli
def app():
    logging.getLogger("echovec").warning("slower")
    logging.getLogger("echovec.model.cache").info("silent")
    logging.getLogger("echovector").warning("theirs")
cli.app = app
cli.main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == ["echovec: warning: slower", "theirs"]


def test_compare_gives_json_for_machines(verb):
    """Standard output is one JSON object with texts, cosines and fingerprints, and nothing else."""
    result = verb("Größe", "two", "--json")
    content = json.loads(result.stdout)
    assert (content["a"], content["b"]) == ("Größe", "two")
    assert [row["recipe"] for row in content["cosines"]] == ["classical", "echo"]
    assert [row["fingerprint"] for row in content["cosines"]] == ["print-classical", "print-echo"]
    for row in content["cosines"]:
        assert row["cosine"] == pytest.approx(cosine("Größe", "two", row["recipe"]), abs=1e-6)


def test_compare_hands_model_options_on(verb):
    """Model, precision, device and dtype reach the loader as they were given."""
    options = ("--model", "m", "--precision", "exact", "--device", "cpu", "--dtype", "float32")
    assert verb("a", "b", *options).exit_code == 0
    given = {"precision": "exact", "device": "cpu", "dtype": "float32"}
    assert FakeEmbedder.loaded == [("m", "classical", given)]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (("", "b"), "text A is empty"),
        (("a", ""), "text B is empty"),
        (("a", "\ud800"), "text B is not valid Unicode"),
    ],
)
def test_compare_names_the_bad_text_before_loading_a_model(verb, texts, message):
    """The message says which of the two texts is bad; exit code 2."""
    result = verb(*texts)
    assert isinstance(result.exception, InputError)
    assert result.exception.exit_code == 2
    assert message in str(result.exception)
    assert FakeEmbedder.loaded == []


def test_compare_needs_two_texts(verb):
    """One text, or three, is an error of use."""
    assert verb("one").exit_code == 2
    assert verb("one", "two", "three").exit_code == 2


def listed(monkeypatch, columns: int):
    """`echovec recipes` in a terminal of so many columns, whatever tests have run before."""
    from rich.console import Console

    monkeypatch.setattr(Console, "_environ", os.environ)
    terminal = {"COLUMNS": str(columns), "LINES": "50", "TERM": "xterm"}
    return CliRunner().invoke(app, ["recipes"], env=terminal)


def test_recipes_lists_every_preset_with_prompt_and_pooling(monkeypatch):
    """Each preset's name is there; recipes with roles show one prompt for each of them."""
    result = listed(monkeypatch, 160)
    assert result.exit_code == 0, result.output
    rows = [
        [cell.strip() for cell in line.split("│")[1:5]]
        for line in result.stdout.splitlines()
        if line.count("│") == 5
    ]
    assert [row[0] for row in rows if row[0]] == [*fitted_names(), *preset_names()]
    assert ["classical", "all", "Write a paragraph: {text}", "mean"] in rows
    start = [row[0] for row in rows].index("echo-instruct")
    assert [row[1] for row in rows[start : start + 3]] == ["symmetric", "query", "document"]
    assert rows[start + 2][2:] == ["Document:{text}\\nDocument again:{text}", "lasttoken"]


def test_recipes_fit_into_80_columns(monkeypatch):
    """Long prompts are folded, not cut."""
    result = listed(monkeypatch, 80)
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "…" not in result.stdout
