"""`POST /v1/embeddings`: OpenAI's contract, and the vectors of the library."""

from __future__ import annotations

import base64
import json
import re
import time

import httpx
import numpy as np
import pytest

from echovec.serve.app import create_app
from echovec.serve.service import Service
from serve_stub import HOSTILE, service, tiny


def client(served=None, **options):
    """A client of the application itself, without a socket."""
    transport = httpx.ASGITransport(create_app(served or service()))
    return httpx.AsyncClient(transport=transport, base_url="http://server", **options)


async def ask(http, **body):
    """The answer to a request for vectors; the model is echo where none is named."""
    return await http.post("/v1/embeddings", json={"model": "echo", **body})


def vectors_of(answer):
    """The vectors of an answer, in order."""
    assert answer.status_code == 200, answer.text
    data = answer.json()["data"]
    assert [one["index"] for one in data] == list(range(len(data)))
    rows = [one["embedding"] for one in data]
    if isinstance(rows[0], str):
        rows = [np.frombuffer(base64.b64decode(row), "<f4") for row in rows]
    return np.array(rows, np.float32)


async def test_the_answer_has_every_field_and_no_other():
    """The answer's fields, kinds and usage are those of OpenAI's interface."""
    async with client() as http:
        answer = await ask(http, input="hello", user="someone")
    found = answer.json()
    assert set(found) == {"object", "data", "model", "usage"}
    assert (found["object"], found["model"]) == ("list", "echo")
    assert set(found["data"][0]) == {"object", "index", "embedding"}
    assert found["usage"] == {"prompt_tokens": 5, "total_tokens": 5}
    assert answer.headers["x-truncated"] == "0"
    assert int(answer.headers["x-compute-tokens"]) > 10  # two copies and the prompt


async def test_vectors_are_the_librarys_however_they_are_asked_for():
    """Alone, in lists, as ids, as numbers or base64: hostile texts have the library's vectors."""
    embedder = tiny()
    expected = embedder.encode(HOSTILE)
    ids = embedder.tokenizer.tokenize(HOSTILE)
    async with client() as http:
        together = vectors_of(await ask(http, input=HOSTILE))
        packed = vectors_of(await ask(http, input=HOSTILE, encoding_format="base64"))
        alone = [vectors_of(await ask(http, input=text))[0] for text in HOSTILE]
        as_ids = vectors_of(await ask(http, input=ids))
        one_row = [vectors_of(await ask(http, input=row))[0] for row in ids]
    assert np.array_equal(together, packed)
    for found in (together, np.array(alone), as_ids, np.array(one_row)):
        assert np.abs(found - expected).max() <= 1e-5
    assert np.abs(np.roll(together, 1, 0) - expected).max() > 0.01  # the check can fail


async def test_repeated_texts_come_back_in_their_places():
    """A text that is there three times has three equal vectors, and its tokens count thrice."""
    async with client() as http:
        answer = await ask(http, input=["a", "bb", "a", "a"])
    found = vectors_of(answer)
    assert np.array_equal(found[0], found[2])
    assert np.array_equal(found[0], found[3])
    assert answer.json()["usage"]["prompt_tokens"] == 5


@pytest.mark.parametrize(
    ("options", "role"),
    [
        ({"input_type": "query"}, "query"),
        ({"model": "retriever:query"}, "query"),
        ({"model": "retriever:document"}, "document"),
        ({"model": "retriever:query", "input_type": "document"}, "document"),
        ({}, None),
    ],
    ids=str,
)
async def test_roles_come_by_field_or_by_name(options, role):
    """A role in the body and one behind the model's name mean the same; the body's wins."""
    embedder = tiny("echo-instruct")
    served = service(recipes=("echo-instruct",))
    served.served["retriever"] = served.first
    body = {"model": "retriever", "input": ["x y"], **options}
    async with client(served) as http:
        found = vectors_of(await ask(http, **body))
    expected = embedder.encode(["x y"], role=role)
    assert np.abs(found - expected).max() <= 1e-5


async def test_an_instruction_fills_the_slot():
    """An instruction in the body is that of the library; another gives another vector."""
    embedder = tiny("echo-instruct")
    body = {"model": "echo-instruct:query", "input": ["x y"]}
    async with client(service(recipes=("echo-instruct",))) as http:
        found = vectors_of(await ask(http, **body, instruction="find it"))
        other = vectors_of(await ask(http, **body, instruction="sort it"))
    expected = embedder.encode(["x y"], role="query", instruction="find it")
    assert np.abs(found - expected).max() <= 1e-5
    assert np.abs(found - other).max() > 1e-3


async def test_dimensions_are_those_of_the_library():
    """Cut vectors have unit length again."""
    async with client() as http:
        found = vectors_of(await ask(http, input=["x", "y"], dimensions=7))
    assert np.abs(found - tiny().encode(["x", "y"], truncate_dim=7)).max() <= 1e-6


