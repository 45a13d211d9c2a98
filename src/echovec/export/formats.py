"""Formats: what an embedder can be exported to, by name; to add one, add a row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from echovec.embedder import Embedder
from echovec.export.parity import Parity

Export = Callable[[Embedder, Path, Any], Parity]
"""Writes a new folder and compares; raises ExportError, and leaves nothing, if that fails."""


def _sentence_transformers(embedder: Embedder, folder: Path, route: Any) -> Parity:
    from echovec.export.to_sentence_transformers import export

    return export(embedder, folder, route=route)


FORMATS: Mapping[str, Export] = {"sentence-transformers": _sentence_transformers}
