"""OpenAI: `POST /v1/embeddings` and `GET /v1/models`, so that every client of theirs works here.

Three fields of ours may be in the body: `input_type`, `instruction` and `truncate`; clients that
cannot send them name a role with the model ("echo:query").
"""

from __future__ import annotations

import base64
import json
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from echovec.serve.inputs import INPUT_SCHEMA, service_of, texts_or_ids
from echovec.serve.ready import Vectors
from echovec.serve.service import Embedded, Service
from echovec.serve.strict import StrictRoute

FEW = 8

router = APIRouter(route_class=StrictRoute, tags=["OpenAI"])


class EmbeddingsRequest(BaseModel):
    """What to embed, and by what."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str = Field(description="A served name, or with a role: NAME:query, NAME:document.")
    input: Annotated[Any, WithJsonSchema(INPUT_SCHEMA)] = Field(
        description="A text, texts, token ids, or lists of token ids."
    )
    encoding_format: Literal["float", "base64"] = Field(
        "float", description="Lists of numbers, or base64 of little-endian float32."
    )
    dimensions: int | None = Field(None, ge=1, description="Keep the first numbers only.")
    user: str | None = Field(None, description="Taken and ignored.")
    input_type: Literal["query", "document"] | None = Field(
        None, description="Which side of a search the texts are on, whatever the name says."
    )
    instruction: str | None = Field(
        None, description="What the vectors are for; for recipes that take one."
    )
    truncate: bool = Field(
        True, description="Cut texts beyond the recipe's budget; false: refuse them."
    )


class Embedding(BaseModel):
    """One vector."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class Usage(BaseModel):
    """Tokens of the texts, each once; `x-compute-tokens` has those of the prompts."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsResponse(BaseModel):
    """Vectors in the order of the texts."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: Usage


class Model(BaseModel):
    """A served name."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str


class ModelList(BaseModel):
    """All served names."""

    object: Literal["list"] = "list"
    data: list[Model]


@router.post("/v1/embeddings", response_model=EmbeddingsResponse)
async def embeddings(
    body: EmbeddingsRequest, service: Annotated[Service, Depends(service_of)]
) -> Response:
    """Texts to vectors, as OpenAI's interface has it."""
    served, role = service.find(body.model)
    target = served.target(
        body.input_type or role,
        instruction=body.instruction,
        truncate=body.truncate,
        dimensions=body.dimensions,
    )
    texts = await texts_or_ids(body.input, "input", served, service)
    embedded = await service.embed(target, texts, "input")
    # A few vectors are written sooner than a thread is woken.
    content = (
        _content(embedded, body.model, body.encoding_format)
        if len(texts) <= FEW
        else await service.run(_content, embedded, body.model, body.encoding_format)
    )
    return Response(content, media_type="application/json", headers=headers_of(embedded))


@router.get("/v1/models", response_model=ModelList)
@router.get("/v1/models/", response_model=ModelList, include_in_schema=False)
async def models(service: Annotated[Service, Depends(service_of)]) -> ModelList:
    """The names that are served."""
    listed = [Model(id=name, created=0, owned_by="echovec") for name in service.names]
    return ModelList(data=listed)


@router.get("/v1/models/{name:path}", response_model=Model)
async def model(name: str, service: Annotated[Service, Depends(service_of)]) -> Model:
    """One name, if it is served."""
    service.find(name)
    return Model(id=name, created=0, owned_by="echovec")


def headers_of(embedded: Embedded) -> dict[str, str]:
    """What every answer with vectors says beside them."""
    return {
        "x-compute-tokens": str(embedded.computed_tokens),
        "x-truncated": str(int(embedded.truncated.sum())),
    }


def as_json(vectors: Vectors) -> list[bytes]:
    """Each vector as a JSON list of the shortest numbers that read back as the same float32."""
    return [orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY) for row in vectors]


def as_base64(vectors: Vectors) -> list[bytes]:
    """Each vector's float32 numbers, little end first."""
    return [base64.b64encode(row.tobytes()) for row in vectors.astype("<f4", copy=False)]


def _content(embedded: Embedded, name: str, encoding: str) -> bytes:
    # By hand: vectors are nearly all of the answer, and pydantic would walk each number.
    rows = (
        as_json(embedded.vectors)
        if encoding == "float"
        else [b'"' + row + b'"' for row in as_base64(embedded.vectors)]
    )
    data = b",".join(
        b'{"object":"embedding","index":%d,"embedding":%b}' % (index, row)
        for index, row in enumerate(rows)
    )
    usage = {"prompt_tokens": embedded.tokens, "total_tokens": embedded.tokens}
    return b'{"object":"list","data":[%b],"model":%b,"usage":%b}' % (
        data,
        json.dumps(name).encode(),
        json.dumps(usage, separators=(",", ":")).encode(),
    )
