"""Plain: any Hugging Face causal language model, run as its authors wrote it. The oracle.

The model is loaded without its LM head (27 % of the work of a 135M model), no key-value cache is
kept, and a batch is padded, on whichever side, behind an attention mask. Nothing of the model or
its tokenizer is changed, so a model that also generates stays what it was. What `read` does beyond
that (hooks, another mask, the eager attention) lasts for one call.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from threading import Lock, RLock
from typing import Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from echovec.errors import ModelError
from echovec.model import hooks
from echovec.model.backbone import layer_index
from echovec.model.hashed import Hashed
from echovec.model.importance import Folding
from echovec.model.parts import How, Read
from echovec.text.batch import Batch


class PlainBackbone:
    """A Hugging Face model behind the Backbone seam.

    Args:
        model: a causal language model with or without its head, or a PEFT model around one.
        padding_side: where padding goes; the vectors are the same.
        known_hash: what `weights_hash` says while nothing changes, where that is known.
        read_hash: the hash of the weights as they are, where an adapter was merged and
            `known_hash` is another; None where nobody hashed them.
    """

    def __init__(
        self,
        model: Any,
        *,
        padding_side: Literal["right", "left"] = "right",
        known_hash: str | None = None,
        read_hash: str | None = None,
    ) -> None:
        self._known_hash = known_hash
        if hasattr(model, "get_base_model"):  # PEFT: its adapters stay inside the base model
            model = model.get_base_model()
        self.model = model.base_model
        self._hashed = Hashed(self.model, known_hash, read_hash)
        self.padding_side = padding_side
        config = self.model.config.get_text_config()
        if getattr(self.model.config, "is_encoder_decoder", False):
            raise ModelError(
                f"{type(model).__name__} is an encoder-decoder; echo needs a causal language model"
            )
        # OPT-350M projects its last state to another width than its blocks have.
        self.dim = int(getattr(config, "word_embed_proj_dim", None) or config.hidden_size)
        self.num_layers = int(config.num_hidden_layers)
        limit = getattr(config, "max_position_embeddings", None)
        self.max_positions: int | None = int(limit) if limit else None
        self.evaluates = True
        """Whether the model runs in evaluation mode, for each call, whatever mode it is in. A
        trainer turns this off: its dropout and its gradient checkpointing live in training mode."""

        self._sees_both_ways: bool | None = None

    @property
    def dtype(self) -> str:
        """The model's parameters' dtype, e.g. "bfloat16"."""
        return str(self.model.dtype).removeprefix("torch.")

    def forward(
        self,
        batch: Batch,
        layers: Sequence[int] = (-1,),
        *,
        pooled_only: bool = False,
        float32: bool = False,
    ) -> list[Tensor]:
        """Hidden states of each layer asked for, on the model's device: [T, D], or [P, D]."""
        wanted = [layer_index(layer, self.num_layers) for layer in layers]
        inputs, row_T, column_T = self._pad(batch)
        if pooled_only:
            rows_P = torch.from_numpy(batch.pooled[0]).to(row_T.device)
            row_T, column_T = row_T[rows_P], column_T[rows_P]
        return self._states(inputs, wanted, row_T, column_T, float32=float32)

    def read(self, batch: Batch, layers: Sequence[int], how: How, *, float32: bool = False) -> Read:
        """Run a pass with parts and read its pooled rows; see parts.py.

        Raises:
            ModelError: this family cannot do a part.
            InputError: a layer or block does not exist.
        """
        wanted = [layer_index(layer, self.num_layers) for layer in layers]
        inputs, row_T, column_T = self._pad(batch)
        ends = torch.from_numpy(batch.offsets_S1[1:] - 1).to(row_T.device)
        row_S, last_S = row_T[ends], column_T[ends]
        rows_P = torch.from_numpy(batch.pooled[0]).to(row_T.device)
        row_P, column_P = row_T[rows_P], column_T[rows_P]
        folding = Folding(how.importance, batch, row_T, column_T)
        with _alone(self.model), ExitStack() as parts:
            if how.bidirectional:
                self._see_both_ways(inputs, float32=float32)
            blocks = hooks.blocks_of(self.model, self.num_layers)
            outputs = parts.enter_context(hooks.attention_outputs(blocks, how.attention))
            if how.importance:
                fold = hooks.attention_rows(self.model, blocks, row_S, last_S, folding.add)
                parts.enter_context(fold)
            if how.prepend is not None:
                assert batch.placeholder is not None, "a view with `prepend` has a placeholder"
                to_S = column_T[ends + 1 - torch.from_numpy(batch.lengths_S).to(ends.device)]
                to_S = to_S + batch.placeholder
                parts.enter_context(hooks.prepended(blocks, *how.prepend, row_S, last_S, to_S))
            hidden = self._states(inputs, wanted, row_P, column_P, float32=float32)
        return Read(
            hidden=hidden,
            attention=[outputs[block][row_P, column_P] for block in how.attention],
            importance=folding.weights(),
        )

    def weights_hash(self) -> str:
        """Hash of the backbone without its head: the same from a file or from memory."""
        return self._hashed.now()

    def has_changed(self) -> bool:
        """Whether the weights are others than at first, by training or merging; see hashed.py."""
        return self._hashed.has_changed()

    def _states(
        self,
        inputs: dict[str, Any],
        layers: Sequence[int],
        row_P: Tensor,
        column_P: Tensor,
        *,
        float32: bool,
    ) -> list[Tensor]:
        """Run the model once; the rows asked for of each layer asked for."""
        inner = any(layer != self.num_layers for layer in layers)
        inputs = inputs | {"use_cache": False, "output_hidden_states": inner, "return_dict": True}
        with _alone(self.model), _evaluating(self.model) if self.evaluates else nullcontext():
            output = self._run_float32(inputs) if float32 else self.model(**inputs)
        if not inner:
            return [output.last_hidden_state[row_P, column_P]] * len(layers)
        # hidden_states[-1] is before the final norm in some families: the last is read by name.
        states = [*output.hidden_states[:-1], output.last_hidden_state]
        return [states[layer][row_P, column_P] for layer in layers]

    def _see_both_ways(self, inputs: dict[str, Any], *, float32: bool) -> None:
        """Put a mask into the inputs that hides padding and nothing else.

        A mask of four dimensions is taken as it is by the families that build theirs with
        transformers' own masking. Whether this one does is tried once on three tokens: the first
        has to notice a change of the last.
        """
        if self._sees_both_ways is None:
            a = torch.zeros(1, 3, dtype=torch.int64, device=self.model.device)
            b = a.clone()
            b[0, 2] = 1
            zero = torch.zeros(1, dtype=torch.int64, device=self.model.device)
            evaluates, self.evaluates = self.evaluates, True  # dropout would be a change as well
            try:
                with torch.no_grad():
                    (from_a,), (from_b,) = (
                        self._states(
                            _four_dimensional({"input_ids": ids}, self.model.dtype),
                            [self.num_layers],
                            zero,
                            zero,
                            float32=False,
                        )
                        for ids in (a, b)
                    )
                self._sees_both_ways = not torch.equal(from_a, from_b)
            except (TypeError, ValueError, RuntimeError, IndexError):
                self._sees_both_ways = False
            finally:
                self.evaluates = evaluates
        if not self._sees_both_ways:
            raise ModelError(
                f"the mask of {type(self.model).__name__} cannot be switched; use mask='causal'"
            )
        inputs.update(_four_dimensional(inputs, torch.float32 if float32 else self.model.dtype))

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


_locks: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
_finding = Lock()


@contextmanager
def _alone(model: Any) -> Iterator[None]:
    """One thread at a time in a model, however many backbones and embedders are around it.

    Hooks, the eager attention and the evaluation mode are the model's, thus every thread's.
    """
    with _finding:
        lock = _locks.setdefault(model, RLock())
    with lock:
        yield


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Evaluation mode; afterwards every module is in the mode that it was in."""
    training = [module for module in model.modules() if module.training]
    if training:
        model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _four_dimensional(inputs: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """The inputs with an additive mask [S, 1, L, L] that hides padding only."""
    ids_SL = inputs["input_ids"]
    count, length = ids_SL.shape
    real_SL = inputs.get("attention_mask", torch.ones_like(ids_SL))
    mask_SL = torch.zeros(count, length, dtype=dtype, device=ids_SL.device)
    mask_SL = mask_SL.masked_fill(real_SL == 0, torch.finfo(dtype).min)
    positions_L = torch.arange(length, device=ids_SL.device)
    return inputs | {
        "attention_mask": mask_SL[:, None, None, :].expand(count, 1, length, length),
        "position_ids": inputs.get("position_ids", positions_L.expand(count, length)),
    }
