"""A model of the hub by name, from a hub cache on disk laid out as huggingface_hub lays it."""

from __future__ import annotations

import copy
import os
import socket
import subprocess
import sys
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import huggingface_hub
import pytest

from echovec import Embedder
from echovec.errors import ModelError
from echovec.model import hub
from echovec.model.hub import look_for
from families import causal_model, family_tokenizer

REVISION = "0123456789abcdef0123456789abcdef01234567"
OTHER = REVISION[::-1]


class Answering(BaseHTTPRequestHandler):
    """A hub that says of each model what its name says, and notes what it was asked."""

    def do_HEAD(self):
        """As the hub answers for a file's head."""
        self.server.asked.append(self.path)
        code = self.path.split("/")[2]
        self.send_response(401 if code == "RepoNotFound" else 403 if code == "GatedRepo" else 404)
        self.send_header("X-Error-Code", code)
        self.end_headers()

    do_GET = do_HEAD

    def log_message(self, format, *args):
        """Nothing."""


@contextmanager
def answering():
    """A hub on this machine."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        server.asked = []
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def ran(code, environment, *arguments):
    """What Python does with the code in a process of its own, which has to end well."""
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result


def test_a_hub_name_loads_from_the_hub_s_cache_without_network(tmp_path, monkeypatch):
    """`Embedder.load("someone/tiny")` finds the cached snapshot offline, and names it so."""
    repository = tmp_path / "hub" / "models--someone--tiny"
    snapshot = repository / "snapshots" / REVISION
    causal_model("llama").save_pretrained(snapshot)
    family_tokenizer("llama").save_pretrained(snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(REVISION)
    monkeypatch.setenv("ECHOVEC_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    embedder = Embedder.load("someone/tiny")
    assert (embedder.model_path, embedder.recipe.model.name) == ("someone/tiny",) * 2
    assert embedder.encode("a").shape == (32,)


def test_a_saved_embedder_loads_the_revision_that_it_is_of(tmp_path):
    """A tag's commit is written down, and the default branch's: they load again when it moved.

    So does a pickled one, and the head that writes texts, of the same revision; the hub is never
    asked for it.
    """
    repository = tmp_path / "hub" / "models--someone--tiny"
    (repository / "refs").mkdir(parents=True)
    model = copy.deepcopy(causal_model("llama"))  # the others of this process want theirs as it is
    for name, commit in {"main": REVISION, "v2": OTHER}.items():
        snapshot = repository / "snapshots" / commit
        model.save_pretrained(snapshot)
        model.model.embed_tokens.weight.data += 1  # what follows are other weights
        family_tokenizer("llama").save_pretrained(snapshot)
        (repository / "refs" / name).write_text(commit)
    code = f"""
import json
import pickle
from pathlib import Path
import numpy as np
from echovec import Embedder
from echovec.calibrate.draw import with_head

home = Path({str(tmp_path)!r})
made = {{r: Embedder.load("someone/tiny", revision=r) for r in ("main", "v2", {OTHER!r})}}
made[None] = Embedder.load("someone/tiny")
for name, embedder in made.items():
    embedder.save(home / str(name))
(home / "hub/models--someone--tiny/refs/main").write_text({OTHER!r})
for name, embedder in made.items():
    again = Embedder.load(home / str(name))
    assert again.recipe == embedder.recipe
    assert np.array_equal(again.encode("a"), embedder.encode("a"))
    saved = json.loads((home / str(name) / "recipe.json").read_text())["model"]
    print(saved["path"], saved["revision"])
    arrived = pickle.loads(pickle.dumps(embedder))
    assert arrived.recipe == embedder.recipe
kept = Embedder.load(home / "v2", revision={REVISION!r}, recipe="echo")
assert kept.recipe.fingerprint == made["main"].recipe.fingerprint
words = with_head(made["main"]).get_input_embeddings().weight.detach().float()
assert np.allclose(words, made["main"].hugging_face[0].embed_tokens.weight.detach(), atol=0.1)
"""
    for unneeded in repository.glob("snapshots/*/generation_config.json"):
        unneeded.unlink()  # what loading without the head does not fetch
    environment = os.environ | {"HF_HOME": str(tmp_path), "ECHOVEC_OFFLINE": "1"}
    del environment["HF_HUB_OFFLINE"]  # which forbids more than ours can
    with answering() as server:
        environment["HF_ENDPOINT"] = f"http://127.0.0.1:{server.server_port}"
        result = ran(code, environment)
    commits = [REVISION, OTHER, OTHER, REVISION]
    assert result.stdout.splitlines() == [f"someone/tiny {commit}" for commit in commits]
    assert not [path for path in server.asked if "someone" in path]


def test_a_model_that_the_hub_does_not_give_is_one_error_at_once(tmp_path):
    """Unreachable, unknown, gated, without the revision: asked once, no rounds of retries."""
    code = """
import sys
from huggingface_hub import constants
from echovec.errors import ModelError
from echovec.model.load import load_model

for name in ("nope/none", "at/RepoNotFound", "at/GatedRepo", "at/RevisionNotFound"):
    if name != "nope/none":
        template = sys.argv[1] + "/{repo_id}/resolve/{revision}/{filename}"
        constants.HUGGINGFACE_CO_URL_TEMPLATE = template
    try:
        load_model(name, device="cpu", dtype="float32", revision="v9")
    except ModelError as error:
        print(error)
"""
    unset = ("HF_HUB_OFFLINE", "ECHOVEC_OFFLINE", "HTTP_PROXY", "http_proxy", "ALL_PROXY")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}"
    with answering() as server:
        environment |= {"HF_HOME": str(tmp_path), "HF_ENDPOINT": nobody}
        result = ran(code, environment, f"http://127.0.0.1:{server.server_port}")
    assert "retry" not in result.stderr.lower()
    said = result.stdout.splitlines()
    for line, expected in zip(
        said,
        (
            "cannot fetch the model 'nope/none': the hub cannot be reached (",
            "there is no model 'at/RepoNotFound' at the hub that you may read; check the name",
            "the model 'at/GatedRepo' is gated: accept its terms",
            "the model 'at/RevisionNotFound' has no revision 'v9'",
        ),
        strict=True,
    ):
        assert line.startswith(expected)
    assert len([path for path in server.asked if "/resolve/" in path]) == 3


@pytest.mark.parametrize(
    ("name", "reached"), [("ConnectTimeout", False), ("ReadTimeout", True), ("ReadError", True)]
)
def test_a_slow_hub_is_waited_for(monkeypatch, name, reached):
    """No connection within the hub's own time is an error; an answer that is late is not yet."""
    late = type(name, (Exception,), {})

    def asked(url):
        raise late

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", asked)
    monkeypatch.setattr(hub, "is_offline", lambda: False)
    if reached:
        look_for("nope/none")
    else:
        with pytest.raises(ModelError, match=rf"cannot be reached \({name}\)"):
            look_for("nope/none")
