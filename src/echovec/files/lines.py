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
        return json.dumps(_finite(row), ensure_ascii=ensure_ascii, default=str, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(own) for name, own in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(own) for own in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
