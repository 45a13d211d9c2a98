"""TEI: the routes of Hugging Face's text-embeddings-inference: embed, similarity, tokenize, rerank.

They name no model; the first that is served answers, or that of the field `model`, which is ours.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from echovec.recipe import Role
from echovec.serve.inputs import (
    INPUT_SCHEMA,
    LIST_SCHEMA,
    TEXTS_SCHEMA,
    list_of_texts,
    one_text,
    service_of,
    texts_of,
    texts_or_ids,
)
from echovec.serve.openai import as_json, headers_of
from echovec.serve.service import Embedded, Served, Service
from echovec.serve.strict import StrictRoute
from echovec.vector.similarity import cosine

router = APIRouter(route_class=StrictRoute, tags=["TEI"])

ONE_SCHEMA = {"type": "string", "minLength": 1}
PromptName = Literal["query", "document"]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Asked(_Body):
    """What all of them take beside texts."""

    model: str | None = Field(None, description="A served name; by default the first.")
    truncate: bool = Field(
        True, description="Cut texts beyond the recipe's budget; false: refuse them."
    )
    truncation_direction: Literal["right"] = Field("right", description="Texts are cut there.")


class EmbedBody(_Asked):
    """What to embed."""

    inputs: Annotated[Any, WithJsonSchema(INPUT_SCHEMA)] = Field(
        description="A text, texts, token ids, or lists of token ids."
    )
    normalize: bool = Field(True, description="Scale to unit length.")
    prompt_name: PromptName | None = Field(None, description="Which side of a search.")
    dimensions: int | None = Field(None, ge=1, description="Keep the first numbers only.")


class Sentences(_Body):
    """A text and those to compare it with."""

    source_sentence: Annotated[Any, WithJsonSchema(ONE_SCHEMA)] = Field(description="The text.")
    sentences: Annotated[Any, WithJsonSchema(LIST_SCHEMA)] = Field(description="The others.")


class Parameters(_Asked):
    """Options of a comparison."""

    prompt_name: PromptName | None = Field(None, description="Which side of a search.")


class SimilarityBody(_Body):
    """What to compare."""

    inputs: Sentences
    parameters: Parameters | None = None


class TokenizeBody(_Body):
    """What to tokenise."""

    model: str | None = Field(None, description="A served name; by default the first.")
    inputs: Annotated[Any, WithJsonSchema(TEXTS_SCHEMA)] = Field(description="A text or texts.")
    add_special_tokens: bool = Field(
        True, description="Taken; texts have none either way, templates do."
    )


class Token(BaseModel):
    """One token of a text."""

    id: int
    text: str
    special: bool = False
    start: int | None = None
    stop: int | None = None


class RerankBody(_Asked):
    """A query and texts to be ranked."""

    query: Annotated[Any, WithJsonSchema(ONE_SCHEMA)] = Field(description="What is asked.")
    texts: Annotated[Any, WithJsonSchema(LIST_SCHEMA)] = Field(description="What may answer it.")
    instruction: str | None = Field(None, description="For recipes that take one.")
    raw_scores: bool = Field(False, description="Taken; scores are cosines either way.")
    return_text: bool = Field(False, description="Send the texts back.")


class Rank(BaseModel):
    """A text's place in the list that was sent, and its cosine with the query."""

    index: int
    score: float
    text: str | None = None


@router.post("/embed", response_model=list[list[float]])
async def embed(body: EmbedBody, service: Annotated[Service, Depends(service_of)]) -> Response:
    """Texts to vectors."""
    served, role = _served(service, body.model)
    texts = await texts_or_ids(body.inputs, "inputs", served, service)
    target = served.target(
        body.prompt_name or role,
        truncate=body.truncate,
        dimensions=body.dimensions,
        normalize=body.normalize,
    )
    embedded = await service.embed(target, texts, "inputs")
    rows = await service.run(as_json, embedded.vectors)
    content = b"[%b]" % b",".join(rows)
    return Response(content, media_type="application/json", headers=headers_of(embedded))


@router.post("/similarity", response_model=list[float])
async def similarity(
    body: SimilarityBody, service: Annotated[Service, Depends(service_of)]
) -> list[float]:
    """The cosine of a text with each of others."""
    asked = body.parameters or Parameters.model_validate({})
    served, role = _served(service, asked.model)
    limit = service.settings.max_inputs
    source = one_text(body.inputs.source_sentence, "inputs.source_sentence")
    others = list_of_texts(body.inputs.sentences, "inputs.sentences", limit)
    target = served.target(asked.prompt_name or role, truncate=asked.truncate)
    first, rest = await _together(
        service.embed(target, [source], "inputs.source_sentence"),
        service.embed(target, others, "inputs.sentences"),
    )
    return [float(one) for one in cosine(rest.vectors, first.vectors)[:, 0]]


@router.post("/tokenize", response_model=list[list[Token]])
async def tokenize(
    body: TokenizeBody, service: Annotated[Service, Depends(service_of)]
) -> list[list[Token]]:
    """The ids that texts are made of; `/v1/embeddings` takes them in place of the texts.

    A token that is part of a character has U+FFFD as its text.
    """
    served, _ = _served(service, body.model)
    texts = texts_of(body.inputs, "inputs", service.settings.max_inputs)
    await service.run(service.check, served, texts, "inputs")
    return await service.run(_tokens, served, texts)


@router.post("/rerank", response_model=list[Rank], response_model_exclude_none=True)
async def rerank(body: RerankBody, service: Annotated[Service, Depends(service_of)]) -> list[Rank]:
    """Texts by their cosine with a query, best first; equal ones in the order sent."""
    served, _ = _served(service, body.model)
    query = one_text(body.query, "query")
    texts = list_of_texts(body.texts, "texts", service.settings.max_inputs)
    asking = served.target("query", instruction=body.instruction, truncate=body.truncate)
    answering = served.target("document", truncate=body.truncate)
    asked, answers = await _together(
        service.embed(asking, [query], "query"),
        service.embed(answering, texts, "texts"),
    )
    scores = cosine(answers.vectors, asked.vectors)[:, 0]
    order = (-scores).argsort(kind="stable").tolist()
    return [
        Rank(index=i, score=float(scores[i]), text=texts[i] if body.return_text else None)
        for i in order
    ]


async def _together(*calls: Awaitable[Embedded]) -> list[Embedded]:
    """What all of them give; where one fails, the others are given up."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def _served(service: Service, name: str | None) -> tuple[Served, Role | None]:
    return (service.first, None) if name is None else service.find(name)


def _tokens(served: Served, texts: list[str]) -> list[list[Token]]:
    tokenizer = served.embedder.tokenizer
    return [
        [Token(id=one, text=tokenizer.detokenize([one])) for one in row]
        for row in tokenizer.tokenize(texts)
    ]
