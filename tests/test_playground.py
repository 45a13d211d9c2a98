"""What the playground asks the server: tokens against a naive twin, search, map, its files."""

from __future__ import annotations

import re

import httpx
import numpy as np
import pytest
import torch

from echovec import Index
from echovec.embedder import Embedder
from echovec.files.vectors import Made
from echovec.model.tiny import TinyBackbone
from echovec.serve.app import create_app
from echovec.serve.load import opened
from echovec.serve.playground.groups import groups
from echovec.serve.playground.routes import assets
from echovec.serve.playground.tokens import near_tokens
from echovec.serve.service import Service
from echovec.text.drafts import render
from echovec.text.render import Renderer
from echovec.text.tokenizer import ByteTokenizer
from laid import lay
from playground_stub import TEXTS, shown
from search_stub import source
from serve_stub import service, tiny

LEFT, RIGHT = "the cat sat down", "the cat ran off"


def client(served=None, index=None):
    """A client of the application itself, without a socket."""
    transport = httpx.ASGITransport(create_app(served or service(), index))
    return httpx.AsyncClient(transport=transport, base_url="http://server")


def naive_states(embedder, text):
    """The last states of each copy, found by looking for the text's bytes in the prompt."""
    template = embedder.definition.views["symmetric"][0].template
    rendered = render(Renderer(template, embedder.tokenizer), [text])[0]
    batch = lay([rendered])
    with torch.inference_mode():
        h_TD = embedder.backbone.forward(batch, [-1])[0].numpy()
    own = list(f" {text}".encode())
    ids = rendered.ids.tolist()
    starts = [i for i in range(len(ids)) if ids[i : i + len(own)] == own]
    return [h_TD[start : start + len(own)] for start in starts]


def test_tokens_are_those_of_a_naive_reading():
    """Each token's number is the cosine of its state with the mean of the other's second copy."""
    embedder = tiny()
    found, _ = near_tokens(embedder, (LEFT, RIGHT))
    states = [naive_states(embedder, text) for text in (LEFT, RIGHT)]
    for place, copies in enumerate(found):
        vector = states[1 - place][1].mean(axis=0)
        for copy, numbers in ((0, copies.first), (1, copies.second)):
            for state, number in zip(states[place][copy], numbers, strict=True):
                naive = state @ vector / np.linalg.norm(state) / np.linalg.norm(vector)
                assert number == pytest.approx(naive, abs=1e-5)
        assert "".join(copies.tokens) == " " + (LEFT, RIGHT)[place]


def test_a_common_beginning_is_the_same_in_the_first_copy_only():
    """What two texts begin with has equal states in the first copy, others in the second."""
    _, shared = near_tokens(tiny(), (LEFT, RIGHT))
    assert shared.count == len(" the cat ")
    assert shared.first == pytest.approx(1, abs=1e-6)
    assert shared.second < 0.9999
    _, nothing = near_tokens(tiny(), ("abc", "xyz"))
    assert nothing.count == 1  # the blank before each
    assert near_tokens(tiny(), ("abc", "abc"))[1] is None


async def test_the_tokens_route_says_what_is_wrong():
    """Bad texts and servers without an echo are named; good ones get both texts' tokens."""
    async with client() as http:
        good = await http.post("/playground/tokens", json={"left": LEFT, "right": RIGHT})
        empty = await http.post("/playground/tokens", json={"left": LEFT, "right": ""})
    async with client(service(recipes=("classical",))) as http:
        none = await http.post("/playground/tokens", json={"left": LEFT, "right": RIGHT})
    assert [len(one["first"]) for one in good.json()["texts"]] == [len(LEFT) + 1, len(RIGHT) + 1]
    assert (empty.status_code, empty.json()["error"]["param"]) == (400, "right")
    assert (none.status_code, none.json()["error"]["code"]) == (404, "no_echo")


async def test_a_recipe_that_pools_a_marker_is_read_as_any():
    """Where the end of text is pooled with the last copy, its tokens are those of the text."""
    async with client(service(recipes=("echo-instruct",))) as http:
        answer = await http.post("/playground/tokens", json={"left": LEFT, "right": RIGHT})
    assert answer.status_code == 200
    for text, one in zip((LEFT, RIGHT), answer.json()["texts"], strict=True):
        assert "".join(one["tokens"]) == text
        assert len(one["first"]) == len(one["second"]) == len(text)


async def test_no_prompt_is_tokenised_while_texts_are():
    """A prompt's own words are tokenised before the first request: it would disturb texts."""

    class Watched(ByteTokenizer):
        fixed = 0

        def tokenize_fixed(self, text, *, after_bos):
            self.fixed += 1
            return super().tokenize_fixed(text, after_bos=after_bos)

    tokenizer = Watched()
    served = Service({"echo": Embedder("echo", tokenizer, TinyBackbone())})
    async with client(served) as http:
        before = tokenizer.fixed
        answer = await http.post("/playground/tokens", json={"left": LEFT, "right": RIGHT})
    assert answer.status_code == 200
    assert before == tokenizer.fixed > 0


