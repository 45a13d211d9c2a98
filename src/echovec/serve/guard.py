"""Guard: what stands between the socket and the routes; plain ASGI, no framework.

It asks for the key, bounds requests at once, reads the body within its limits of bytes and seconds,
and ends the route's work when the client hangs up. Routes get the body whole and at once.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import logging
import time
import traceback
from collections.abc import Sequence
from uuid import uuid4

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from echovec.serve.problem import Problem, come_back
from echovec.serve.service import Service

_LOG = logging.getLogger(__name__)
OPEN = ("/health", "/ready")
"""Paths that need no key."""

FAULT = Problem(500, "a fault of this server; its log has it under this answer's x-request-id")
"""What nobody foresaw, as an answer."""

_DISCARD_BYTES = 16 << 20
"""Of too large a body this much more is read, so that the client gets to read the answer."""


class Guard:
    """The ASGI application around the routes.

    Args:
        app: the routes.
        service: whose settings, metrics and queues count.
        routes: paths by which metrics are told apart; all others are "other".
    """

    def __init__(self, app: ASGIApp, service: Service, routes: Sequence[str]) -> None:
        self.app = app
        self.state = getattr(app, "state", None)
        self._service = service
        self._settings = service.settings
        self._routes = frozenset(routes)
        self._running = 0
        self._bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; see the ASGI specification."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if scope["method"] == "HEAD":  # the server sends no body then, whatever the route gives
            scope = {**scope, "method": "GET"}
        metrics = self._service.metrics
        answer = _Answer(send)
        route = scope["path"] if scope["path"] in self._routes else "other"
        begun = time.perf_counter()
        self._running += 1
        metrics.running.inc()
        try:
            await self._serve(scope, receive, answer)
        finally:
            self._running -= 1
            metrics.running.dec()
            metrics.requests.labels(route, answer.status or "hung up").inc()
            if answer.status == 200:
                metrics.seconds.labels(route).observe(time.perf_counter() - begun)

    async def _serve(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        taken = 0
        try:
            if scope["path"] not in OPEN:
                self._check_key(scope)
                if self._running > self._settings.max_requests:
                    raise come_back(self._wait(), f"{self._running:,} requests run")
            body = bytearray()
            async for part in self._parts(scope, receive):
                body += part
                taken += len(part)
                self._bytes += len(part)
                if self._bytes > self._settings.max_bodies_bytes:
                    raise come_back(self._wait(), "the bodies of all requests fill the memory")
            await self._route(scope, bytes(body), receive, answer)
        except Problem as problem:
            await answer.problem(problem)
        except _HungUpError:
            pass
        except Exception as error:
            # The kind and the place only: a message may hold a text.
            place = "".join(traceback.format_tb(error.__traceback__))
            _LOG.error("%s in request %s\n%s", type(error).__name__, answer.id, place)
            await answer.problem(FAULT)
        finally:
            self._bytes -= taken

    async def _route(self, scope: Scope, body: bytes, receive: Receive, answer: _Answer) -> None:
        """Run the route, until the client hangs up."""
        given = False

        async def whole() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        work = asyncio.ensure_future(self.app(scope, whole, answer))
        gone = asyncio.ensure_future(_hung_up(receive))
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise _HungUpError
            await work
        finally:
            for task in (work, gone):
                task.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)

    async def _parts(self, scope: Scope, receive: Receive):  # type: ignore[no-untyped-def]  # noqa: ANN202
        """The body as it comes."""
        limit = self._settings.max_body_bytes
        declared = _declared(scope)
        size = 0
        if declared > limit and (b"expect", b"100-continue") in scope["headers"]:
            raise _too_large(declared, limit)  # the client waits for a word before it sends
        try:
            async with asyncio.timeout(self._settings.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _HungUpError
                    part = message.get("body", b"")
                    size += len(part)
                    more = message.get("more_body", False)
                    if max(size, declared) > limit:
                        if more and size < limit + _DISCARD_BYTES:
                            continue
                        raise _too_large(max(size, declared), limit)
                    if part:
                        yield part
                    if not more:
                        return
        except TimeoutError:
            if max(size, declared) > limit:
                raise _too_large(max(size, declared), limit) from None
            raise Problem(
                408,
                f"the body was not there within {self._settings.body_seconds:g} s",
                code="request_timeout",
                headers={"connection": "close"},
            ) from None

    def _check_key(self, scope: Scope) -> None:
        keys = self._settings.keys
        if not keys:
            return
        given = _given_key(scope)
        matches = [hmac.compare_digest(given, key.encode()) for key in keys]  # all, always
        if not any(matches):
            raise Problem(
                401,
                "this server needs its key: 'Authorization: Bearer KEY', or as a password",
                code="invalid_api_key",
                headers={"www-authenticate": 'Basic realm="echovec", charset="UTF-8"'},
            )

    def _wait(self) -> int:
        return min(60, max(1, round(max((b.seconds for b in self._service.batchers), default=1))))


class _Answer:
    """`send` of ASGI that remembers the status and adds the headers that all answers have."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status: int | None = None
        self.id = uuid4().hex

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [
                *message.get("headers", ()),
                (b"x-request-id", self.id.encode()),
                (b"x-content-type-options", b"nosniff"),
            ]
        await self._send(message)

    async def problem(self, problem: Problem) -> None:
        """Send an error, unless an answer has begun."""
        if self.status is not None:
            return
        body = problem.body()
        given = [(k.encode(), v.encode()) for k, v in (problem.headers or {}).items()]
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            *given,
        ]
        await self(
            {"type": "http.response.start", "status": problem.status_code, "headers": headers}
        )
        await self({"type": "http.response.body", "body": body})


class _HungUpError(Exception):
    """The client is gone."""


async def _hung_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _declared(scope: Scope) -> int:
    length = next((v for k, v in scope["headers"] if k == b"content-length"), b"0")
    return int(length) if length.isdigit() else 0


def _given_key(scope: Scope) -> bytes:
    """The key of a request: Bearer, the password of Basic, or x-api-key."""
    headers = dict(scope["headers"])
    kind, _, value = headers.get(b"authorization", b"").partition(b" ")
    if kind.lower() == b"bearer":
        return bytes(value.strip())
    if kind.lower() == b"basic":
        try:
            return base64.b64decode(value, validate=True).partition(b":")[2]
        except ValueError:
            return b""
    return bytes(headers.get(b"x-api-key", b""))


def _too_large(size: int, limit: int) -> Problem:
    return Problem(
        413,
        f"the body has {size:,} bytes or more, and may have {limit:,}; send fewer texts at once",
        code="body_too_large",
        headers={"connection": "close"},
    )
