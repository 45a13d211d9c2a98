"""LlamaIndex: as its embedding model in an index and a pipeline, sync and async."""

from __future__ import annotations

import asyncio
import copy
import pickle
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("llama_index.core")

from llama_index.core import VectorStoreIndex
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import Document, TextNode

from echovec.embedder import Embedder
from echovec.errors import InputError
from echovec.plugins.handle import FIELDS
from echovec.plugins.llamaindex import EchovecEmbedding
from families import causal_model, family_tokenizer
from plugins_stub import TEXTS, embedder, saved


def test_vectors_are_those_of_the_roles():
    """Texts are documents, questions are queries, alone and in batches, sync and async."""
    model = embedder("echo-instruct")
    plugin = EchovecEmbedding(model, instruction="Find it", embed_batch_size=2)
    asked = model.encode_query(TEXTS[0], instruction="Find it")
    documents = model.encode_document(TEXTS)

    async def asynchronous():
        return (
            await plugin.aget_query_embedding(TEXTS[0]),
            await plugin.aget_text_embedding_batch(TEXTS),
            await plugin.aget_text_embedding(TEXTS[1]),
        )

    for query, batch, single in (
        (
            plugin.get_query_embedding(TEXTS[0]),
            plugin.get_text_embedding_batch(TEXTS),
            plugin.get_text_embedding(TEXTS[1]),
        ),
        asyncio.run(asynchronous()),
    ):
        np.testing.assert_allclose(query, asked, atol=1e-5)
        np.testing.assert_allclose(batch, documents, atol=1e-5)
        np.testing.assert_allclose(single, documents[1], atol=1e-5)


def test_a_recipe_may_be_a_path(tmp_path):
    """A recipe's file by its path, as by its name; written it is a string."""
    file = Path(saved(tmp_path)) / "recipe.json"
    plugin = EchovecEmbedding(saved(tmp_path), recipe=file)
    assert plugin.to_dict()["recipe"] == str(file)
    expected = embedder().encode_document(TEXTS[:1])[0]
    np.testing.assert_allclose(plugin.get_text_embedding(TEXTS[0]), expected, atol=1e-5)


def test_an_index_finds_the_same_text():
    """LlamaIndex's own index, with no language model: a node is nearest to itself."""
    index = VectorStoreIndex(
        [TextNode(text=text) for text in TEXTS], embed_model=EchovecEmbedding(embedder())
    )
    finder = index.as_retriever(similarity_top_k=1)
    assert [finder.retrieve(text)[0].text for text in TEXTS] == TEXTS


def test_a_pipeline_embeds_its_nodes():
    """As a transformation of an ingestion pipeline, which hashes its parts."""
    pipeline = IngestionPipeline(transformations=[EchovecEmbedding(embedder())])
    nodes = pipeline.run(documents=[Document(text=text) for text in TEXTS])
    assert [len(node.embedding) for node in nodes] == [32, 32, 32]


def test_written_and_read_it_gives_the_same_vectors(tmp_path):
    """`to_dict` names the model and holds no weights; `from_dict` loads it."""
    plugin = EchovecEmbedding(saved(tmp_path), max_tokens=64)
    written = plugin.to_dict()
    assert written["class_name"] == "EchovecEmbedding"
    again = EchovecEmbedding.from_dict(written)
    assert again.max_tokens == 64
    np.testing.assert_array_equal(
        again.get_text_embedding(TEXTS[0]), plugin.get_text_embedding(TEXTS[0])
    )


def test_a_loaded_embedder_is_pickled_and_one_in_memory_refused(tmp_path):
    """LlamaIndex would leave out what cannot be pickled, and fail at the first text."""
    plugin = EchovecEmbedding(Embedder.load(saved(tmp_path)))
    arrived = pickle.loads(pickle.dumps(plugin))
    assert arrived.get_text_embedding(TEXTS[0]) == plugin.get_text_embedding(TEXTS[0])
    with pytest.raises(InputError, match=r"embedder.save\(folder\)"):
        pickle.dumps(EchovecEmbedding(embedder()))


def test_a_model_trained_in_memory_is_written_as_another():
    """An ingestion pipeline keeps vectors by what is written."""
    model = Embedder.from_model(copy.deepcopy(causal_model("llama")), family_tokenizer("llama"))
    plugin = EchovecEmbedding(model)
    before = plugin.to_dict()
    assert before == plugin.to_dict()
    model.backbone.model.norm.weight.data.mul_(-1)
    after = plugin.to_dict()
    assert after["model"] != before["model"]
    assert after["model"] == after["model_name"] == plugin._handle.name


def test_an_embedder_in_memory_is_written_as_such():
    """It stands by its fingerprint, so kept vectors are told apart, and cannot be read back."""
    written = EchovecEmbedding(embedder()).to_dict()
    assert written["model"] != EchovecEmbedding(embedder("classical")).to_dict()["model"]
    assert written["model"].endswith(embedder().recipe.fingerprint)
    with pytest.raises(InputError, match=r"save it with embedder.save\(folder\)"):
        EchovecEmbedding.from_dict(written)


def test_every_option_reaches_the_embedder():
    """What is to be loaded is what was said, none of it left out."""
    said = dict(zip(FIELDS, ("m", "r", "cpu", "exact", 9), strict=True))
    assert EchovecEmbedding(**said)._handle.names() == said
