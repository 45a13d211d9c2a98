"""Run: uvicorn with what it lacks: a deadline for heads, a quiet end, an exit code of 0.

uvicorn 0.54 keeps a connection that never finishes its head open for ever, ends with 143 on SIGTERM
and closes connections whose next request is in the socket's buffer already.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import math
import signal
import socket
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from echovec.errors import InputError
from echovec.serve.app import create_app
from echovec.serve.playground.searchable import Shown
from echovec.serve.service import Service

_LOG = logging.getLogger(__name__)
_GRACE_SECONDS = 0.5
"""Between SIGTERM and closing the door, so that what is on its way is taken in."""

_BACKLOG = 4096
_KEEP_ALIVE_SECONDS = 65
"""Longer than clients keep a connection, so that none sends on one that just closes."""


def run(
    service: Service,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    access_log: bool = False,
    index: Shown | None = None,
    say: Callable[[str], None] = _LOG.info,
) -> None:
    """Serve until SIGTERM or Ctrl-C, then finish what runs. Returns when all is done.

    Args:
        service: what to serve.
        host: the address to listen on.
        port: its port; 0 for any that is free.
        index: what the playground searches and draws.
        access_log: log method, path and status of each request; never its body.
        say: told the address, once it listens.

    Raises:
        InputError: the address cannot be had.
    """
    _more_files()
    door = listen(host, port)
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{door.getsockname()[1]}"
    server = server_of(service, access_log=access_log, index=index, begun=lambda: say(address))
    server.run(sockets=[door])


def server_of(
    service: Service,
    *,
    access_log: bool = False,
    index: Shown | None = None,
    begun: Callable[[], None] = lambda: None,
) -> Server:
    """The server of a service, not yet running; `run(sockets=[...])` serves, then calls `begun`."""
    settings = service.settings
    config = uvicorn.Config(
        create_app(service, index),
        http=type("Timed", (Timed,), {"header_seconds": settings.header_seconds}),
        ws="none",
        lifespan="on",
        access_log=access_log,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=math.ceil(settings.drain_seconds),
        backlog=_BACKLOG,
        log_config=None,
    )
    return Server(config, service, begun)


class Server(uvicorn.Server):
    """uvicorn's server that drains: /ready says no, then the door closes, then it ends."""

    def __init__(self, config: uvicorn.Config, service: Service, begun: Callable[[], None]) -> None:
        super().__init__(config)
        self._service = service
        self._begun = begun

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the door, and say so."""
        await super().startup(sockets)
        # What is loaded stays until the end: the collector need not walk through it, over and over.
        gc.collect()
        gc.freeze()
        self._begun()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Our handlers for the time of serving; nothing is raised again at the end."""
        loop = asyncio.get_running_loop()
        signals = (signal.SIGINT, signal.SIGTERM)
        try:
            before = {
                one: signal.signal(one, lambda s, f: loop.call_soon_threadsafe(self.stop, s, f))
                for one in signals
            }
        except ValueError:  # not the main thread: whoever runs us stops us
            yield
            return
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)

    def stop(self, sig: int, _: FrameType | None = None) -> None:
        """Drain and end; a second Ctrl-C does not wait."""
        if self._service.draining and sig == signal.SIGINT:
            self.force_exit = True
            return
        self._service.draining = True
        _LOG.info("draining: requests that run have %s s", self.config.timeout_graceful_shutdown)
        asyncio.get_running_loop().call_later(_GRACE_SECONDS, setattr, self, "should_exit", True)


class Timed(H11Protocol):
    """HTTP on h11 with a deadline for each head, and for the rest of a body answered already."""

    header_seconds = 10.0
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to count."""
        super().connection_made(transport)
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        """There is nothing left to wait for."""
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count from the first byte of a head to its last."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE and not self._owed:
            self._disarm()
        elif self._deadline is None:
            self._arm()  # a next request on the same connection has begun

    def on_response_complete(self) -> None:
        """Count if the answer came before the end of the body: no route waits for that any more."""
        super().on_response_complete()
        if self._owed:
            self._arm()

    @property
    def _owed(self) -> bool:
        """Whether the answer is sent and the request's body is not all here."""
        return self.conn.our_state is h11.DONE and self.conn.their_state is h11.SEND_BODY

    def _arm(self) -> None:
        self._deadline = self.loop.call_later(self.header_seconds, self._late)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _late(self) -> None:
        self._deadline = None
        if not self.transport.is_closing():
            self.transport.close()


def listen(host: str, port: int) -> socket.socket:
    """A socket that waits for connections.

    Raises:
        InputError: the address cannot be had.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address, family=family, backlog=_BACKLOG)
    except (OSError, OverflowError, UnicodeError) as error:
        raise InputError(
            f"cannot listen on {host}:{port}: {error}; give another --host or --port"
        ) from error


def _more_files() -> None:
    """As many open sockets as the system lets this process have."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted: Any = min(hard, 65_536) if hard != resource.RLIM_INFINITY else 65_536
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
