"""llm: the plugin through `llm`'s own command line and Python."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

llm = pytest.importorskip("llm")
sqlite_utils = pytest.importorskip("sqlite_utils")

from echovec.errors import InputError  # noqa: E402
from echovec.plugins.llm import (  # noqa: E402
    RECIPES,
    EchovecModel,
    named_models,
    register_embedding_models,
)
from echovec.presets import preset  # noqa: E402
from plugins_stub import TEXTS, embedder, saved  # noqa: E402


def registered(monkeypatch, written=""):
    monkeypatch.setenv("ECHOVEC_LLM_MODELS", written)
    found = []
    register_embedding_models(found.append)
    return {model.model_id: model for model in found}


def test_every_recipe_is_a_model(monkeypatch):
    """The names that are written down are recipes that ship; nothing is loaded."""
    assert list(registered(monkeypatch)) == [f"echovec/{name}" for name in RECIPES]
    assert all(preset(name).name == name for name in RECIPES)


def test_the_entry_point_is_light():
    """What `llm` imports at each start loads no torch."""
    code = "import sys, echovec.plugins.llm; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_collection_is_embedded_and_searched(tmp_path, monkeypatch):
    """Llm's own `Collection`: vectors as ours, unchanged texts are not embedded twice."""
    model = registered(monkeypatch, f"mine={saved(tmp_path)}")["echovec/mine"]
    entries = [(str(place), text) for place, text in enumerate(TEXTS)]
    collection = llm.Collection("notes", sqlite_utils.Database(memory=True), model=model)
    collection.embed_multi(entries, store=True)
    expected = embedder().encode(TEXTS)
    np.testing.assert_allclose(list(model.embed_multi(TEXTS)), expected, atol=1e-5)
    assert collection.similar(TEXTS[1], number=1)[0].content == TEXTS[1]
    calls = []
    monkeypatch.setattr(model, "embed_batch", lambda items, **_: calls.extend(items) or iter(()))
    collection.embed_multi(entries, store=True)
    assert calls == []


def test_bytes_are_refused():
    """Only text can be embedded."""
    with pytest.raises(ValueError, match="binary"):
        EchovecModel("x", model="nowhere").embed(b"bytes")


def test_own_models_are_named_by_a_variable():
    """Names and models in order; a part that cannot be meant is an error."""
    assert named_models(" a=/x ; b=org/model;") == {"a": "/x", "b": "org/model"}
    for wrong in ("a", "=x", "a=", "echo=/x", "a=1;a=2"):
        with pytest.raises(InputError, match="ECHOVEC_LLM_MODELS"):
            named_models(wrong)


def test_the_command_line_finds_it(tmp_path):
    """`llm embed-multi -m echovec/... ` and `llm similar`, by the entry point of the package."""
    if not any(e.value == "echovec.plugins.llm" for e in _entry_points()):
        pytest.skip("the installed echovec has no entry point for llm; install this one")
    lines = "".join(json.dumps({"id": i, "text": t}) + "\n" for i, t in enumerate(TEXTS))
    (tmp_path / "notes.jsonl").write_text(lines)
    environment = os.environ | {
        "LLM_USER_PATH": str(tmp_path),
        "LLM_LOAD_PLUGINS": "echovec",
        "ECHOVEC_LLM_MODELS": f"mine={saved(tmp_path)}",
    }

    def command(*words):
        return subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "llm", *words],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
        ).stdout

    assert "echovec/best" in command("embed-models")
    command(
        "embed-multi", "notes", "notes.jsonl", "--format", "nl", "--store", "-m", "echovec/mine"
    )
    found = json.loads(command("similar", "notes", "-c", TEXTS[2], "-n", "1"))
    assert found["content"] == TEXTS[2]


def _entry_points():
    from importlib.metadata import entry_points

    return entry_points(group="llm")
