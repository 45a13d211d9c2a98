"""Loading: what `Embedder.load` has to open: a recipe, a tokenizer, a backbone, an adapter.

A saved or shipped embedder says all of it; a sentence-transformers folder or a published checkpoint
says its recipe; an adapter of PEFT says its model; any other model gets the recipe that is asked
for.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from echovec.imported import foreign_folder, imported_recipe
from echovec.model.adapter import adapter_folder, base_of
from echovec.model.backbone import Backbone
from echovec.model.hub import commit_of
from echovec.model.load import Engine, load_model
from echovec.model.precision import Precision, pick_device, pick_dtype
from echovec.presets import as_recipe, default_recipe
from echovec.recipe import Recipe
from echovec.saved import (
    saved_adapter,
    saved_folder,
    saved_model,
    saved_tokenizer,
    shipped_names,
)
from echovec.text.template import Template
from echovec.text.tokenizer import HFTokenizer


@dataclass(frozen=True)
class Asked:
    """What `Embedder.load` was asked for beside the recipe, as other processes understand it."""

    model: str | None
    """A name, or an absolute path; None for the default model."""

    device: str | None
    engine: Engine
    trust_remote_code: bool


@dataclass(frozen=True)
class Source:
    """Where a model came from."""

    name: str = "in memory"
    """What people call it."""

    path: Path | str | None = None
    """What plain `from_pretrained` loads it from: a folder, a hub name; None if it is in memory
    only."""

    revision: str | None = None
    """The commit of a hub name."""

    adapter: Path | None = None
    """The folder of an adapter that has been merged into it, to be saved with it."""

    asked: Asked | None = None
    """What loads it again; None if it was not loaded, but given."""


IN_MEMORY = Source()


def source_of(model: Any) -> Source:
    """The source of a transformers model, as far as it says it."""
    name = str(getattr(model, "name_or_path", "") or "") or IN_MEMORY.name
    return Source(Path(name).name, Path(name) if Path(name).is_dir() else None)


@dataclass(frozen=True, eq=False)
class Opened:
    """The parts of an embedder, and where they came from."""

    recipe: Recipe
    tokenizer: HFTokenizer
    backbone: Backbone
    source: Source


def open_model(
    model: str | Path | None,
    recipe: Recipe | Template | str | Path | None,
    *,
    device: str | None,
    dtype: str | torch.dtype | None,
    precision: Precision | None,
    engine: Engine,
    revision: str | None,
    trust_remote_code: bool,
    hashed: bool = False,
) -> Opened:
    """Find and read everything; arguments and errors are those of `Embedder.load`.

    `hashed`: whether the weights are to be hashed now, for who will ask for it.
    """
    device = None if device is None else str(device)
    asked = Asked(_from_anywhere(model), device, engine, trust_remote_code)
    adapter = tokenizer_at = foreign = None
    if (folder := saved_folder(model)) is not None:
        saved = Recipe.load(folder)
        recipe = saved if recipe is None else recipe
        model, adapter = saved_model(folder, saved), saved_adapter(folder)
        revision = revision or (saved.model.revision if saved.model else None)
        tokenizer_at = saved_tokenizer(folder)
    elif (adapter := adapter_folder(model)) is not None:
        model = base_of(adapter)
    elif recipe is None:
        foreign = foreign_folder(model)
    bound = as_recipe(default_recipe(model) if recipe is None else recipe)
    chosen_device = pick_device(device)
    if dtype is None and precision is None and bound.dtype is not None:
        dtype = bound.dtype
    backbone, tokenizer, source = load_model(
        model,
        device=chosen_device,
        dtype=pick_dtype(dtype, precision, chosen_device),
        engine=engine,
        insist=precision != "int8",
        revision=revision,
        trust_remote_code=trust_remote_code,
        adapter=adapter,
        tokenizer_at=tokenizer_at,
        hashed=hashed or bound.model is not None,
    )
    if foreign is not None:
        bound = imported_recipe(foreign, tokenizer, backbone.max_positions)
    name = source.name if isinstance(source, Path) else source
    return Opened(
        recipe=bound,
        tokenizer=tokenizer,
        backbone=backbone,
        source=Source(
            bound.model.name if bound.model else name,
            source,
            revision=commit_of(source, revision),
            adapter=adapter,
            asked=asked,
        ),
    )


def _from_anywhere(model: str | Path | None) -> str | None:
    """What names this model in any working directory."""
    if model is None or (isinstance(model, str) and model in shipped_names()):
        return model
    path = Path(model).expanduser()
    return str(path.absolute()) if path.exists() else str(model)
