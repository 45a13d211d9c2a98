"""Plain: any Hugging Face causal language model, run as its authors wrote it. The oracle.

The model is loaded without its LM head (27 % of the work of a 135M model), no key-value cache is
kept, and a batch is padded, on whichever side, behind an attention mask. Nothing of the model or
its tokenizer is changed, so a model that also generates stays what it was.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from echovec.errors import ModelError
from echovec.model.backbone import hash_weights, layer_index
from echovec.text.batch import Batch

# What transformers writes into a configuration that has no say in the hidden states.
_NOT_THE_MODEL = frozenset(
    {
        "_name_or_path",
        "architectures",
        "dtype",
        "torch_dtype",
        "transformers_version",
        "use_cache",
        "return_dict",
        "output_hidden_states",
        "output_attentions",
        "id2label",
        "label2id",
        "problem_type",
        "chunk_size_feed_forward",
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
        "unk_token_id",
        "is_local",
        "_attn_implementation",
        "attn_implementation",
        "tie_word_embeddings",
    }
)


class PlainBackbone:
    """A Hugging Face model behind the Backbone seam.

    Args:
        model: a causal language model with or without its head, or a PEFT model around one.
        padding_side: where padding goes; the vectors are the same.
    """

    def __init__(self, model: Any, *, padding_side: Literal["right", "left"] = "right") -> None:
        if hasattr(model, "get_base_model"):  # PEFT: its adapters stay inside the base model
            model = model.get_base_model()
        self.model = model.base_model
        self.padding_side = padding_side
        config = self.model.config.get_text_config()
        if getattr(self.model.config, "is_encoder_decoder", False):
            raise ModelError(
                f"{type(model).__name__} is an encoder-decoder; echo needs a causal language model"
            )
        self._config = config
        # OPT-350M projects its last state to another width than its blocks have.
        self.dim = int(getattr(config, "word_embed_proj_dim", None) or config.hidden_size)
        self.num_layers = int(config.num_hidden_layers)
        limit = getattr(config, "max_position_embeddings", None)
        self.max_positions: int | None = int(limit) if limit else None

    @property
    def dtype(self) -> str:
        """The model's parameters' dtype, e.g. "bfloat16"."""
        return str(self.model.dtype).removeprefix("torch.")

    def forward(
        self, batch: Batch, layers: Sequence[int] = (-1,), *, float32: bool = False
    ) -> list[Tensor]:
        """Hidden states of each layer asked for, [T, D], on the model's device."""
        wanted = [layer_index(layer, self.num_layers) for layer in layers]
        inner = any(layer != self.num_layers for layer in wanted)
        inputs, row_T, column_T = self._pad(batch)
        inputs |= {"use_cache": False, "output_hidden_states": inner, "return_dict": True}
        was_training = self.model.training
        self.model.eval()
        try:
            output = self._run_float32(inputs) if float32 else self.model(**inputs)
        finally:
            self.model.train(was_training)
        if not inner:
            return [output.last_hidden_state[row_T, column_T]] * len(wanted)
        # hidden_states[-1] is before the final norm in some families: the last is read by name.
        states = [*output.hidden_states[:-1], output.last_hidden_state]
        return [states[layer][row_T, column_T] for layer in wanted]

    def weights_hash(self) -> str:
        """Hash of the backbone without its head: the same from a file or from memory."""
        config = self._config.to_dict()
        kept = {k: v for k, v in config.items() if k not in _NOT_THE_MODEL}
        text = json.dumps(kept, sort_keys=True, default=str)
        return hash_weights(text, self.model.state_dict())

    def _pad(self, batch: Batch) -> tuple[dict[str, Any], Tensor, Tensor]:
        """The padded [S, L] inputs, and where each of the T tokens went."""
        device = self.model.device
        lengths_S = batch.lengths_S
        longest = int(lengths_S.max())
        row_T = np.repeat(np.arange(len(batch)), lengths_S)
        column_T = batch.positions_T
        if self.padding_side == "left":
            column_T = column_T + np.repeat(longest - lengths_S, lengths_S)
        # Any id serves as padding: it is masked and never read. 0 is in every vocabulary.
        ids_SL = np.zeros((len(batch), longest), dtype=np.int64)
        ids_SL[row_T, column_T] = batch.ids_T
        inputs: dict[str, Any] = {"input_ids": torch.from_numpy(ids_SL).to(device)}
        if int(lengths_S.min()) < longest:
            mask_SL = np.zeros_like(ids_SL)
            mask_SL[row_T, column_T] = 1
            inputs["attention_mask"] = torch.from_numpy(mask_SL).to(device)
            if self.padding_side == "left":
                positions_SL = np.clip(np.cumsum(mask_SL, axis=1) - 1, 0, None)
                inputs["position_ids"] = torch.from_numpy(positions_SL).to(device)
        return inputs, torch.from_numpy(row_T).to(device), torch.from_numpy(column_T).to(device)

    def _run_float32(self, inputs: dict[str, Any]) -> Any:
        # A float32 copy for this one call: the model itself is never touched.
        state = {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}
        wide = {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
        return torch.func.functional_call(self.model, wide, (), inputs)
