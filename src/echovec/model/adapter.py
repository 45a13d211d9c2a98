"""Adapter: a trained low-rank adapter in PEFT's file layout, read and merged without PEFT.

A folder holds `adapter_config.json` and `adapter_model.safetensors`. Merged means added to the
weights once, W + scale * B A, so the adapted model runs as fast as the bare one. The sum is taken
in float32 and rounded once to the model's dtype.

Read here: plain LoRA (arXiv 2106.09685) on linear modules, and trained rows of the input embedding
(the paper's end token, section 4). Anything else is refused by name: merge it with PEFT first.
"""

from __future__ import annotations

import hashlib
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from echovec.errors import ModelError

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
_ROOT = "base_model.model."
_EMBEDDING = "embed_tokens.token_adapter.trainable_tokens_delta"
_UNKNOWN = (
    *("use_dora", "fan_in_fan_out", "alpha_pattern", "rank_pattern", "modules_to_save"),
    *("alora_invocation_tokens", "layer_replication", "use_bdlora"),
    *("arrow_config", "kasa_config", "monteclora_config"),
)
_INITIAL = (True, False, None, "gaussian", "eva", "orthogonal")
"""Beginnings of an adapter that leave the model's own weights as they are; PiSSA's, OLoRA's and
others' do not, and such an adapter is no sum with the published ones."""


def adapter_folder(model: str | Path | None) -> Path | None:
    """The folder of an adapter that PEFT or a trainer saved; None if `model` names no such thing.

    Nor is it one where the adapter's model lies beside it: transformers reads both.

    Raises:
        ModelError: another model lies beside it, and either could be meant; or its own does, and
            transformers, without PEFT, would leave the adapter out.
    """
    if model is None or not (Path(model).expanduser() / CONFIG_FILE).is_file():
        return None
    folder = Path(model).expanduser()
    beside = [file.name for file in folder.glob("*.safetensors") if file.name != WEIGHTS_FILE]
    if not ((folder / "config.json").is_file() and beside):
        return folder
    base = Path(str(_config(folder).get("base_model_name_or_path") or folder))
    both = f"{folder} holds a model ({min(beside)}) and an adapter ({CONFIG_FILE})"
    if base.resolve() != folder.resolve():
        raise ModelError(
            f"{both} for another one, {str(base)!r}: either could be meant; move one of them to a "
            "folder of its own"
        )
    if find_spec("peft") is None:
        raise ModelError(
            f"{both}, which transformers puts together with PEFT alone: pip install peft; or move "
            "the adapter to a folder of its own, which needs no PEFT"
        )
    return None


def base_of(folder: Path) -> str:
    """What an adapter's own settings say that it was made for: a hub name or a folder.

    Raises:
        ModelError: they name nothing, or a folder that is not here.
    """
    config = _config(folder)
    base = str(config.get("base_model_name_or_path") or "")
    mend = f"write its hub name or folder as base_model_name_or_path into {folder / CONFIG_FILE}"
    if not base:
        raise ModelError(f"the adapter in {folder} does not say which model it is for; {mend}")
    if Path(base).is_absolute() and not Path(base).is_dir():
        raise ModelError(f"the adapter in {folder} is for {base}, which is not here; {mend}")
    return base


def adapter_hash(folder: Path) -> str:
    """A hash ("sha256:...") of the adapter's numbers and of what decides how they apply."""
    config, tensors = _read(folder)
    told = {name: config.get(name) for name in ("lora_alpha", "r", "use_rslora")}
    if tokens := config.get("trainable_token_indices"):  # left out where there are none
        told["trainable_token_indices"] = tokens
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].float().contiguous()
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return f"sha256:{digest.hexdigest()}"


def adapted_hash(base: str, adapter: str) -> str:
    """The hash that stands for a model with an adapter merged into it.

    Of both parts, not of the sum: how a sum is rounded may differ between machines.
    """
    return f"sha256:{hashlib.sha256(f'{base} {adapter}'.encode()).hexdigest()}"


def merge(model: Any, folder: Path) -> None:
    """Add an adapter to a model's weights, in place.

    Args:
        model: a transformers model without its head, as it was trained on.
        folder: the adapter's.

    Raises:
        ModelError: the adapter is of a kind that is not read here, or does not fit the model.
    """
    config, tensors = _read(folder)
    scale = _scale(config)
    weights = dict(model.named_parameters())
    places = {_place(name, folder) for name in tensors}
    with torch.no_grad():
        for place in sorted(places - {"lm_head"}):  # no vector depends on the head
            weight = weights.get(_in_model(place, weights))
            if weight is None:
                raise ModelError(
                    f"{folder}: the model has no {place!r}; give the model it was made for"
                )
            if place.endswith("embed_tokens"):
                rows = config["trainable_token_indices"]
                rows = rows["embed_tokens"] if isinstance(rows, dict) else rows
                weight[rows] = tensors[f"{_ROOT}{place}.token_adapter.trainable_tokens_delta"].to(
                    weight
                )
                continue
            down = tensors[f"{_ROOT}{place}.lora_A.weight"].to(weight.device, torch.float32)
            up = tensors[f"{_ROOT}{place}.lora_B.weight"].to(weight.device, torch.float32)
            if (len(up), down.shape[1]) != tuple(weight.shape):
                raise ModelError(
                    f"{folder}: {place!r} is {(len(up), down.shape[1])} in the adapter and "
                    f"{tuple(weight.shape)} in the model; give the model it was made for"
                )
            weight.copy_(weight.float() + scale * (up @ down))