async def test_search_and_points_are_those_of_the_index():
    """The index's own answers, its points, and the fields that can colour them."""
    served = service()
    async with client(served, shown(served)) as http:
        found = await http.post("/playground/search", json={"query": "dog number 3", "k": 3})
        points = (await http.get("/playground/points?limit=20")).json()
        again = (await http.get("/playground/points?limit=20")).json()
        bad = await http.get("/playground/points?limit=0")
    hits = found.json()["hits"]
    assert (hits[0]["text"], len(hits)) == ("dog number 3", 3)
    assert hits[0]["score"] == pytest.approx(1, abs=1e-5)
    assert points["total"] == len(TEXTS)
    assert len(points["ids"]) == len(points["xy"]) == 20
    assert set(points["fields"]) == {"animal", "unique", "what is alike"}
    assert points == again
    assert (bad.status_code, bad.json()["error"]["param"]) == (400, "limit")


@pytest.mark.parametrize(
    "made",
    [
        {},
        {"role": "document", "truncate_dim": 8},
        {"role": "query", "instruction": "find it"},
        {"instruction": "sort it", "truncate_dim": 5},
    ],
    ids=str,
)
async def test_an_index_from_disk_answers_as_it_does_by_itself(tmp_path, made):
    """Queries are embedded as the rows ask for it: side, instruction and width."""
    served = service(recipes=("echo-instruct",))
    embedder = served.first.embedder
    vectors = embedder.encode(TEXTS, **made)
    recipe = embedder.recipe
    Index.build(
        source(vectors, texts=TEXTS, made=Made(recipe.to_json(), recipe.fingerprint, **made)),
        tmp_path / "animals",
    )
    itself = Index.open(tmp_path / "animals", embedder=embedder)
    async with client(served, opened(tmp_path / "animals")) as http:
        for query in ("dog number 3", "a fish"):
            found = await http.post("/playground/search", json={"query": query, "k": 4})
            hits = itself.search(query, 4)
            assert [hit["id"] for hit in found.json()["hits"]] == [hit.id for hit in hits]
            scores = [hit["score"] for hit in found.json()["hits"]]
            assert scores == pytest.approx([hit.score for hit in hits], abs=1e-5)
        points = (await http.get("/playground/points")).json()
    assert (points["name"], points["total"], len(points["xy"])) == ("animals", 24, 24)


async def test_without_a_fitting_index_the_way_to_one_is_said():
    """No index, or one of a recipe that is not served: 404 with the next step."""
    served = service(recipes=("echo",))
    other = service(recipes=("classical",))
    async with client(served) as http:
        none = await http.post("/playground/search", json={"query": "x"})
        said = [(await http.get("/info")).json()["index"]]
    for index in (shown(other, "classical"), shown(served)):
        async with client(served, index) as http:
            said.append((await http.get("/info")).json()["index"])
    async with client(served, shown(other, "classical")) as http:
        unfit = await http.get("/playground/points")
    assert said[0] is None
    assert [(one["rows"], one["model"]) for one in said[1:]] == [(24, None), (24, "echo")]
    assert (none.status_code, none.json()["error"]["code"]) == (404, "no_index")
    assert "--index" in none.json()["error"]["message"]
    assert (unfit.status_code, unfit.json()["error"]["code"]) == (404, "no_recipe_of_index")


def test_groups_hold_what_is_alike():
    """Rows around three far directions come in three groups, each named by one of its own."""
    source = np.random.default_rng(0)
    centres = np.eye(3, 16) * 5
    rows = np.concatenate([centre + source.normal(size=(30, 16)) * 0.2 for centre in centres])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    texts = [f"{name} {n}" for name in "abc" for n in range(30)]
    names = groups(rows, texts, texts, 3)
    for start, letter in ((0, "a"), (30, "b"), (60, "c")):
        assert {name[0] for name in names[start : start + 30]} == {letter}
    assert len(set(names)) == 3
    assert groups(rows[:1], [None], ["only"]) == ["only"]


async def test_the_page_is_whole_and_asks_nobody_else():
    """Every file that the pages name is served with its type, and none names another server."""
    async with client() as http:
        for path, kind in (("/", "text/html"), ("/docs", "text/html")):
            answer = await http.get(path)
            assert answer.headers["content-type"].startswith(kind)
            assert "default-src 'self'" in answer.headers["content-security-policy"]
            for name in re.findall(r'(?:src|href)="(/assets/[^"]+)"', answer.text):
                assert (await http.get(name)).status_code == 200, name
        for name, content in assets().items():
            text = content.decode()
            assert set(re.findall(r"https?://[^/\s\"'`]+", text)) <= {"http://www.w3.org"}, name
            for other in re.findall(r'from "\./([^"]+)"', text):
                assert other in assets()
        for path in ("/assets/nothing.js", "/assets/../routes.py", "/assets/%2e%2e/routes.py"):
            assert (await http.get(path)).status_code == 404
