"""A text server beside the embedder whose `plain` export it serves.

    python scripts/vllm_parity.py FOLDER http://localhost:8000

Asks `POST /v1/embeddings` (vLLM, text-embeddings-inference, `echovec serve`) for the texts of every
parity check and compares with `Embedder.load(FOLDER)`. Exit code 1 where they differ by more than a
server's half precision explains.
"""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Sequence
from typing import Any

import numpy as np

from echovec import Embedder
from echovec.export.parity import Vectors, compare
from echovec.recipe import Role


def asked(address: str, model: str, texts: Sequence[str]) -> Vectors:
    """The server's vectors, scaled to unit length."""
    body = json.dumps({"model": model, "input": list(texts)}).encode()
    request = urllib.request.Request(
        f"{address}/v1/embeddings", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        content: Any = json.load(answer)
    rows = sorted(content["data"], key=lambda one: one["index"])
    vectors = np.array([row["embedding"] for row in rows], np.float32)
    unit: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def main(folder: str, address: str) -> int:
    """Print the comparison; 0 where it holds."""
    embedder = Embedder.load(folder)

    def export(texts: Sequence[str], role: Role) -> Vectors:
        return asked(address, folder, texts)

    limits = (0.99, 0.1)
    parity = compare(embedder, export, route="server", roles=["symmetric"], limits=limits)
    print("\n".join(parity.lines()))
    return 0 if parity.holds else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
