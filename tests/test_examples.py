"""examples/: each runs, and shows what it says."""

from __future__ import annotations

import runpy
from pathlib import Path

from families import causal_model, family_tokenizer

FOLDER = Path(__file__).parents[1] / "examples"


def load(name):
    return runpy.run_path(str(FOLDER / f"{name}.py"))["main"]


def test_recipes_are_set_side_by_side(default_embedder):
    """Each recipe has a margin between cosines, and they are not the same."""
    margins = load("similarity")(default_embedder)
    assert all(-2 < margin < 2 for margin in margins.values())
    assert len(set(margins.values())) == 3


def test_notes_are_found(default_embedder):
    """The timetable answers the question about trains."""
    assert "platform 3" in load("search_notes")(
        default_embedder.with_recipe("best"), "when do trains leave"
    )


def test_an_own_recipe_keeps_its_fingerprint(default_embedder):
    """Two views with centres of their own are saved and read as the same recipe."""
    assert len(load("own_recipe")(default_embedder).arrays) == 2


def test_one_model_does_both(capsys):
    """Generating leaves the vectors as they were; on a made-up model."""
    text = load("one_model_two_jobs")(causal_model("llama"), family_tokenizer("llama"))
    assert isinstance(text, str)
    assert "same vector after generating: True" in capsys.readouterr().out


def test_every_example_is_tested():
    """No example without a test here, and each says how it is run."""
    here = Path(__file__).read_text("utf-8")
    for file in FOLDER.glob("*.py"):
        assert f'load("{file.stem}")' in here
        assert f"python examples/{file.name}" in file.read_text("utf-8")
