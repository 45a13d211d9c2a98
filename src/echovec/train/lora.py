"""LoRA: adapters put into a model by PEFT, and taken out of a folder again."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from echovec.errors import InputError, TrainingError
from echovec.model.adapter import WEIGHTS_FILE

NAME = "default"
EMBEDDING = "embed_tokens"
"""What the input embedding has to be called for its rows to be trained (model/adapter.py)."""


def adapted(
    model: Any, *, rank: int, alpha: float, dropout: float, token_ids: tuple[int, ...] = ()
) -> Any:
    """The model with a fresh adapter on every linear module; only the adapter is trained.

    Args:
        model: a transformers model without its head; adapters are put into it.
        rank: r; the paper has 16 (section 4).
        alpha: scales the adapter by alpha / r; the paper has 16.
        dropout: before each adapter, in training only.
        token_ids: tokens whose input embedding is trained as well (the paper's end token).

    Returns:
        PEFT's model; adapter weights are float32 whatever the model computes in.

    Raises:
        InputError: an adapter of this model could be trained, but not be read again.
    """
    from peft import LoraConfig, get_peft_model

    embedding = next(n for n, m in model.named_modules() if m is model.get_input_embeddings())
    if token_ids and embedding.rpartition(".")[2] != EMBEDDING:
        raise InputError(
            f"prompt='instruct' trains a row of {EMBEDDING}, and {type(model).__name__} calls its "
            f"token embeddings {embedding}; use prompt='plain', or another model"
        )
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules="all-linear",
        trainable_token_indices={EMBEDDING: list(token_ids)} if token_ids else None,
    )
    with warnings.catch_warnings():  # PEFT asks transformers by a name that will go
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", message="fan_in_fan_out")
        wrapped = get_peft_model(model, config)
    if wrapped.peft_config[NAME].fan_in_fan_out:
        raise InputError(
            f"{type(model).__name__} keeps its weights transposed, and adapters of such weights "
            "are not read; train another model"
        )
    for parameter in wrapped.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return wrapped


def save(model: Any, folder: Path, dtype: torch.dtype | None = None) -> None:
    """Write the adapter alone, in PEFT's layout; `dtype` rounds its numbers."""
    from safetensors.torch import load_file, save_file

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)
        model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's is an empty form
    if dtype is not None:
        file = folder / WEIGHTS_FILE
        tensors = {name: tensor.to(dtype) for name, tensor in load_file(file).items()}
        save_file(tensors, file, metadata={"format": "pt"})


def restore(model: Any, folder: Path) -> None:
    """Read an adapter's numbers back into a model that has one of the same shape."""
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    found = set_peft_model_state_dict(model, load_file(folder / WEIGHTS_FILE), NAME)
    if found.unexpected_keys:
        raise TrainingError(f"{folder} holds another adapter: {found.unexpected_keys[:3]}")


def inject_dropout(model: Any, probability: float) -> None:
    """Dropout on the token embeddings, in training only.

    Language models of today have none, and SimCSE's two views of one text differ by nothing else.
    """

    def drop(module: nn.Module, _: Any, output: Tensor) -> Tensor:
        return torch.dropout(output, probability, module.training)

    model.get_input_embeddings().register_forward_hook(drop)
