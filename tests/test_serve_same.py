"""One vector for one text, wherever it is asked for: library, command line, every route."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from echovec.cli import app
from echovec.embedder import Embedder
from echovec.serve.service import Service
from serve_stub import HOSTILE
from test_serve_openai import client


async def rows_of_routes(http, texts, ids):
    """The vectors of every route and encoding, by name."""

    async def post(path, **body):
        answer = await http.post(path, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def decoded(rows):
        return [np.frombuffer(base64.b64decode(row), "<f4") for row in rows]

    openai = {"model": "echo", "input": texts}
    floats = await post("/v1/embeddings", **openai)
    packed = await post("/v1/embeddings", **openai, encoding_format="base64")
    by_ids = await post("/v1/embeddings", model="echo", input=ids)
    kinds = ["float", "base64"]
    cohere = {"model": "echo", "texts": texts, "input_type": "clustering", "embedding_types": kinds}
    both = (await post("/v2/embed", **cohere))["embeddings"]
    alone = [(await post("/embed", inputs=text, model="echo"))[0] for text in texts]
    rows = {
        "openai floats": [one["embedding"] for one in floats["data"]],
        "openai base64": decoded(one["embedding"] for one in packed["data"]),
        "openai ids": [one["embedding"] for one in by_ids["data"]],
        "cohere floats": both["float"],
        "cohere base64": decoded(both["base64"]),
        "tei together": await post("/embed", inputs=texts, model="echo"),
        "tei alone": alone,
    }
    return {name: np.array(row, np.float32) for name, row in rows.items()}


@pytest.mark.slow
async def test_the_default_model_gives_one_vector_for_one_text(default_model, tmp_path):
    """Hostile texts: library, command line and all routes within 1e-5; base64 equals floats."""
    embedder = Embedder.load(recipe="echo")
    expected = embedder.encode(HOSTILE)
    ids = embedder.tokenizer.tokenize(HOSTILE)
    async with client(Service({"echo": embedder})) as http:
        found = await rows_of_routes(http, HOSTILE, ids)
    lines = tmp_path / "texts.jsonl"
    lines.write_text("".join(json.dumps({"text": text}) + "\n" for text in HOSTILE), "utf-8")
    out = tmp_path / "out.npy"
    result = CliRunner().invoke(app, ["embed", str(lines), "-o", str(out), "--recipe", "echo"])
    assert result.exit_code == 0, result.output
    found["command line"] = np.load(out)
    apart = {name: float(np.abs(rows - expected).max()) for name, rows in found.items()}
    print(f"{len(HOSTILE)} texts, largest differences: {apart}")
    assert max(apart.values()) <= 1e-5
    assert np.array_equal(found["openai floats"], found["openai base64"])
    assert np.array_equal(found["cohere floats"], found["cohere base64"])
