"""`echovec serve`: what is loaded under which name, keys, and options by environment."""

from __future__ import annotations

import socket

import pytest
from typer.testing import CliRunner

from echovec.cli import app
from echovec.embedder import Embedder
from echovec.errors import InputError, ModelError, StorageError
from echovec.serve import load, run
from echovec.serve.load import embedders, read_keys
from echovec.serve.settings import Settings
from plugins_stub import saved
from serve_stub import tiny


@pytest.fixture
def started(monkeypatch):
    """What `run` would be called with."""
    calls = []
    monkeypatch.setattr(run, "run", lambda service, **rest: calls.append((service, rest)))
    monkeypatch.setattr(run, "listen", lambda host, port: socket.socket())
    return calls


def invoke(*words, **environment):
    """The command line, in this process."""
    return CliRunner().invoke(app, ["serve", *words], env=environment, catch_exceptions=True)


def test_a_models_own_recipe_comes_first(tmp_path):
    """Without recipes named: the saved embedder's own, then the companions that fit the model."""
    found = embedders(saved(tmp_path, "echo-eol"))
    assert list(found) == ["echo-eol", "echo", "classical"]
    assert len({id(one.backbone) for one in found.values()}) == 1


def test_recipes_and_models_go_by_name(tmp_path):
    """Named recipes are served as named, other models beside; what does not fit is an error."""
    folder = saved(tmp_path)
    found = embedders(folder, ["classical", "echo"], [f"mine={folder}", f"two={folder}@echo-eol"])
    assert list(found) == ["classical", "echo", "mine", "two"]
    assert found["two"].definition.name == "echo-eol"
    same = embedders(folder, ["echo"], ["text-embedding-3-small=@classical"])
    assert list(same) == ["echo", "text-embedding-3-small"]
    assert same["text-embedding-3-small"].definition.name == "classical"
    assert len({id(one.backbone) for one in same.values()}) == 1
    with pytest.raises(InputError, match="NAME=@RECIPE"):
        embedders(folder, ["echo"], ["mine=@"])
    with pytest.raises(InputError, match="fitted"):
        embedders(folder, ["echo", "best"])
    with pytest.raises(InputError, match="twice"):
        embedders(folder, ["echo"], [f"echo={folder}"])
    with pytest.raises(InputError, match="NAME=MODEL"):
        embedders(folder, ["echo"], [folder])
    with pytest.raises(ModelError):
        embedders(str(tmp_path / "nothing"))


def test_a_recipes_file_is_served_by_its_folders_name():
    """The name of a recipe by path is what people call it."""
    assert load._name("some/where/mine/recipe.json") == "mine"
    assert load._name("some/where/mine") == "mine"
    assert load._name("mine.json") == "mine"
    assert load._name("echo") == "echo"


def test_keys_come_from_a_file(tmp_path):
    """One a line, comments and blank lines aside; none, or no file, is an error."""
    path = tmp_path / "keys"
    path.write_text("# ours\n  # indented\n\n one \ntwo\n")
    assert read_keys(path) == ("one", "two")
    path.write_text("# none\n")
    with pytest.raises(InputError, match="no key"):
        read_keys(path)
    with pytest.raises(StorageError):
        read_keys(tmp_path / "nothing")


def test_options_come_from_the_environment_too(tmp_path, started):
    """Every option may be an ECHOVEC_ variable; the command line wins."""
    keys = tmp_path / "keys"
    keys.write_text("one\n")
    result = invoke(
        "--port",
        "81",
        ECHOVEC_MODEL=saved(tmp_path),
        ECHOVEC_PORT="80",
        ECHOVEC_HOST="::1",
        ECHOVEC_API_KEY_FILE=str(keys),
        ECHOVEC_MAX_REQUESTS="9",
        ECHOVEC_BATCH_TOKENS="77",
    )
    assert result.exit_code == 0, result.output
    (service, rest), *_ = started
    assert (rest["host"], rest["port"]) == ("::1", 81)
    settings = service.settings
    assert (settings.keys, settings.max_requests, settings.batch_tokens) == (("one",), 9, 77)
    service.close()


