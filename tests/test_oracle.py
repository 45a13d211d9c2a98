"""The embedder against an oracle written apart from it: every preset, pooling and family."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import oracle
from echovec import Embedder, Recipe, View
from echovec.presets import PRESETS
from echovec.recipe import ROLES
from echovec.text.template import Template
from echovec.vector.pooling import POOLINGS, TOKEN_POOLINGS
from echovec.vector.view import POOLING_NAMES, TOKEN_POOLING_NAMES
from families import FAMILIES, causal_model, family_tokenizer, sentences

CLOSE = 1e-5
ONE_VIEW = {
    name: recipe
    for name, recipe in PRESETS.items()
    if recipe == replace(recipe, text_share=1.0, long_text="cut")
    and all(
        view == View(view.template, view.pooling)
        for views in recipe.views.values()
        for view in views
    )
    and all(len(views) == 1 for views in recipe.views.values())
    and all(views[0].pooling in POOLING_NAMES for views in recipe.views.values())
}
"""Presets of one template and one pooling per role; test_reader and test_parts have the others."""
EVERY_POOLING = POOLING_NAMES + TOKEN_POOLING_NAMES
MAIN = ("classical", "echo", "echo-sentence", "echo-instruct", "prompt-eol")


class Remembering:
    """A backbone that runs each batch once: poolings of one batch share its states."""

    def __init__(self, backbone):
        self.backbone = backbone
        self.states = {}

    def __getattr__(self, name):
        return getattr(self.backbone, name)

    def forward(self, batch, layers=(-1,), *, pooled_only=False, float32=False):
        key = (batch.ids_T.tobytes(), batch.offsets_S1.tobytes(), tuple(layers), float32)
        if key not in self.states:
            self.states[key] = self.backbone.forward(batch, layers, float32=float32)
        return [h[batch.pooled[0]] if pooled_only else h for h in self.states[key]]


def remembering(embedder: Embedder) -> Embedder:
    return Embedder("echo", embedder.tokenizer, Remembering(embedder.backbone))


def _with_pooling(recipe: Recipe, pooling: str) -> Recipe:
    views = {r: tuple(replace(v, pooling=pooling) for v in vs) for r, vs in recipe.views.items()}
    return replace(recipe, views=views)


def _oracle(model, tokenizer, template: Template, texts):
    rows = [
        oracle.vectors(
            model,
            tokenizer,
            template.prompt,
            text,
            eos=template.eos != "absent",
            pool_end=template.pooled == "end",
            instruction=template.instruction,
        )
        for text in texts
    ]
    return {pooling: np.stack([row[pooling] for row in rows]) for pooling in EVERY_POOLING}


def _largest_difference(embedder, model, tokenizer, recipe, texts):
    worst = 0.0
    for role in ROLES:
        template = recipe.views[role][0].template
        if role != "symmetric" and template == recipe.views["symmetric"][0].template:
            continue
        theirs = _oracle(model, tokenizer, template, texts)
        embedder.backbone.states.clear()
        for pooling in EVERY_POOLING:
            bound = embedder.with_recipe(_with_pooling(recipe, pooling))
            ours = bound.encode(texts, role=None if role == "symmetric" else role)
            worst = max(worst, float(np.abs(ours - theirs[pooling]).max()))
    return worst


def test_names_and_functions_of_poolings_are_one_table():
    """The names known without torch are the rows of the table of functions."""
    assert tuple(POOLINGS) == POOLING_NAMES
    assert tuple(TOKEN_POOLINGS) == TOKEN_POOLING_NAMES


@pytest.mark.parametrize("family", FAMILIES)
def test_embedder_equals_the_oracle_on_every_family(family):
    """Batched vectors equal one-by-one vectors for main presets, all roles and all poolings."""
    model, tokenizer = causal_model(family), family_tokenizer(family)
    embedder = remembering(Embedder.from_model(model, tokenizer))
    texts = sentences()[::10]
    for name in MAIN:
        worst = _largest_difference(embedder, model.base_model, tokenizer, PRESETS[name], texts)
        assert worst <= CLOSE, f"{family}, {name}: {worst:.2e}"


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_embedder_equals_the_oracle_for_every_preset_on_every_family(family):
    """All presets and poolings over 200 sentences of mixed length, to 1e-5."""
    model, tokenizer = causal_model(family), family_tokenizer(family)
    embedder = remembering(Embedder.from_model(model, tokenizer))
    worst = 0.0
    for recipe in ONE_VIEW.values():
        worst = max(
            worst,
            _largest_difference(embedder, model.base_model, tokenizer, recipe, sentences()),
        )
    print(f"{family}: largest difference {worst:.2e} over {len(ONE_VIEW)} presets")
    assert worst <= CLOSE


def test_most_presets_are_compared():
    """The filter of this file leaves out composed recipes only."""
    assert set(MAIN) <= set(ONE_VIEW)
    assert len(ONE_VIEW) >= 50
    assert "echo-eol" not in ONE_VIEW


def test_pooling_the_first_copy_is_not_the_oracle():
    """Negative control: vectors of the first copy fail the comparison by orders of magnitude."""
    model, tokenizer = causal_model("llama"), family_tokenizer("llama")
    template = PRESETS["echo"].views["query"][0].template
    wrong = Embedder.from_model(model, tokenizer, template.pooling_copy(0))
    texts = sentences()[::20]
    theirs = _oracle(model.base_model, tokenizer, template, texts)["mean"]
    assert np.abs(wrong.encode(texts) - theirs).max() > 100 * CLOSE


@pytest.mark.parametrize("layer", [0, 1, 2, -1, -2])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox"])
def test_any_layer_equals_the_oracle(family, layer):
    """A view of an inner layer reads what transformers calls hidden_states[layer]."""
    model, tokenizer = causal_model(family), family_tokenizer(family)
    template = PRESETS["echo"].views["query"][0].template
    view = View(template, layer=layer)
    recipe = Recipe(name="inner", views=dict.fromkeys(ROLES, view))
    texts = sentences()[::40]
    ours = Embedder.from_model(model, tokenizer, recipe).encode(texts)
    theirs = [
        oracle.vectors(model.base_model, tokenizer, template.prompt, t, layer=layer)["mean"]
        for t in texts
    ]
    assert np.abs(ours - np.stack(theirs)).max() <= CLOSE


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox"])
def test_token_embeddings_alone_equal_the_oracle(family):
    """The preset "sif": words in lower case, each by how rare it is; no other token counts."""
    model, tokenizer = causal_model(family), family_tokenizer(family)
    texts = sentences()[::20]
    ours = Embedder.from_model(model, tokenizer, "sif").encode(texts)
    theirs = {name: [] for name in ("sif", "mean")}
    for text in texts:
        found = oracle.vectors(model.base_model, tokenizer, " {text:bare}", text, layer=0)
        theirs = {name: [*rows, found[name]] for name, rows in theirs.items()}
    assert np.abs(ours - np.stack(theirs["sif"])).max() <= CLOSE
    assert np.abs(ours - np.stack(theirs["mean"])).max() > 1e-2, "control: all tokens alike"


@pytest.fixture(scope="module")
def default_pair(default_model):
    """The default model as plain transformers load it, with its tokenizer."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(default_model, dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(default_model)


