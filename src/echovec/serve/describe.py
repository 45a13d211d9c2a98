"""Describe: the server's own limits, names and errors in its OpenAPI document."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from echovec.serve.guard import OPEN
from echovec.serve.service import Service

ERRORS = {
    "400": "The request cannot be used; `param` names the field.",
    "401": "The key is missing or wrong.",
    "404": "No such model or route.",
    "405": "Another method.",
    "408": "The body did not come in time.",
    "413": "The body is too large.",
    "415": "The body is no JSON.",
    "429": "No room now; `Retry-After` says when.",
    "500": "A fault of the server, or of the model.",
    "503": "The server is about to stop.",
}
_ERROR_SCHEMA = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}


def describe(app: FastAPI, service: Service) -> None:
    """Let `app.openapi()` say what this very server takes and answers."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title, version=app.version, summary=app.summary, routes=app.routes
            )
            _fill(document, service)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _fill(document: dict[str, Any], service: Service) -> None:
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas["Error"] = _ERROR_SCHEMA
    answer = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    for path, methods in document["paths"].items():
        for operation in methods.values():
            operation["responses"].pop("422", None)
            for status, text in ERRORS.items():
                operation["responses"][status] = {"description": text, "content": answer}
            if service.settings.keys and path not in OPEN:
                operation["security"] = [{"key": []}]
    for schema in schemas.values():
        for name, field in schema.get("properties", {}).items():
            _limit(name, field, service)


def _limit(name: str, field: dict[str, Any], service: Service) -> None:
    """Fill in what depends on the server: names, widths, vocabulary, counts."""
    if name == "model" and "description" in field:  # those of answers have none
        for kind in field.get("anyOf", [field]):
            if kind.get("type") == "string":
                kind["enum"] = service.names
    if name == "instruction" and not any(s.takes_instruction for s in service.served.values()):
        field["anyOf"] = [{"type": "null"}]
    if name in ("dimensions", "output_dimension"):
        widths = [s.embedder.dimension for s in service.served.values() if s.takes_dimensions]
        for kind in field.get("anyOf", []):
            if kind.get("type") == "integer":
                kind["maximum"] = min(widths, default=1)
    for kind in field.get("anyOf", [field]):
        if "description" in field:
            _limit_ids(kind, service)


def _limit_ids(kind: dict[str, Any], service: Service) -> None:
    """Arrays of texts and ids: how many items, and which ids there are."""
    if kind.get("type") != "array":
        return
    kind.setdefault("maxItems", service.settings.max_inputs)
    items = kind.get("items", {})
    if items.get("type") == "integer":
        tokenizers = [served.embedder.tokenizer for served in service.served.values()]
        items["maximum"] = min(tokenizer.size for tokenizer in tokenizers) - 1
        special = sorted(set().union(*(t.special_ids for t in tokenizers)))
        if special:
            items["not"] = {"enum": special}
    _limit_ids(items, service)
