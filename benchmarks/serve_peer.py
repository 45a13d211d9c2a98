"""The peers of serve_load: other ways to serve the same model, each in a process of its own.

    python -m benchmarks.serve_peer

run by itself is sentence-transformers behind a plain FastAPI route, as tutorials have it: the
default model in float32, mean of all tokens of the bare text, unit length; the answer has OpenAI's
form with base64, so that the same requests fit. It prints "host:port" and serves.

`infinity` starts infinity-emb, a server of embeddings with dynamic batches of its own, from another
environment, since it needs older libraries than ours:

    python -m venv PEER && PEER/bin/pip install torch==2.13.0 "infinity-emb[torch,server,logging]"
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from echovec.model.store import default_model
from echovec.serve.run import listen

_PATIENCE_SECONDS = 600


class Body(BaseModel):
    """As much of OpenAI's request as the load has."""

    model: str
    input: list[str]
    encoding_format: str = "float"


@contextmanager
def plain(threads: int) -> Iterator[str]:
    """The plain route, with so many torch threads for each request; yields "host:port"."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "benchmarks.serve_peer"]
    with _running(command, environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield process.stdout.readline().decode().strip()


@contextmanager
def infinity(python: Path, log: Path) -> Iterator[str]:
    """infinity-emb of the environment of `python`, on the default model; yields "host:port".

    Its transformers 4 looks for two names in other places than ours writes them; without the base
    of the angles, vectors differ by up to 0.2.
    """
    model = default_model()
    base = _json(model / "config.json")["rope_parameters"]["rope_theta"]
    with TemporaryDirectory() as folder:
        _copied(
            model,
            Path(folder),
            {
                "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast"},
                "config.json": {"rope_theta": base},
            },
        )
        with _infinity(python, folder, log) as address:
            yield address


def _copied(model: Path, folder: Path, changes: dict[str, dict[str, Any]]) -> None:
    """The model's files with some values changed, and without its chat template.

    sentence-transformers 6 writes each text as a message of a chat where there is a template, 26
    tokens more in this one; what is compared are the texts themselves.
    """
    for file in model.iterdir():
        if file.name in changes:
            told = {**_json(file), **changes[file.name]}
            (folder / file.name).write_text(json.dumps(told), "utf-8")
        elif not file.name.startswith("chat_template"):
            (folder / file.name).symlink_to(file)


def _json(file: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return read


@contextmanager
def _infinity(python: Path, folder: str, log: Path) -> Iterator[str]:
    with listen("127.0.0.1", 0) as door:
        port = door.getsockname()[1]
    options = {
        "model-id": folder,
        "served-model-name": "bare",
        "url-prefix": "/v1",
        "host": "127.0.0.1",
        "port": port,
        "engine": "torch",
        "device": "cpu",
        "dtype": "float32",
        "pooling-method": "mean",
    }
    flags = ("--no-model-warmup", "--no-bettertransformer", "--no-trust-remote-code")
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "DO_NOT_TRACK": "1",
        "INFINITY_ANONYMOUS_USAGE_STATS": "0",
    }
    environment.pop("PYTHONPATH", None)  # of our environment, not of its own
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    command = [str(python.with_name("infinity_emb")), "v2", *words, *flags]
    with (
        log.open("wb") as out,
        _running(command, environment, stdout=out, stderr=out) as process,
    ):
        until = time.monotonic() + _PATIENCE_SECONDS
        while not _answers(f"http://127.0.0.1:{port}/health"):
            if process.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"infinity did not start ({process.poll()}); see its log {log}")
            time.sleep(0.5)
        yield f"127.0.0.1:{port}"


@contextmanager
def _running(
    command: list[str], environment: dict[str, str], **streams: Any
) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, env=environment, **streams)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


def main() -> None:
    """Load and serve."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    with TemporaryDirectory() as folder:
        _copied(default_model(), Path(folder), {})
        transformer = Transformer(folder, max_seq_length=512)
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
