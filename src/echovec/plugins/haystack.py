"""Haystack: `EchovecTextEmbedder` for questions and `EchovecDocumentEmbedder` for documents.

Both are components for a `Pipeline`: written to YAML and read back, loaded by `warm_up` or the
first run, with `run_async`. In one process the two share one model in memory if they load the same.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from echovec.errors import DependencyError, InputError
from echovec.plugins.handle import Handle, floats

try:
    from haystack import Document, component, default_from_dict, default_to_dict
except ImportError as error:
    raise DependencyError(
        f'the Haystack embedders need haystack-ai ({error}): pip install "echovec[plugins]"'
    ) from None

if TYPE_CHECKING:
    from echovec.embedder import Embedder


@component
class EchovecTextEmbedder:
    """Embeds the text that asks.

    Args:
        model: an `Embedder`, or the name or folder of a model; None for the default model.
        recipe: a preset's name or a recipe file; by default what `Embedder.load` takes.
        instruction: what searches are for, for recipes that take one.
        prefix: stands before each text, as part of it.
        suffix: stands after each text, as part of it.
        device: a torch device.
        precision: "exact", "fast" or "int8".
        max_tokens: the token budget per copy.
    """

    def __init__(
        self,
        model: Embedder | str | Path | None = None,
        recipe: str | Path | None = None,
        instruction: str | None = None,
        prefix: str = "",
        suffix: str = "",
        device: str | None = None,
        precision: str | None = None,
        max_tokens: int | None = None,
    ) -> None:
        self.handle = Handle(
            model, recipe, device=device, precision=precision, max_tokens=max_tokens
        )
        self.texts = {"instruction": instruction, "prefix": prefix, "suffix": suffix}

    def to_dict(self) -> dict[str, Any]:
        """What Haystack writes of it.

        Raises:
            InputError: it holds an `Embedder` that lives in memory only.
        """
        return dict(default_to_dict(self, **self.handle.names(), **self.texts))

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> EchovecTextEmbedder:
        """The component of what `to_dict` wrote; the model is not loaded yet."""
        made: EchovecTextEmbedder = default_from_dict(cls, data)
        return made

    def warm_up(self) -> None:
        """Load the model now."""
        self.handle.embedder  # noqa: B018 - the property loads

    @component.output_types(embedding=list[float], meta=dict[str, Any])  # type: ignore[untyped-decorator]
    def run(self, text: str) -> dict[str, Any]:
        """The unit vector of a text, as `embedding`, and what made it, as `meta`."""
        vectors = self.handle.vectors([self._written(text)], "query", self.texts["instruction"])
        return {"embedding": floats(vectors[0]), "meta": _meta(self.handle)}

    @component.output_types(embedding=list[float], meta=dict[str, Any])  # type: ignore[untyped-decorator]
    async def run_async(self, text: str) -> dict[str, Any]:
        """`run` in a thread."""
        vectors = await self.handle.vectors_async(
            [self._written(text)], "query", self.texts["instruction"]
        )
        return {"embedding": floats(vectors[0]), "meta": _meta(self.handle)}

    def _written(self, text: str) -> str:
        if not isinstance(text, str):
            raise TypeError(
                f"text is {type(text).__name__}; for documents there is EchovecDocumentEmbedder"
            )
        return f"{self.texts['prefix']}{text}{self.texts['suffix']}"


@component
class EchovecDocumentEmbedder:
    """Embeds the documents that are searched; gives new ones, the old stay as they are.

    Args:
        model: an `Embedder`, or the name or folder of a model; None for the default model.
        recipe: a preset's name or a recipe file; by default what `Embedder.load` takes.
        prefix: stands before each document, as part of it.
        suffix: stands after each document, as part of it.
        meta_fields_to_embed: metadata to put in front of the content.
        embedding_separator: stands between these and the content.
        device: a torch device.
        precision: "exact", "fast" or "int8".
        max_tokens: the token budget per copy.
    """

    def __init__(
        self,
        model: Embedder | str | Path | None = None,
        recipe: str | Path | None = None,
        prefix: str = "",
        suffix: str = "",
        meta_fields_to_embed: list[str] | None = None,
        embedding_separator: str = "\n",
        device: str | None = None,
        precision: str | None = None,
        max_tokens: int | None = None,
    ) -> None:
        self.handle = Handle(
            model, recipe, device=device, precision=precision, max_tokens=max_tokens
        )
        self.prefix = prefix
        self.suffix = suffix
        self.meta_fields_to_embed = meta_fields_to_embed or []
        self.embedding_separator = embedding_separator

    def to_dict(self) -> dict[str, Any]:
        """What Haystack writes of it.

        Raises:
            InputError: it holds an `Embedder` that lives in memory only.
        """
        written = default_to_dict(
            self,
            **self.handle.names(),
            prefix=self.prefix,
            suffix=self.suffix,
            meta_fields_to_embed=self.meta_fields_to_embed,
            embedding_separator=self.embedding_separator,
        )
        return dict(written)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> EchovecDocumentEmbedder:
        """The component of what `to_dict` wrote; the model is not loaded yet."""
        made: EchovecDocumentEmbedder = default_from_dict(cls, data)
        return made

    def warm_up(self) -> None:
        """Load the model now."""
        self.handle.embedder  # noqa: B018 - the property loads

    @component.output_types(documents=list[Document], meta=dict[str, Any])  # type: ignore[untyped-decorator]
    def run(self, documents: list[Document]) -> dict[str, Any]:
        """Documents with their unit vectors, as `documents`, and what made them, as `meta`.

        Raises:
            InputError: a document has no text; the message names its id.
        """
        return self._answer(documents, self.handle.vectors(self._written(documents), "document"))

    @component.output_types(documents=list[Document], meta=dict[str, Any])  # type: ignore[untyped-decorator]
    async def run_async(self, documents: list[Document]) -> dict[str, Any]:
        """`run` in a thread."""
        written = self._written(documents)
        return self._answer(documents, await self.handle.vectors_async(written, "document"))

    def _written(self, documents: list[Document]) -> list[str]:
        if not isinstance(documents, list) or not all(isinstance(d, Document) for d in documents):
            raise TypeError(
                "documents has to be a list of Document; for a string there is EchovecTextEmbedder"
            )
        texts = []
        for document in documents:
            found = (document.meta.get(name) for name in self.meta_fields_to_embed)
            fields = [str(value) for value in found if value is not None]
            parts = fields + ([document.content] if document.content else [])
            if not parts:
                raise InputError(f"document {document.id} has no text to embed; leave it out")
            texts.append(self.prefix + self.embedding_separator.join(parts) + self.suffix)
        return texts

    def _answer(self, documents: list[Document], vectors: Any) -> dict[str, Any]:
        made = [
            replace(document, embedding=floats(vector))
            for document, vector in zip(documents, vectors, strict=True)
        ]
        return {"documents": made, "meta": _meta(self.handle)}


def _meta(handle: Handle) -> dict[str, Any]:
    """What made the vectors: vectors of equal fingerprints may be compared."""
    recipe = handle.embedder.recipe
    assert recipe.model is not None, "an embedder's recipe is bound"
    return {
        "model": recipe.model.name,
        "recipe": recipe.name,
        "fingerprint": recipe.fingerprint,
    }
