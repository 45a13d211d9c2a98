"""Pipeline: an embedder from token ids and spans to unit vectors, as one module for converters.

    forward(ids_0 [S, L], mask_0 [S, L], spans_0 [S, V, 2], ids_1, ...) -> vectors [S, D]

Three inputs for each pass. Tokenising stays outside: `runtime.py` does it with our renderer.

Each pass is the whole model once more in the graph, and a converter's time grows with the square of
the graph (eight passes of the default model: over 40 minutes). So more than two passes go through
the model as one batch, which asks for ids padded to one length L in all of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from echovec.embedder import Embedder
from echovec.errors import RecipeError
from echovec.export.echo_module import EchoModule
from echovec.export.linear import Affine
from echovec.export.program import PassProgram, Program
from echovec.export.program_json import program_to_json
from echovec.export.runtime import stacked

OUTPUT = "vectors"

TRANSFORM_NAMES = ("echo.array_", "matrix_")
"""How the names of the transforms' numbers begin, in a graph made of a pipeline."""


class _Stacked(EchoModule):
    """All passes of a text in one batch."""

    def _states(
        self, passes: Sequence[dict[str, Any]], features: dict[str, Any]
    ) -> Iterable[dict[int, Tensor]]:
        suffixes = ["", *(f"_{place}" for place in range(1, len(passes)))]
        ids_KL = torch.cat([features[f"input_ids{suffix}"] for suffix in suffixes])
        mask_KL = torch.cat([features[f"attention_mask{suffix}"] for suffix in suffixes])
        states = self._run(passes, ids_KL, mask_KL)
        count = features["input_ids"].shape[0]
        for place in range(len(passes)):
            rows = slice(place * count, (place + 1) * count)
            yield {layer: h_KLD[rows] for layer, h_KLD in states.items()}


class Pipeline(nn.Module):
    """The exported module of a program, its tail and the normalising, with tensors for arguments.

    Raises:
        RecipeError: roles are read in different ways, which one graph cannot hold.
    """

    def __init__(self, embedder: Embedder, program: Program) -> None:
        super().__init__()
        symmetric = program.roles["symmetric"]
        for role, passes in program.roles.items():
            if _reading(passes) != _reading(symmetric):
                raise RecipeError(
                    f"recipe {embedder.definition.name!r} reads {role} texts in another way than "
                    "symmetric ones (layers, poolings or transforms differ); a graph holds one way"
                )
        content, arrays = program_to_json(program, embedder.recipe)
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        model, tokenizer = embedder.hugging_face
        made = _Stacked if stacked(len(symmetric)) else EchoModule
        self.echo = made(model, tokenizer, content, tensors).eval().requires_grad_(False)
        self.affine = [isinstance(step, Affine) for step in program.tail]
        for place, step in enumerate(program.tail):
            if isinstance(step, Affine):
                matrix, bias = step.matrix_DE.astype(np.float32), step.bias_E.astype(np.float32)
                self.register_buffer(f"matrix_{place}", torch.from_numpy(matrix))
                self.register_buffer(f"bias_{place}", torch.from_numpy(bias))
        self.views = [len(one.views) for one in symmetric]

    @property
    def names(self) -> list[str]:
        """The inputs' names, in order."""
        return [f"{kind}_{k}" for k in range(len(self.views)) for kind in ("ids", "mask", "spans")]

    def example(self) -> tuple[Tensor, ...]:
        """Inputs to trace with: three texts; no two are one tensor, or a converter ties them."""
        inputs: list[Tensor] = []
        for place, views in enumerate(self.views):
            length = 9 if stacked(len(self.views)) else 9 + 2 * place
            ids = torch.arange(3 * length).reshape(3, length) % 7 + 1
            mask = torch.ones_like(ids)
            mask[1, -2:] = 0
            spans = torch.tensor([2, 5]).expand(3, views, 2).clone()
            inputs += [ids, mask, spans]
        return tuple(inputs)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Unit vectors z_SD."""
        features: dict[str, Any] = {"role": "symmetric"}
        for place in range(len(self.views)):
            suffix = f"_{place}" if place else ""
            ids, mask, spans = inputs[3 * place : 3 * place + 3]
            features |= {
                f"input_ids{suffix}": ids,
                f"attention_mask{suffix}": mask,
                f"spans{suffix}": spans,
            }
        z_SD: Tensor = self.echo(features)["sentence_embedding"]
        for place, affine in enumerate(self.affine):
            if affine:
                matrix, bias = getattr(self, f"matrix_{place}"), getattr(self, f"bias_{place}")
                z_SD = z_SD @ matrix + bias
            else:
                z_SD = _unit(z_SD)
        return _unit(z_SD)


def _unit(z_SD: Tensor) -> Tensor:
    unit_SD: Tensor = z_SD / z_SD.norm(dim=1, keepdim=True).clamp_min(1e-30)
    return unit_SD


def reading_of(program: Program) -> str:
    """A hash of all that decides a graph beside the model: equal ones may share a file.

    Prompts come in as ids, so recipes that differ by their words only have one graph.
    """
    parts = (
        program.combine,
        program.num_layers,
        _reading(program.roles["symmetric"]),
        _content(program.tail),
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _reading(passes: tuple[PassProgram, ...]) -> list[list[tuple[Any, ...]]]:
    """What a graph holds of a role: not the prompt, which comes in as ids, nor where spans are."""
    return [
        [(view.place, view.pooling, view.layers, _content(view.steps)) for view in one.views]
        for one in passes
    ]


def _content(steps: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(
        (step.matrix_DE.tobytes(), step.bias_E.tobytes()) if isinstance(step, Affine) else None
        for step in steps
    )
