"""Strict: a route that takes JSON as the standard has it, and nothing else.

Python's parser takes NaN, Infinity and repeated names, and raises RecursionError on deep nesting;
frameworks take bodies of any type. Each is refused here, by name. JSON has one kind of number,
so 2.0 is the whole number 2, as JSON schema has it.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

from fastapi import Request, Response
from fastapi.routing import APIRoute

from echovec.serve.problem import Problem

_EXACT = 2.0**53
"""Below it every whole number is a float of its own."""


def parse(body: bytes) -> Any:
    """The value of a JSON document.

    Raises:
        Problem: 400; it is no JSON, or not UTF-8, or names a field twice.
    """
    try:
        return json.loads(
            body.decode("utf-8"),
            parse_constant=_constant,
            parse_float=_number,
            object_pairs_hook=_unique,
        )
    except UnicodeDecodeError as error:
        raise _invalid(f"it is not UTF-8 at byte {error.start}") from None
    except RecursionError:
        raise _invalid("it is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise _invalid(f"{error.msg} at character {error.pos}") from None
    except ValueError:  # a whole number of more than 4,300 digits
        raise _invalid("a number has too many digits") from None


class StrictRoute(APIRoute):
    """A route whose bodies are JSON that `parse` accepts."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, with a request that parses strictly."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            if request.method in ("POST", "PUT", "PATCH"):
                kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
                if kind != "application/json":
                    raise Problem(
                        415,
                        f"the content-type is {kind[:80]!r}; send JSON with 'application/json'",
                        code="unsupported_media_type",
                    )
                request = _Strict(request.scope, request.receive)
            return await handler(request)

        return handle


class _Strict(Request):
    async def json(self) -> Any:
        return parse(await self.body())


def _constant(name: str) -> NoReturn:
    raise _invalid(f"{name} is no JSON number")


def _number(digits: str) -> float | int:
    value = float(digits)
    if math.isinf(value):
        raise _invalid(f"the number {digits[:40]} is too large")
    return int(value) if value.is_integer() and abs(value) < _EXACT else value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = next(name for name, count in counts.items() if count > 1)
        raise _invalid(f"the name {twice[:80]!r} is there twice")
    return found


def _invalid(why: str) -> Problem:
    return Problem(400, f"the body is no valid JSON: {why}", code="invalid_json")