async def test_cut_texts_are_said_to_be_cut():
    """A text beyond the budget is cut, counted and said; or refused where that is asked for."""
    long = "x" * 600
    served = service()
    async with client(served) as http:
        answer = await ask(http, input=["short", long])
        refused = await ask(http, input=["short", long], truncate=False)
        whole = await ask(http, input=["short"], truncate=False)
    assert answer.headers["x-truncated"] == "1"
    assert np.abs(vectors_of(answer)[1] - vectors_of(whole)[0]).max() > 0.01
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "input[1]")
    assert refused.json()["error"]["code"] == "context_length_exceeded"
    assert b"echovec_truncated_texts_total 1.0" in served.metrics.text()


async def test_what_does_not_fit_is_said_as_it_is():
    """Where cutting is refused: the room that a small model has, or an instruction too long."""
    small = Service({"echo": tiny(max_positions=300)})
    async with client(small) as http:
        text = await ask(http, input=["x", "y" * 200], truncate=False)
    async with client(service(recipes=("echo-instruct",))) as http:
        body = {"model": "echo-instruct", "input": "x", "truncate": False}
        instruction = await ask(http, **body, instruction="a" * 600)
    room = tiny(max_positions=300).planner().renderers[0].text_budget(0)
    assert room < 200
    error = text.json()["error"]
    assert (text.status_code, error["param"]) == (400, "input[1]")
    assert f"has 200 tokens, and echo has room for {room}" in error["message"]
    assert (instruction.status_code, instruction.json()["error"]["param"]) == (400, "instruction")
    assert "more than the 512 tokens" in instruction.json()["error"]["message"]


async def test_the_room_is_that_of_whole_texts():
    """A recipe that reads half of each text has room for twice as many tokens, and takes them."""
    halved = tiny("echo-halved").with_recipe("echo-halved", max_tokens=64)
    async with client(Service({"halved": halved})) as http:
        body = {"model": "halved", "truncate": False}
        refused = await ask(http, **body, input="y" * 200)
        room = int(re.search(r"has room for (\d+)", refused.json()["error"]["message"])[1])
        tokens = len(halved.planner().renderers[0].template.lead)  # bytes are tokens
        fits = await ask(http, **body, input="y" * (room - tokens))
        over = await ask(http, **body, input="y" * (room - tokens + 1))
    assert room == 128
    assert (fits.status_code, over.status_code) == (200, 400)


BAD = {
    "no model": ({"model": None, "input": "x"}, 400, "model"),
    "unknown model": ({"model": "gpt", "input": "x"}, 404, "model"),
    "unknown role": ({"model": "echo:both", "input": "x"}, 404, "model"),
    "no input": ({}, 400, "input"),
    "empty text": ({"input": ""}, 400, "input"),
    "empty list": ({"input": []}, 400, "input"),
    "an empty text": ({"input": ["a", ""]}, 400, "input[1]"),
    "number": ({"input": 7}, 400, "input"),
    "null": ({"input": ["a", None]}, 400, "input[1]"),
    "object": ({"input": {"a": 1}}, 400, "input"),
    "mixed": ({"input": ["a", 1]}, 400, "input[1]"),
    "mixed ids": ({"input": [1, "a"]}, 400, "input[1]"),
    "ids and a row": ({"input": [[1], 2]}, 400, "input[1]"),
    "empty ids": ({"input": [[1], []]}, 400, "input[1]"),
    "id too large": ({"input": [1, 258]}, 400, "input[1]"),
    "id huge": ({"input": [[1], [2**80]]}, 400, "input[1][0]"),
    "negative id": ({"input": [-1]}, 400, "input[0]"),
    "bool": ({"input": [True]}, 400, "input[0]"),
    "float id": ({"input": [1, 2.5]}, 400, "input[1]"),
    "special id": ({"input": [1, 257]}, 400, "input[1]"),
    "encoding": ({"input": "x", "encoding_format": "hex"}, 400, "encoding_format"),
    "zero dimensions": ({"input": "x", "dimensions": 0}, 400, "dimensions"),
    "many dimensions": ({"input": "x", "dimensions": 33}, 400, "dimensions"),
    "text dimensions": ({"input": "x", "dimensions": "3"}, 400, "dimensions"),
    "unknown field": ({"input": "x", "tempo": 1}, 400, "tempo"),
    "instruction": ({"input": "x", "instruction": "find"}, 400, "instruction"),
}


@pytest.mark.parametrize("name", BAD)
async def test_bad_requests_name_the_field(name):
    """Each bad request gets its status and OpenAI's error, with the field it is about."""
    body, status, param = BAD[name]
    async with client() as http:
        answer = await ask(http, **body)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["param"] == param
    assert error["message"]


