"""Packed: the fast backbone. The plain one is its oracle; same seam, same vectors.

What is saved, exactly: no padding in any product; the prompt's common beginning is computed once
and its keys and values are kept; attention never crosses texts and builds no mask for it; in the
last layer asked for only keys and values are computed for every token, and the rest for the tokens
between the first and the last pooled one; layers above it do not run; no LM head, no key-value
cache. Layers run on flat rows [N, D] (layout.py), attention on rectangles (attend.py).

Two ways to hold the weights: `prepacked` takes them out of the model into oneDNN's layout (the
model is used up: nothing is doubled), `shared` calls the model's own modules, so a model in memory
keeps generating, adapters apply and gradients flow.

Shapes: N flat rows, D width, H heads, G key-value heads, E head width, P pooled rows.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cache, cached_property
from operator import is_not
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from echovec.errors import ModelError
from echovec.model import heap, loops, passes
from echovec.model.backbone import hash_weights, layer_index
from echovec.model.blocks import Block
from echovec.model.device import sent
from echovec.model.families import (
    blocks_of,
    enlarged,
    final_norm,
    parts_of,
    rotary_table,
    why_not,
)
from echovec.model.feed import Fed, Feed, Sizes
from echovec.model.hashed import Hashed, config_text
from echovec.model.heads import Turn, split
from echovec.model.layout import Group, Int, Layout, lay_out
from echovec.model.passes import Attention, Prefix, Reads
from echovec.model.plain import PlainBackbone
from echovec.model.ragged import can_attend, ragged
from echovec.model.recorded import recorded
from echovec.model.rectangles import Rectangles
from echovec.model.tiles import Tiles
from echovec.model.weights import (
    PREPACKED,
    SHARED,
    Unpacked,
    in_float32,
    quantizing,
    rounded,
    row_counts,
    widened,
)
from echovec.text.batch import Batch

_PREFIXES_KEPT = 8
_LAUNCHED = 2e11
"""Rows times weights of a block up to which asking for its kernels may take longer than computing.
Estimated, not measured: 0.4 ms of calls for a block, and 5e14 multiplications a second."""

_log = logging.getLogger("echovec")


def _check(model: Any, *, repack: bool) -> None:
    if reason := why_not(model, repack=repack):
        raise ModelError(f"the packed engine cannot run this model: {reason}; use the plain one")


class PackedBackbone:
    """A Llama-like model behind the Backbone seam, without wasted work.

    Args:
        model: a causal language model of a supported family, with or without its head.
        prepack: take the weights out of the model into a faster layout. The model cannot be used
            afterwards. Without it the model's own modules are called and stay as they are.
        plain: reads the same model again as a plain backbone, for recipes with parts that only
            that one can do; not needed without `prepack`.
        known_hash: what `weights_hash` says, where an adapter was merged or weights are rounded.
        largest: how large inputs get (`quantized.largest_inputs`), to compute in 8 bits where they
            are known; with `prepack` only.

    Raises:
        ModelError: the family is not supported; `supports` says so beforehand.
    """

    def __init__(
        self,
        model: Any,
        *,
        prepack: bool,
        plain: Callable[[], PlainBackbone] | None = None,
        known_hash: str | None = None,
        largest: Mapping[nn.Module, Tensor] | None = None,
    ) -> None:
        self._known_hash = known_hash
        if hasattr(model, "get_base_model"):  # PEFT: its adapters stay inside the base model
            model = model.get_base_model()
        model = model.base_model
        _check(model, repack=prepack)
        self.model = model
        self.prepacked = prepack
        self._hashed = None if prepack else Hashed(model, known_hash)
        config = model.config
        self.dim = int(config.hidden_size)
        self.num_layers = int(config.num_hidden_layers)
        self.max_positions: int | None = int(config.max_position_embeddings)
        self._dtype = model.embed_tokens.weight.dtype
        self._block_size = sum(p.numel() for p in model.layers[0].parameters())
        self._names = list(model.state_dict()) if prepack else []
        self._parts = [] if prepack else parts_of(model)
        make = (quantizing(largest) if largest is not None else PREPACKED) if prepack else SHARED
        self._blocks = blocks_of(model, make)
        self._quantizes = rounded(self._blocks) > 0
        if largest is not None and not self._quantizes:
            _log.warning(
                "nothing of this model can be rounded to 8 bits (widths must be multiples of 64): "
                "it computes in %s",
                self.dtype,
            )
        self._row_counts = row_counts(self._blocks, self.device)
        self._norm = final_norm(model)
        if prepack:
            loops.ready()  # compiled, if they have to be, while loading and not at the first text
            heap.give_back()
            heap.keep_freed()
        self._prefixes: dict[tuple[bytes, int, bool], Prefix] = {}  # the oldest goes first
        self._lock = Lock()
        self._tables: dict[tuple[torch.dtype, str, torch.device], tuple[Tensor, Tensor]] = {}
        self._embedded = float(getattr(model, "embedding_multiplier", 1.0))
        self._enlarged = enlarged(model)
        self._read_plain = plain
        self._ragged = can_attend(self.device, self._dtype, self._blocks)
        # Of a model that is shared, weights and adapters may be others at the next call.
        self._recorded = recorded(self.device) if prepack else None

    @property
    def dtype(self) -> str:
        """What it computes in, e.g. "bfloat16"."""
        own = self.model.embed_tokens.weight.dtype  # a model that is shared may be cast
        return "int8" if self._quantizes else str(own).removeprefix("torch.")

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        device: torch.device = self.model.embed_tokens.weight.device
        return device

    def forget(self) -> None:
        """Drop the prompt beginnings that are kept; they are computed anew when needed."""
        with self._lock:
            self._prefixes.clear()
        if self._recorded is not None:
            self._recorded.forget()

    @property
    def workers(self) -> int:
        """How many batches may run at once, from as many threads."""
        if not self.prepacked:
            return 1
        # On a GPU one thread lays the next batch out while the other waits for its vectors.
        return {"cpu": torch.get_num_threads(), "cuda": 2}.get(self.device.type, 1)

    @cached_property
    def plain(self) -> PlainBackbone | None:
        """The plain backbone of the same model, for what this one cannot do.

        It shares the weights where they were not prepacked. Where they were, the model is read a
        second time, when first asked for, and a log line says so.
        """
        if not self.prepacked:
            return PlainBackbone(self.model)
        if self._read_plain is None:
            return None
        _log.warning("this needs the plain engine: the model is loaded a second time beside")
        return self._read_plain()

    def forward(
        self,
        batch: Batch,
        layers: Sequence[int] = (-1,),
        *,
        pooled_only: bool = False,
        float32: bool = False,
    ) -> list[Tensor]:
        """Hidden states of each layer asked for: h_TD, or h_PD with `pooled_only`.

        Differentiable without `prepack` only: libraries that multiply repacked weights know of no
        gradient, so none is kept.
        """
        wanted = [layer_index(layer, self.num_layers) for layer in layers]
        if not self.prepacked:
            self._follow()
        layout = lay_out(batch, round_up=self._row_counts)
        blocks = [widened(b) for b in self._blocks] if float32 else self._blocks
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.prepacked):
            prefix = self._prefix(layout, max(wanted), wide=float32, blocks=blocks)
            if self._ragged and not float32:
                states = self._ragged_states(layout, prefix, wanted, pooled_only)
            else:
                h_ND = self._embed(sent(layout.ids_N, self.device), wide=float32)
                reads = self._laid(layout, len(prefix.states[0]), h_ND)
                states = passes.states(
                    h_ND, reads, prefix, blocks, self._norm, wanted, pooled_only=pooled_only
                )
            if pooled_only:
                return states
            every = zip(states, wanted, strict=True)
            return [self._with_prefix(layout, prefix, h_ND, layer, batch) for h_ND, layer in every]

    def weights_hash(self) -> str:
        """Hash of the backbone without its head: the same as the plain backbone's.

        Repacked weights cannot change; those of a plain one that was read beside them can.
        """
        if self._hashed is not None:
            return self._hashed.now()
        beside: PlainBackbone | None = self.__dict__.get("plain")
        own = self._repacked_hash
        if beside is None or (other := beside.weights_hash()) == own:
            return own
        return "sha256:" + hashlib.sha256(f"{own} {other}".encode()).hexdigest()

    def has_changed(self) -> bool:
        """Whether weights are others than at first, by training or merging; see hashed.py."""
        live: Hashed | PlainBackbone | None = self._hashed or self.__dict__.get("plain")
        return live is not None and live.has_changed()

    @cached_property
    def _repacked_hash(self) -> str:
        if self._known_hash is not None:
            return self._known_hash
        state = Unpacked(self._names, self.model.state_dict(), self._blocks)
        return hash_weights(config_text(self.model.config), state)

    def _follow(self) -> None:
        """Take a model that is shared as it is now: adapted, unloaded, cast or moved meanwhile.

        Raises:
            ModelError: it has become one that this engine cannot run.
        """
        parts = parts_of(self.model)
        if len(parts) != len(self._parts) or any(map(is_not, parts, self._parts)):
            _check(self.model, repack=False)
            self._blocks, self._norm = blocks_of(self.model, SHARED), final_norm(self.model)
            self._parts = parts
        dtype = self.model.embed_tokens.weight.dtype
        self._ragged = can_attend(self.device, dtype, self._blocks)

    # -- the pass -----------------------------------------------------------------------------

    def _laid(self, layout: Layout, prefix: int, h_ND: Tensor) -> Reads:
        """A layout as it is read where attention runs on rectangles."""

        @cache
        def attention(kind: str, hulls: bool) -> Attention:
            groups = layout.hulls if hulls else layout.groups
            if loops.usable(h_ND):
                longest = prefix + max(g.length for g in layout.groups)
                cos, sin = self._table(longest, torch.float32, kind)
                return Tiles(groups, prefix, self._blocks[0].num_heads, cos, sin)
            return Rectangles(groups, self._turn(layout.positions_N, h_ND.dtype, kind))

        device = self.device
        return Reads(
            sent(layout.pooled_rows_P, device),
            sent(layout.hull_rows_Q, device),
            sent(layout.pooled_in_hull_P, device),
            self._factors(layout.positions_N, h_ND.dtype),
            attention,
        )

    def _ragged_states(
        self, layout: Layout, prefix: Prefix, wanted: Sequence[int], pooled_only: bool
    ) -> list[Tensor]:
        """States where attention takes sequences of unlike length; recorded where that pays."""
        feed = Feed(layout, len(prefix.states[0]))
        room = feed.sizes.rounded()
        kinds = {block.positions for block in self._blocks}
        tables = {kind: self._table(room.most_keys, self._dtype, kind) for kind in kinds}
        factors_N1 = self._factors(layout.positions_N, self._dtype)

        def run(numbers: Tensor, sizes: Sizes) -> list[Tensor]:
            fed = Fed.of(numbers, sizes)

            @cache
            def attention(kind: str, hulls: bool) -> Attention:
                cos, sin = (table[fed.positions_N][:, None] for table in tables[kind])
                return ragged(fed, (cos, sin), hulls=hulls)

            reads = Reads(
                fed.pooled_rows_P, fed.hull_rows_Q, fed.pooled_in_hull_P, factors_N1, attention
            )
            h_ND = self._embed(fed.ids_N, wide=False)
            return passes.states(
                h_ND, reads, prefix, self._blocks, self._norm, wanted, pooled_only=pooled_only
            )

        def plainly() -> list[Tensor]:
            return run(sent(feed.numbers(feed.sizes), self.device), feed.sizes)

        pays = pooled_only and room.rows * self._block_size <= _LAUNCHED
        able = factors_N1 is None and not torch.is_grad_enabled()
        if self._recorded is None or not (pays and able):
            return plainly()
        key = (layout.prefix_ids.tobytes(), tuple(wanted), room)
        states = self._recorded(
            key, lambda: feed.numbers(room), lambda numbers: run(numbers, room), plainly
        )
        return [state[: len(layout.pooled_rows_P)] for state in states]

    def _prefix(self, layout: Layout, last: int, *, wide: bool, blocks: Sequence[Block]) -> Prefix:
        """Keys and values of the shared beginning, for the blocks up to layer `last`."""
        # Kept between calls only where nothing can change behind our back.
        key = (layout.prefix_ids.tobytes(), last, wide)
        if self.prepacked and (known := self._prefixes.get(key)) is not None:
            return known
        h_ND = self._embed(sent(layout.prefix_ids, self.device), wide=wide)
        turns = {
            kind: self._turn(np.arange(len(h_ND)), h_ND.dtype, kind)
            for kind in {block.positions for block in blocks[:last]}
        }
        group = Group(0, np.array([len(h_ND)]), len(h_ND))
        factors_N1 = self._factors(np.arange(len(h_ND)), h_ND.dtype)
        keys, values, states = [], [], [h_ND]
        for block in blocks[:last]:
            turn = turns[block.positions]
            _, k_NGE, v_NGE = split(block, block.product(h_ND), turn)
            keys.append(k_NGE.contiguous())
            values.append(v_NGE.contiguous())
            if len(h_ND):
                attention = Rectangles((group,), turn)
                h_ND = passes.through(
                    block, h_ND, factors_N1, k_NGE[:0], v_NGE[:0], attention, None
                )
            states.append(h_ND)
        prefix = Prefix(keys, values, states)
        if self.prepacked:
            with self._lock:  # batches run in several threads
                self._prefixes[key] = prefix
                while len(self._prefixes) > _PREFIXES_KEPT:
                    del self._prefixes[next(iter(self._prefixes))]
        return prefix

    def _with_prefix(
        self, layout: Layout, prefix: Prefix, h_ND: Tensor, layer: int, batch: Batch
    ) -> Tensor:
        """The states of every token of the batch, the shared beginning put back."""
        begin_AD = prefix.states[layer]
        if layer == self.num_layers:
            begin_AD = self._norm(begin_AD)
        both = torch.cat([begin_AD, h_ND])
        flat_T = sent(layout.flat_rows_T, self.device)
        position_T = sent(batch.positions_T, self.device)
        return both[torch.where(flat_T < 0, position_T, flat_T + len(begin_AD))]

    def _embed(self, ids_N: Tensor, *, wide: bool) -> Tensor:
        embed = self.model.embed_tokens
        if not wide:
            h_ND: Tensor = embed(ids_N)
        elif isinstance(embed, nn.Embedding):  # before anything is multiplied and rounded
            scale = getattr(embed, "embed_scale", None)  # Gemma's
            h_ND = embed.weight[ids_N].float()
            h_ND = h_ND if scale is None else h_ND * scale.float()
        else:  # an adapter is around it
            h_ND = in_float32(embed, ids_N)
        return h_ND * self._embedded if self._embedded != 1 else h_ND

    def _factors(self, positions_N: Int, dtype: torch.dtype) -> Tensor | None:
        """What the queries of each row are multiplied with, or None."""
        factors = None if self._enlarged is None else self._enlarged.factors(positions_N)
        return None if factors is None else sent(factors, self.device).to(dtype)[:, None]

    def _turn(self, positions_N: Int, dtype: torch.dtype, kind: str = "") -> Turn:
        """Cosines and sines [N, 1, E / 2] of each row's position."""
        cos, sin = self._table(int(positions_N.max(initial=0)) + 1, dtype, kind)
        rows = sent(positions_N, self.device)
        return cos[rows][:, None], sin[rows][:, None]

    def _table(self, positions: int, dtype: torch.dtype, kind: str = "") -> tuple[Tensor, Tensor]:
        """Cosines and sines [positions or more, E / 2] of a kind of positions."""
        key = (dtype, kind, self.device)  # a model that is shared may be moved
        table = self._tables.get(key)
        if table is None or len(table[0]) < positions:
            table = rotary_table(self.model, kind, max(1024, 2 * positions), dtype)
            self._tables[key] = table
        return table
