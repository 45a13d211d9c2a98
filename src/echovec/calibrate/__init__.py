"""Calibrate: a recipe with transforms fitted on unlabelled text, which the model can write itself.

    self_texts (write.py, kept.py) or a caller's texts --Embedder.states--> fit --> Embedder

`fitting.calibrate` is all of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from echovec.calibrate.fitting import calibrate
    from echovec.calibrate.kept import Written, self_texts
    from echovec.calibrate.write import Writing

_HOME = {
    "Writing": "echovec.calibrate.write",
    "Written": "echovec.calibrate.kept",
    "calibrate": "echovec.calibrate.fitting",
    "self_texts": "echovec.calibrate.kept",
}

__all__ = ["Writing", "Written", "calibrate", "self_texts"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        from importlib import import_module

        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'echovec.calibrate' has no attribute {name!r}")