def test_every_option_has_its_effect(tmp_path, started, monkeypatch):
    """None is taken and then forgotten: limits, the cache, the index, and how models are loaded."""
    asked = []

    def loaded(*given, **options):
        asked.append((given, options))
        return {"echo": tiny()}

    monkeypatch.setattr(load, "embedders", loaded)
    monkeypatch.setattr(load, "opened", lambda folder: f"opened {folder.name}")
    words = ["--model", "m", "--recipe", "echo", "--recipe", "classical", "--also", "n=@echo"]
    words += ["--device", "cpu", "--precision", "fast", "--max-tokens", "40", "--access-log"]
    words += ["--max-waiting-tokens", "50", "--max-body-bytes", "60", "--drain-seconds", "7.5"]
    result = invoke(*words, "--vector-cache", str(tmp_path / "v"), "--index", str(tmp_path / "i"))
    assert result.exit_code == 0, result.output
    how = {"device": "cpu", "precision": "fast", "max_tokens": 40}
    assert asked == [(("m", ["echo", "classical"], ["n=@echo"]), how)]
    (service, rest), *_ = started
    limits = service.settings
    assert (limits.max_waiting_tokens, limits.max_body_bytes, limits.drain_seconds) == (50, 60, 7.5)
    assert limits.cache == tmp_path / "v"
    assert (rest["access_log"], rest["index"]) == (True, "opened i")
    config = run.server_of(service, access_log=True).config
    assert (config.timeout_graceful_shutdown, config.access_log) == (8, True)
    service.close()


def test_how_models_are_loaded_holds_for_all_of_them(tmp_path, monkeypatch):
    """Companions, further recipes and further models are loaded as the first one is."""
    folder, asked, real = saved(tmp_path), [], Embedder.load

    def noted(*given, device, precision, **options):
        asked.append((device, precision))
        return real(*given, device=device, precision=precision, **options)

    monkeypatch.setattr(Embedder, "load", noted)
    how = {"device": "cpu", "precision": "exact", "max_tokens": 40}
    also = [f"mine={folder}", "again=@classical"]
    for recipes in (None, ["echo", "classical"]):
        found = embedders(folder, recipes, also, **how)
        assert len(found) == 4
        assert {one.definition.max_tokens for one in found.values()} == {40}
    assert asked == [("cpu", "exact")] * 4


def test_a_taken_port_is_said_before_a_model_is_loaded(monkeypatch):
    """Loading takes half a minute; that nothing can listen there is known at once."""
    monkeypatch.setattr(load, "embedders", lambda *_, **__: pytest.fail("loaded"))
    with socket.create_server(("127.0.0.1", 0)) as door:
        result = invoke("--port", str(door.getsockname()[1]))
    assert isinstance(result.exception, InputError)
    assert "in use" in str(result.exception)


def test_every_option_has_its_variable():
    """No option of `echovec serve` is without its ECHOVEC_ variable."""
    import typer

    command = typer.main.get_command(app).commands["serve"]
    options = [one for one in command.params if one.name != "help"]
    assert len(options) > 15
    for option in options:
        names = [option.envvar] if isinstance(option.envvar, str) else option.envvar
        assert names == [f"ECHOVEC_{option.name.upper()}"], option.name


@pytest.mark.parametrize(
    "limits",
    [
        {"max_inputs": 0},
        {"body_seconds": -1},
        {"drain_seconds": float("inf")},
        {"header_seconds": float("nan")},
        {"keys": ("",)},
        {"keys": ("é",)},
    ],
    ids=str,
)
def test_bad_settings_are_refused(limits):
    """Limits below their least and unusable keys are errors at the start."""
    with pytest.raises(InputError):
        Settings(**limits)
