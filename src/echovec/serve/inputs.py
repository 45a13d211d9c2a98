"""Inputs: what the routes take as texts: one, several, or token ids; checked before any work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from fastapi import Request

from echovec.serve.problem import Problem
from echovec.serve.service import Served, Service

LIST_SCHEMA: dict[str, Any] = {
    "type": "array",
    "items": {"type": "string", "minLength": 1},
    "minItems": 1,
}
"""Texts, as JSON schema; limits of the server are filled in by `describe`."""

TEXTS_SCHEMA: dict[str, Any] = {"anyOf": [{"type": "string", "minLength": 1}, LIST_SCHEMA]}
"""A text or several."""

IDS_SCHEMA: dict[str, Any] = {
    "type": "array",
    "items": {"type": "integer", "minimum": 0},
    "minItems": 1,
}

INPUT_SCHEMA = {
    "anyOf": [
        *TEXTS_SCHEMA["anyOf"],
        IDS_SCHEMA,
        {"type": "array", "items": IDS_SCHEMA, "minItems": 1},
    ]
}
"""Texts, or token ids."""


async def service_of(request: Request) -> Service:
    """The service that the application serves."""
    found = request.app.state.service
    assert isinstance(found, Service)
    return found


def texts_of(value: Any, param: str, limit: int) -> list[str]:
    """A text or a list of them, as a list.

    Raises:
        Problem: 400; it is neither, or empty, or longer than `limit`.
    """
    if isinstance(value, str):
        if not value:
            _refuse(f"{param} is empty; give it words", param)
        return [value]
    if not isinstance(value, list):
        _refuse(f"{param} is {_kind(value)}; give a text or a list of texts", param)
    _check_length(value, param, limit)
    for index, one in enumerate(value):
        if not isinstance(one, str):
            _refuse(f"{param}[{index}] is {_kind(one)}, not a text", f"{param}[{index}]")
        if not one:
            _refuse(f"{param}[{index}] is empty; drop it or give it words", f"{param}[{index}]")
    return list(value)


def list_of_texts(value: Any, param: str, limit: int) -> list[str]:
    """`texts_of` where one text alone is not taken."""
    if isinstance(value, str):
        _refuse(f"{param} is {_kind(value)}; give a list of texts", param)
    return texts_of(value, param, limit)


def one_text(value: Any, param: str) -> str:
    """`texts_of` where a list is not taken."""
    if not isinstance(value, str):
        _refuse(f"{param} is {_kind(value)}, not a text", param)
    return texts_of(value, param, 1)[0]


async def texts_or_ids(value: Any, param: str, served: Served, service: Service) -> list[str]:
    """Texts, or lists of token ids turned into texts.

    Raises:
        Problem: 400; see `texts_of`; or an id is out of range, or stands for a special token.
    """
    limit = service.settings.max_inputs
    if not isinstance(value, list) or not value or isinstance(value[0], str):
        return texts_of(value, param, limit)
    if isinstance(value[0], list):
        _check_length(value, param, limit)
        for index, row in enumerate(value):
            _check_ids(row, f"{param}[{index}]", served, service)
        return await service.run(_texts, served, value, param)
    _check_ids(value, param, served, service)
    return await service.run(_texts, served, [value], param)


def _check_ids(row: Any, param: str, served: Served, service: Service) -> None:
    if not isinstance(row, list):
        _refuse(f"{param} is {_kind(row)}, and the others are lists of token ids", param)
    if not row:
        _refuse(f"{param} is empty; give it token ids or drop it", param)
    if len(row) > service.settings.max_text_tokens:
        raise Problem(
            400,
            f"{param} has {len(row):,} tokens, and a text may have "
            f"{service.settings.max_text_tokens:,}; split it",
            param=param,
            code="context_length_exceeded",
        )
    size = served.embedder.tokenizer.size
    special = served.embedder.tokenizer.special_ids
    if set(map(type, row)) == {int} and min(row) >= 0 and max(row) < size:
        if special.isdisjoint(row):
            return
        index = next(i for i, one in enumerate(row) if one in special)
        why = f"{row[index]} stands for a special token, which no text may hold"
    else:
        index = next(i for i, one in enumerate(row) if type(one) is not int or not 0 <= one < size)
        why = f"{_kind(row[index])} is no token id of this model: 0 to {size - 1}"
    _refuse(f"{param}[{index}]: {why}", f"{param}[{index}]")


def _texts(served: Served, rows: Sequence[Sequence[int]], param: str) -> list[str]:
    """Ids to texts: the prompt needs the text, and tokenises it as it does any other."""
    tokenizer = served.embedder.tokenizer
    texts = [tokenizer.detokenize(row) for row in rows]
    for index, text in enumerate(texts):
        if not text:
            where = param if len(rows) == 1 else f"{param}[{index}]"
            _refuse(f"{where}: these token ids are no text", where)
    return texts


def _check_length(value: Sequence[Any], param: str, limit: int) -> None:
    if not value:
        _refuse(f"{param} is an empty list; give one text at least", param)
    if len(value) > limit:
        _refuse(
            f"{param} has {len(value):,} items, and a request may have {limit:,}; send several",
            param,
        )


def _kind(value: Any) -> str:
    shown = repr(value)
    return f"{type(value).__name__} ({shown if len(shown) <= 40 else shown[:37] + '...'})"


def _refuse(message: str, param: str) -> NoReturn:
    raise Problem(400, message, param=param, code="invalid_value")
