"""Problem: an answer that is an error, in the one form that all routes use, which is OpenAI's.

It is `{"error": {"message": ..., "type": ..., "param": ..., "code": ...}}`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException

TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


class Problem(HTTPException):
    """Something the client has to know: status, message, the field it is about, a code.

    Args:
        status: HTTP status.
        message: what is wrong, the value received, the next step.
        param: the field it is about, as a path such as "input[3]".
        code: a word for programs.
        headers: to be sent with it.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, dict(headers or {}))
        self.param = param
        self.code = code

    @property
    def content(self) -> dict[str, Any]:
        """The answer's JSON."""
        kind = TYPES.get(self.status_code)
        kind = kind or ("invalid_request_error" if self.status_code < 500 else "server_error")
        return {
            "error": {
                "message": printable(str(self.detail)),
                "type": kind,
                "param": None if self.param is None else printable(self.param),
                "code": self.code,
            }
        }

    def body(self) -> bytes:
        """The answer's bytes."""
        return json.dumps(self.content).encode()


def come_back(seconds: int, what: str) -> Problem:
    """A 429: there is no room now, and when to try again."""
    return Problem(
        429,
        f"{what}; try again in {seconds} s",
        code="rate_limit_exceeded",
        headers={"retry-after": str(seconds)},
    )


def printable(text: str) -> str:
    """The text without lone surrogates, which no answer can carry."""
    return text.encode("utf-8", "replace").decode("utf-8")
