"""Settings: what a server allows and how long it waits; one frozen value, checked when made."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from pathlib import Path

from echovec.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Limits of a server. Those of the OpenAI contract are its defaults.

    Raises:
        InputError: a number is below its least, or not finite.
    """

    keys: tuple[str, ...] = field(default=(), repr=False)
    """Any of these opens every route; none: all are open."""

    max_inputs: int = 2048
    """Texts of one request."""

    max_text_tokens: int = 8192
    """Tokens of one text; those beyond the recipe's budget are cut, or refused on demand."""

    max_request_tokens: int = 300_000
    """Tokens of all texts of a request."""

    max_body_bytes: int = 4 << 20
    """Bytes of a request's body."""

    max_bodies_bytes: int = 256 << 20
    """Bytes of the bodies of all requests at once."""

    max_requests: int = 2048
    """Requests at once; more are told to come back."""

    max_waiting_tokens: int = 131_072
    """Tokens of prompts that wait for the model; more are told to come back. A request that finds
    nothing waiting is always taken."""

    batch_tokens: int | None = None
    """Tokens of one batch; by default the embedder's own for its device."""

    header_seconds: float = 10.0
    """Within which a request's head has to be there."""

    body_seconds: float = 10.0
    """Within which its body has to be there."""

    drain_seconds: float = 30.0
    """How long requests may still run after SIGTERM."""

    cache: Path | None = None
    """A file of vectors to look texts up in and to add to."""

    cache_rows: int = 1_000_000
    """Vectors that the file keeps; the oldest go first."""

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, int | float) and not 0 < value < math.inf:
                raise InputError(f"{one.name}={value}; give a finite number above 0")
        if any(not key or not key.isascii() or key != key.strip() for key in self.keys):
            raise InputError("a key is empty, or holds blanks around it or more than ASCII")
