"""LangChain: `EchovecEmbeddings`, an `Embeddings` for vector stores and retrievers.

    from langchain_core.vectorstores import InMemoryVectorStore
    store = InMemoryVectorStore(EchovecEmbeddings(recipe="best"))

Documents and queries are embedded in these roles; async calls run in a thread.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from echovec.errors import DependencyError
from echovec.plugins.handle import Handle, floats

try:
    from langchain_core.embeddings import Embeddings
except ImportError as error:
    raise DependencyError(
        f'EchovecEmbeddings needs langchain-core ({error}): pip install "echovec[plugins]"'
    ) from None

if TYPE_CHECKING:
    from echovec.embedder import Embedder


class EchovecEmbeddings(Embeddings):  # type: ignore[misc]
    """An embedder as LangChain wants it.

    Args:
        model: an `Embedder`, or the name or folder of a model; None for the default model.
        recipe: a preset's name or a recipe file; by default what `Embedder.load` takes.
        instruction: what searches are for, for recipes that take one; goes to queries.
        device: a torch device.
        precision: "exact", "fast" or "int8".
        max_tokens: the token budget per copy.
    """

    def __init__(
        self,
        model: Embedder | str | Path | None = None,
        *,
        recipe: str | Path | None = None,
        instruction: str | None = None,
        device: str | None = None,
        precision: str | None = None,
        max_tokens: int | None = None,
    ) -> None:
        self.instruction = instruction
        self._handle = Handle(
            model, recipe, device=device, precision=precision, max_tokens=max_tokens
        )

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Unit vectors of the texts that are searched."""
        return cast(list[list[float]], floats(self._handle.vectors(texts, "document")))

    def embed_query(self, text: str) -> list[float]:
        """The unit vector of a text that asks."""
        vectors = self._handle.vectors([text], "query", self.instruction)
        return cast(list[float], floats(vectors[0]))

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """`embed_documents` in a thread."""
        vectors = await self._handle.vectors_async(texts, "document")
        return cast(list[list[float]], floats(vectors))

    async def aembed_query(self, text: str) -> list[float]:
        """`embed_query` in a thread."""
        vectors = await self._handle.vectors_async([text], "query", self.instruction)
        return cast(list[float], floats(vectors[0]))
