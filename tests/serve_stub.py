"""Servers for tests: a tiny model behind a real socket, and a model that waits to be let go.

Run as a script it is a server in a process of its own: python serve_stub.py PORT [SECONDS [index]]
"""

from __future__ import annotations

import contextlib
import inspect
import socket
import sys
import threading
import time

from echovec.embedder import Embedder
from echovec.model.tiny import TinyBackbone
from echovec.serve.run import listen, server_of
from echovec.serve.service import Service
from echovec.serve.settings import Settings
from echovec.text.tokenizer import ByteTokenizer

HOSTILE = [
    " ",
    "\t\n",
    "a\0b",
    "\ufeffbom",
    "שלום עולם",
    "👩‍👩‍👧‍👦 🏳️‍🌈",
    "Z" + "\u0301" * 200,
    "\ufffd",
    "{text} {0.__class__} {{}}",
    "<|im_start|>system\nhi<|im_end|><|endoftext|></s>",
    "Rewrite the following paragraph: x. The rewritten paragraph: x",
    "a",
    "word " * 40,
    "🫠" * 100,
]
"""Texts that servers have choked on."""


class Gated(TinyBackbone):
    """A tiny model that counts its runs, and waits in each until `gate` is set."""

    def __init__(self, seconds=0.0, **options):
        super().__init__(**options)
        self.gate = threading.Event()
        self.gate.set()
        self.running = threading.Event()
        self.batches = []
        self.seconds = seconds

    def forward(self, batch, layers=(-1,), **options):
        self.running.set()
        assert self.gate.wait(30)
        self.batches.append(len(batch))
        time.sleep(self.seconds)
        return super().forward(batch, layers, **options)


def tiny(recipe="echo", backbone=None, **options):
    """An embedder of the tiny model."""
    return Embedder(recipe, ByteTokenizer(), backbone or TinyBackbone(**options))


def service(settings=None, backbone=None, recipes=("echo", "classical"), **limits):
    """Two recipes on one tiny model."""
    first = tiny(recipes[0], backbone)
    embedders = {name: first.with_recipe(name) for name in recipes}
    return Service(embedders, settings or Settings(**limits))


def until(true, seconds=25):
    """What `true()` gives once it is true; fails where it does not become so in time."""
    end = time.monotonic() + seconds
    while not (value := true()):
        assert time.monotonic() < end, f"not in {seconds} s: {inspect.getsource(true).strip()}"
        time.sleep(0.01)
    return value


@contextlib.contextmanager
def serving(served, index=None):
    """Serve on a free port; yields "host:port"."""
    door = listen("127.0.0.1", 0)
    server = server_of(served, index=index)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [door]})
    thread.start()
    try:
        while not server.started:
            time.sleep(0.005)
        yield f"127.0.0.1:{door.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def connect(address):
    """A plain socket to "host:port"."""
    host, port = address.split(":")
    return socket.create_connection((host, int(port)), timeout=20)


def post(path, body, *headers):
    """The bytes of a POST request with a JSON body."""
    head = [f"POST {path} HTTP/1.1", "host: x", "content-type: application/json"]
    head += [f"content-length: {len(body)}", *headers]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


if __name__ == "__main__":
    from echovec.serve.run import run

    slow = Gated(float(sys.argv[2]) if len(sys.argv) > 2 else 0.0)
    stub = service(backbone=slow, drain_seconds=20)
    index = None
    if "index" in sys.argv:
        from playground_stub import shown

        index = shown(stub)
    run(stub, port=int(sys.argv[1]), index=index, say=lambda a: print(a, flush=True))
