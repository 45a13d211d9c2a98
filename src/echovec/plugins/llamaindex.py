"""LlamaIndex: `EchovecEmbedding`, a `BaseEmbedding` for indices and ingestion pipelines.

    from llama_index.core import Settings
    Settings.embed_model = EchovecEmbedding(recipe="best")

Texts are embedded as documents, questions as queries; async calls run in a thread. It is a pydantic
model as LlamaIndex's own are: what it loads is written by `to_dict`, the embedder itself is not.
LlamaIndex also tells by `to_dict` whether vectors that it kept are still good, so there an embedder
in memory stands by its fingerprint.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, cast

from echovec.errors import DependencyError
from echovec.plugins.handle import Handle, floats

try:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.bridge.pydantic import Field, PrivateAttr
except ImportError as error:
    raise DependencyError(
        f'EchovecEmbedding needs llama-index-core ({error}): pip install "echovec[plugins]"'
    ) from None


class EchovecEmbedding(BaseEmbedding):  # type: ignore[misc]
    """An embedder as LlamaIndex wants it.

    Args:
        model: an `Embedder`, or the name or folder of a model; None for the default model.
        fields: the fields below, and `embed_batch_size`, `callback_manager` and so on of
            `BaseEmbedding`. `model_name` is "default", or the model's name, unless given.
    """

    model: str | None = Field(default=None, description="Name or folder; None: default model.")
    recipe: str | None = Field(default=None, description="A preset's name or a recipe file.")
    instruction: str | None = Field(default=None, description="What questions are for.")
    device: str | None = Field(default=None, description="A torch device.")
    precision: str | None = Field(default=None, description='"exact", "fast" or "int8".')
    max_tokens: int | None = Field(default=None, description="Token budget per copy.")
    _handle: Handle = PrivateAttr()

    def __init__(self, model: Any = None, **fields: Any) -> None:
        loading = {name: fields.get(name) for name in ("device", "precision", "max_tokens")}
        if isinstance(fields.get("recipe"), Path):
            fields["recipe"] = str(fields["recipe"])
        handle = Handle(model, fields.get("recipe"), **loading)
        named = None if model is None else handle.name
        fields.setdefault("model_name", named or "default")
        super().__init__(model=named, **fields)
        self._handle = handle

    @classmethod
    def class_name(cls) -> str:
        """The name it has in files of LlamaIndex."""
        return "EchovecEmbedding"

    def to_dict(self, **options: Any) -> dict[str, Any]:
        """What LlamaIndex writes of it and knows its vectors by.

        An embedder in memory stands by its fingerprint as it is now: it may have been trained.
        """
        before = self.model
        if before is not None:
            self.model = self._handle.name
            if self.__dict__["model_name"] == before:
                self.model_name = self.model
        return dict(super().to_dict(**options))

    def __getstate__(self) -> dict[str, Any]:
        pickle.dumps(self._handle)  # what cannot be pickled is left out by LlamaIndex's own
        return dict(super().__getstate__())

    def _get_query_embedding(self, query: str) -> list[float]:
        return cast(list[float], floats(self._query_vectors(query)))

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return cast(list[list[float]], floats(self._handle.vectors(texts, "document")))

    async def _aget_query_embedding(self, query: str) -> list[float]:
        vectors = await self._handle.vectors_async([query], "query", self.instruction)
        return cast(list[float], floats(vectors[0]))

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return (await self._aget_text_embeddings([text]))[0]

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        vectors = await self._handle.vectors_async(texts, "document")
        return cast(list[list[float]], floats(vectors))

    def _query_vectors(self, query: str) -> Any:
        return self._handle.vectors([query], "query", self.instruction)[0]
