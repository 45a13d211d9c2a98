"""Parts of a pass: attention outputs, token weights, both-ways masks and token prepending."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from echovec import Embedder, InputError, ModelError, RecipeError, Template, View
from echovec.model.parts import How, Importance
from echovec.model.plain import PlainBackbone
from echovec.model.tiny import TinyBackbone
from echovec.presets import preset, recipe_of
from echovec.text.drafts import render
from echovec.text.plan import plan
from echovec.text.presets import PROMPT_EOL_PREPENDED, TEMPLATES
from echovec.text.render import Renderer
from echovec.text.tokenizer import ByteTokenizer, HFTokenizer
from families import FAMILIES, causal_model, family_tokenizer, sentences
from laid import Made

TEXTS = list(sentences()[::25])
PARTS = (
    "echo-attended",
    "echo-selected",
    "classical-both-ways",
    "aligned-wva",
    "prompt-eol-prepended",
)


def batch_of(family, template, texts=TEXTS):
    rendered = render(Renderer(template, HFTokenizer(family_tokenizer(family))), texts)
    ((batch,),) = plan([Made(rendered)], batch_tokens=10**6)
    return batch


def one_by_one(batch):
    """Each sequence's ids as a batch of one, and its pooled positions."""
    for s in range(len(batch)):
        start, stop = batch.offsets_S1[s : s + 2]
        span = batch.spans_SK2[s, 0] - start
        yield torch.from_numpy(batch.ids_T[start:stop])[None], slice(*span.tolist())


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_parts_are_the_same_alone_in_any_batch_and_on_either_side(family, name):
    """Every part on every family: a mixed padded batch, left or right, equals one by one."""
    model, tokenizer = causal_model(family), HFTokenizer(family_tokenizer(family))
    vectors = {
        side: Embedder(name, tokenizer, PlainBackbone(model, padding_side=side))
        for side in ("right", "left")
    }
    alone = np.stack([vectors["right"].encode(text) for text in TEXTS])
    for side, embedder in vectors.items():
        assert np.abs(embedder.encode(TEXTS, batch_tokens=10**6) - alone).max() < 1e-5, side


@pytest.mark.parametrize(("family", "down"), [("llama", "mlp.down_proj"), ("gpt2", "mlp.c_proj")])
def test_attention_outputs_are_what_attention_adds(family, down):
    """With a block's MLP silenced, its hidden states grow by the attention output alone."""
    model = copy.deepcopy(causal_model(family))
    blocks = model.base_model.layers if family == "llama" else model.base_model.h
    silenced = blocks[0].get_submodule(down)
    batch = batch_of(family, TEMPLATES["prompt-eol"])
    read = PlainBackbone(causal_model(family)).read(batch, (), How(attention=(1,)))
    for parameter in silenced.parameters():
        torch.nn.init.zeros_(parameter)
    with torch.no_grad():
        h0, h1 = PlainBackbone(model).forward(batch, (0, 1), pooled_only=True)
    assert (read.attention[0] - (h1 - h0)).abs().max() < 1e-4
    assert (read.attention[0] - h1).abs().max() > 1e-2, "control: the residual is not in it"


def test_all_attention_layers_are_averaged():
    """A view of the attention of all layers is the mean of the single layers' vectors."""
    model, tokenizer = causal_model("llama"), family_tokenizer("llama")
    template = TEMPLATES["prompt-eol"]

    def raw(layer):
        view = View(template, "lasttoken", layer, states="attention")
        embedder = Embedder.from_model(model, tokenizer, recipe_of("x", view))
        return embedder.encode(TEXTS, normalize_embeddings=False)

    assert np.abs(raw("all") - (raw(1) + raw(2)) / 2).max() < 1e-6
    assert np.array_equal(raw(-1), raw(2))
    with pytest.raises(InputError, match="layer 0 has no attention"):
        raw(0)


