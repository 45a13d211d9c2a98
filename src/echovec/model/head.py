"""Head: the matrix that turns the last hidden states into logits.

Backbones are loaded without it, since vectors do not need it. Where it is tied to the token
embeddings it is at hand; else it is read from the model's own files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from echovec.errors import ModelError

_NAMES = ("lm_head.weight", "embed_out.weight")


def unembedding(model: Any, folder: Path | None) -> NDArray[np.float32]:
    """The unembedding matrix [V, D] of a Hugging Face model, with or without its head.

    Args:
        model: the model that a backbone holds.
        folder: where its files lie, for a head that is neither loaded nor tied.

    Raises:
        ModelError: the head is not tied, not loaded, and not in the folder.
    """
    loaded = model.get_output_embeddings()
    if loaded is not None:
        return _as_array(loaded.weight)
    if folder is not None and (found := _in_files(folder)) is not None:
        return found
    if getattr(model.config.get_text_config(), "tie_word_embeddings", False):
        return _as_array(model.get_input_embeddings().weight)
    raise ModelError(
        f"the head of {type(model).__name__} is not loaded, not tied to its embeddings and not "
        f"in {folder or 'any folder'}; load the model from a folder that has it"
    )


def _in_files(folder: Path) -> NDArray[np.float32] | None:
    from safetensors import safe_open

    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118  # a safetensors file is no mapping
                if name.endswith(_NAMES):
                    return _as_array(tensors.get_tensor(name))
    return None


def _as_array(weight: Any) -> NDArray[np.float32]:
    array: NDArray[np.float32] = weight.detach().float().cpu().numpy()
    return array
