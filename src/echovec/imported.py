"""Imported: the recipe of a sentence-transformers folder around a causal language model.

`Embedder.load(folder)` reads such a folder (`modules.json`) as what it is: its pooling, its prompts
for queries and documents, the markers that its tokenizer adds, its dense layers without activation.
What a recipe cannot express is refused by name. sentence-transformers itself is not needed.

One difference remains: it tokenises prompt and text as one string, a recipe tokenises them apart,
so a token that grows across that edge differs.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from echovec.errors import ModelError, RecipeError
from echovec.recipe import RECIPE_FILE, Recipe, Role
from echovec.text.template import Marker, Template
from echovec.text.tokenizer import HFTokenizer
from echovec.vector.transform import Center, Linear, Normalize, Transform
from echovec.vector.view import View

_MODES = {
    "pooling_mode_lasttoken": "lasttoken",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_weightedmean_tokens": "weightedmean",
}

_AGAIN = (
    "save the model again with sentence-transformers, or name a recipe yourself to use the model "
    "alone"
)


def foreign_folder(model: str | Path | None) -> Path | None:
    """The folder, if `model` is a sentence-transformers folder that is no export of ours."""
    if model is None:
        return None
    folder = Path(model)
    ours = (folder / RECIPE_FILE).is_file() or (folder / "echovec" / RECIPE_FILE).is_file()
    return folder if (folder / "modules.json").is_file() and not ours else None


def imported_recipe(folder: Path, tokenizer: HFTokenizer, max_positions: int | None) -> Recipe:
    """What a sentence-transformers folder computes, as a recipe.

    Raises:
        RecipeError: it holds something that a recipe has no words for; names it.
        ModelError: a file of it cannot be read.
    """
    modules = _modules(folder / "modules.json")
    kinds = [entry["type"].rpartition(".")[2] for entry in modules]
    if kinds[:2] != ["Transformer", "Pooling"] or set(kinds[2:]) - {"Dense", "Normalize"}:
        raise RecipeError(
            f"{folder} has the modules {', '.join(kinds)}; a recipe can say Transformer, Pooling, "
            "and then Dense or Normalize: name a recipe yourself to use the model alone"
        )
    pooling, with_prompt = _pooling(folder / modules[1]["path"])
    transforms: list[Transform] = []
    for entry, kind in zip(modules[2:], kinds[2:], strict=True):
        transforms += [Normalize()] if kind == "Normalize" else _dense(folder / entry["path"])
    config = _read(folder / "config_sentence_transformers.json", default={})
    prompts = config.get("prompts") or {}
    marks = _marks(tokenizer)
    chosen: dict[Role, str] = {
        "symmetric": prompts.get(config.get("default_prompt_name") or "", ""),
        "query": prompts.get("query", ""),
        "document": prompts.get("document", ""),
    }
    views: dict[Role, tuple[View, ...]] = {
        role: (View(_template(prompt, pooling, marks, with_prompt=with_prompt), pooling),)
        for role, prompt in chosen.items()
    }
    length = _read(folder / "sentence_bert_config.json", default={}).get("max_seq_length")
    length = length or tokenizer.max_length
    # There the limit counts prompt and markers, here the text alone.
    around = sum(map(len, tokenizer.surrounding)) + max(
        len(tokenizer.tokenize_fixed(prompt, after_bos=True)) if prompt else 0
        for prompt in chosen.values()
    )
    return Recipe(
        name=folder.name,
        views=views,
        max_tokens=max(1, int(length or max_positions or 512 + around) - around),
        transforms=tuple(transforms),
    )


def _modules(file: Path) -> list[dict[str, str]]:
    """Type and path of each module."""
    modules = _read(file)
    if not isinstance(modules, list):
        raise ModelError(f"{file} is {modules!r:.40} and no list of modules; {_AGAIN}")
    for entry in modules:
        told = entry if isinstance(entry, dict) else {}
        if not all(isinstance(told.get(key), str) for key in ("type", "path")):
            raise ModelError(f"{file} names {entry!r:.40}, which has no type and path; {_AGAIN}")
    return modules


@dataclass(frozen=True)
class _Marks:
    """What a tokenizer puts around a text when nobody forbids it."""

    bos: bool
    eos: bool
    before: str
    after: str


def _marks(tokenizer: HFTokenizer) -> _Marks:
    before, after = tokenizer.surrounding
    bos = before == [tokenizer.bos_id] and before != []
    eos = after == [tokenizer.eos_id] and after != []
    return _Marks(
        bos=bos,
        eos=eos,
        before="" if bos else tokenizer.spelling(before),
        after="" if eos else tokenizer.spelling(after),
    )


def _template(prompt: str, pooling: str, marks: _Marks, *, with_prompt: bool) -> Template:
    fixed = _escaped(marks.before + prompt)
    text = fixed + "{text}" + _escaped(marks.after)
    bos: Marker = "present" if marks.bos else "absent"
    eos: Marker = "pooled" if marks.eos else "absent"
    if pooling == "lasttoken":
        return Template(text, pooled="end" if marks.after else -1, bos=bos, eos=eos)
    if marks.after or (fixed and with_prompt) or (fixed and pooling != "mean"):
        raise RecipeError(
            f"its {pooling} pooling covers the prompt {prompt!r}, and a recipe pools copies of the "
            "text only; name a recipe yourself to use the model alone"
        )
    return Template(text, bos="pooled" if bos == "present" and not fixed else bos, eos=eos)


def _pooling(folder: Path) -> tuple[str, bool]:
    config = _read(folder / "config.json")
    mode = config.get("pooling_mode")
    modes = [mode] if isinstance(mode, str) else list(mode or [])
    modes += [k for k, v in config.items() if k.startswith("pooling_mode_") and v is True]
    if len(modes) != 1 or (name := _MODES.get(modes[0], modes[0])) not in _MODES.values():
        raise RecipeError(
            f"{folder} pools by {', '.join(map(str, modes)) or 'nothing'}; a recipe has one of "
            f"{', '.join(_MODES.values())}: name a recipe yourself to use the model alone"
        )
    return name, bool(config.get("include_prompt", True))


def _dense(folder: Path) -> list[Transform]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    config = _read(folder / "config.json")
    activation = str(config.get("activation_function", "Tanh")).rpartition(".")[2]
    if activation != "Identity" or config.get("use_residual"):
        raise RecipeError(
            f"{folder} has the activation {activation}; a recipe's transforms are linear: name a "
            "recipe yourself to use the model alone"
        )
    try:
        arrays = load_file(folder / "model.safetensors")
        matrix_DE = arrays["linear.weight"].T
    except (OSError, SafetensorError, KeyError) as error:
        raise ModelError(
            f"cannot read the dense layer {folder}/model.safetensors ({error}); {_AGAIN}"
        ) from None
    linear = Linear(np.zeros(len(matrix_DE), np.float32), matrix_DE)
    return [linear, Center(-arrays["linear.bias"])] if "linear.bias" in arrays else [linear]


def _escaped(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _read(file: Path, default: Any = None) -> Any:
    try:
        return json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        if default is None:
            raise ModelError(f"{file.parent} is incomplete: {file.name} is missing") from None
        return default
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {file}: {error}") from None
