"""Recipes of several views: passes shared, vectors put together, states by layer, windows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import oracle
from echovec import Embedder, InputError, RecipeError, Template, TruncationWarning, View
from echovec.model.tiny import TinyBackbone
from echovec.presets import PRESETS, preset, recipe_of
from echovec.text.presets import ECHO_EOL, META_EOL, TEMPLATES
from echovec.text.tokenizer import ByteTokenizer
from echovec.vector.calibrate import fit
from echovec.vector.combine import combined_dim
from echovec.vector.transform import Center, Normalize, Truncate
from families import FAMILIES, causal_model, family_tokenizer, sentences

TEXTS = list(sentences()[::25])
CLOSE = 1e-5


class Counting(TinyBackbone):
    """A tiny backbone that notes what it is asked for."""

    def __init__(self):
        super().__init__(num_layers=4)
        self.asked = []

    def forward(self, batch, layers=(-1,), *, pooled_only=False, float32=False):
        self.asked.append((len(batch), tuple(layers), pooled_only))
        return super().forward(batch, layers, pooled_only=pooled_only, float32=float32)


def tiny(recipe, backbone=None):
    return Embedder(recipe, ByteTokenizer(), backbone or Counting())


def raw(recipe, texts=TEXTS, **options):
    return tiny(recipe).encode(texts, normalize_embeddings=False, **options)


END = View(replace(ECHO_EOL, pooled="end"), "lasttoken", 2)
COPY = View(ECHO_EOL, "mean", (3, 4))
OTHER = View(TEMPLATES["classical"], "weightedmean", "all")


def test_views_of_one_prompt_share_one_call_for_all_their_layers():
    """Two spans and three layers of one prompt are one forward of pooled rows only."""
    backbone = Counting()
    embedder = tiny(recipe_of("x", COPY, END, OTHER, replace(COPY, layer=0)), backbone)
    embedder.encode(["one", "two"])
    assert backbone.asked == [(2, (0, 2, 3, 4), True), (2, (1, 2, 3, 4), True)]
    (chunk,) = embedder.prepare(["one", "two"])
    assert [batch.spans_SK2.shape for batch in chunk] == [(2, 2, 2), (2, 1, 2)]


@pytest.mark.parametrize("how", ["sum", "concat"])
def test_views_are_put_together_by_weight(how):
    """Several views give what each gives alone: averaged layers, transforms, weight, sum or row."""
    views = (
        replace(COPY, transforms=(Normalize(),)),
        replace(END, weight=0.25, transforms=(Center(np.arange(32)), Normalize())),
        OTHER,
    )
    alone = [raw(recipe_of("one", replace(view, weight=1.0))) for view in views]
    weighted = [alone[0], 0.25 * alone[1], alone[2]]
    naive = sum(weighted) if how == "sum" else np.concatenate(weighted, axis=1)
    together = raw(recipe_of("all", *views, combine=how))
    assert np.abs(together - naive).max() < 1e-6
    assert tiny(recipe_of("all", *views, combine=how)).dimension == naive.shape[1]
    evenly = raw(recipe_of("all", views[0], replace(views[1], weight=1.0), views[2], combine=how))
    assert np.abs(together - evenly).max() > 1e-3, "control: without the weight"


def test_the_recipe_s_own_transforms_come_last():
    """What stands in the recipe is applied to the vector of all views."""
    recipe = recipe_of("x", COPY, END, combine="concat", transforms=(Truncate(40), Normalize()))
    before = raw(replace(recipe, transforms=()))[:, :40]
    after = raw(recipe)
    assert tiny(recipe).dimension == 40
    assert np.abs(after - before / np.linalg.norm(before, axis=1, keepdims=True)).max() < 1e-6


@pytest.mark.parametrize("layer", [(1, 3), (-1, 0, 2), "all"])
def test_a_mix_of_layers_is_their_mean(layer):
    """Averaging pooled layers equals pooling averaged layers."""
    layers = range(1, 5) if layer == "all" else layer
    single = [raw(recipe_of("one", replace(COPY, layer=one))) for one in layers]
    mixed = raw(recipe_of("mix", replace(COPY, layer=layer)))
    assert np.abs(mixed - np.mean(single, axis=0)).max() < 1e-6
    assert np.abs(mixed - single[0]).max() > 1e-3


def test_widths_have_to_fit():
    """Views of unequal width cannot be summed, roles have one width, fitted widths are checked."""
    narrow = replace(COPY, transforms=(Truncate(5),))
    with pytest.raises(RecipeError, match=r"views of \[32, 5\] numbers cannot be summed"):
        tiny(recipe_of("x", COPY, narrow))
    assert combined_dim((COPY, narrow), 32, "concat", ()) == 37
    views = {"symmetric": COPY, "query": COPY, "document": narrow}
    with pytest.raises(RecipeError, match="roles have vectors of different width"):
        tiny(replace(preset("echo"), views=views))
    with pytest.raises(InputError, match="fitted on vectors of 3 numbers, these have 32"):
        tiny(recipe_of("x", replace(COPY, transforms=(Center(np.zeros(3)),))))


@pytest.mark.parametrize("family", FAMILIES)
def test_two_spans_of_one_pass_equal_the_oracle(family):
    """Echo's second copy and the end of a suffix after it, from one pass, to 1e-5."""
    model, tokenizer = causal_model(family), family_tokenizer(family)
    ours = Embedder.from_model(model, tokenizer, "echo-eol").encode(TEXTS)
    rows = []
    for text in TEXTS:
        prompt = (model.base_model, tokenizer, ECHO_EOL.prompt, text)
        both = oracle.vectors(*prompt)["mean"] + oracle.vectors(*prompt, pool_end=True)["lasttoken"]
        rows.append(both / np.linalg.norm(both))
    assert np.abs(ours - np.stack(rows)).max() <= CLOSE


