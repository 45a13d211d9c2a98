"""Recipes of sentence-transformers folders: what they compute, said as a recipe, or refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import save
from tokenizers.processors import TemplateProcessing

from echovec import Embedder, ModelError, RecipeError
from echovec.export.parity import REAL
from echovec.presets import default_recipe
from echovec.train.tiny import tiny_model

st = pytest.importorskip("sentence_transformers", reason="the extra train")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:sentence_transformers")


def saved(tmp_path, pooling, *more, prompts=None, eos=False, default=None, length=200):
    """A folder that sentence-transformers itself wrote around a causal model."""
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    model, tokenizer = tiny_model()
    single = "<s> $A </s>" if eos else "<s> $A"
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=single, special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    model.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    first = Transformer(str(tmp_path / "base"), max_seq_length=length)
    dim = first.get_embedding_dimension()
    model = st.SentenceTransformer(
        modules=[first, Pooling(dim, pooling_mode=pooling), *more],
        prompts=prompts,
        default_prompt_name=default,
        device="cpu",
    )
    model.save_pretrained(str(tmp_path / "st"), create_model_card=False)
    return model, tmp_path / "st"


def dense(activation=None):
    import torch
    from sentence_transformers.base.modules import Dense

    with torch.random.fork_rng():
        torch.manual_seed(3)
        return Dense(32, 8, activation_function=activation or torch.nn.Identity())


@pytest.mark.parametrize("eos", [False, True])
@pytest.mark.parametrize("pooling", ["lasttoken", "mean", "weightedmean"])
def test_a_folder_is_its_recipe(pooling, eos, tmp_path):
    """Poolings, markers and dense layers of a foreign folder: `Embedder.load` gives its vectors."""
    from sentence_transformers.base.modules import Normalize

    theirs, folder = saved(tmp_path, pooling, dense(), Normalize(), eos=eos, length=40)
    ours = Embedder.load(folder, device="cpu")
    vectors, cut = ours.encode(REAL, return_truncated=True)
    np.testing.assert_allclose(vectors, theirs.encode(list(REAL)), atol=2e-6)
    assert cut.any()


def test_prompts_become_templates(tmp_path):
    """Its prompts for queries, documents and by default stand in the templates, braces too."""
    prompts = {"query": "Find {it}:", "document": "", "other": "Other: "}
    theirs, folder = saved(tmp_path, "lasttoken", prompts=prompts, eos=True, default="other")
    ours = Embedder.load(folder, device="cpu")
    views = ours.definition.views
    assert views["query"][0].template.prompt == "Find {{it}}:{text}"
    assert views["symmetric"][0].template.prompt == "Other: {text}"
    unit = theirs.encode_query(list(REAL), normalize_embeddings=True)
    np.testing.assert_allclose(ours.encode_query(REAL), unit, atol=2e-6)
    unit = theirs.encode_document(list(REAL), normalize_embeddings=True)
    np.testing.assert_allclose(ours.encode_document(REAL), unit, atol=2e-6)


def test_a_recipe_of_ones_own_wins(tmp_path):
    """With `recipe=` such a folder is a model like any other."""
    _, folder = saved(tmp_path, "lasttoken")
    assert Embedder.load(folder, "echo", device="cpu").definition.name == "echo"


def test_what_a_recipe_cannot_say_is_refused(tmp_path):
    """A tanh layer, a maximum, a mean over the prompt: refused by name."""
    import torch

    cases = [
        (("mean", dense(torch.nn.Tanh())), {}, "Tanh"),
        (("max",), {}, "max"),
        (("mean",), {"prompts": {"query": "Q: "}}, "covers the prompt"),
    ]
    for place, (given, options, reason) in enumerate(cases):
        _, folder = saved(tmp_path / str(place), *given, **options)
        with pytest.raises(RecipeError, match=reason):
            Embedder.load(folder, device="cpu")
    (tmp_path / "0" / "st" / "1_Pooling" / "config.json").unlink()
    with pytest.raises(ModelError, match="incomplete"):
        Embedder.load(tmp_path / "0" / "st", device="cpu")


@pytest.mark.parametrize("content", [None, b"no arrays", save({"other": np.zeros(2)})])
def test_a_dense_layer_that_cannot_be_read_is_named(tmp_path, content):
    """Its file is missing, broken, or holds something else: the file and the next step."""
    _, folder = saved(tmp_path, "mean", dense())
    (file,) = folder.glob("*_Dense/model.safetensors")
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ModelError, match=r"cannot read the dense layer .*_Dense/model.* \(.+\);"):
        Embedder.load(folder, device="cpu")


@pytest.mark.parametrize("table", [["x"], {"type": "x"}, [{"path": ""}], [{"type": 3, "path": ""}]])
def test_a_broken_table_of_modules_is_named(tmp_path, table):
    """`modules.json` without a type and path for each: the file, what it has, what to do."""
    _, folder = saved(tmp_path, "lasttoken")
    (folder / "modules.json").write_text(json.dumps(table))
    with pytest.raises(ModelError, match=r"modules.json .*; save the model again .* yourself"):
        Embedder.load(folder, device="cpu")


def test_the_authors_checkpoint_has_its_recipe():
    """A published checkpoint is read with the format it was trained with; others with echo."""
    assert default_recipe("jspringer/echo-mistral-7b-instruct-lasttoken") == "echo-instruct"
    assert default_recipe("any/other") == "echo"
    assert default_recipe(None) == "best"
