"""Reader: the views of one role bound to a tokenizer and a backbone; the seam's two halves.

Each pass asks the backbone once, for all layers that its views read and for the pooled tokens only.
Shapes: S sequences, P pooled tokens, L layers, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from echovec.compute import compute
from echovec.errors import InputError, RecipeError
from echovec.model.backbone import Backbone, layer_index
from echovec.model.device import sent
from echovec.model.parts import How, Importance, Read, reader
from echovec.recipe import Recipe, Role
from echovec.room import Room
from echovec.text.batch import Batch, Chunk
from echovec.text.planner import Planner
from echovec.text.render import Renderer
from echovec.text.tokenizer import Tokenizer
from echovec.vector.combine import combine, combined_dim
from echovec.vector.passes import Pass, passes_of
from echovec.vector.pooling import ATTENTION_POOLINGS, CHUNKS, POOLINGS, TOKEN_POOLINGS
from echovec.vector.view import View

_BATCH_TOKENS = {"cuda": 65_536, "mps": 4_096, "cpu": 2_048}


class Reader:
    """Texts of one role to chunks, and chunks to vectors.

    Raises:
        TemplateError: a template does not fit the tokenizer.
        RecipeError: the views' vectors cannot be put together, or need what the backbone lacks.
    """

    def __init__(
        self, recipe: Recipe, role: Role, tokenizer: Tokenizer, backbone: Backbone
    ) -> None:
        self.views = recipe.views[role]
        self.passes = passes_of(self.views)
        self.renderers = [
            Renderer(
                one.templates,
                tokenizer,
                max_tokens=recipe.max_tokens,
                max_positions=backbone.max_positions,
                text_share=recipe.text_share,
            )
            for one in self.passes
        ]
        self.dimension = combined_dim(self.views, backbone.dim, recipe.combine, recipe.transforms)
        self._recipe = recipe
        self._backbone = backbone
        self._room = Room()
        # Parts hook into the one model: chunks with parts run one after the other.
        self.workers: int = getattr(backbone, "workers", 1)
        own = self._layers()
        # Those that the backbone gives, where not all of them.
        given: Sequence[int] = getattr(backbone, "layers", range(backbone.num_layers + 1))
        if beyond := sorted({x for layers in own for x in layers} - set(given)):
            raise RecipeError(
                f"recipe {recipe.name!r} reads layer {beyond[0]}, and this backbone gives "
                f"{', '.join(map(str, given))} only; choose another recipe or engine"
            )
        for one in self.passes:  # refuse here what would fail at the first text
            how = self._how(one, own)
            if how != How():
                reader(backbone, how)
                self.workers = 1

    @property
    def planner(self) -> Planner:
        """Texts to chunks: the half that needs no model."""
        return Planner(tuple(self.renderers), self._recipe.long_text, self.batch_tokens)

    @property
    def batch_tokens(self) -> int:
        """Tokens per batch where the caller says nothing, by device."""
        device = getattr(getattr(self._backbone, "model", None), "device", None)
        return _BATCH_TOKENS.get(getattr(device, "type", "cpu"), _BATCH_TOKENS["cpu"])

    def vectors(
        self,
        chunks: Sequence[Chunk],
        *,
        workers: int | None = None,
        show_progress_bar: bool | None = None,
    ) -> tuple[Tensor, NDArray[np.bool_]]:
        """All chunks to vectors z_ND, in the texts' order, and which texts were cut."""
        if not chunks:
            return torch.zeros(0, self.dimension, dtype=torch.float32), np.zeros(0, dtype=np.bool_)
        return compute(
            self.forward,
            chunks,
            workers=min(workers or self.workers, self.workers),
            room=self._room,
            show_progress_bar=show_progress_bar,
        )

    def all_states(
        self,
        chunks: Sequence[Chunk],
        layers: Sequence[int] | None = None,
        *,
        show_progress_bar: bool | None = None,
    ) -> list[Tensor]:
        """All chunks to z_LND of each view, texts in order; see `Embedder.states`."""
        counts = [len(own) for own in self._layers(layers)]

        def forward(chunk: Chunk, *, float32: bool = False) -> Tensor:
            states = self.states(chunk, layers, float32=float32)
            return torch.cat([z_LSD.transpose(0, 1).flatten(1) for z_LSD in states], dim=1)

        if not chunks:
            dim = self._backbone.dim
            return [torch.zeros(count, 0, dim, dtype=torch.float32) for count in counts]
        flat_NX, _ = compute(
            forward,
            chunks,
            workers=self.workers,
            room=self._room,
            show_progress_bar=show_progress_bar,
        )
        width = flat_NX.shape[1] // sum(counts)
        parts = torch.split(flat_NX, [count * width for count in counts], dim=1)
        return [part.reshape(len(part), -1, width).transpose(0, 1) for part in parts]

    def forward(self, chunk: Chunk, *, float32: bool = False) -> Tensor:
        """A chunk to vectors z_SD; see `Embedder.forward`."""
        states = self.states(chunk, float32=float32)
        return combine(self.views, states, self._recipe.combine, self._recipe.transforms)

    def states(
        self, chunk: Chunk, layers: Sequence[int] | None = None, *, float32: bool = False
    ) -> list[Tensor]:
        """Run a chunk and pool: z_LSD of each view, before layers are averaged or transformed.

        Args:
            chunk: a batch for each pass.
            layers: which layers, the same for each view; by default each view's own.
            float32: compute in float32 whatever the model's dtype.
        """
        wanted = self._layers(layers)
        pooled: dict[int, Tensor] = {}
        for one, batch in zip(self.passes, chunk, strict=True):
            for place, z_LSD in self._read(one, batch, wanted, float32=float32):
                pooled[place] = z_LSD
        return [pooled[place] for place in range(len(self.views))]

    def _layers(self, layers: Sequence[int] | None = None) -> list[tuple[int, ...]]:
        """The layers to read for each view: those given, or the view's own."""
        num_layers = self._backbone.num_layers
        chosen = [
            layers_of(view if layers is None else tuple(layers), num_layers) for view in self.views
        ]
        for view, own in zip(self.views, chosen, strict=True):
            if view.states == "attention" and 0 in own:
                raise InputError("layer 0 has no attention; states='attention' starts at layer 1")
            if view.prepend is not None and not 1 <= view.prepend[0] <= num_layers:
                raise InputError(f"prepend={view.prepend}: this model has blocks 1 to {num_layers}")
        return chosen

    def _how(self, one: Pass, wanted: Sequence[Sequence[int]]) -> How:
        """What the views of a pass ask for beside hidden states."""
        views = [self.views[place] for place in one.places]
        asked = [
            Importance(one.templates.index(view.template), CHUNKS[view.pooling])
            for view in views
            if view.pooling in ATTENTION_POOLINGS
        ]
        blocks = {
            layer
            for place in one.places
            for layer in wanted[place]
            if self.views[place].states == "attention"
        }
        return How(
            bidirectional=views[0].mask == "bidirectional",
            prepend=views[0].prepend,
            attention=tuple(sorted(blocks)),
            importance=tuple(dict.fromkeys(asked)),
        )

    def _read(
        self, one: Pass, batch: Batch, wanted: Sequence[Sequence[int]], *, float32: bool
    ) -> Iterator[tuple[int, Tensor]]:
        """Run one pass; the place of each of its views and its z_LSD."""
        hidden = {
            layer
            for place in one.places
            for layer in wanted[place]
            if self.views[place].states == "hidden"
        }
        layers, how = sorted(hidden), self._how(one, wanted)
        if how == How():
            states = self._backbone.forward(batch, layers, pooled_only=True, float32=float32)
            read = Read(states, [], [])
        else:
            read = reader(self._backbone, how).read(batch, layers, how, float32=float32)
        by_layer = {
            "hidden": dict(zip(layers, read.hidden, strict=True)),
            "attention": dict(zip(how.attention, read.attention, strict=True)),
        }
        weights = dict(zip(how.importance, read.importance, strict=True))
        device = (read.hidden + read.attention)[0].device
        rows_P, in_rows_SK2 = batch.pooled
        spans_SK2 = sent(in_rows_SK2, device)
        for place in one.places:
            view = self.views[place]
            span = one.templates.index(view.template)
            states_PD = [by_layer[view.states][layer] for layer in wanted[place]]
            if view.pooling in POOLINGS:
                pool = POOLINGS[view.pooling]
                rows = [pool(h_PD, spans_SK2[:, span]) for h_PD in states_PD]
            elif view.pooling in TOKEN_POOLINGS:
                weigh, ids_P = TOKEN_POOLINGS[view.pooling], sent(batch.ids_T[rows_P], device)
                rows = [weigh(h_PD, spans_SK2[:, span], ids_P) for h_PD in states_PD]
            else:
                attend = ATTENTION_POOLINGS[view.pooling]
                w_R = weights[Importance(span, CHUNKS[view.pooling])]
                rows = [attend(h, spans_SK2[:, span], w_R, view.threshold) for h in states_PD]
            yield place, torch.stack(rows)


def layers_of(wanted: View | Sequence[int], num_layers: int) -> tuple[int, ...]:
    """The layers that a view reads, 0 to `num_layers`; InputError if the model has no such one."""
    layers = wanted.layer if isinstance(wanted, View) else wanted
    if isinstance(layers, str):  # "all" but the embeddings
        return tuple(range(1, num_layers + 1))
    chosen = (layers,) if isinstance(layers, int) else layers
    return tuple(layer_index(int(layer), num_layers) for layer in chosen)