def stack(first: Path, second: Path) -> None:
    """Make the second adapter one for the model that the first one was made for, in place.

    It was trained on that model with the first one merged into it. Side by side both are one
    adapter whose rank is the sum of theirs: B1 A1 + B2 A2 = [B1 B2] [A1; A2], with their scales in
    B. Trained rows of the input embedding are the second's where both have them; PEFT's own
    `add_weighted_adapter`, which joins adapters inside a model, knows nothing of such rows.

    Args:
        first: an adapter's folder.
        second: an adapter's folder, written anew.

    Raises:
        ModelError: one of them cannot be read, or they train different rows of the embedding.
    """
    from safetensors.torch import save_file

    (config_1, tensors_1), (config_2, tensors_2) = _read(first), _read(second)
    rows_1, rows_2 = (config.get("trainable_token_indices") for config in (config_1, config_2))
    if rows_1 and rows_2 and rows_1 != rows_2:
        raise ModelError(
            f"{first} trains the tokens {rows_1} and {second} {rows_2}; train the same"
        )
    joined = dict(tensors_1)
    for name, tensor in tensors_1.items():
        if name.endswith(".lora_B.weight"):
            joined[name] = (tensor.float() * _scale(config_1)).to(tensor.dtype)
    for name, tensor in tensors_2.items():
        if name.endswith(".lora_B.weight"):
            scaled = (tensor.float() * _scale(config_2)).to(tensor.dtype)
            joined[name] = torch.cat([joined[name], scaled], 1) if name in joined else scaled
        elif name.endswith(".lora_A.weight"):
            joined[name] = torch.cat([joined[name], tensor]) if name in joined else tensor
        else:
            joined[name] = tensor
    ranks = {len(tensor) for name, tensor in joined.items() if name.endswith(".lora_A.weight")}
    if len(ranks) != 1:
        raise ModelError(f"{first} and {second} adapt different modules; train the same")
    (rank,) = ranks
    told = {
        "r": rank,
        "lora_alpha": rank,
        "use_rslora": False,
        "trainable_token_indices": rows_2 or rows_1,
    }
    config = json.dumps(config_2 | told, indent=2, sort_keys=True) + "\n"
    (second / CONFIG_FILE).write_text(config, "utf-8")
    contiguous = {name: tensor.contiguous() for name, tensor in joined.items()}
    save_file(contiguous, second / WEIGHTS_FILE, metadata={"format": "pt"})


def _scale(config: dict[str, Any]) -> float:
    rank = float(config["r"])
    return float(config["lora_alpha"]) / (rank**0.5 if config.get("use_rslora") else rank)


def _in_model(place: str, weights: dict[str, Any]) -> str:
    """The weight's name, whether the model has its head around it or not."""
    bare = place.removeprefix("model.")
    names = (f"{place}.weight", f"{bare}.weight", f"model.{bare}.weight")
    return next((name for name in names if name in weights), "")


def _place(name: str, folder: Path) -> str:
    for ending in (".lora_A.weight", ".lora_B.weight", ".token_adapter.trainable_tokens_delta"):
        if name.startswith(_ROOT) and name.endswith(ending):
            return name.removeprefix(_ROOT).removesuffix(ending)
    raise ModelError(f"{folder}: {name!r} is no plain LoRA; merge it with PEFT's merge_and_unload")


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / CONFIG_FILE).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read the adapter in {folder}: {error}") from error
    if not isinstance(config, dict):
        raise ModelError(f"{folder / CONFIG_FILE} is no adapter's settings; save it again")
    return config


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    from safetensors.torch import load_file

    config = _config(folder)
    if not (folder / WEIGHTS_FILE).is_file():
        raise ModelError(
            f"{folder} has no {WEIGHTS_FILE}; only safetensors are read, because pickled weights "
            "can run code. Save the adapter again with safe_serialization=True"
        )
    try:
        tensors = load_file(folder / WEIGHTS_FILE)
    except (OSError, ValueError, ImportError) as error:
        raise ModelError(f"cannot read the adapter in {folder}: {error}") from error
    kind = config.get("peft_type")
    odd = [name for name in _UNKNOWN if config.get(name)]
    if (initial := config.get("init_lora_weights")) not in _INITIAL:
        odd.append(f"init_lora_weights={initial!r}")
    if kind != "LORA" or odd or config.get("bias", "none") != "none":
        raise ModelError(
            f"{folder}: an adapter of kind {kind} with {', '.join(odd) or 'biases'} is not read; "
            "merge it with PEFT's merge_and_unload and save the model"
        )
    return config, tensors
