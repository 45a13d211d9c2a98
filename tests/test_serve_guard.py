"""The guard: keys, limits of bytes and seconds, clients that hang up; over real sockets."""

from __future__ import annotations

import base64
import json
import threading
import time

import httpx
import pytest

from echovec.serve.app import create_app
from echovec.serve.guard import OPEN
from serve_stub import Gated, connect, post, service, serving, until

BODY = json.dumps({"model": "echo", "input": "x"}).encode()


def client(served):
    """A client of the application itself, without a socket."""
    transport = httpx.ASGITransport(create_app(served))
    return httpx.AsyncClient(transport=transport, base_url="http://server")


def answer_of(connection):
    """All that a connection gives until it is closed; "" if it is closed without an answer."""
    data = b""
    try:
        while part := connection.recv(65536):
            data += part
    except ConnectionResetError:
        pass
    return data.decode()


def one_answer(connection):
    """The bytes of one answer of a connection that stays open."""
    data = b""
    while not data.endswith(b"}}"):
        part = connection.recv(65536)
        assert part, data
        data += part
    return data


async def test_every_route_but_health_and_ready_needs_the_key():
    """Walking the OpenAPI document: 401 without the key and with a wrong one, never with it."""
    async with client(service(keys=("one", "two"))) as http:
        assert (await http.get("/openapi.json")).status_code == 401
        listed = await http.get("/openapi.json", headers={"authorization": "Bearer one"})
        paths = [*listed.json()["paths"], "/docs", "/", "/nowhere"]
        for path in paths:
            for method in ("GET", "POST", "HEAD"):
                for key in (None, "Bearer wrong", "Bearer ", "Bearer on", "Basic ???", "one"):
                    headers = {"authorization": key} if key else {}
                    status = (await http.request(method, path, headers=headers)).status_code
                    assert (status != 401) == (path in OPEN), (method, path, key, status)
        for headers in (
            {"authorization": "Bearer two"},
            {"authorization": "bearer one"},
            {"x-api-key": "one"},
            {"authorization": "Basic " + base64.b64encode(b"me:two").decode()},
        ):
            assert (await http.get("/v1/models", headers=headers)).status_code == 200


async def test_the_key_stays_out_of_sight():
    """Neither the settings' repr nor /info nor an error holds a key."""
    served = service(keys=("SECRET",))
    async with client(served) as http:
        told = [
            await http.get("/info", headers={"authorization": "Bearer SECRET"}),
            await http.get("/info", headers={"authorization": "Bearer SECRE"}),
        ]
    assert "SECRE" not in repr(served.settings) + "".join(one.text for one in told)


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "chunked"])
def test_a_large_body_is_refused_while_it_comes(declared):
    """Beyond the limit the answer is 413, though the client sends all before it reads."""
    served = service(max_body_bytes=1000)
    body = json.dumps({"model": "echo", "input": "x" * 500_000}).encode()
    with serving(served) as address:
        content = body if declared else (body[i : i + 5000] for i in range(0, len(body), 5000))
        answer = httpx.post(
            f"http://{address}/v1/embeddings",
            content=content,
            headers={"content-type": "application/json"},
        )
        good = httpx.post(f"http://{address}/v1/embeddings", json=json.loads(BODY))
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "body_too_large"
    assert good.status_code == 200


def test_a_client_that_asks_first_need_not_send():
    """With `Expect: 100-continue` too large a body is refused before any of it is sent."""
    with serving(service(max_body_bytes=1000)) as address, connect(address) as connection:
        head = post("/v1/embeddings", b"", "expect: 100-continue")
        connection.sendall(head.replace(b"content-length: 0", b"content-length: 5000"))
        assert "413" in answer_of(connection).partition("\r\n")[0]


def test_an_endless_body_is_cut_off():
    """A body without end gets 413 and its connection is closed, long before its deadline."""
    with serving(service(max_body_bytes=1000)) as address, connect(address) as connection:
        head = post("/v1/embeddings", b"", "transfer-encoding: chunked")
        connection.sendall(head.replace(b"content-length: 0\r\n", b""))
        sent = 0
        try:
            while sent < 400 << 20:
                connection.sendall(b"100000\r\n" + b"x" * 0x100000 + b"\r\n")
                sent += 1 << 20
        except OSError:
            pass
    assert sent < 60 << 20


def test_heads_and_bodies_have_deadlines():
    """A head that dribbles is closed without an answer; a body that does gets 408; then closed."""
    served = service(header_seconds=0.4, body_seconds=0.4)
    with serving(served) as address, connect(address) as head, connect(address) as body:
        silent = connect(address)
        begun = time.perf_counter()
        head.sendall(b"POST /v1/embeddings HTTP/1.1\r\nx: ")
        body.sendall(post("/v1/embeddings", BODY)[:-3])
        good = httpx.post(f"http://{address}/v1/embeddings", json=json.loads(BODY))
        assert good.status_code == 200
        assert "408" in answer_of(body).partition("\r\n")[0]
        assert answer_of(head) == ""
        assert answer_of(silent) == ""
        silent.close()
        assert time.perf_counter() - begun < 3


def test_what_is_answered_before_its_body_is_there_is_not_waited_for():
    """A body that goes on after its answer, a 401, is closed upon; one that ends is not."""
    served = service(keys=("key",), header_seconds=0.5)
    head = post("/v1/embeddings", b"").replace(b"content-length: 0", b"content-length: 9")
    with serving(served) as address, connect(address) as slow, connect(address) as whole:
        for connection in (slow, whole):
            connection.sendall(head)
            assert b"401" in one_answer(connection)
        begun = time.perf_counter()
        slow.sendall(b"x")
        whole.sendall(b"x" * 9 + post("/v1/embeddings", BODY, "x-api-key: key"))
        assert b"200 OK" in one_answer(whole)
        assert answer_of(slow) == ""
        assert time.perf_counter() - begun < 5


