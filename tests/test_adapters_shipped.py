"""The trained embedders that ship: whole, small, and of the weights that they say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from echovec.model.adapter import CONFIG_FILE, adapted_hash, adapter_hash
from echovec.presets import preset
from echovec.recipe import Recipe
from echovec.saved import ADAPTER_FOLDER, saved_folder, shipped_names


@pytest.fixture(params=shipped_names())
def folder(request):
    return saved_folder(request.param)


def test_there_is_one():
    """Found by its name, and by no other."""
    assert shipped_names() == ("smollm2-135m-echo",)
    assert saved_folder("smollm2-135m-ech") is None


def test_a_path_is_a_folder_of_the_user_s(tmp_path, monkeypatch):
    """`Path(name)` is never what ships, and the name alone always is."""
    monkeypatch.chdir(tmp_path)
    for name in shipped_names():
        assert saved_folder(Path(name)) is None
        preset("echo").save(tmp_path / name)
        assert saved_folder(Path(name)) == Path(name)
        assert saved_folder(name) != Path(name)


def test_its_weights_are_the_default_models_with_its_adapter(folder):
    """The hash follows from the base's, which `best` names, and from the adapter's numbers."""
    base = preset("best").model
    bound = Recipe.load(folder)
    assert bound.model is not None
    assert bound.model.hash == adapted_hash(base.hash, adapter_hash(folder / ADAPTER_FOLDER))
    assert bound.model.tokenizer_hash == base.tokenizer_hash
    assert bound.dtype == "float32"
    assert (bound.max_tokens, bound.long_text) == (1024, "windows")


def test_it_is_small_and_names_no_place(folder):
    """At most 20 MB, and no path of the machine it was made on."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 20e6
    assert Recipe.load(folder).model.path is None
    told = json.loads((folder / ADAPTER_FOLDER / CONFIG_FILE).read_text("utf-8"))
    assert told["base_model_name_or_path"] == "SmolLM2-135M-Instruct"


def test_its_card_says_what_it_saw(folder):
    """Sets, rows, licences and the command."""
    card = (folder / "README.md").read_text("utf-8")
    for expected in ("SNLI", "SQuAD", "CC BY-SA 4.0", "echovec train", "STSBenchmark"):
        assert expected in card
