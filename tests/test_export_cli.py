"""`echovec export`: prints the comparison, keeps what is the same, refuses the rest."""

from __future__ import annotations

import sys

import pytest
from typer.testing import CliRunner

from echovec import Embedder
from echovec.cli import app
from echovec.errors import DependencyError, InputError
from plugins_stub import saved

pytest.importorskip("sentence_transformers", reason="the extra train")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:sentence_transformers")


def test_it_prints_the_parity_and_keeps_the_folder(tmp_path):
    """The table of four groups and the verdict stand on standard output."""
    folder = tmp_path / "st"
    given = [
        "export",
        str(folder),
        "--model",
        saved(tmp_path),
        "--recipe",
        "prompt-eol",
        "--max-tokens",
        "16",
    ]
    result = CliRunner().invoke(app, given, catch_exceptions=False)
    assert result.exit_code == 0
    assert result.output.count("1.0000000") == 4
    assert "same vectors" in result.output
    assert (folder / "modules.json").is_file()
    assert "max difference" in (folder / "README.md").read_text("utf-8")


def test_an_unknown_target_is_refused(tmp_path):
    """`--to` anything else names what there is, before a model is loaded."""
    given = ["export", str(tmp_path / "x"), "--to", "tensorflow"]
    with pytest.raises(InputError, match="sentence-transformers"):
        CliRunner().invoke(app, given, catch_exceptions=False)


@pytest.mark.parametrize("said", [["--route", "plane"], []])
def test_what_cannot_be_is_said_before_a_model_is_loaded(tmp_path, monkeypatch, said):
    """A route that there is not, and a folder that is there, cost no wait."""
    monkeypatch.setattr(Embedder, "load", lambda *_, **__: pytest.fail("loaded"))
    folder = tmp_path / "x" if said else tmp_path
    done = CliRunner().invoke(app, ["export", str(folder), *said])
    assert isinstance(done.exception, InputError)
    assert ("plane" if said else "is there already") in str(done.exception)


@pytest.mark.parametrize("to", ["sentence-transformers", "onnx", "openvino"])
def test_a_missing_extra_is_named_before_a_model_is_loaded(tmp_path, monkeypatch, to):
    """What every format needs is asked for first, with the command that installs it."""
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    said = CliRunner().invoke(app, ["export", str(tmp_path / "x"), "--to", to, "--model", "none"])
    assert isinstance(said.exception, DependencyError)
    assert "echovec[export]" in str(said.exception)