def test_the_default_model_equals_the_oracle(default_pair, default_embedder):
    """A few sentences of every length on the default model, main presets, all poolings."""
    model, tokenizer = default_pair
    embedder = remembering(default_embedder)
    for name in MAIN:
        worst = _largest_difference(embedder, model, tokenizer, PRESETS[name], sentences()[::50])
        assert worst <= CLOSE, f"{name}: {worst:.2e}"


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_the_default_model_equals_the_oracle_for_every_preset(default_pair):
    """All presets and poolings, 200 sentences, default model, to 1e-5; and the control fails."""
    model, tokenizer = default_pair
    embedder = remembering(Embedder.load())
    figures = {}
    for name, recipe in ONE_VIEW.items():
        figures[name] = _largest_difference(embedder, model, tokenizer, recipe, sentences())
        print(f"{name}: {figures[name]:.2e}", flush=True)
    assert max(figures.values()) <= CLOSE
    template = PRESETS["echo"].views["query"][0].template
    wrong = embedder.with_recipe(template.pooling_copy(0)).encode(sentences()[::10])
    right = _oracle(model, tokenizer, template, sentences()[::10])["mean"]
    control = float(np.abs(wrong - right).max())
    print(f"control, first copy pooled: {control:.2e}")
    assert control > 100 * CLOSE