def test_a_connection_is_used_again():
    """Two requests on one connection, the second begun in pieces, are both answered."""
    with serving(service(header_seconds=0.5)) as address, connect(address) as connection:
        for _ in range(2):
            whole = post("/v1/embeddings", BODY)
            connection.sendall(whole[:30])
            time.sleep(0.05)
            connection.sendall(whole[30:])
            assert b"200 OK" in one_answer(connection)
            time.sleep(0.7)  # longer than the deadline of a head: there is none between requests
        connection.sendall(b"POST /v1/emb")
        assert answer_of(connection) == ""


def test_head_is_get_without_the_body():
    """What watches a server asks by HEAD: the head of GET's answer, and nothing behind it."""
    with serving(service()) as address:
        for path, status in (("/health", 200), ("/", 200), ("/v1/embeddings", 405)):
            got = httpx.get(f"http://{address}{path}")
            head = httpx.head(f"http://{address}{path}")
            assert head.status_code == got.status_code == status
            assert head.headers["content-length"] == got.headers["content-length"]
            assert head.content == b""
            assert got.content


def test_more_requests_than_allowed_are_told_to_come_back():
    """Beyond `max_requests` at once the answer is 429 with Retry-After; health still answers."""
    backbone = Gated()
    served = service(backbone=backbone, max_requests=2)
    backbone.gate.clear()
    statuses = []

    def ask(text):
        url = f"http://{address}/v1/embeddings"
        statuses.append(httpx.post(url, json={"model": "echo", "input": text}).status_code)

    with serving(served) as address:
        threads = [threading.Thread(target=ask, args=(text,)) for text in "ab"]
        threads[0].start()
        assert backbone.running.wait(25)
        # Only now: texts that find the model idle together are one batch, and none would wait.
        threads[1].start()
        (queue,) = served.batchers
        waiting = until(lambda: queue._waiting.tokens)
        queue._rate = waiting / 7
        refused = httpx.post(f"http://{address}/v1/embeddings", json=json.loads(BODY))
        health = httpx.get(f"http://{address}/health")
        backbone.gate.set()
        for thread in threads:
            thread.join()
    assert (refused.status_code, health.status_code) == (429, 200)
    assert refused.headers["retry-after"] == "7"
    assert statuses == [200, 200]


async def test_bodies_at_once_are_bounded():
    """A body that would fill the memory for all bodies is told to come back."""
    async with client(service(max_bodies_bytes=40)) as http:
        small = await http.post("/v1/embeddings", json={"model": "echo", "input": "x"})
        large = await http.post("/v1/embeddings", json={"model": "echo", "input": "x" * 50})
        after = await http.post("/v1/embeddings", json={"model": "echo", "input": "x"})
    assert [one.status_code for one in (small, large, after)] == [200, 429, 200]


def test_clients_that_hang_up_cost_one_batch_at_most():
    """Of 100 clients that leave, at most one batch is computed, and nothing stays behind."""
    backbone = Gated()
    served = service(backbone=backbone, batch_tokens=400)
    backbone.gate.clear()
    with serving(served) as address:
        connections = [connect(address) for _ in range(100)]
        for number, connection in enumerate(connections):
            body = json.dumps({"model": "echo", "input": f"text {number:03}"}).encode()
            connection.sendall(post("/v1/embeddings", body))
        until(lambda: served.metrics.running._value.get() == 100)
        for connection in connections:
            connection.close()
        until(lambda: not served.metrics.running._value.get())
        backbone.gate.set()
        good = httpx.post(f"http://{address}/v1/embeddings", json=json.loads(BODY))
    assert good.status_code == 200
    assert len(backbone.batches) <= 2  # theirs, and the good one's
    # One lone text had begun, or a group with those that came while it was looked at.
    assert sum(backbone.batches) <= 1 + 400 // 60 + 1
    assert served.metrics.registry.get_sample_value("echovec_queue_texts") == 0


async def test_metrics_tell_what_was_answered():
    """Answers are counted by route and status; unknown paths share a name."""
    served = service()
    async with client(served) as http:
        await http.post("/v1/embeddings", json={"model": "echo", "input": "x"})
        await http.post("/v1/embeddings", json={"model": "gpt", "input": "x"})
        await http.get("/a/secret/path")
        text = (await http.get("/metrics")).text
    assert 'echovec_requests_total{route="/v1/embeddings",status="200"} 1.0' in text
    assert 'echovec_requests_total{route="/v1/embeddings",status="404"} 1.0' in text
    assert 'route="other",status="404"' in text
    assert 'echovec_request_seconds_count{route="/v1/embeddings"} 1.0' in text
    assert "echovec_requests_running 1.0" in text, "the one that asks"
    assert "secret" not in text


async def test_info_says_what_is_served_and_allowed():
    """/info has the limits and, of each name, recipe, fingerprint and width."""
    served = service(max_inputs=7)
    async with client(served) as http:
        info = (await http.get("/info")).json()
    assert info["limits"]["inputs"] == 7
    assert [model["id"] for model in info["models"]] == ["echo", "classical"]
    for model in info["models"]:
        one = served.served[model["id"]]
        assert model["fingerprint"] == one.embedder.recipe.fingerprint
        assert model["dimension"] == 32


async def test_ready_says_no_while_draining():
    """A server that is about to stop is alive but not ready."""
    served = service()
    async with client(served) as http:
        before = await http.get("/ready")
        served.draining = True
        after, health = await http.get("/ready"), await http.get("/health")
    assert [one.status_code for one in (before, after, health)] == [200, 503, 200]
