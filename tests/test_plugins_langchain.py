"""LangChain: its own test suite for embeddings, and what that does not look at."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

pytest.importorskip("langchain_core")
standard = pytest.importorskip("langchain_tests")

from langchain_core.documents import Document  # noqa: E402
from langchain_core.vectorstores import InMemoryVectorStore  # noqa: E402
from langchain_tests.integration_tests import EmbeddingsIntegrationTests  # noqa: E402
from langchain_tests.unit_tests import EmbeddingsUnitTests  # noqa: E402

from echovec.errors import InputError  # noqa: E402
from echovec.plugins.handle import FIELDS  # noqa: E402
from echovec.plugins.langchain import EchovecEmbeddings  # noqa: E402
from plugins_stub import TEXTS, embedder, norms, saved  # noqa: E402


class TestUnit(EmbeddingsUnitTests):
    """LangChain's unit tests."""

    @property
    def embeddings_class(self):
        return EchovecEmbeddings

    @property
    def embedding_model_params(self):
        return {"model": embedder()}


class TestIntegration(EmbeddingsIntegrationTests):
    """LangChain's integration tests, sync and async."""

    @property
    def embeddings_class(self):
        return EchovecEmbeddings

    @property
    def embedding_model_params(self):
        return {"model": embedder()}


def test_roles_and_instruction_reach_the_recipe():
    """Queries and documents get the vectors of their roles; the instruction goes to queries."""
    model = embedder("echo-instruct")
    plugin = EchovecEmbeddings(model, instruction="Find the animal")
    asked = model.encode_query(TEXTS[0], instruction="Find the animal")
    np.testing.assert_allclose(plugin.embed_query(TEXTS[0]), asked, atol=1e-6)
    np.testing.assert_allclose(
        plugin.embed_documents(TEXTS), model.encode_document(TEXTS), atol=1e-6
    )
    assert np.abs(asked - model.encode_query(TEXTS[0])).max() > 1e-3

    async def asynchronous():
        return await plugin.aembed_query(TEXTS[0]), await plugin.aembed_documents(TEXTS)

    query, documents = asyncio.run(asynchronous())
    np.testing.assert_allclose(query, asked, atol=1e-6)
    np.testing.assert_allclose(documents, model.encode_document(TEXTS), atol=1e-6)


def test_a_vector_store_finds_the_same_text(tmp_path):
    """In LangChain's own store a document is nearest to itself; the embedder comes by name."""
    plugin = EchovecEmbeddings(saved(tmp_path))
    store = InMemoryVectorStore(plugin)
    store.add_documents([Document(text) for text in TEXTS])
    assert [store.similarity_search(text, k=1)[0].page_content for text in TEXTS] == TEXTS
    assert norms(plugin.embed_documents(TEXTS)) == {1.0}


def test_an_empty_document_is_an_error_that_names_it():
    """Nothing is dropped silently, and no vector is made up."""
    with pytest.raises(InputError, match=r"texts\[1\]"):
        EchovecEmbeddings(embedder()).embed_documents(["fine", ""])


def test_every_option_reaches_the_embedder():
    """What is to be loaded is what was said, none of it left out."""
    said = dict(zip(FIELDS, ("m", "r", "cpu", "exact", 9), strict=True))
    assert EchovecEmbeddings(**said)._handle.names() == said
