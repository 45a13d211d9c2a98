"""Clients as people have them, unmodified, against a server on a socket."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time

import httpx
import numpy as np
import pytest

from echovec.serve.service import Service
from echovec.serve.settings import Settings
from serve_stub import HOSTILE, Gated, service, serving, tiny

TEXTS = ["a text", "another", "a text"]


@pytest.fixture(scope="module")
def address():
    """A server of the tiny model."""
    with serving(service()) as where:
        yield where


def openai_client(address, **options):
    """OpenAI's own client, closed at the end of a `with`."""
    openai = pytest.importorskip("openai", reason="the openai package is not installed")
    return openai.OpenAI(base_url=f"http://{address}/v1", api_key="any", **options)


def rows_of(answer):
    """The vectors of an answer of OpenAI's client."""
    return np.array([row.embedding for row in answer.data], np.float32)


def test_openais_client_gets_the_librarys_vectors(address):
    """By default (base64), as floats, cut, by role; also of hostile texts."""
    embedder = tiny()
    with openai_client(address) as client:
        create = client.embeddings.create
        default = rows_of(create(model="echo", input=HOSTILE))
        floats = rows_of(create(model="echo", input=HOSTILE, encoding_format="float"))
        short = rows_of(create(model="echo:query", input=TEXTS, dimensions=5))
        other = rows_of(create(model="classical", input="x", extra_body={"input_type": "document"}))
        usage = create(model="echo", input="four").usage
    assert np.array_equal(default, floats)
    assert np.abs(default - embedder.encode(HOSTILE)).max() <= 1e-5
    assert np.abs(short - embedder.encode(TEXTS, truncate_dim=5)).max() <= 1e-5
    assert np.abs(other - tiny("classical").encode(["x"])).max() <= 1e-5
    assert (usage.prompt_tokens, usage.total_tokens) == (4, 4)


def test_openais_client_understands_our_errors(address):
    """Its own exceptions, with the field, the code and the words."""
    openai = pytest.importorskip("openai", reason="the openai package is not installed")
    with openai_client(address) as client:
        with pytest.raises(openai.BadRequestError, match="is empty") as bad:
            client.embeddings.create(model="echo", input=["x", ""])
        with pytest.raises(openai.NotFoundError) as unknown:
            client.embeddings.create(model="gpt", input="x")
        listed = [model.id for model in client.models.list()]
    assert (bad.value.param, bad.value.type) == ("input[1]", "invalid_request_error")
    assert unknown.value.code == "model_not_found"
    assert "echo:query" in listed
    with serving(service(keys=("right",))) as where, openai_client(where) as client:
        with pytest.raises(openai.AuthenticationError):
            client.embeddings.create(model="echo", input="x")
        with client.with_options(api_key="right") as allowed:
            allowed.embeddings.create(model="echo", input="x")


def test_openais_client_comes_back_after_a_429():
    """Where the queue is full its own retries succeed, after the time that the server says."""
    backbone = Gated()
    served = service(backbone=backbone, max_requests=1)
    backbone.gate.clear()
    with serving(served) as where, openai_client(where, max_retries=3) as client:

        def ask(text):
            return client.embeddings.create(model="echo", input=text)

        first = threading.Thread(target=ask, args=("first",))
        first.start()
        assert backbone.running.wait(25)
        threading.Timer(0.5, backbone.gate.set).start()
        begun = time.perf_counter()
        assert len(ask("second").data) == 1
        assert time.perf_counter() - begun >= 0.9  # Retry-After is a second at least
        first.join()
    assert b'route="/v1/embeddings",status="429"} 1.0' in served.metrics.text()


def test_langchain(address):
    """LangChain's OpenAIEmbeddings, told to send texts."""
    reason = "langchain-openai is not installed"
    langchain = pytest.importorskip("langchain_openai", reason=reason)
    with httpx.Client() as http:
        embeddings = langchain.OpenAIEmbeddings(
            model="echo",
            base_url=f"http://{address}/v1",
            api_key="any",
            check_embedding_ctx_length=False,
            http_client=http,
        )
        rows = np.array(embeddings.embed_documents(TEXTS), np.float32)
        query = np.array(embeddings.embed_query(TEXTS[0]), np.float32)
    assert np.abs(rows - tiny().encode(TEXTS)).max() <= 1e-5
    assert np.abs(query - rows[0]).max() <= 1e-6


def test_llamaindex(address):
    """LlamaIndex' OpenAI-like embedding."""
    reason = "llama-index-embeddings-openai-like is not installed"
    module = pytest.importorskip("llama_index.embeddings.openai_like", reason=reason)
    with httpx.Client() as http:
        embedding = module.OpenAILikeEmbedding(
            model_name="echo", api_base=f"http://{address}/v1", api_key="any", http_client=http
        )
        rows = np.array(embedding.get_text_embedding_batch(TEXTS), np.float32)
    assert np.abs(rows - tiny().encode(TEXTS)).max() <= 1e-5


def test_llms_own_openai_models(tmp_path):
    """`llm`'s command with its OpenAI embedding models, by address and key alone.

    Their names are fixed, so the server serves a recipe by such a name; `LLM_LOAD_PLUGINS` leaves
    out what else is installed.
    """
    pytest.importorskip("llm", reason="llm is not installed")
    name = "text-embedding-3-small"
    served = Service({name: tiny()}, Settings(keys=("right",)))

    def llm(*words, **rest):
        done = subprocess.run(
            [sys.executable, "-m", "llm", *words],
            capture_output=True,
            text=True,
            env=environment,
            timeout=120,
            **rest,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    with serving(served) as where:
        environment = {
            **os.environ,
            "OPENAI_BASE_URL": f"http://{where}/v1",
            "OPENAI_API_KEY": "right",
            "LLM_LOAD_PLUGINS": "",
            "LLM_USER_PATH": str(tmp_path),
        }
        row = json.loads(llm("embed", "-m", "3-small", "-c", TEXTS[0]))
        lines = "".join(f"{json.dumps({'id': n, 'text': t})}\n" for n, t in enumerate(TEXTS[:2]))
        store = ["-d", str(tmp_path / "store.db")]
        llm("embed-multi", "all", "-", "--format", "nl", "-m", name, "--store", *store, input=lines)
        hit = json.loads(llm("similar", "all", "-c", TEXTS[1], "-n", "1", *store))
    assert np.abs(np.array(row, np.float32) - tiny().encode(TEXTS[0])).max() <= 1e-5
    assert (hit["id"], hit["content"]) == ("1", TEXTS[1])
    assert hit["score"] > 1 - 1e-5


def test_the_requests_that_clients_are_known_to_send(address):
    """Bodies as they came over the wire, for where the clients themselves are not installed."""
    recorded = [
        # langchain-openai 1.7.3, check_embedding_ctx_length=False; llama-index-embeddings-openai
        # 0.6.0; openai 3.57.0, which `llm` 0.36 calls: all three send this
        b'{"model":"echo","input":["a text","another"],"encoding_format":"base64"}',
        b'{"model":"echo","input":["q"],"encoding_format":"base64"}',
        # openai with dimensions and a role of ours
        b'{"model":"echo","input":"q","dimensions":5,"input_type":"query"}',
    ]
    for body in recorded:
        headers = {"content-type": "application/json"}
        url = f"http://{address}/v1/embeddings"
        answer = httpx.post(url, content=body, headers=headers)
        assert answer.status_code == 200, answer.text
