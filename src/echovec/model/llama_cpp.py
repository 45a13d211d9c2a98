"""llama.cpp: a GGUF file run as it is, with its small weights; the one door to llama-cpp-python.

For machines with little memory: the file's 4-bit weights are never widened (98 MB where the default
model takes 540 MB in float32). llama.cpp rounds activations to 8 bits, so vectors are near those of
the other engines and not the same; the fingerprint says so by its dtype. Only the last layer comes
out, and nothing is differentiable. Tokens come from our renderer, so spans are as exact as ever.
"""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from echovec.errors import DependencyError, InputError, ModelError
from echovec.model.backbone import layer_index
from echovec.text.batch import Batch

if TYPE_CHECKING:
    from torch import Tensor

_SEQUENCES = 64
"""Sequences in one call; llama.cpp itself takes 256."""

_CALL_TOKENS = 512
"""Tokens in one call, unless a sequence is longer: it attends over all tokens of a call, masked."""


class LlamaCppBackbone:
    """A GGUF file behind the Backbone seam.

    Args:
        path: the file.
        threads: processors to use; by default llama.cpp's choice.
        tokens: how many tokens one call takes, and the longest prompt.

    Raises:
        DependencyError: llama-cpp-python is not installed.
        ModelError: it cannot read the file.
    """

    dtype = "gguf"

    def __init__(self, path: str | Path, *, threads: int | None = None, tokens: int = 2048) -> None:
        try:
            import llama_cpp
        except ImportError as error:
            raise DependencyError(
                "llama-cpp-python is not installed: pip install 'echovec[gguf]' (it compiles for "
                "minutes)"
            ) from error
        self._path = Path(path)
        try:
            with _weights_as_they_are(llama_cpp):
                self._llama: Any = llama_cpp.Llama(
                    str(path),
                    embedding=True,
                    pooling_type=llama_cpp.LLAMA_POOLING_TYPE_NONE,
                    n_ctx=tokens,
                    n_batch=tokens,
                    n_ubatch=tokens,
                    n_threads=threads,
                    n_threads_batch=threads,
                    type_k=llama_cpp.GGML_TYPE_F32,
                    type_v=llama_cpp.GGML_TYPE_F32,
                    verbose=False,
                )
        except ValueError as error:
            raise ModelError(f"llama.cpp cannot read {path}: {error}") from error
        # Before the interpreter goes: afterwards its functions are gone, and closing would fail.
        weakref.finalize(self, self._llama.close)
        self._get = llama_cpp.llama_get_embeddings
        self._lock = Lock()
        self.dim = int(self._llama.n_embd())
        about = self._llama.metadata
        family = about["general.architecture"]
        self.num_layers = int(about[f"{family}.block_count"])
        self.layers = (self.num_layers,)
        trained = int(about.get(f"{family}.context_length", tokens))
        self.max_positions: int | None = min(tokens, trained)

    def forward(
        self,
        batch: Batch,
        layers: Sequence[int] = (-1,),
        *,
        pooled_only: bool = False,
        float32: bool = False,
    ) -> list[Tensor]:
        """The last hidden states, [T, D] or [P, D]; InputError for any other layer."""
        import torch

        for layer in layers:
            if layer_index(layer, self.num_layers) != self.num_layers:
                raise InputError(f"llama.cpp gives the last layer only, not {layer}; use -1")
        rows_TD = np.empty((len(batch.ids_T), self.dim), np.float32)
        with self._lock:
            for first, stop in self._calls(batch):
                start, end = batch.offsets_S1[first], batch.offsets_S1[stop]
                rows_TD[start:end] = self._run(batch, first, stop)
        states = torch.from_numpy(rows_TD[batch.pooled[0]] if pooled_only else rows_TD)
        return [states] * len(layers)

    def weights_hash(self) -> str:
        """Hash of the file: what llama.cpp computes with is not the widened weights."""
        with self._path.open("rb") as file:
            return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()

    def _calls(self, batch: Batch) -> list[tuple[int, int]]:
        """Runs of sequences that fit into one call."""
        calls, first, tokens = [], 0, 0
        for place, length in enumerate(batch.lengths_S.tolist()):
            full = tokens + length > _CALL_TOKENS or place - first == _SEQUENCES
            if place > first and full:
                calls.append((first, place))
                first, tokens = place, 0
            tokens += length
        return [*calls, (first, len(batch))]

    def _run(self, batch: Batch, first: int, stop: int) -> Any:
        laid = self._llama._batch  # the ids as they are: its own verbs take texts
        laid.reset()
        for number, place in enumerate(range(first, stop)):
            start, end = batch.offsets_S1[place], batch.offsets_S1[place + 1]
            laid.add_sequence(batch.ids_T[start:end].tolist(), number, True)
        count = laid.n_tokens()
        self._llama._ctx.kv_cache_clear()
        self._llama._ctx.decode(laid)
        return np.ctypeslib.as_array(self._get(self._llama._ctx.ctx), shape=(count, self.dim))


@contextmanager
def _weights_as_they_are(llama_cpp: Any) -> Iterator[None]:
    """On a processor with AMX, no copy of the weights laid out for it.

    With that copy the process ends with SIGSEGV in llama.cpp's `ggml_backend_amx_mul_mat` at the
    first batch (llama-cpp-python 0.3.36, Q4_1 weights; docs/LOG.md). `Llama` has no argument for
    it, and takes what the library's defaults say.
    """
    defaults = llama_cpp.llama_cpp.llama_model_default_params
    if not _has_amx():
        yield
        return

    def without_copy() -> Any:
        params = defaults()
        params.use_extra_bufts = False
        return params

    llama_cpp.llama_cpp.llama_model_default_params = without_copy
    try:
        yield
    finally:
        llama_cpp.llama_cpp.llama_model_default_params = defaults


def _has_amx() -> bool:
    try:
        return "amx_int8" in Path("/proc/cpuinfo").read_text("utf-8", errors="replace")
    except OSError:  # not Linux
        return False


def load_llama_cpp(path: str | Path, *, threads: int | None = None) -> tuple[LlamaCppBackbone, Any]:
    """A GGUF file's backbone and its Hugging Face tokenizer, read from the same file.

    Raises:
        DependencyError: llama-cpp-python is not installed.
        ModelError: no such file, or it cannot be read.
    """
    from transformers import AutoTokenizer

    from echovec.model.load import quiet_transformers

    file = Path(path)
    if not file.is_file():
        raise ModelError(f"no such file: {file}; give a .gguf file")
    backbone = LlamaCppBackbone(file, threads=threads)
    with quiet_transformers():
        tokenizer = AutoTokenizer.from_pretrained(
            str(file.parent), gguf_file=file.name, local_files_only=True, trust_remote_code=False
        )
    return backbone, tokenizer
