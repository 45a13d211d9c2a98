"""A client that costs little: HTTP by hand on asyncio, told what to do by lines of JSON.

    python -m benchmarks.serve_client

A line on standard input is a call, {"do": "load", ...}, "slow", "flight" or "leave"; each is
answered by a line on standard output. It is a process of its own so that the server has an
interpreter alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, Self


class Client:
    """The process, from the side that tells it what to do."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.serve_client"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def begin(self, **call: Any) -> None:
        """Start a call."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(call) + "\n")
        self._process.stdin.flush()

    def end(self) -> dict[str, Any]:
        """The answer to the call that was started."""
        assert self._process.stdout is not None
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def load(self, address: str, path: str, bodies: list[Any], **rest: Any) -> dict[str, Any]:
        """Send requests and wait for the answers; see `load` of this module."""
        self.begin(do="load", address=address, path=path, bodies=bodies, **rest)
        return self.end()


async def load(
    address: str,
    path: str,
    bodies: list[Any],
    connections: int,
    seconds: float | None = None,
    unique: bool = False,
    keep: bool = False,
) -> dict[str, Any]:
    """Send every body once, or over and over for some seconds, each connection one at a time.

    `unique`: no text is sent twice; a number is put behind each. `keep`: every time is returned.

    Returns:
        Seconds, answers by status, milliseconds of those with 200 at p50 and p99; with `seconds`,
        also the answers a second from a quarter of the time on, while every connection asks.
    """
    host, port = address.split(":")
    requests = [_request(path, json.dumps(body).encode()) for body in bodies]

    def numbered(place: int) -> bytes:
        body = bodies[place % len(bodies)]
        texts = [f"{text} {place}" for text in body["input"]]
        return _request(path, json.dumps({**body, "input": texts}).encode())

    begun = time.perf_counter()
    statuses: Counter[str] = Counter()
    taken: list[float] = []
    ends: list[float] = []

    def source() -> Iterator[bytes]:
        if seconds is None:
            yield from requests
            return
        place = 0
        while time.perf_counter() - begun < seconds:
            yield numbered(place) if unique else requests[place % len(requests)]
            place += 1

    waiting = source()

    async def one() -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        for request in waiting:
            start = time.perf_counter()
            writer.write(request)
            status = await _answer(reader)
            statuses[status] += 1
            if status == "200":
                taken.append(time.perf_counter() - start)
                ends.append(time.perf_counter() - begun)
            elif status == "429":
                await asyncio.sleep(0.05)
        writer.close()

    await asyncio.gather(*(one() for _ in range(connections)))
    ordered = sorted(taken)
    return {
        "seconds": time.perf_counter() - begun,
        "statuses": dict(statuses),
        "steady": sum(seconds / 4 <= end < seconds for end in ends) / (0.75 * seconds)
        if seconds
        else None,
        "milliseconds": [round(1000 * one, 3) for one in ordered] if keep else None,
        "p50": 1000 * ordered[len(ordered) // 2] if ordered else None,
        "p99": 1000 * ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))] if ordered else None,
    }


async def slow(address: str, count: int, seconds: float) -> dict[str, Any]:
    """Keep connections open that send a byte of a head, or of a body, every half second."""
    host, port = address.split(":")
    until = time.perf_counter() + seconds

    async def one(number: int) -> None:
        whole = _request("/v1/embeddings", b'{"model": "echo", "input": "' + b"x" * 1000 + b'"}')
        start = whole.index(b"\r\n\r\n") + 4 if number % 2 else 10
        while time.perf_counter() < until:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(host, int(port))
                writer.write(whole[:start])
                for place in range(start, len(whole) - 1):
                    if time.perf_counter() > until or writer.is_closing():
                        break
                    writer.write(whole[place : place + 1])
                    await writer.drain()
                    await asyncio.sleep(0.5)
                writer.close()

    await asyncio.gather(*(one(number) for number in range(count)))
    return {}


async def flight(address: str, path: str, bodies: list[Any], pid: int) -> dict[str, Any]:
    """Send each body on a connection of its own, then SIGTERM to `pid`, then read the answers."""
    host, port = address.split(":")
    streams = [await asyncio.open_connection(host, int(port)) for _ in bodies]
    for (_, writer), body in zip(streams, bodies, strict=True):
        writer.write(_request(path, json.dumps(body).encode()))
    await asyncio.gather(*(writer.drain() for _, writer in streams))
    begun = time.perf_counter()
    os.kill(pid, signal.SIGTERM)

    async def status(reader: asyncio.StreamReader) -> str:
        try:
            return await _answer(reader)
        except (OSError, asyncio.IncompleteReadError):
            return "lost"

    found = await asyncio.gather(*(status(reader) for reader, _ in streams))
    for _, writer in streams:
        writer.close()
    return {"statuses": dict(Counter(found)), "seconds": time.perf_counter() - begun}


async def leave(address: str, path: str, bodies: list[Any], seconds: float) -> dict[str, Any]:
    """Send each body on a connection of its own, and hang up after some seconds."""
    host, port = address.split(":")
    streams = [await asyncio.open_connection(host, int(port)) for _ in bodies]
    for (_, writer), body in zip(streams, bodies, strict=True):
        writer.write(_request(path, json.dumps(body).encode()))
    await asyncio.sleep(seconds)
    for _, writer in streams:
        writer.transport.abort()
    return {"left": len(streams)}


def _request(path: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


async def _answer(reader: asyncio.StreamReader) -> str:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        line.partition(b":")[2]
        for line in head.lower().split(b"\r\n")
        if line.startswith(b"content-length:")
    )
    await reader.readexactly(int(length))
    return head.split(b" ", 2)[1].decode()


CALLS: dict[str, Any] = {"load": load, "slow": slow, "flight": flight, "leave": leave}


def main() -> None:
    """Do what the lines say."""
    for line in sys.stdin:
        call = json.loads(line)
        print(json.dumps(asyncio.run(CALLS[call.pop("do")](**call))), flush=True)


if __name__ == "__main__":
    main()
