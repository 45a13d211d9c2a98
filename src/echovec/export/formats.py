"""Formats: what an embedder can be exported to, by name; to add one, add a row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from echovec.embedder import Embedder
from echovec.errors import InputError
from echovec.export.parity import Parity

Export = Callable[[Embedder, Path, Any], Parity]
"""Writes a new folder and compares; raises ExportError, and leaves nothing, if that fails."""


def _sentence_transformers(embedder: Embedder, folder: Path, route: Any) -> Parity:
    from echovec.export.to_sentence_transformers import export

    return export(embedder, folder, route=route)


def _graph(kind: str) -> Export:
    def export(embedder: Embedder, folder: Path, route: Any) -> Parity:
        from echovec.export.to_sentence_transformers import need_sentence_transformers

        need_sentence_transformers()  # a graph is made of the module's code
        from echovec.export.to_graph import export_graph

        if route != "auto":
            raise InputError(f"--route {route!r} is for sentence-transformers; {kind} has one way")
        return export_graph(embedder, folder, kind)

    return export


FORMATS: Mapping[str, Export] = {
    "sentence-transformers": _sentence_transformers,
    "onnx": _graph("onnx"),
    "onnx-int8": _graph("onnx-int8"),
    "openvino": _graph("openvino"),
    "openvino-int8": _graph("openvino-int8"),
}
