"""A server as a process: it listens, drains at SIGTERM, and ends with 0."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
import threading
import time

import pytest

from echovec.cli import app
from echovec.errors import InputError
from echovec.serve import load
from echovec.serve import run as running
from echovec.serve.early import ended_by_sigterm
from echovec.serve.run import listen, run, server_of
from forked import NEEDS_FORK, Forked
from serve_stub import Gated, post, service


def started(seconds=0.0):
    """A server of the tiny model in a process of its own, and its address."""

    def serve():
        stub = service(backbone=Gated(seconds), drain_seconds=20)
        run(stub, port=0, say=lambda address: print(address, flush=True))

    process = Forked(serve)
    return process, process.stdout.readline().strip().removeprefix("http://")


@NEEDS_FORK
def test_sigterm_ends_a_server_whose_model_still_loads():
    """A handler is there before the model is, and the exit code is 0 as ever."""

    def slow(*_, **__):
        print("loading", flush=True)
        time.sleep(60)

    def serve():
        load.embedders = slow
        sys.argv = ["echovec", "serve"]
        app()

    with Forked(serve) as process:
        assert process.stdout.readline() == "loading\n"
        process.send(signal.SIGTERM)
        assert process.ended(20) == 0


@NEEDS_FORK
async def test_sigterm_loses_none_of_a_thousand_requests():
    """1,000 requests in flight at SIGTERM are answered with 200, and the process ends with 0.

    New connections are refused then, so the answers are of those that were there.
    """
    process, address = started(seconds=0.01)
    host, port = address.split(":")

    async def ask(number):
        reader, writer = await asyncio.open_connection(host, int(port))
        body = json.dumps({"model": "echo", "input": f"text number {number}"}).encode()
        writer.write(post("/v1/embeddings", body))
        await writer.drain()
        sent.append(number)
        answer = await reader.read()
        writer.close()
        return answer.partition(b"\r\n")[0]

    with process:
        sent = []
        calls = [asyncio.create_task(ask(number)) for number in range(1000)]
        while len(sent) < 1000:
            await asyncio.sleep(0.01)
        assert sum(call.done() for call in calls) < 900  # most of them are in flight
        process.send(signal.SIGTERM)
        answers = await asyncio.gather(*calls)
        assert answers == [b"HTTP/1.1 200 OK"] * 1000
        with pytest.raises(OSError):
            socket.create_connection((host, int(port)), timeout=5).close()
        assert process.ended(20) == 0


async def test_not_ready_comes_before_the_door_closes(monkeypatch):
    """So that a balancer sends no more. Then it ends; a second Ctrl-C does not wait for that."""
    monkeypatch.setattr(running, "_GRACE_SECONDS", 0.05)
    served = service()
    server = server_of(served)
    server.stop(signal.SIGTERM)
    assert (served.draining, server.should_exit) == (True, False)
    await asyncio.sleep(0.2)
    assert server.should_exit
    server.stop(signal.SIGTERM)
    assert not server.force_exit, "who sends it twice wants it to end well"
    server.stop(signal.SIGINT)
    assert server.force_exit


def test_what_takes_longer_than_the_drain_is_given_up(caplog):
    """After `--drain-seconds` its client gets no vectors; a batch in the model comes to its end."""
    backbone = Gated()
    served = service(backbone=backbone, drain_seconds=0.1)
    backbone.gate.clear()
    server = server_of(served)
    door = listen("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [door]})
    thread.start()
    with socket.create_connection(door.getsockname()[:2], timeout=20) as connection:
        body = json.dumps({"model": "echo", "input": "x"}).encode()
        connection.sendall(post("/v1/embeddings", body))
        assert backbone.running.wait(20)
        server.should_exit = True
        for _ in range(500):
            if "graceful shutdown exceeded" in caplog.text:
                break
            time.sleep(0.01)
        assert thread.is_alive(), "a batch is in the model"
        backbone.gate.set()
        thread.join(20)
        assert b" 200 " not in connection.recv(100)
    assert (thread.is_alive(), backbone.batches) == (False, [1])


@NEEDS_FORK
def test_an_idle_server_ends_at_once_with_0():
    """Ctrl-C ends a server that has nothing to do, with 0."""
    process, _ = started()
    with process:
        process.send(signal.SIGINT)
        assert process.ended(20) == 0


def test_a_taken_port_is_said():
    """An address that cannot be had is an error with both its parts."""
    with listen("127.0.0.1", 0) as door:
        port = door.getsockname()[1]
        with pytest.raises(InputError, match=f"127.0.0.1:{port}: .*in use"):
            listen("127.0.0.1", port)
    for host in ("no such host", "127..0.1"):
        with pytest.raises(InputError, match=f"cannot listen on {host}"):
            listen(host, 80)


def test_a_handler_that_python_did_not_set_is_left_alone(monkeypatch):
    """A host's own handler for SIGTERM is None in Python and cannot be put back: no TypeError."""
    put: list[object] = []
    monkeypatch.setattr(signal, "signal", lambda _, handler: put.append(handler))
    monkeypatch.setattr(signal, "getsignal", lambda _: None)
    with ended_by_sigterm():
        pass
    assert None not in put
