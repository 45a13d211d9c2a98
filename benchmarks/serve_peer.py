"""The peer of serve_load: sentence-transformers behind a plain FastAPI route, as tutorials have it.

    python -m benchmarks.serve_peer

The default model in float32, mean of all tokens, unit length; the answer has OpenAI's form with
base64, so that the same requests fit. Prints "host:port" and serves.
"""

from __future__ import annotations

import base64
from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from echovec.model.store import default_model
from echovec.serve.run import listen


class Body(BaseModel):
    """As much of OpenAI's request as the load has."""

    model: str
    input: list[str]
    encoding_format: str = "float"


def main() -> None:
    """Load and serve."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer

    transformer = Transformer(str(default_model()), max_seq_length=512)
    tokenizer: Any = transformer.tokenizer
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    pooling = Pooling(transformer.get_embedding_dimension(), "mean")
    model = SentenceTransformer(modules=[transformer, pooling], device="cpu")
    model.float()  # the copy on disk is float16, which CPUs compute slowly
    app = FastAPI()

    @app.post("/v1/embeddings")
    def embeddings(body: Body) -> dict[str, Any]:
        """A route as plain as they come; FastAPI runs it in one of its threads."""
        rows = model.encode(body.input, normalize_embeddings=True, show_progress_bar=False)
        data = [
            {"index": i, "embedding": base64.b64encode(row.tobytes()).decode()}
            for i, row in enumerate(rows)
        ]
        return {"object": "list", "model": body.model, "data": data}

    door = listen("127.0.0.1", 0)
    print(f"127.0.0.1:{door.getsockname()[1]}", flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="error")).run(sockets=[door])


if __name__ == "__main__":
    main()
