"""Options: what the verbs of an embedder take beside texts and role."""

from __future__ import annotations

from typing import TypedDict


class Preparing(TypedDict, total=False):
    """What `prepare` takes beside texts and role; its docstring explains each."""

    instruction: str | None
    batch_tokens: int | None
    batch_size: int | None


class Options(Preparing, total=False):
    """What `encode` takes beside texts and role; its docstring explains each."""

    normalize_embeddings: bool
    truncate_dim: int | None
    show_progress_bar: bool | None
