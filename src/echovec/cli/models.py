"""`echovec models`: what is cached, where, how large, and whether its hashes hold."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from echovec.model.store import CachedModel


def models(
    remove: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Delete this copy; the exact name, as listed."),
    ] = None,
) -> None:
    """List the models in the cache, with every hash verified, and where the default comes from.

    In a pipe: a model a line, NAME, STATE, BYTES, SHA256 of the source, PATH between tabs.
    """
    from echovec.model import store

    if remove is not None:
        if sys.stdin.isatty() and sys.stdout.isatty():
            typer.confirm(f"Delete {remove} from {store.cache_dir()}?", abort=True)
        print(f"deleted {store.remove(remove)}", file=sys.stderr)
        return
    cached = store.inventory()
    if sys.stdout.isatty():
        _show(cached)
    else:
        for model in cached:
            fields = (model.name, model.state, model.bytes, model.source_sha256 or "-", model.path)
            print(*fields, sep="\t")
    print(f"cache: {store.cache_dir()}" + ("" if cached else " (empty)"), file=sys.stderr)
    print(f"default model: {store.default_origin()}", file=sys.stderr)


def _show(cached: list[CachedModel]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    if not cached:
        return
    table = Table("name", "state", "size", "sha256 of the source")
    for column in table.columns:
        column.overflow = "fold"
    for model in cached:
        color = "green" if model.state == "verified" else "red"
        sha256 = (model.source_sha256 or "-")[:12]
        table.add_row(
            escape(model.name),
            f"[{color}]{escape(model.state)}[/]",
            f"{model.bytes / 1e6:.0f} MB",
            sha256,
        )
    Console().print(table)
