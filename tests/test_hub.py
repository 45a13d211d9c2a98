"""A model of the hub by name, from a hub cache on disk laid out as huggingface_hub lays it."""

from __future__ import annotations

import copy
import importlib
import json
import logging
import os
import pickle
import socket
import sys
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import huggingface_hub
import numpy as np
import pytest

from echovec import Embedder
from echovec.calibrate.draw import with_head
from echovec.errors import ModelError
from echovec.model import hub
from echovec.model.hub import look_for
from echovec.model.load import load_model
from families import causal_model, family_tokenizer
from forked import NEEDS_FORK, Forked

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


def hub_at(endpoint, home, **variables):
    """Tell the hub's client of a process what the environment tells it at its start."""
    for name in ("HF_HUB_OFFLINE", "ECHOVEC_OFFLINE", "HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        os.environ.pop(name, None)  # the first forbids more than ours can
    os.environ.update(HF_ENDPOINT=endpoint, HF_HOME=str(home), **variables)
    importlib.reload(huggingface_hub.constants)
    huggingface_hub.hf_api.api.endpoint = endpoint
    for name in ("huggingface_hub", "transformers"):  # what they say goes where it is looked for
        for handler in logging.getLogger(name).handlers:
            if isinstance(handler, logging.StreamHandler):
                handler.setStream(sys.stderr)


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


@NEEDS_FORK
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
    for unneeded in repository.glob("snapshots/*/generation_config.json"):
        unneeded.unlink()  # what loading without the head does not fetch

    def work():
        hub_at(f"http://127.0.0.1:{server.server_port}", tmp_path, ECHOVEC_OFFLINE="1")
        made = {r: Embedder.load("someone/tiny", revision=r) for r in ("main", "v2", OTHER)}
        made[None] = Embedder.load("someone/tiny")
        for name, embedder in made.items():
            embedder.save(tmp_path / str(name))
        (repository / "refs" / "main").write_text(OTHER)
        for name, embedder in made.items():
            again = Embedder.load(tmp_path / str(name))
            assert again.recipe == embedder.recipe
            assert np.array_equal(again.encode("a"), embedder.encode("a"))
            saved = json.loads((tmp_path / str(name) / "recipe.json").read_text())["model"]
            print(saved["path"], saved["revision"])
            arrived = pickle.loads(pickle.dumps(embedder))
            assert arrived.recipe == embedder.recipe
        kept = Embedder.load(tmp_path / "v2", revision=REVISION, recipe="echo")
        assert kept.recipe.fingerprint == made["main"].recipe.fingerprint
        words = with_head(made["main"]).get_input_embeddings().weight.detach().float()
        own = made["main"].hugging_face[0].embed_tokens.weight.detach()
        assert np.allclose(words, own, atol=0.1)

    with answering() as server, Forked(work) as process:
        said, complaint = process.stdout.read(), process.stderr.read()
        assert process.ended() == 0, complaint
    commits = [REVISION, OTHER, OTHER, REVISION]
    assert said.splitlines() == [f"someone/tiny {commit}" for commit in commits]
    assert not [path for path in server.asked if "someone" in path]


@NEEDS_FORK
def test_a_model_that_the_hub_does_not_give_is_one_error_at_once(tmp_path):
    """Unreachable, unknown, gated, without the revision: asked once, no rounds of retries."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}"

    def work():
        hub_at(nobody, tmp_path)
        for name in ("nope/none", "at/RepoNotFound", "at/GatedRepo", "at/RevisionNotFound"):
            if name != "nope/none":
                template = "/{repo_id}/resolve/{revision}/{filename}"
                huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE = there + template
            try:
                load_model(name, device="cpu", dtype="float32", revision="v9")
            except ModelError as error:
                print(error)

    with answering() as server:
        there = f"http://127.0.0.1:{server.server_port}"
        with Forked(work) as process:
            said, complaint = process.stdout.read().splitlines(), process.stderr.read()
            assert process.ended() == 0, complaint
    assert "retry" not in complaint.lower()
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