def attention_maps(model, ids_1L):
    """Every block's attention as transformers itself returns it, [blocks, heads, L, L]."""
    eager = copy.deepcopy(model)
    eager.set_attn_implementation("eager")
    with torch.no_grad():
        return torch.cat(eager(ids_1L, output_attentions=True).attentions)


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt"])
def test_importance_is_the_last_row_of_the_attention_maps(family):
    """Weights equal transformers' own maps: largest over blocks and heads, plain and by chunk."""
    model = causal_model(family).base_model
    batch = batch_of(family, preset("echo-selected").views["query"][0].template)
    how = How(importance=(Importance(0), Importance(0, 7)))
    with torch.no_grad():
        plain, shares = PlainBackbone(causal_model(family)).read(batch, (), how).importance
    naive, naive_shares, wrong = [], [], []
    for ids_1L, span in one_by_one(batch):
        row_BHL = attention_maps(model, ids_1L)[:, :, -1]
        naive.append(row_BHL.amax((0, 1))[span])
        wrong.append(row_BHL.mean((0, 1))[span])
        tokens = row_BHL[:, :, span]
        runs = -(-tokens.shape[2] // 7)
        of_run = [j * runs // tokens.shape[2] for j in range(tokens.shape[2])]
        share = torch.stack(
            [
                tokens[:, :, j] / tokens[:, :, [k for k, r in enumerate(of_run) if r == run]].sum(2)
                for j, run in enumerate(of_run)
            ]
        )
        naive_shares.append(share.flatten(1).amax(1))
    assert (plain - torch.cat(naive)).abs().max() < 1e-5
    assert (shares - torch.cat(naive_shares)).abs().max() < 1e-4
    assert (plain - torch.cat(wrong)).abs().max() > 1e-2, "control: the mean over heads"


def llama_by_hand(model, ids_1L, *, both_ways=False, prepend=None, placeholder=None):
    """The blocks of a Llama, run one after the other on one text."""
    llama = copy.deepcopy(model)
    h_1LD = llama.embed_tokens(ids_1L)
    turn = llama.rotary_emb(h_1LD, torch.arange(ids_1L.shape[1])[None])
    for number, block in enumerate(llama.layers, 1):
        block.self_attn.is_causal = not both_ways
        if prepend and prepend[0] <= number <= prepend[1]:
            h_1LD = h_1LD.clone()
            h_1LD[:, placeholder] = h_1LD[:, -1]
        h_1LD = block(h_1LD, attention_mask=None, position_embeddings=turn)
    return llama.norm(h_1LD)[0]


def test_both_ways_equals_blocks_without_a_causal_mask():
    """The bidirectional mask gives what sdpa gives when it is told not to be causal."""
    model = causal_model("llama").base_model
    batch = batch_of("llama", TEMPLATES["classical"])
    with torch.no_grad():
        (ours,) = PlainBackbone(model).read(batch, (-1,), How(bidirectional=True)).hidden
        rows = {False: [], True: []}
        for ids_1L, span in one_by_one(batch):
            for both, found in rows.items():
                found.append(llama_by_hand(model, ids_1L, both_ways=both)[span])
    assert (ours - torch.cat(rows[True])).abs().max() < 1e-4
    assert (ours - torch.cat(rows[False])).abs().max() > 1e-2, "control: the causal mask"


@pytest.mark.parametrize("family", FAMILIES)
def test_both_ways_the_beginning_knows_the_end_in_every_family(family):
    """With the mask off the first token's state follows the last token; with it on it does not."""
    states = {}
    for mask in (False, True):
        for ending in ("one", "two"):
            template = Template("{text}")
            batch = batch_of(family, template, [f"The start is shared, the end is {ending}"])
            with torch.no_grad():
                read = PlainBackbone(causal_model(family)).read(batch, (-1,), How(mask))
            states[mask, ending] = read.hidden[0][0]
    assert torch.allclose(states[False, "one"], states[False, "two"], atol=1e-5)
    assert (states[True, "one"] - states[True, "two"]).abs().max() > 1e-3


def test_prepending_equals_a_loop_over_blocks():
    """The last token's state stands at the placeholder before each block named, and only those."""
    model = causal_model("llama").base_model
    batch = batch_of("llama", PROMPT_EOL_PREPENDED)
    assert batch.placeholder is not None
    assert batch.placeholder < batch.prefix
    found = {}
    for prepend in ((1, 1), (2, 2), (1, 2)):
        with torch.no_grad():
            (found[prepend],) = PlainBackbone(model).read(batch, (-1,), How(prepend=prepend)).hidden
            naive = [
                llama_by_hand(model, ids, prepend=prepend, placeholder=batch.placeholder)[span]
                for ids, span in one_by_one(batch)
            ]
        assert (found[prepend] - torch.cat(naive)).abs().max() < 1e-4
    assert (found[1, 1] - found[2, 2]).abs().max() > 1e-3, "control: another block"


@pytest.mark.parametrize("name", PARTS)
def test_a_part_leaves_nothing_behind(name):
    """After a pass with parts the model has no hook more, its own attention, and its own states."""
    model, tokenizer = causal_model("llama"), family_tokenizer("llama")
    before = Embedder.from_model(model, tokenizer).encode(TEXTS)
    hooks = hooks_of(model)
    config = model.config.to_json_string()
    Embedder.from_model(model, tokenizer, name).encode(TEXTS)
    assert hooks_of(model) == hooks
    assert model.config._attn_implementation == "sdpa"
    assert model.config.to_json_string() == config
    assert np.array_equal(Embedder.from_model(model, tokenizer).encode(TEXTS), before)


def hooks_of(model):
    """How many hooks each module has; transformers itself leaves some after reading states."""
    return [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (View(TEMPLATES["classical"]), View(TEMPLATES["classical"], mask="bidirectional")),
        (
            View(PROMPT_EOL_PREPENDED, "lasttoken"),
            View(PROMPT_EOL_PREPENDED, "lasttoken", prepend=(1, 2)),
        ),
        (
            View(PROMPT_EOL_PREPENDED, "lasttoken", prepend=(1, 1)),
            View(PROMPT_EOL_PREPENDED, "lasttoken", prepend=(1, 2)),
        ),
        (View(TEMPLATES["classical"]), View(TEMPLATES["classical"], states="attention")),
    ],
    ids=["mask", "prepend", "blocks", "states"],
)
def test_views_of_one_prompt_are_each_read_from_their_own_run(first, second):
    """Side by side, in either order, each has the vector that it has alone; the two differ."""
    embedder = Embedder.from_model(
        causal_model("llama"), family_tokenizer("llama"), "echo", engine="plain"
    )

    def read(*views):
        recipe = recipe_of("a", *views, combine="concat")
        return embedder.with_recipe(recipe).encode(TEXTS, normalize_embeddings=False)

    one, other = read(first), read(second)
    assert np.abs(one - other).max() > 1e-2 * np.abs(one).max()
    for views, alone in (((first, second), (one, other)), ((second, first), (other, one))):
        assert np.abs(read(*views) - np.concatenate(alone, axis=1)).max() < 1e-5


def test_a_failed_pass_leaves_nothing_behind():
    """An error in the middle of a pass takes the hooks away as well."""
    model = copy.deepcopy(causal_model("llama"))
    batch = batch_of("llama", PROMPT_EOL_PREPENDED)
    hooks = hooks_of(model)
    model.base_model.layers[1].mlp.forward = None
    how = How(prepend=(1, 2), attention=(1,), importance=(Importance(0),))
    with pytest.raises(TypeError):
        PlainBackbone(model).read(batch, (-1,), how)
    assert hooks_of(model) == hooks
    assert model.base_model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("name", PARTS)
def test_a_backbone_without_a_part_refuses_or_passes_it_on(name):
    """Without `read` the part is named in an error; with a plain twin the vectors are the same."""
    with pytest.raises(ModelError, match=r"TinyBackbone cannot do .*the plain backbone can"):
        Embedder(name, ByteTokenizer(), TinyBackbone())

    class Fast:
        """A backbone that can do no part but names one that can."""

        def __init__(self, plain):
            self.plain = plain

        def __getattr__(self, attribute):
            if attribute == "read":
                raise AttributeError(attribute)
            return getattr(self.plain, attribute)

    plain = PlainBackbone(causal_model("llama"))
    tokenizer = HFTokenizer(family_tokenizer("llama"))
    ours = Embedder(name, tokenizer, Fast(plain)).encode(TEXTS)
    assert np.array_equal(ours, Embedder(name, tokenizer, plain).encode(TEXTS))


def test_a_family_whose_mask_cannot_be_switched_says_so():
    """A model that ignores the mask it is given is found out by a probe and refused."""
    model = copy.deepcopy(causal_model("llama")).base_model
    forward = model.forward
    model.forward = lambda attention_mask=None, **inputs: forward(**inputs)
    embedder = Embedder.from_model(model, family_tokenizer("llama"), "classical-both-ways")
    with pytest.raises(ModelError, match="the mask of LlamaModel cannot be switched"):
        embedder.encode("a text")


def test_a_model_of_unknown_build_says_so():
    """Blocks whose attention has another name are a clear error."""
    model = copy.deepcopy(causal_model("llama")).base_model
    for block in model.layers:
        block.mixer = block.self_attn
        del block.self_attn
    with pytest.raises(ModelError, match="LlamaModel has 0 lists of 2 blocks"):
        Embedder.from_model(model, family_tokenizer("llama"), "aligned-wva").encode("a")


def test_gradients_flow_through_parts():
    """Prepending and attention outputs are differentiable, as any pass."""
    model = causal_model("llama")
    view = View(PROMPT_EOL_PREPENDED, "lasttoken", 2, states="attention", prepend=(1, 2))
    embedder = Embedder.from_model(model, family_tokenizer("llama"), recipe_of("x", view))
    loss = embedder.forward(embedder.prepare(TEXTS[:2])[0]).pow(2).sum()
    (gradient,) = torch.autograd.grad(loss, [model.base_model.embed_tokens.weight])
    assert gradient.abs().sum() > 0


def test_bfloat16_parts_are_computed_again_in_float32():
    """Each part can be asked for in float32 of a narrower model, which stays as it is."""
    low = copy.deepcopy(causal_model("llama")).bfloat16()
    wide = copy.deepcopy(low).float()
    batch = batch_of("llama", PROMPT_EOL_PREPENDED)
    how = How(True, (1, 2), (1, 2), (Importance(0),))
    with torch.no_grad():
        ours = PlainBackbone(low).read(batch, (1, -1), how, float32=True)
        theirs = PlainBackbone(wide).read(batch, (1, -1), how)
    for mine, other in zip(
        ours.hidden + ours.attention + ours.importance,
        theirs.hidden + theirs.attention + theirs.importance,
        strict=True,
    ):
        assert mine.dtype == torch.float32
        assert torch.allclose(mine, other, atol=1e-3)
    assert low.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask": "sideways"}, "mask='sideways'; there are causal, bidirectional"),
        ({"states": "logits"}, "states='logits'; there are hidden, attention"),
        ({"layer": ()}, r"layer=\(\); give a number, several, or 'all'"),
        ({"layer": "last"}, "layer='last'"),
        ({"weight": 0.0}, "weight=0.0; give a number above 0"),
        ({"threshold": float("nan")}, "threshold=nan"),
        ({"prepend": (2, 8)}, r"prepend=\(2, 8\) needs a {placeholder} before the text"),
    ],
)
def test_a_view_that_cannot_be_is_refused(options, message):
    """Unknown names and impossible numbers are refused when the view is made."""
    with pytest.raises(RecipeError, match=message):
        View(Template("{text}"), **options)


def test_prepending_needs_a_block_that_exists():
    """A first block that is not there is refused; a last one beyond the model is its last."""
    model, tokenizer = causal_model("llama"), family_tokenizer("llama")
    view = View(PROMPT_EOL_PREPENDED, "lasttoken", prepend=(3, 8))
    with pytest.raises(InputError, match=r"prepend=\(3, 8\): this model has blocks 1 to 2"):
        Embedder.from_model(model, tokenizer, recipe_of("x", view))
