"""App: the routes, the guard around them, and errors in one form; a pure function of its parts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from echovec.serve import cohere, info, openai, tei
from echovec.serve.describe import describe
from echovec.serve.guard import FAULT, Guard
from echovec.serve.playground import routes as playground
from echovec.serve.playground.searchable import Shown
from echovec.serve.problem import Problem
from echovec.serve.service import Service
from echovec.version import __version__

ROUTERS = (
    openai.router,
    cohere.router,
    tei.router,
    info.router,
    playground.router,
    playground.pages,
)


def create_app(service: Service, index: Shown | None = None) -> Guard:
    """The ASGI application that serves `service`; hand it to any ASGI server.

    `index` is what the playground searches and draws.

    It starts nothing until it is served, and closes `service` when serving ends.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    app = FastAPI(
        title="echovec",
        version=__version__,
        summary="Echo embeddings behind the interfaces that clients already speak.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        exception_handlers={
            HTTPException: _answer_http,
            RequestValidationError: _answer_invalid,
            Exception: _answer_fault,
        },
    )
    app.state.service = service
    app.state.index, app.state.points = index, {}
    app.state.echo = playground.first_echo(service)
    for router in ROUTERS:
        app.include_router(router)
    describe(app, service)
    return Guard(app, service, routes=tuple(app.openapi()["paths"]))


async def _answer_http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(error, Problem):
        problem = error
    elif error.status_code == 404:
        problem = Problem(404, "there is no such route; /docs lists them", code="unknown_url")
    elif error.status_code == 405:
        problem = Problem(
            405, "this route has another method; /docs lists them", headers=error.headers
        )
    else:
        problem = Problem(error.status_code, str(error.detail), headers=error.headers)
    return Response(
        problem.body(), problem.status_code, problem.headers, media_type="application/json"
    )


async def _answer_fault(request: Request, _: Exception) -> Response:
    return await _answer_http(request, FAULT)  # the guard logs it


async def _answer_invalid(request: Request, error: Exception) -> Response:
    """The first of the errors that pydantic found, in the one form."""
    assert isinstance(error, RequestValidationError)
    return await _answer_http(request, invalid(error.errors()))


def invalid(errors: Sequence[Any]) -> Problem:
    """What pydantic found, as a Problem about its first error.

    `errors` are its `errors()`: dicts of loc, msg, type, input.
    """
    first = errors[0]
    place = [part for part in first["loc"] if part not in ("body", "query")]
    param = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    param = param.removeprefix(".")
    if first["type"] == "extra_forbidden":
        message = f"unknown field {param[:80]!r}; /docs lists those there are"
    elif first["type"] == "missing":
        message = f"the field {param!r} is missing" if param else "the body is missing"
    else:
        value = repr(first.get("input"))
        value = value if len(value) <= 60 else value[:57] + "..."
        message = f"{param or 'the body'}: {first['msg']} (got {value})"
    return Problem(400, message, param=param or None, code="invalid_value")
