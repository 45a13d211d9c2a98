"""Routes of the playground: its page and assets, tokens, search and map."""

from __future__ import annotations

from dataclasses import asdict
from functools import cache
from importlib import resources
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from echovec.errors import InputError
from echovec.serve.inputs import one_text, service_of
from echovec.serve.playground.groups import groups
from echovec.serve.playground.searchable import Shown
from echovec.serve.playground.tokens import near_tokens, renderer_of, repeats
from echovec.serve.problem import Problem
from echovec.serve.service import Served, Service
from echovec.serve.strict import StrictRoute
from echovec.text.render import Renderer

pages = APIRouter(include_in_schema=False)
router = APIRouter(route_class=StrictRoute, prefix="/playground", tags=["Playground"])

MOST_POINTS = 5000
_FEW = 24
"""Different values that a field may have to colour the map by it."""

_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_HEADERS = {
    "content-security-policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
_TEXT_SCHEMA = {"type": "string", "minLength": 1}


@cache
def assets() -> dict[str, bytes]:
    """Every file of the page, by name; they come with the package."""
    folder = resources.files("echovec.serve.playground") / "assets"
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


@pages.get("/")
async def index() -> Response:
    """The page."""
    return _asset("index.html")


@pages.get("/docs")
async def docs() -> Response:
    """The interface, described from /openapi.json."""
    return _asset("docs.html")


@pages.get("/assets/{name}")
async def asset(name: str) -> Response:
    """A file of the page."""
    return _asset(name)


class TokensBody(BaseModel):
    """Two texts to be set against each other."""

    model_config = ConfigDict(extra="forbid", strict=True)

    left: Annotated[Any, WithJsonSchema(_TEXT_SCHEMA)] = Field(description="A text.")
    right: Annotated[Any, WithJsonSchema(_TEXT_SCHEMA)] = Field(description="Another.")


class SearchBody(BaseModel):
    """A question to the index."""

    model_config = ConfigDict(extra="forbid", strict=True)

    query: Annotated[Any, WithJsonSchema(_TEXT_SCHEMA)] = Field(description="What is asked.")
    k: int = Field(10, ge=1, le=100, description="How many rows.")


@router.post("/tokens")
async def tokens(
    body: TokensBody, request: Request, service: Annotated[Service, Depends(service_of)]
) -> dict[str, Any]:
    """How near each token of both copies of a text is to the other text."""
    texts = (one_text(body.left, "left"), one_text(body.right, "right"))
    if request.app.state.echo is None:
        raise Problem(404, "no recipe with two copies of a text is served here", code="no_echo")
    served, renderer = request.app.state.echo
    for param, text in zip(("left", "right"), texts, strict=True):
        await service.run(service.check, served, [text], param)
    try:
        found, shared = await service.in_turn(served, near_tokens, served.embedder, texts, renderer)
    except InputError as error:
        raise Problem(400, str(error), param="left" if error.index == 0 else "right") from None
    return {
        "model": served.name,
        "texts": [asdict(one) for one in found],
        "shared": None if shared is None else asdict(shared),
    }


@router.post("/search")
async def search(
    body: SearchBody, request: Request, service: Annotated[Service, Depends(service_of)]
) -> dict[str, Any]:
    """Rows of the server's index that are near a query."""
    shown, served = _shown(request, service)
    target = served.target(shown.role, instruction=shown.instruction, dimensions=shown.dimensions)
    embedded = await service.embed(target, [one_text(body.query, "query")], "query")
    hits = await service.run(shown.index.search, embedded.vectors[0], body.k)
    return {"hits": [{"id": h.id, "score": h.score, "text": h.text} for h in hits]}


@router.get("/points")
async def points(
    request: Request,
    service: Annotated[Service, Depends(service_of)],
    limit: Annotated[int, Query(ge=1, le=MOST_POINTS)] = 2000,
) -> dict[str, Any]:
    """Rows of the index as points of the plane, and what they may be coloured by."""
    shown, _ = _shown(request, service)
    known = request.app.state.points  # an index does not change while it is served
    if limit not in known:
        known.clear()
        known[limit] = await service.run(_points, shown, limit)
    return dict(known[limit])


def first_echo(service: Service) -> tuple[Served, Renderer] | None:
    """What the tokens are read by: the first that is served with two copies of a text."""
    echoes = (served for served in service.served.values() if repeats(served.embedder))
    return next(((served, renderer_of(served.embedder)) for served in echoes), None)


def _points(shown: Shown, limit: int) -> dict[str, Any]:
    found = shown.index.points(limit)
    fields = {
        name: ["" if value is None else str(value) for value in values]
        for name, values in found.fields.items()
        if 1 < len(set(map(str, values))) <= _FEW
    }
    fields["what is alike"] = groups(found.vectors_ND, found.texts, found.ids)
    return {
        "name": shown.name,
        "total": len(shown.index),
        "ids": found.ids,
        "texts": found.texts,
        "xy": found.xy_N2.round(5).tolist(),
        "fields": fields,
    }


def _shown(request: Request, service: Service) -> tuple[Shown, Served]:
    """The index, and what embeds queries to it."""
    shown = request.app.state.index
    if not isinstance(shown, Shown):
        raise Problem(
            404,
            "this server has no index; make one with `echovec index` and start the server with "
            "--index FOLDER",
            code="no_index",
        )
    own = (s for s in service.served.values() if s.fingerprint == shown.index.fingerprint)
    served = next(own, None)
    if served is None:
        raise Problem(
            404,
            f"the index holds vectors of fingerprint {shown.index.fingerprint}, and no recipe "
            "served here has it; serve the recipe it was made with",
            code="no_recipe_of_index",
        )
    return shown, served


def _asset(name: str) -> Response:
    content = assets().get(name)
    if content is None:
        raise Problem(404, f"the page has no file {name[:80]!r}", code="unknown_url")
    kind = _TYPES[name.rpartition(".")[2]]
    return Response(content, media_type=kind, headers=_HEADERS)
