"""`echovec serve`: embedders behind HTTP."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer


def serve(
    model: Annotated[
        str | None,
        typer.Option(
            envvar="ECHOVEC_MODEL", help="Model name, folder or GGUF; by default SmolLM2-135M."
        ),
    ] = None,
    recipe: Annotated[
        list[str] | None,
        typer.Option(
            envvar="ECHOVEC_RECIPE",
            help="A recipe to serve by its name; repeat for more. By default the model's own, "
            "and beside it echo, classical and, where they fit, best and fast.",
        ),
    ] = None,
    also: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=MODEL[@RECIPE]",
            envvar="ECHOVEC_ALSO",
            help="Serve another model under this name, or with NAME=@RECIPE the same model; "
            "repeat for more.",
        ),
    ] = None,
    host: Annotated[str, typer.Option(envvar="ECHOVEC_HOST", help="Where to listen.")] = (
        "127.0.0.1"
    ),
    port: Annotated[
        int, typer.Option(envvar="ECHOVEC_PORT", min=0, max=65535, help="0: any free one.")
    ] = 8080,
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", envvar="ECHOVEC_API_KEY_FILE", help="Keys, one a line; needed then."
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option(envvar="ECHOVEC_DEVICE", help="cpu, cuda or mps.")
    ] = None,
    precision: Annotated[
        Literal["exact", "fast", "int8"] | None,
        typer.Option(
            envvar="ECHOVEC_PRECISION",
            help="fast: bfloat16 where the device has it; int8: 8 bits, on a CPU.",
        ),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(min=1, envvar="ECHOVEC_MAX_TOKENS", help="Token budget per copy of a text."),
    ] = None,
    batch_tokens: Annotated[
        int | None,
        typer.Option(min=1, envvar="ECHOVEC_BATCH_TOKENS", help="Tokens of one batch."),
    ] = None,
    max_waiting_tokens: Annotated[
        int,
        typer.Option(
            min=1, envvar="ECHOVEC_MAX_WAITING_TOKENS", help="The queue's length; beyond it: 429."
        ),
    ] = 131_072,
    max_requests: Annotated[
        int, typer.Option(min=1, envvar="ECHOVEC_MAX_REQUESTS", help="At once; beyond it: 429.")
    ] = 2048,
    max_body_bytes: Annotated[
        int, typer.Option(min=1, envvar="ECHOVEC_MAX_BODY_BYTES", help="Beyond it: 413.")
    ] = 4 << 20,
    drain_seconds: Annotated[
        float,
        typer.Option(
            min=0.1, envvar="ECHOVEC_DRAIN_SECONDS", help="For what runs at SIGTERM to end."
        ),
    ] = 30.0,
    vector_cache: Annotated[
        Path | None,
        typer.Option(metavar="FILE", envvar="ECHOVEC_VECTOR_CACHE", help="Keep vectors here."),
    ] = None,
    index: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            envvar="ECHOVEC_INDEX",
            help="An index that the page at / searches and draws.",
        ),
    ] = None,
    access_log: Annotated[
        bool,
        typer.Option("--access-log", envvar="ECHOVEC_ACCESS_LOG", help="Log method, path, status."),
    ] = False,
) -> None:
    """Serve embedders over HTTP: the interfaces of OpenAI, Cohere and TEI, and a page at /."""
    from echovec.serve.early import ended_by_sigterm

    with ended_by_sigterm():
        from echovec.serve.load import embedders, opened, read_keys
        from echovec.serve.run import listen, run
        from echovec.serve.service import Service
        from echovec.serve.settings import Settings

        logging.basicConfig(
            level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
        )
        settings = Settings(
            keys=() if api_key_file is None else read_keys(api_key_file),
            batch_tokens=batch_tokens,
            max_waiting_tokens=max_waiting_tokens,
            max_requests=max_requests,
            max_body_bytes=max_body_bytes,
            drain_seconds=drain_seconds,
            cache=vector_cache,
        )
        # An address that cannot be had is said before a model is loaded.
        listen(host, port).close()
        shown = None if index is None else opened(index)
        loaded = embedders(
            model, recipe, also or (), device=device, precision=precision, max_tokens=max_tokens
        )
        service = Service(loaded, settings)
        for name, served in service.served.items():
            print(f"serving {name}: {served.embedder!r}, {served.fingerprint}", file=sys.stderr)
        run(
            service,
            host=host,
            port=port,
            access_log=access_log,
            index=shown,
            say=lambda address: print(f"listening on {address}", file=sys.stderr, flush=True),
        )
