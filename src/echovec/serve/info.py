"""Info: what a server is and how it does: /info, /health, /ready, /metrics."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response

from echovec.serve.inputs import service_of
from echovec.serve.playground.searchable import Shown
from echovec.serve.problem import Problem
from echovec.serve.service import Served, Service
from echovec.version import __version__

router = APIRouter(tags=["Server"])


@router.get("/info")
async def info(
    request: Request, service: Annotated[Service, Depends(service_of)]
) -> dict[str, Any]:
    """Version, limits, of each served name its recipe and fingerprint, and the index."""
    settings = service.settings
    return {
        "version": __version__,
        "limits": {
            "inputs": settings.max_inputs,
            "text_tokens": settings.max_text_tokens,
            "request_tokens": settings.max_request_tokens,
            "body_bytes": settings.max_body_bytes,
            "requests": settings.max_requests,
            "waiting_tokens": settings.max_waiting_tokens,
        },
        "models": [_described(served) for served in service.served.values()],
        "index": _index(request.app.state.index, service),
    }


@router.get("/health")
async def health() -> dict[str, str]:
    """That the process answers."""
    return {"status": "ok"}


@router.get("/ready")
async def ready(service: Annotated[Service, Depends(service_of)]) -> dict[str, str]:
    """That new requests are welcome; 503 while the server drains."""
    if service.draining:
        raise Problem(503, "the server is about to stop", code="draining")
    return {"status": "ready"}


@router.get("/metrics", response_class=Response)
async def metrics(service: Annotated[Service, Depends(service_of)]) -> Response:
    """Counters in Prometheus' text format."""
    return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")


def _index(shown: Shown | None, service: Service) -> dict[str, Any] | None:
    if shown is None:
        return None
    own = (s.name for s in service.served.values() if s.fingerprint == shown.index.fingerprint)
    return {
        "name": shown.name,
        "rows": len(shown.index),
        "fingerprint": shown.index.fingerprint,
        "model": next(own, None),
    }


def _described(served: Served) -> dict[str, Any]:
    embedder = served.embedder
    recipe = embedder.recipe
    return {
        "id": served.name,
        "recipe": recipe.name,
        "fingerprint": served.fingerprint,
        "model": recipe.model.name if recipe.model else None,
        "model_hash": recipe.model.hash if recipe.model else None,
        "dtype": recipe.dtype,
        "dimension": embedder.dimension,
        "takes_dimensions": served.takes_dimensions,
        "takes_instruction": served.takes_instruction,
        "max_tokens": recipe.max_tokens,
        "long_text": recipe.long_text,
        "prompts": {
            role: [view.template.prompt for view in views] for role, views in recipe.views.items()
        },
    }
