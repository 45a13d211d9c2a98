"""The routes of text-embeddings-inference: their contracts, and the vectors of the library."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from serve_stub import HOSTILE, Gated, service, tiny
from test_serve_openai import client


async def test_embed_gives_the_librarys_vectors():
    """Texts and ids, of unit length or not, cut or whole, by the first name or by another."""
    embedder = tiny()
    ids = embedder.tokenizer.tokenize(HOSTILE)
    cases = [
        ({"inputs": HOSTILE}, embedder.encode(HOSTILE)),
        ({"inputs": ids}, embedder.encode(HOSTILE)),
        ({"inputs": "x"}, embedder.encode(["x"])),
        ({"inputs": "x", "normalize": False}, embedder.encode(["x"], normalize_embeddings=False)),
        ({"inputs": "x", "dimensions": 5}, embedder.encode(["x"], truncate_dim=5)),
        ({"inputs": "x", "model": "classical"}, tiny("classical").encode(["x"])),
    ]
    async with client() as http:
        for body, expected in cases:
            answer = await http.post("/embed", json=body)
            assert np.abs(np.array(answer.json(), np.float32) - expected).max() <= 1e-5, body


async def test_prompt_names_are_roles():
    """`prompt_name` says which side of a search the texts are on."""
    embedder = tiny("echo-instruct")
    async with client(service(recipes=("echo-instruct",))) as http:
        for role in ("query", "document"):
            answer = await http.post("/embed", json={"inputs": ["x y"], "prompt_name": role})
            expected = embedder.encode(["x y"], role=role)
            assert np.abs(np.array(answer.json()) - expected).max() <= 1e-5


async def test_similarity_is_the_cosine():
    """Each number is the cosine of the library's vectors, in the order sent."""
    texts = ["a cat", "a dog", "a cat sat"]
    inputs = {"source_sentence": "a cat", "sentences": texts}
    async with client() as http:
        answer = await http.post("/similarity", json={"inputs": inputs})
    embedder = tiny()
    expected = embedder.similarity(embedder.encode("a cat"), embedder.encode(texts))[0]
    assert np.abs(np.array(answer.json()) - expected).max() <= 1e-5
    assert answer.json()[0] == pytest.approx(1, abs=1e-6)


async def test_ids_of_tokenize_embed_like_the_text():
    """What /tokenize gives, /v1/embeddings takes: the vectors are those of the texts."""
    async with client() as http:
        tokens = (await http.post("/tokenize", json={"inputs": HOSTILE})).json()
        ids = [[token["id"] for token in row] for row in tokens]
        found = (await http.post("/v1/embeddings", json={"model": "echo", "input": ids})).json()
    rows = np.array([one["embedding"] for one in found["data"]], np.float32)
    assert np.abs(rows - tiny().encode(HOSTILE)).max() <= 1e-5
    assert set(tokens[0][0]) == {"id", "text", "special", "start", "stop"}


async def test_rerank_sorts_by_cosine():
    """Best first, each with its place in the list; query and texts in their own roles."""
    embedder = tiny("echo-instruct")
    texts = ["one", "two", "three", "two"]
    async with client(service(recipes=("echo-instruct",))) as http:
        body = {"query": "two", "texts": texts, "return_text": True}
        answer = (await http.post("/rerank", json=body)).json()
        bare = (await http.post("/rerank", json={"query": "two", "texts": texts})).json()
    query, rows = embedder.encode_query(["two"]), embedder.encode_document(texts)
    scores = embedder.similarity(query, rows)[0]
    assert [one["index"] for one in answer] == list(np.argsort(-scores, kind="stable"))
    for one in answer:
        assert one["score"] == pytest.approx(scores[one["index"]], abs=1e-5)
        assert one["text"] == texts[one["index"]]
    assert set(bare[0]) == {"index", "score"}


async def test_what_is_refused_is_not_computed():
    """A bad query takes its texts out of the queue: nobody waits for their vectors."""
    backbone = Gated()
    served = service(backbone=backbone, max_text_tokens=500)
    backbone.gate.clear()
    texts = [f"text {number}" for number in range(9)]
    async with client(served) as http:
        running = asyncio.create_task(http.post("/embed", json={"inputs": "first"}))
        assert await asyncio.to_thread(backbone.running.wait, 25)
        refused = await http.post("/rerank", json={"query": "x" * 501, "texts": texts})
        await asyncio.sleep(0.01)
        waiting = served.metrics.registry.get_sample_value("echovec_queue_texts")
        backbone.gate.set()
        await running
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "query[0]")
    assert waiting == 0
    assert sum(backbone.batches) == 1


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/embed", {"inputs": []}, "inputs"),
        ("/embed", {"inputs": [[1, 999]]}, "inputs[0][1]"),
        ("/embed", {"inputs": "x", "truncate": None}, "truncate"),
        ("/embed", {"inputs": "y" * 600, "truncate": False}, "inputs[0]"),
        ("/embed", {"inputs": "x", "truncation_direction": "left"}, "truncation_direction"),
        ("/similarity", {"inputs": {"source_sentence": "x"}}, "inputs.sentences"),
        (
            "/similarity",
            {"inputs": {"source_sentence": ["x"], "sentences": ["y"]}},
            "inputs.source_sentence",
        ),
        (
            "/similarity",
            {"inputs": {"source_sentence": "x", "sentences": ["y", ""]}},
            "inputs.sentences[1]",
        ),
        ("/tokenize", {"inputs": 3}, "inputs"),
        ("/tokenize", {"inputs": "x", "add_special_tokens": 0}, "add_special_tokens"),
        ("/rerank", {"query": "", "texts": ["x"]}, "query"),
        ("/rerank", {"query": "x", "texts": "y"}, "texts"),
        ("/rerank", {"query": "x", "texts": ["y"], "instruction": "find"}, "instruction"),
    ],
    ids=str,
)
async def test_bad_requests_name_the_field(path, body, param):
    """Each bad request gets 400 and the field it is about."""
    async with client() as http:
        answer = await http.post(path, json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
