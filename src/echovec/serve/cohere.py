"""Cohere: `POST /v2/embed`, so that clients of their second interface work here."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, get_args
from uuid import uuid4

import numpy as np
from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from echovec.recipe import Role
from echovec.serve.inputs import LIST_SCHEMA, list_of_texts, service_of
from echovec.serve.openai import as_base64, as_json, headers_of
from echovec.serve.ready import Vectors
from echovec.serve.service import Embedded, Service
from echovec.serve.strict import StrictRoute

router = APIRouter(route_class=StrictRoute, tags=["Cohere"])

InputType = Literal["search_query", "search_document", "classification", "clustering"]
Kind = Literal["float", "base64", "binary", "ubinary"]
ROLE_OF: dict[str, Role] = {"search_query": "query", "search_document": "document"}
"""Input types that are a role; the others are for both sides alike."""


class EmbedRequest(BaseModel):
    """What to embed, and by what."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str = Field(description="A served name.")
    texts: Annotated[Any, WithJsonSchema(LIST_SCHEMA)] = Field(description="The texts.")
    input_type: InputType = Field(description="What the vectors are for.")
    embedding_types: list[Kind] = Field(
        ["float"],
        min_length=1,
        max_length=len(get_args(Kind)),
        description="Numbers, base64 of float32, or the signs packed into bytes, signed or not.",
    )
    truncate: Literal["NONE", "END"] = Field("END", description="Refuse texts too long, or cut.")
    output_dimension: int | None = Field(None, ge=1, description="Keep the first numbers only.")
    instruction: str | None = Field(None, description="For recipes that take one.")


Numbers = list[list[float]]  # in the class the name is the field's
Bytes = list[list[int]]


class ByKind(BaseModel):
    """The vectors in each form that was asked for."""

    model_config = ConfigDict(extra="forbid")

    float: Numbers | None = None
    base64: list[str] | None = None
    binary: Bytes | None = None
    ubinary: Bytes | None = None


class EmbedResponse(BaseModel):
    """Vectors in the order of the texts."""

    id: str
    response_type: Literal["embeddings_by_type"] = "embeddings_by_type"
    embeddings: ByKind
    texts: list[str]
    meta: dict[str, Any]


@router.post("/v2/embed", response_model=EmbedResponse)
async def embed(body: EmbedRequest, service: Annotated[Service, Depends(service_of)]) -> Response:
    """Texts to vectors, as Cohere's interface has it."""
    served, role = service.find(body.model)
    texts = list_of_texts(body.texts, "texts", service.settings.max_inputs)
    target = served.target(
        ROLE_OF.get(body.input_type) or role,
        instruction=body.instruction,
        truncate=body.truncate == "END",
        dimensions=body.output_dimension,
    )
    embedded = await service.embed(target, texts, "texts", dimensions_param="output_dimension")
    content = await service.run(_content, embedded, texts, body.embedding_types)
    return Response(content, media_type="application/json", headers=headers_of(embedded))


def _content(embedded: Embedded, texts: list[str], kinds: list[Kind]) -> bytes:
    forms = (
        b'"%b":[%b]' % (kind.encode(), b",".join(_ROWS[kind](embedded.vectors)))
        for kind in dict.fromkeys(kinds)
    )
    meta = {"api_version": {"version": "2"}, "billed_units": {"input_tokens": embedded.tokens}}
    rest = {"id": str(uuid4()), "response_type": "embeddings_by_type", "texts": texts, "meta": meta}
    return b'{"embeddings":{%b},%b' % (b",".join(forms), json.dumps(rest).encode()[1:])


def _quoted(vectors: Vectors) -> list[bytes]:
    return [b'"' + row + b'"' for row in as_base64(vectors)]


def _signs(vectors: Vectors) -> list[bytes]:
    """One bit a number, set where it is above 0, the first the highest of its byte; as int8."""
    packed = np.packbits(vectors > 0, axis=1).astype(np.int16) - 128
    return [json.dumps(row.tolist()).encode() for row in packed]


def _unsigned(vectors: Vectors) -> list[bytes]:
    packed = np.packbits(vectors > 0, axis=1)
    return [json.dumps(row.tolist()).encode() for row in packed]


_ROWS = {"float": as_json, "base64": _quoted, "binary": _signs, "ubinary": _unsigned}