def test_eight_prompts_equal_the_oracle():
    """MetaEOL: eight passes over each text, averaged."""
    model, tokenizer = causal_model("llama"), family_tokenizer("llama")
    ours = Embedder.from_model(model, tokenizer, "meta-eol").encode(TEXTS[:3], batch_tokens=999)
    assert len(META_EOL) == 8
    for text, vector in zip(TEXTS[:3], ours, strict=True):
        total = 0
        for template in META_EOL:
            ids, _, _ = oracle.ids_and_copies(tokenizer, template.prompt, text)
            with torch.no_grad():
                states = model.base_model(torch.tensor([ids]), use_cache=False)
            total = total + states.last_hidden_state[0, -1].double().numpy()
        assert np.abs(vector - total / np.linalg.norm(total)).max() <= CLOSE


def test_an_instruction_goes_to_the_passes_that_take_it():
    """Beside a pass with an instruction's slot, one without it is as it was."""
    takes = View(TEMPLATES["echo-instruct-query"], "lasttoken")
    both = recipe_of("x", takes, OTHER, combine="concat")
    a, b = (raw(both, instruction=i) for i in ("first", "second"))
    assert np.abs(a[:, :32] - b[:, :32]).max() > 1e-3
    assert np.array_equal(a[:, 32:], b[:, 32:])
    with pytest.raises(InputError, match="takes no instruction"):
        raw(recipe_of("x", OTHER, COPY), instruction="first")


# -- states ---------------------------------------------------------------------------------------


def test_states_are_what_vectors_are_made_of():
    """For each view its layers, averaged and transformed and weighted, give the vector."""
    views = (replace(COPY, transforms=(Normalize(),)), replace(END, weight=2.0))
    embedder = tiny(recipe_of("x", *views))
    texts = [*TEXTS, TEXTS[0]]
    copy, end = embedder.states(texts)
    assert copy.shape == (2, len(texts), 32)
    assert end.shape == (1, len(texts), 32)
    mean = copy.mean(axis=0)
    naive = mean / np.linalg.norm(mean, axis=1, keepdims=True) + 2 * end[0]
    assert np.abs(naive - embedder.encode(texts, normalize_embeddings=False)).max() < 1e-6


def test_states_of_all_layers_come_from_one_run():
    """Asked for every layer, each view has them all, and each equals the layer read alone."""
    backbone = Counting()
    embedder = tiny(recipe_of("x", COPY, END), backbone)
    states = embedder.states(TEXTS, range(5), batch_tokens=10**6)
    assert len(backbone.asked) == 1
    for view, z_LND in zip((COPY, END), states, strict=True):
        assert z_LND.shape == (5, len(TEXTS), 32)
        for layer in range(5):
            alone = raw(recipe_of("one", replace(view, layer=layer)))
            assert np.abs(z_LND[layer] - alone).max() < 1e-6
    assert [z.shape for z in embedder.states([])] == [(2, 0, 32), (1, 0, 32)]
    with pytest.raises(InputError, match="layer 5 does not exist"):
        embedder.states(TEXTS, [5])


def test_states_names_a_bad_text():
    """An empty text among repeated ones is named by its place in the caller's list."""
    with pytest.raises(InputError, match=r"texts\[3\] is empty"):
        tiny("echo").states(["a", "a", "b", ""])


# -- long texts -----------------------------------------------------------------------------------

LONG = ["0123456789" * 5, "short", "abcdefghij" * 2]


