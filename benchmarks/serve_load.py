"""A server under load, beside the library on the same texts and beside a plain server.

    python -m benchmarks.serve_load [--seconds 20] [--texts 400] [--only saturated,lone,peer]

Server and library are one process and one model, the client is another, all on the same cores; what
is compared alternates. Five questions:

- saturated: texts a second through HTTP, as a share of the library's rate on the same texts;
- lone: the median time of one short query alone, against the library's call;
- overload: far more requests than are taken, for some seconds: which answers, how much memory;
- slow: 200 connections that dribble: what they do to the p99 of others;
- peer: the same load on sentence-transformers behind a plain FastAPI route (only if asked for).

Needs the data folder (`ECHOVEC_DATA`).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.serve_client import Client
from benchmarks.workloads import sentences
from echovec import Embedder, Template
from echovec.serve.run import listen, server_of
from echovec.serve.service import Service
from echovec.serve.settings import Settings

PATH = "/v1/embeddings"
REPEATS = 5
LONE = 60


@contextmanager
def serving(service: Service) -> Iterator[str]:
    """Serve in a thread of this process; yields "host:port"."""
    door = listen("127.0.0.1", 0)
    server = server_of(service)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [door]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"127.0.0.1:{door.getsockname()[1]}"
    server.should_exit = True
    thread.join()


def bodies(texts: tuple[str, ...], each: int, model: str = "echo") -> list[dict[str, Any]]:
    """Requests of `each` texts; base64, which OpenAI's client asks for."""
    return [
        {"model": model, "input": list(texts[i : i + each]), "encoding_format": "base64"}
        for i in range(0, len(texts), each)
    ]


def timed(call: Callable[[], object]) -> float:
    """Seconds of a call."""
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def rss_mb() -> float:
    """What this process holds in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def saturated(
    embedder: Embedder, address: str, client: Client, texts: tuple[str, ...]
) -> dict[str, Any]:
    """The library's and the server's texts a second, alternating, one or 16 texts a request."""
    library, served = [], {1: [], 16: []}  # type: ignore[var-annotated]
    for _ in range(REPEATS):
        library.append(timed(lambda: embedder.encode(texts, show_progress_bar=False)))
        for each, connections in ((1, 64), (16, 16)):
            found = client.load(address, PATH, bodies(texts, each), connections=connections)
            assert set(found["statuses"]) == {"200"}, found
            served[each].append(found["seconds"])
    rate = len(texts) / statistics.median(library)
    out: dict[str, Any] = {"library": rate}
    for each, seconds in served.items():
        pairs = zip(library, seconds, strict=True)
        out[f"served_by_{each}"] = len(texts) / statistics.median(seconds)
        out[f"share_by_{each}"] = statistics.median(one / two for one, two in pairs)
    return out


def lone(embedder: Embedder, address: str, client: Client) -> dict[str, float]:
    """Milliseconds of one short query, alternating: the library's call, the server's answer."""
    library, served = [], []
    for number in range(LONE):
        text = f"what is the height of mountain number {number}"
        library.append(1000 * timed(lambda text=text: embedder.encode(text)))  # type: ignore[misc]
        other = text.replace("height", "name")
        found = client.load(address, PATH, bodies((other,), 1), connections=1)
        served.append(found["p50"])
    pair = statistics.median(library), statistics.median(served)
    return {"library_ms": pair[0], "served_ms": pair[1], "ratio": pair[1] / pair[0]}


def overload(
    address: str, client: Client, texts: tuple[str, ...], seconds: float
) -> dict[str, Any]:
    """Many more connections than the queue takes: answers by status, and memory over time."""
    memory: list[float] = []
    client.load(address, PATH, bodies(texts, 16), connections=400, seconds=seconds / 4, unique=True)
    client.begin(
        do="load",
        address=address,
        path=PATH,
        bodies=bodies(texts, 16),
        connections=400,
        seconds=seconds,
        unique=True,
    )
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        memory.append(rss_mb())
        time.sleep(0.2)
    found = client.end()
    third = max(1, len(memory) // 3)
    growth = statistics.median(memory[-third:]) / statistics.median(memory[:third])
    return {**found, "rss_first_third_mb": statistics.median(memory[:third]), "rss_growth": growth}


def slow_sockets(
    address: str, client: Client, texts: tuple[str, ...], seconds: float
) -> dict[str, float]:
    """The p99 of good requests, four at once, without and with 200 slow connections; twice each."""
    without, beside = [], []
    for _ in range(2):
        ask = {"connections": 4, "seconds": seconds / 4}
        without.append(client.load(address, PATH, bodies(texts, 1), **ask))
        with Client() as dribbler:
            dribbler.begin(do="slow", address=address, count=200, seconds=seconds / 4 + 3)
            time.sleep(2)
            beside.append(client.load(address, PATH, bodies(texts, 1), **ask))
    p99 = [statistics.mean(one["p99"] for one in runs) for runs in (without, beside)]
    return {"without_p99_ms": p99[0], "beside_p99_ms": p99[1], "ratio": p99[1] / p99[0]}


def peer(address: str, client: Client, texts: tuple[str, ...]) -> dict[str, Any]:
    """The same load on the peer and on us, alternating; prompts of one copy, mean of all tokens."""
    # One torch thread for each of its requests: two would wait for each other in every product.
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.serve_peer"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    other = process.stdout.readline().strip()
    found: dict[str, list[float]] = {}
    try:
        for _ in range(3):
            for each, connections in ((1, 64), (16, 16)):
                for name, where in (("peer", other), ("echovec", address)):
                    asked = bodies(texts, each, "bare")
                    done = client.load(where, PATH, asked, connections=connections)
                    assert set(done["statuses"]) == {"200"}, done
                    found.setdefault(f"{name}_by_{each}", []).append(len(texts) / done["seconds"])
        lone_ms: dict[str, list[float]] = {"peer": [], "echovec": []}
        for number in range(LONE // 2):
            for name, where in (("peer", other), ("echovec", address)):
                asked = bodies((f"lone query number {number} of {name}",), 1, "bare")
                lone_ms[name].append(client.load(where, PATH, asked, connections=1)["p50"])
    finally:
        process.kill()
        process.wait()
    rates = {name: statistics.median(values) for name, values in found.items()}
    return rates | {f"{name}_lone_ms": statistics.median(v) for name, v in lone_ms.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--texts", type=int, default=400)
    parser.add_argument("--only", default="saturated,lone,slow,overload")
    options = parser.parse_args()
    wanted = options.only.split(",")
    embedder = Embedder.load(recipe="echo")
    bare = embedder.with_recipe(Template("{text}"))  # as sentence-transformers has it by default
    texts = sentences(options.texts)
    result: dict[str, Any] = {"load_before": os.getloadavg()[0], "texts": len(texts)}
    service = Service({"echo": embedder, "bare": bare}, Settings(max_waiting_tokens=20_000))
    with Client() as client, serving(service) as address:
        client.load(address, PATH, bodies(texts[:32], 1), connections=8)  # warm
        parts: dict[str, Callable[[], dict[str, Any]]] = {
            "saturated": lambda: saturated(embedder, address, client, texts),
            "lone": lambda: lone(embedder, address, client),
            "peer": lambda: peer(address, client, texts),
            "slow": lambda: slow_sockets(address, client, texts, options.seconds),
            "overload": lambda: overload(address, client, texts, options.seconds),
        }
        for name in wanted:
            result[name] = parts[name]()
            print(json.dumps({name: result[name]}), flush=True)
    result["load_after"] = os.getloadavg()[0]
    print(json.dumps(result, indent=1))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
