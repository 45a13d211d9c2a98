"""Switch: environment variables that say yes or no."""

from __future__ import annotations

import os

_NO = ("", "0", "false", "no", "off")


def is_on(name: str) -> bool:
    """Whether a variable says yes: it is set, and not to 0, false, no or off."""
    return os.environ.get(name, "").strip().lower() not in _NO