NO_JSON = {
    "nothing": (b"", 400),
    "half": (b'{"model": "echo", "inp', 400),
    "NaN": (b'{"model": "echo", "input": "x", "dimensions": NaN}', 400),
    "infinity": (b'{"model": "echo", "input": [Infinity]}', 400),
    "large float": (b'{"model": "echo", "input": [1e999]}', 400),
    "many digits": (b'{"model": "echo", "input": [' + b"1" * 5000 + b"]}", 400),
    "twice": (b'{"model": "echo", "input": "x", "input": "y"}', 400),
    "deep": (b'{"model": "echo", "input": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400),
    "latin": (b'{"model": "echo", "input": "\xe9"}', 400),
    "surrogate": (rb'{"model": "echo", "input": ["a", "b \ud800"]}', 400),
    "list": (b"[]", 400),
    "word": (b'"echo"', 400),
}


@pytest.mark.parametrize("name", NO_JSON)
async def test_what_is_no_json_is_refused(name):
    """Bodies that are not the JSON of the standard get a 400 in the same form."""
    body, status = NO_JSON[name]
    async with client() as http:
        headers = {"content-type": "application/json"}
        answer = await http.post("/v1/embeddings", content=body, headers=headers)
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


async def test_a_name_that_is_there_twice_is_found_soon():
    """The search for it takes time in proportion to the names, not to their square."""
    names = [f"n{i}" for i in range(60_000)]
    body = json.dumps(dict.fromkeys(names, 0))[:-1].encode() + b', "n59999": 0}'
    begun = time.perf_counter()
    async with client() as http:
        headers = {"content-type": "application/json"}
        answer = await http.post("/v1/embeddings", content=body, headers=headers)
    assert "the name 'n59999' is there twice" in answer.json()["error"]["message"]
    assert time.perf_counter() - begun < 10


async def test_a_whole_number_may_have_a_point():
    """JSON has one kind of number: 2.0 is 2, as an id and as dimensions."""
    async with client() as http:
        found = vectors_of(await ask(http, input=[65.0, 66], dimensions=4.0))
        same = vectors_of(await ask(http, input="AB", dimensions=4))
    assert np.array_equal(found, same)


async def test_other_types_and_methods_are_refused():
    """A body that is not said to be JSON gets 415, another method 405, another path 404."""
    async with client() as http:
        body = json.dumps({"model": "echo", "input": "x"}).encode()
        plain = await http.post("/v1/embeddings", content=body)
        form = await http.post("/v1/embeddings", data={"model": "echo"})
        method = await http.get("/v1/embeddings")
        path = await http.post("/v1/embedding", json={})
    assert [one.status_code for one in (plain, form, method, path)] == [415, 415, 405, 404]
    assert method.headers["allow"] == "POST"
    for one in (plain, form, method, path):
        assert set(one.json()["error"]) == {"message", "type", "param", "code"}


async def test_limits_hold_at_their_edges():
    """Inputs, tokens of a text and tokens of a request: the limit is taken, one more is not."""
    served = service(max_inputs=4, max_text_tokens=600, max_request_tokens=1000)
    async with client(served) as http:

        async def status(texts):
            answer = await ask(http, input=texts)
            return answer.status_code, (answer.json().get("error") or {}).get("param")

        assert await status(["x"] * 4) == (200, None)
        assert await status(["x"] * 5) == (400, "input")
        assert await status([[1]] * 5) == (400, "input")
        assert await status(["a", "x" * 600]) == (200, None)
        assert await status(["a", "x" * 601]) == (400, "input[1]")
        assert await status([[1] * 601]) == (400, "input[0]")
        assert await status(["x" * 500, "y" * 500]) == (200, None)
        assert await status(["x" * 500, "y" * 501]) == (400, "input")


async def test_models_are_listed_and_found():
    """/v1/models has each name with its roles, and one can be asked for; others are 404."""
    async with client() as http:
        listed = (await http.get("/v1/models")).json()
        one = await http.get("/v1/models/echo:query")
        none = await http.get("/v1/models/gpt")
    names = {f"{n}{r}" for n in ("echo", "classical") for r in ("", ":query", ":document")}
    assert {model["id"] for model in listed["data"]} == names
    assert one.json() == {
        "id": "echo:query",
        "object": "model",
        "created": 0,
        "owned_by": "echovec",
    }
    assert none.json()["error"]["code"] == "model_not_found"


async def test_a_name_may_hold_a_slash():
    """A model named like one of the hub is listed, found, and gives vectors."""
    served = Service({"org/name": tiny()})
    async with client(served) as http:
        listed = (await http.get("/v1/models")).json()["data"]
        found = [(await http.get(f"/v1/models/{one['id']}")).json() for one in listed]
        quoted = await http.get("/v1/models/org%2Fname")
        answer = await ask(http, model="org/name", input="x")
        none = await http.get("/v1/models/org/other")
        slash = await http.get("/v1/models/")
    assert found == listed == slash.json()["data"]
    assert quoted.json()["id"] == "org/name"
    assert answer.status_code == 200
    assert none.json()["error"]["code"] == "model_not_found"


async def test_a_fault_of_ours_is_a_500_without_the_text(monkeypatch, caplog):
    """What nobody foresaw is a 500 with an id; neither answer nor log hold the text."""
    served = service()

    async def broken(_, texts, *__):
        raise ZeroDivisionError(texts[0])

    monkeypatch.setattr(served, "embed", broken)
    async with client(served) as http:
        answer = await ask(http, input="SECRET")
    assert answer.status_code == 500
    assert "SECRET" not in answer.text + caplog.text
    assert answer.headers["x-request-id"] in caplog.text
