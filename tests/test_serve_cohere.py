"""`POST /v2/embed`: Cohere's contract, and the vectors of the library."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from serve_stub import HOSTILE, service, tiny
from test_serve_openai import client


async def ask(http, **body):
    """The answer to a request for vectors."""
    body = {"model": "echo", "input_type": "classification", **body}
    return await http.post("/v2/embed", json=body)


async def test_vectors_are_the_librarys_in_every_form():
    """Numbers, base64 and packed signs are those of the library's vectors."""
    kinds = ["float", "base64", "binary", "ubinary"]
    async with client() as http:
        answer = await ask(http, texts=HOSTILE, embedding_types=kinds)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert list(found["embeddings"]) == kinds
    assert found["texts"] == HOSTILE
    expected = tiny().encode(HOSTILE)
    rows = np.array(found["embeddings"]["float"], np.float32)
    assert np.abs(rows - expected).max() <= 1e-5
    packed = [np.frombuffer(base64.b64decode(r), "<f4") for r in found["embeddings"]["base64"]]
    assert np.array_equal(rows, np.array(packed))
    for row, unsigned, signed in zip(
        rows, found["embeddings"]["ubinary"], found["embeddings"]["binary"], strict=True
    ):
        bits = "".join("1" if number > 0 else "0" for number in row)
        naive = [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]
        assert unsigned == naive
        assert signed == [number - 128 for number in naive]


@pytest.mark.parametrize(
    ("input_type", "role"),
    [("search_query", "query"), ("search_document", "document"), ("clustering", None)],
)
async def test_input_types_are_roles(input_type, role):
    """Searching has two sides; the other input types are for both alike."""
    async with client(service(recipes=("echo-instruct",))) as http:
        answer = await ask(http, model="echo-instruct", texts=["x y"], input_type=input_type)
    expected = tiny("echo-instruct").encode(["x y"], role=role)
    assert np.abs(np.array(answer.json()["embeddings"]["float"]) - expected).max() <= 1e-5


@pytest.mark.parametrize(
    ("change", "status", "param"),
    [
        ({"input_type": None}, 400, "input_type"),
        ({"input_type": "image"}, 400, "input_type"),
        ({"texts": "x"}, 400, "texts"),
        ({"texts": ["x", ""]}, 400, "texts[1]"),
        ({"texts": [1]}, 400, "texts[0]"),
        ({"model": "embed-v4"}, 404, "model"),
        ({"embedding_types": []}, 400, "embedding_types"),
        ({"embedding_types": ["int8"]}, 400, "embedding_types[0]"),
        ({"truncate": "START"}, 400, "truncate"),
        ({"texts": ["x", "y" * 600], "truncate": "NONE"}, 400, "texts[1]"),
        ({"instruction": "find it"}, 400, "instruction"),
        ({"output_dimension": 33}, 400, "output_dimension"),
        ({"images": []}, 400, "images"),
    ],
    ids=str,
)
async def test_bad_requests_name_the_field(change, status, param):
    """Each bad request gets its status and the field it is about."""
    async with client() as http:
        answer = await ask(http, **{"texts": ["x"], **change})
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)
