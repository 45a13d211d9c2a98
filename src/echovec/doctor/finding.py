"""Finding: one line of the doctor's report."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

State = Literal["ok", "note", "FAIL"]
"""Well; worth knowing; wrong."""


@dataclass(frozen=True)
class Finding:
    """What was looked at, what was found, and what to do about it."""

    topic: str
    state: State
    found: str
    to_do: str = ""
    """What helps, where the state is not "ok"."""

    def line(self) -> str:
        """The finding for people."""
        advice = f"\n{'':<6}{'':<22}-> {self.to_do}" if self.to_do else ""
        return f"{self.state:<6}{self.topic:<22}{self.found}{advice}"


def without_home(text: str | Path) -> str:
    """A path or message in which the home folder, which holds a user's name, is `~`."""
    home = os.path.expanduser("~")  # noqa: PTH111  (Path.home raises where there is none)
    return str(text).replace(home, "~") if len(home) > 1 and home != "~" else str(text)
