"""Lines: rows of users' data as lines of JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def json_line(row: Mapping[str, Any], *, ensure_ascii: bool = False) -> str:
    """One row; a number that JSON has none for (NaN) is null, a date and the like are text."""
    try:
        return json.dumps(dict(row), ensure_ascii=ensure_ascii, default=str, allow_nan=False)
    except ValueError:
        return json.dumps(finite(row), ensure_ascii=ensure_ascii, default=str, allow_nan=False)


def finite(value: Any) -> Any:
    """A value in which a number that JSON has none for is null."""
    if isinstance(value, Mapping):
        return {name: finite(own) for name, own in value.items()}
    if isinstance(value, list | tuple):
        return [finite(own) for own in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