def test_windows_are_the_mean_of_texts_cut_by_hand():
    """A long text's vector is the mean of its windows, each embedded as a text of its own."""
    tight = Template("A:{text}|B:{text}.")  # no blank that would be a token of the text
    views = (View(tight), View(replace(tight, pooled="end"), "lasttoken"), View(Template("{text}")))
    recipe = recipe_of("w", *views, max_tokens=16, long_text="windows")
    ours = raw(recipe, LONG)
    # 50 tokens in windows of 16 with 2 at least in common: 4 windows, evenly spaced.
    starts = {LONG[0]: [0, 11, 22, 34], LONG[1]: [0], LONG[2]: [0, 4]}
    for text, vector in zip(LONG, ours, strict=True):
        pieces = [text[start : start + 16] for start in starts[text]]
        naive = raw(replace(recipe, long_text="cut"), pieces).mean(axis=0)
        assert np.abs(vector - naive).max() < 1e-6
    cut = tiny(replace(recipe, long_text="cut"))
    with pytest.warns(TruncationWarning, match="2 of 3"):
        assert np.abs(cut.encode(LONG, normalize_embeddings=False) - ours)[0].max() > 1e-3


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_windows_do_not_depend_on_the_batch(batch_size):
    """However windows fall into batches, a text's vector is the same, and none is cut."""
    embedder = tiny(recipe_of("w", COPY, END, max_tokens=16, long_text="windows"))
    alone = np.stack([embedder.encode(text) for text in LONG])
    together, cut = embedder.encode(LONG, batch_size=batch_size, return_truncated=True)
    assert np.abs(together - alone).max() < 1e-6
    assert not cut.any()


def test_passes_with_different_room_have_the_same_windows():
    """A pass with a long prompt has less room; both see the same number of windows of each text."""
    wide = View(Template("{text}"))
    narrow = View(Template("x" * 70 + "{text}{text}"))
    recipe = recipe_of("w", wide, narrow, long_text="windows")
    embedder = tiny(recipe, TinyBackbone(max_positions=100))
    chunks = embedder.prepare(LONG)
    first, second = (np.concatenate([c[p].order_S for c in chunks]) for p in (0, 1))
    assert first.tolist() == second.tolist()
    # (100 - 71) // 2 = 14 tokens of room: 50 tokens are 4 windows in both.
    assert np.bincount(first).tolist() == [4, 1, 2]
    shares = np.concatenate([c[0].share_S for c in chunks])
    assert np.bincount(first, shares).tolist() == [1.0, 1.0, 1.0]


def test_a_text_that_any_pass_cuts_counts_as_cut():
    """The second prompt leaves less room: what fits the first only is told, what fits both not."""
    wide = View(Template("{text}"))
    narrow = View(Template("x" * 70 + "{text}{text}"))
    for views in ((wide, narrow), (narrow, wide)):
        embedder = tiny(recipe_of("c", *views), TinyBackbone(max_positions=100))
        _, cut = embedder.encode(["a" * 14, "a" * 15], return_truncated=True)
        assert cut.tolist() == [False, True]


def test_half_the_text_is_kept_rounded_up_and_not_called_cut():
    """`text_share` 0.5 embeds the first half of each text, of one token that token."""
    whole = recipe_of("x", View(Template("A:{text}|B:{text}.")))
    halved = replace(whole, text_share=0.5)
    texts = ["abcdefg", "ab", "a"]
    ours, cut = tiny(halved).encode(texts, return_truncated=True)
    assert np.array_equal(ours, tiny(whole).encode(["abcd", "a", "a"]))
    assert not cut.any()


def test_a_calibrated_recipe_is_the_same_alone_and_in_a_batch():
    """Fitted per-view transforms are fixed numbers: nothing depends on the batch."""
    plain = tiny(recipe_of("x", COPY, END))
    fitted = []
    for view, z_LND in zip((COPY, END), plain.states(list(sentences())), strict=True):
        own = (fit("center-scale", z_LND.mean(axis=0)), Normalize())
        fitted.append(replace(view, transforms=own))
    embedder = tiny(recipe_of("x", *fitted, transforms=(Truncate(20),)))
    alone = np.stack([embedder.encode(text) for text in TEXTS])
    assert np.abs(embedder.encode(TEXTS) - alone).max() < 1e-6
    assert np.abs(plain.encode(TEXTS, truncate_dim=20) - alone).max() > 1e-2


def test_every_composed_preset_says_what_it_is():
    """Each shipped recipe of several views or parts has a description and its own name."""
    for name, recipe in PRESETS.items():
        assert recipe.name == name
        assert all(
            view.template.prompt.split("\n")[0] in recipe.describe().replace("\\n", "\n")
            for view in recipe.views["symmetric"]
        )
