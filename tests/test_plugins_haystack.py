"""Haystack: both components alone, in pipelines, in YAML, sync and async."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

pytest.importorskip("haystack")

from haystack import Document, Pipeline
from haystack.components.retrievers import InMemoryEmbeddingRetriever
from haystack.document_stores.in_memory import InMemoryDocumentStore

from echovec.errors import InputError
from echovec.plugins.handle import FIELDS
from echovec.plugins.haystack import EchovecDocumentEmbedder, EchovecTextEmbedder
from plugins_stub import TEXTS, embedder, saved


def test_texts_are_queries_and_documents_are_documents():
    """Vectors of the roles, sync and async; prefix, suffix and metadata are part of the text."""
    model = embedder("echo-instruct")
    asking = EchovecTextEmbedder(model, instruction="Find it", prefix="so: ")
    keeping = EchovecDocumentEmbedder(model, meta_fields_to_embed=["title"], suffix=".")
    documents = [Document(content=text, meta={"title": text[:5]}) for text in TEXTS]
    written = [f"{text[:5]}\n{text}." for text in TEXTS]
    query = model.encode_query("so: " + TEXTS[0], instruction="Find it")
    for answer in (asking.run(TEXTS[0]), asyncio.run(asking.run_async(TEXTS[0]))):
        np.testing.assert_allclose(answer["embedding"], query, atol=1e-6)
        assert answer["meta"]["fingerprint"] == model.recipe.fingerprint
    for answer in (keeping.run(documents), asyncio.run(keeping.run_async(documents))):
        found = [document.embedding for document in answer["documents"]]
        np.testing.assert_allclose(found, model.encode_document(written), atol=1e-6)
    assert all(document.embedding is None for document in documents)


def test_a_pipeline_survives_yaml(tmp_path):
    """Written and read, a search pipeline finds each text by itself; both parts share a model."""
    folder = saved(tmp_path)
    keeping = EchovecDocumentEmbedder(folder)
    store = InMemoryDocumentStore()
    store.write_documents(keeping.run([Document(content=text) for text in TEXTS])["documents"])
    pipeline = Pipeline()
    pipeline.add_component("asking", EchovecTextEmbedder(folder))
    pipeline.add_component("finding", InMemoryEmbeddingRetriever(store, top_k=1))
    pipeline.connect("asking.embedding", "finding.query_embedding")
    again = Pipeline.loads(pipeline.dumps(), allowed_modules=["echovec.plugins.haystack"])
    again.get_component("finding").document_store = store
    for text in TEXTS:
        found = again.run({"asking": {"text": text}})["finding"]["documents"]
        assert found[0].content == text
    assert again.get_component("asking").handle.embedder is keeping.handle.embedder


def test_both_are_written_and_read_in_full(tmp_path):
    """Every argument is in `to_dict`, and comes back."""
    folder = saved(tmp_path)
    for made in (
        EchovecTextEmbedder(folder, "echo", instruction="i", prefix="p", max_tokens=9),
        EchovecDocumentEmbedder(folder, meta_fields_to_embed=["a"], embedding_separator="-"),
    ):
        written = made.to_dict()
        assert type(made).from_dict(written).to_dict() == written


def test_a_document_without_text_is_named():
    """No vector is made of nothing."""
    with pytest.raises(InputError, match="document lost has no text"):
        EchovecDocumentEmbedder(embedder()).run([Document(id="lost")])


def test_the_wrong_component_says_which_is_right():
    """A string for documents, or documents for a text."""
    with pytest.raises(TypeError, match="EchovecTextEmbedder"):
        EchovecDocumentEmbedder(embedder()).run("a text")
    with pytest.raises(TypeError, match="EchovecDocumentEmbedder"):
        EchovecTextEmbedder(embedder()).run([Document(content="a")])
    with pytest.raises(InputError, match="save"):
        EchovecTextEmbedder(embedder()).to_dict()


def test_every_option_reaches_the_embedder():
    """What is to be loaded is what was said, none of it left out."""
    said = dict(zip(FIELDS, ("m", "r", "cpu", "exact", 9), strict=True))
    for kind in (EchovecTextEmbedder, EchovecDocumentEmbedder):
        assert kind(**said).handle.names() == said
