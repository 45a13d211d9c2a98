"""A server under load, beside the library on the same texts and beside other servers.

    python -m benchmarks.serve_load --out FILE.json [--only PART,PART] [--infinity PYTHON]

FILE.json keeps what is measured part by part: a run that was stopped goes on where it was, and
`--only PART` measures that part anew. The first takes 8 minutes on two quiet cores:

- saturated: texts a second through HTTP, as a share of the library's rate on the same texts just
  before and after;
- overhead: the processor's time that a request takes beside the model;
- lone: the median time of one short query alone, against the library's call;
- overload: far more requests than are taken, for a minute: which answers, how much memory;
- slow: 200 connections that dribble: what they do to the p99 of others;
- gone: 100 clients that hang up, and what was computed for them;
- sigterm: 1,000 requests in flight at SIGTERM, and what became of them;
- peer: the same load on sentence-transformers behind a plain FastAPI route, and with `--infinity`
  on infinity-emb (see `benchmarks.serve_peer`), all alternating.

"gone" and "sigterm" run `echovec serve` as people do; in the others server and library are one
process and one model. The client is always a process of its own, all on the same cores; what is
compared alternates. Needs the data folder (`ECHOVEC_DATA`).
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import serve_peer
from benchmarks.serve_client import Client
from benchmarks.workloads import sentences
from echovec import Embedder, Template
from echovec.model.tiny import TinyBackbone
from echovec.serve.run import listen, server_of
from echovec.serve.service import Service
from echovec.serve.settings import Settings
from echovec.text.batch import Batch

PATH = "/v1/embeddings"
REPEATS = 3
LONE = 60
LOADS = ((1, 64), (1, 128), (16, 16))
"""Texts of a request, and connections."""
STEADY_SECONDS = 30
PEER_LOADS = ((1, 64), (16, 16))

Found = dict[str, Any]


class Idle(TinyBackbone):
    """A model that computes nothing."""

    def forward(
        self,
        batch: Batch,
        layers: Sequence[int] = (-1,),
        *,
        pooled_only: bool = False,
        float32: bool = False,
    ) -> list[torch.Tensor]:
        """Ones."""
        count = len(batch.pooled[0]) if pooled_only else len(batch.ids_T)
        return [torch.ones(count, self.dim) for _ in layers]


@contextmanager
def serving(service: Service) -> Iterator[str]:
    """Serve in a thread of this process; yields "host:port"."""
    door = listen("127.0.0.1", 0)
    server = server_of(service)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [door]})
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield f"127.0.0.1:{door.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def command(*words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`echovec serve` as a process of its own; yields it and "host:port"."""
    process = subprocess.Popen(
        [sys.executable, "-m", "echovec", "serve", "--port", "0", *words],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if line.startswith("listening on "):
                break
        yield process, line.strip().removeprefix("listening on http://")
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def bodies(texts: tuple[str, ...], each: int, model: str = "echo") -> list[Found]:
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


def metrics(address: str) -> dict[str, float]:
    """The server's counters without labels."""
    with urllib.request.urlopen(f"http://{address}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    pairs = [line.rsplit(" ", 1) for line in lines if not line.startswith("#") and "{" not in line]
    return {name: float(value) for name, value in pairs}


# -- the parts ------------------------------------------------------------------------------------


class Bench:
    """One model served in this process, and a client."""

    def __init__(self, address: str, client: Client, embedder: Embedder, options: Any) -> None:
        self.address, self.client, self.embedder = address, client, embedder
        self.seconds: float = options.seconds
        self.infinity: Path | None = options.infinity
        self.log: Path = options.out.with_suffix(".infinity.log")
        # In the files texts lie by subject, and so by length: a load that ends within a round would
        # not have the library's texts.
        texts = sentences(options.texts)
        self.texts = tuple(random.Random(1).sample(texts, len(texts)))

    def load(self, asked: list[Found], **rest: Any) -> Found:
        """A load on our server."""
        return self.client.load(self.address, PATH, asked, **rest)

    def saturated(self) -> Found:
        """The server's texts a second as a share of the library's, measured before and after.

        Also by this process' processor seconds, which other programs on the machine do not take.
        No text is sent twice at a time.
        """
        shares: dict[tuple[int, int], list[tuple[float, float, float]]] = {x: [] for x in LOADS}
        rates = [self._library()]
        for _ in range(REPEATS):
            for each, connections in LOADS:
                cpu = time.process_time()
                found = self.load(
                    bodies(self.texts, each), connections=connections, seconds=STEADY_SECONDS
                )
                cpu = (time.process_time() - cpu) / (each * found["statuses"]["200"])
                assert set(found["statuses"]) == {"200"}, found
                served = each * found["steady"]
                rates.append(self._library())
                rate, seconds = (statistics.fmean(pair) for pair in zip(*rates[-2:], strict=True))
                shares[each, connections].append((served, served / rate, seconds / cpu))
        out: Found = {
            "texts": len(self.texts),
            "library": statistics.median(rate for rate, _ in rates),
        }
        for (each, connections), rounds in shares.items():
            medians = [statistics.median(column) for column in zip(*rounds, strict=True)]
            out[f"{connections} x {each}"] = {
                **dict(zip(("served", "share", "cpu_share"), medians, strict=True)),
                "shares": [share for _, share, _ in rounds],
            }
        return out

    def _library(self) -> tuple[float, float]:
        """The library's texts a second, and its processor seconds a text."""
        cpu = time.process_time()
        took = timed(lambda: self.embedder.encode(self.texts, show_progress_bar=False))
        return len(self.texts) / took, (time.process_time() - cpu) / len(self.texts)

    def overhead(self) -> Found:
        """Milliseconds of processor time for one sentence, with a model that computes nothing."""
        idle = Embedder("echo", self.embedder.tokenizer, Idle(dim=self.embedder.dimension))
        out: Found = {}
        with serving(Service({"echo": idle})) as address:
            for encoding in ("base64", "float"):
                asked = [{**b, "encoding_format": encoding} for b in bodies(self.texts, 1)]
                self.client.load(address, PATH, asked, connections=64)  # warm
                begun = time.process_time()
                self.client.load(address, PATH, asked * 4, connections=64)
                out[encoding] = 1000 * (time.process_time() - begun) / (4 * len(asked))
        begun = time.process_time()
        for _ in range(4):
            idle.encode(self.texts, show_progress_bar=False)
        return out | {"library": 1000 * (time.process_time() - begun) / (4 * len(self.texts))}

    def lone(self) -> Found:
        """Milliseconds of one short query, alternating: the library's call, the server's answer."""
        library, served = [], []
        for number in range(LONE):
            text = f"what is the height of mountain number {number}"
            library.append(1000 * timed(lambda text=text: self.embedder.encode(text)))  # type: ignore[misc]
            other = text.replace("height", "name")
            served.append(self.load(bodies((other,), 1), connections=1)["p50"])
        pair = statistics.median(library), statistics.median(served)
        return {"library_ms": pair[0], "served_ms": pair[1], "ratio": pair[1] / pair[0]}

    def overload(self) -> Found:
        """Many more connections than the queue takes: answers by status, and memory over time."""
        memory: list[float] = []
        ask = {"connections": 400, "unique": True}
        self.load(bodies(self.texts, 16), seconds=self.seconds / 4, **ask)
        self.client.begin(
            do="load",
            address=self.address,
            path=PATH,
            bodies=bodies(self.texts, 16),
            seconds=self.seconds,
            **ask,
        )
        until = time.perf_counter() + self.seconds
        while time.perf_counter() < until:
            memory.append(rss_mb())
            time.sleep(0.2)
        found = self.client.end()
        third = max(1, len(memory) // 3)
        first, last = (statistics.median(part) for part in (memory[:third], memory[-third:]))
        asked = sum(found["statuses"].values())
        return {
            **found,
            "asked_over_answered": asked / max(1, found["statuses"].get("200", 0)),
            "rss_first_third_mb": first,
            "rss_growth": last / first,
            "rss_most_over_first": max(memory) / memory[0],
        }

    def slow(self) -> Found:
        """The p99 of good requests, four at once, without and with 200 slow connections."""
        without: list[float] = []
        beside: list[float] = []
        ask = {"connections": 4, "seconds": self.seconds / 4, "keep": True}
        for _ in range(4):
            without += self.load(bodies(self.texts, 1), **ask)["milliseconds"]
            with Client() as dribbler:
                dribbler.begin(
                    do="slow", address=self.address, count=200, seconds=self.seconds / 4 + 3
                )
                time.sleep(2)
                beside += self.load(bodies(self.texts, 1), **ask)["milliseconds"]
        p99 = [float(np.percentile(times, 99)) for times in (without, beside)]
        return {
            "requests": [len(without), len(beside)],
            "without_p99_ms": p99[0],
            "beside_p99_ms": p99[1],
            "ratio": p99[1] / p99[0],
        }

    def gone(self) -> Found:
        """100 clients that hang up after a third of a second; what was computed for them."""
        with command("--recipe", "echo") as (_, address):
            self.client.load(address, PATH, bodies(self.texts[:8], 1), connections=1)  # warm
            before = metrics(address)
            asked = bodies(tuple(f"{text} once" for text in sentences(100)), 1)
            self.client.begin(do="leave", address=address, path=PATH, bodies=asked, seconds=0.3)
            self.client.end()
            last = {"input": ["who is still there?"], "model": "echo"}
            self.client.load(address, PATH, [last], connections=1)
            after = metrics(address)
        gained = {name: value - before.get(name, 0) for name, value in after.items()}
        return {
            "computed_texts": gained["echovec_batch_texts_sum"] - 1,
            "groups": gained["echovec_batch_texts_count"] - 1,
            "dropped_texts": gained["echovec_dropped_texts_total"],
        }

    def sigterm(self) -> Found:
        """1,000 requests of the default model in flight at SIGTERM."""
        asked = bodies(tuple(f"short text number {number}" for number in range(1000)), 1)
        with command("--recipe", "echo", "--drain-seconds", "300") as (process, address):
            self.client.load(address, PATH, bodies(self.texts[:8], 1), connections=1)  # warm
            self.client.begin(
                do="flight", address=address, path=PATH, bodies=asked, pid=process.pid
            )
            found = self.client.end()
            return {**found, "exit_code": process.wait(60)}

    def peer(self) -> Found:
        """The same load on others and on us, alternating; one copy, no prompt, mean of all."""
        with ExitStack() as stack:
            servers = {
                "plain, 1 thread": stack.enter_context(serve_peer.plain(1)),
                "plain, 2 threads": stack.enter_context(serve_peer.plain(2)),
            }
            if self.infinity is not None:
                started = serve_peer.infinity(self.infinity, self.log)
                servers["infinity"] = stack.enter_context(started)
            servers["echovec"] = self.address
            return self._side_by_side(servers)

    def _side_by_side(self, servers: dict[str, str]) -> Found:
        few = self.texts[: max(32, len(self.texts) * 3 // 10)]
        out: Found = {"texts": len(few), "differs": self._difference(servers)}
        rates: dict[str, list[float]] = {}
        for _ in range(REPEATS):
            for each, connections in PEER_LOADS:
                for name, where in servers.items():
                    asked = bodies(few, each, "bare")
                    done = self.client.load(where, PATH, asked, connections=connections)
                    assert set(done["statuses"]) == {"200"}, (name, done)
                    rates.setdefault(f"{name}, by {each}", []).append(len(few) / done["seconds"])
        alone: dict[str, list[float]] = {}
        for number in range(LONE // 2):
            for name, where in servers.items():
                asked = bodies((f"lone query number {number} of {name}",), 1, "bare")
                done = self.client.load(where, PATH, asked, connections=1)
                alone.setdefault(f"{name}, alone, ms", []).append(done["p50"])
        return out | {name: statistics.median(v) for name, v in (rates | alone).items()}

    def _difference(self, servers: dict[str, str]) -> dict[str, float]:
        """The largest difference of each server's vectors from ours; all have to be the same."""
        rows = {}
        for name, where in servers.items():
            (body,) = bodies(self.texts[:8], 8, "bare")
            request = urllib.request.Request(
                f"http://{where}{PATH}",
                json.dumps(body).encode(),
                {"content-type": "application/json"},
            )
            with urllib.request.urlopen(request) as answer:
                data = json.load(answer)["data"]
            rows[name] = np.array([_numbers(row["embedding"]) for row in data])
        found = {name: float(np.abs(own - rows["echovec"]).max()) for name, own in rows.items()}
        assert max(found.values()) <= 1e-4, found
        return found


def _numbers(embedding: str | list[float]) -> Any:
    if isinstance(embedding, list):
        return np.array(embedding, np.float32)
    return np.frombuffer(base64.b64decode(embedding), "<f4")


PARTS = ("saturated", "overhead", "lone", "overload", "slow", "gone", "sigterm", "peer")


def main() -> None:
    """Measure what is not yet there, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("serve_load.json"))
    parser.add_argument(
        "--seconds", type=float, default=60, help="of overload, and of slow sockets"
    )
    parser.add_argument("--texts", type=int, default=640)
    parser.add_argument("--only", help=f"some of {','.join(PARTS)}, measured anew")
    parser.add_argument("--infinity", type=Path, help="the Python beside which infinity_emb lies")
    options = parser.parse_args()
    result: Found = json.loads(options.out.read_text("utf-8")) if options.out.exists() else {}
    wanted = options.only.split(",") if options.only else [p for p in PARTS if p not in result]
    if unknown := set(wanted) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    embedder = Embedder.load(recipe="echo")
    # As sentence-transformers has it by default.
    bare = embedder.with_recipe(Template("{text}", bos="absent"))
    service = Service({"echo": embedder, "bare": bare}, Settings(max_waiting_tokens=20_000))
    with Client() as client, serving(service) as address:
        bench = Bench(address, client, embedder, options)
        bench.load(bodies(bench.texts[:32], 1), connections=8)  # warm
        for name in wanted:
            begun, load = time.perf_counter(), os.getloadavg()[0]
            found = getattr(bench, name)()
            result[name] = {**found, "load_before": load, "took": time.perf_counter() - begun}
            options.out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
            print(json.dumps({name: result[name]}), flush=True)


if __name__ == "__main__":
    main()
