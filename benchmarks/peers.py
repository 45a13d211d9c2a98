"""Peers: how others would compute the same vectors, each in its default and its best setting.

All get the same token ids (this project's renderer, tokenising included in the time), so what is
compared is the running of the model. A peer is loaded, asked for vectors, and let go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from echovec import Embedder
from echovec.text.drafts import Rendered, render

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Job:
    """What is to be embedded, and with which recipe."""

    embedder: Embedder
    """On the plain engine, float32: the oracle, and the renderer of all peers."""

    texts: Sequence[str]
    recipe: str
    instruction: str | None

    def rendered(self) -> list[Rendered]:
        """Token ids and pooled span of every text."""
        reader = self.embedder.with_recipe(self.recipe)._readers[
            "query" if self.instruction else "symmetric"
        ]
        return list(render(reader.renderers[0], self.texts, self.instruction))


Encode = Callable[[Job], Vectors]


def padded(
    rendered: Sequence[Rendered],
    run: Callable[[Tensor, Tensor], Tensor],
    *,
    batch_size: int | None = 32,
    batch_tokens: int | None = None,
    by_length: bool,
    last: bool,
) -> Vectors:
    """Padded batches through `run(ids, mask) -> states`; the span's mean or last, normalised."""
    order = list(range(len(rendered)))
    if by_length:
        order.sort(key=lambda i: -len(rendered[i].ids))
    vectors: list[Tensor | None] = [None] * len(rendered)
    start = 0
    while start < len(order):
        longest = len(rendered[order[start]].ids)
        size = batch_size or max(1, (batch_tokens or 2048) // longest)
        chosen = order[start : start + size]
        start += size
        longest = max(len(rendered[i].ids) for i in chosen)
        ids = torch.zeros(len(chosen), longest, dtype=torch.long)
        mask = torch.zeros(len(chosen), longest, dtype=torch.long)
        for row, i in enumerate(chosen):
            ids[row, : len(rendered[i].ids)] = torch.from_numpy(rendered[i].ids)
            mask[row, : len(rendered[i].ids)] = 1
        states = run(ids, mask)
        for row, i in enumerate(chosen):
            first, stop = rendered[i].spans[0]
            span = states[row, first:stop].float()
            vectors[i] = span[-1] if last else span.mean(dim=0)
    z = torch.stack([v for v in vectors if v is not None])
    return np.asarray(torch.nn.functional.normalize(z, dim=1).cpu().numpy(), dtype=np.float32)


def pools_last(job: Job) -> bool:
    """Whether the recipe pools the last token instead of the mean."""
    recipe = job.embedder.with_recipe(job.recipe).recipe
    return recipe.views["query"][0].pooling == "lasttoken"


def transformers_peer(
    *,
    dtype: str = "float32",
    by_length: bool = True,
    medium: bool = False,
    tokens: int | None = None,
) -> Callable[[Path], Encode]:
    """Transformers' AutoModel, padded batches of 32 (or a budget of tokens)."""

    def load(path: Path) -> Encode:
        from transformers import AutoModel

        model = AutoModel.from_pretrained(str(path), dtype=getattr(torch, dtype)).eval()

        def run(ids: Tensor, mask: Tensor) -> Tensor:
            states: Tensor = model(input_ids=ids, attention_mask=mask).last_hidden_state
            return states

        def encode(job: Job) -> Vectors:
            before = torch.get_float32_matmul_precision()
            torch.set_float32_matmul_precision("medium" if medium else before)
            try:
                with torch.inference_mode():
                    return padded(
                        job.rendered(),
                        run,
                        batch_size=None if tokens else 32,
                        batch_tokens=tokens,
                        by_length=by_length,
                        last=pools_last(job),
                    )
            finally:
                torch.set_float32_matmul_precision(before)

        return encode

    return load


def sentence_transformers_peer(*, dtype: str = "float32") -> Callable[[Path], Encode]:
    """sentence-transformers with a module that renders the prompt and one that pools the span."""

    def load(path: Path) -> Encode:
        from benchmarks.span_modules import span_model

        return span_model(path, dtype)

    return load


class _States(torch.nn.Module):
    """A model as converters want it: ids and mask to states, nothing to train."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model.requires_grad_(False)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        states: Tensor = self.model(
            input_ids=ids, attention_mask=mask, use_cache=False
        ).last_hidden_state
        return states


def openvino_peer(*, dtype: str = "float32", rounded: bool = False) -> Callable[[Path], Encode]:
    """OpenVINO's own conversion of the transformers model, sorted, a budget of tokens.

    Args:
        dtype: what it is asked to compute in.
        rounded: weights in 8 bits by NNCF, inputs rounded by OpenVINO as it runs.
    """

    def load(path: Path) -> Encode:
        import openvino as ov
        from transformers import AutoModel

        model = AutoModel.from_pretrained(
            str(path), dtype=torch.float32, attn_implementation="sdpa"
        ).eval()

        example = torch.ones(2, 9, dtype=torch.long)
        converted = ov.convert_model(_States(model), example_input=(example, example))
        hint = {"INFERENCE_PRECISION_HINT": "f32" if dtype == "float32" else "bf16"}
        if rounded:
            import nncf

            converted = nncf.compress_weights(converted, mode=nncf.CompressWeightsMode.INT8_SYM)
            hint["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = "64"
        compiled = ov.Core().compile_model(converted, "CPU", hint)
        del model

        def run(ids: Tensor, mask: Tensor) -> Tensor:
            return torch.from_numpy(compiled([ids.numpy(), mask.numpy()])[0])

        def encode(job: Job) -> Vectors:
            return padded(
                job.rendered(),
                run,
                batch_size=None,
                batch_tokens=2048,
                by_length=True,
                last=pools_last(job),
            )

        return encode

    return load


def onnxruntime_peer() -> Callable[[Path], Encode]:
    """ONNX Runtime on torch's export of the transformers model, sorted, a budget of tokens."""

    def load(path: Path) -> Encode:
        import tempfile

        import onnxruntime
        from transformers import AutoModel

        model = AutoModel.from_pretrained(str(path), dtype=torch.float32).eval()

        rows, columns = torch.export.Dim("rows"), torch.export.Dim("columns")
        shape = {0: rows, 1: columns}
        # Two tensors: the converter takes one given twice for one input, and embeds the mask.
        example = torch.ones(3, 9, dtype=torch.long), torch.ones(3, 9, dtype=torch.long)
        with tempfile.TemporaryDirectory() as folder:
            file = f"{folder}/model.onnx"
            torch.onnx.export(
                _States(model),
                example,
                file,
                dynamo=True,
                dynamic_shapes={"ids": shape, "mask": shape},
            )
            session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        names = [one.name for one in session.get_inputs()]

        def run(ids: Tensor, mask: Tensor) -> Tensor:
            feed = dict(zip(names, (ids.numpy(), mask.numpy()), strict=True))
            return torch.from_numpy(session.run(None, feed)[0])

        def encode(job: Job) -> Vectors:
            return padded(
                job.rendered(),
                run,
                batch_size=None,
                batch_tokens=2048,
                by_length=True,
                last=pools_last(job),
            )

        return encode

    return load


def ours(**options: Any) -> Callable[[Path], Encode]:
    """This project, tokenising its own way; loaded with these options."""

    def load(path: Path) -> Encode:
        model = Embedder.load(path, **options)
        bound: dict[str, Embedder] = {}

        def encode(job: Job) -> Vectors:
            if job.recipe not in bound:
                bound[job.recipe] = model.with_recipe(job.recipe)
            role: Any = "query" if job.instruction else None
            vectors, _ = bound[job.recipe].encode(
                list(job.texts), role=role, instruction=job.instruction, return_truncated=True
            )
            return vectors

        return encode

    return load


PEERS: Mapping[str, Callable[[Path], Encode]] = {
    "transformers, unsorted, batch 32, float32": transformers_peer(by_length=False),
    "transformers, sorted, float32": transformers_peer(),
    "transformers, sorted, float32, medium": transformers_peer(medium=True),
    "transformers, sorted by token budget, float32": transformers_peer(tokens=2048),
    "transformers, sorted, bfloat16": transformers_peer(dtype="bfloat16"),
    "transformers, sorted by token budget, bfloat16": transformers_peer(
        dtype="bfloat16", tokens=2048
    ),
    "sentence-transformers, float32": sentence_transformers_peer(),
    "sentence-transformers, bfloat16": sentence_transformers_peer(dtype="bfloat16"),
    "OpenVINO, float32": openvino_peer(),
    "OpenVINO, bfloat16": openvino_peer(dtype="bfloat16"),
    "OpenVINO, int8": openvino_peer(dtype="bfloat16", rounded=True),
    "ONNX Runtime, float32": onnxruntime_peer(),
    "echovec, plain, exact": ours(precision="exact", engine="plain"),
    "echovec, packed, exact": ours(precision="exact", engine="packed"),
    "echovec, plain, fast": ours(precision="fast", engine="plain"),
    "echovec, packed, fast": ours(precision="fast", engine="packed"),
    "echovec, packed, int8": ours(dtype="int8", engine="packed"),
}
