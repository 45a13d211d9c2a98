"""The plain backbone: padding never leaks, on either side; the second try in float32."""

from __future__ import annotations

import copy
from threading import Thread

import numpy as np
import pytest
import torch

from echovec.model.backbone import hash_weights
from echovec.model.parts import How, Importance
from echovec.model.plain import PlainBackbone
from echovec.presets import PRESETS
from echovec.text.drafts import render
from echovec.text.plan import plan
from echovec.text.render import Renderer
from echovec.text.tokenizer import HFTokenizer
from families import FAMILIES, causal_model, family_tokenizer, sentences
from laid import Made


def batch_of(family, texts, batch_tokens=10**6):
    template = PRESETS["echo"].views["query"][0].template
    rendered = render(Renderer(template, HFTokenizer(family_tokenizer(family))), texts)
    ((batch,),) = plan([Made(rendered)], batch_tokens=batch_tokens)
    return batch


@pytest.mark.parametrize("family", FAMILIES)
def test_states_are_the_same_padded_left_right_or_not_at_all(family):
    """Each token's state in a mixed batch equals its state alone, with padding on either side."""
    texts = sentences()[::25]
    batch = batch_of(family, texts)
    with torch.no_grad():
        (right,) = PlainBackbone(causal_model(family)).forward(batch)
        (left,) = PlainBackbone(causal_model(family), padding_side="left").forward(batch)
        alone = torch.cat(
            [
                PlainBackbone(causal_model(family)).forward(batch.select([s]))[0]
                for s in range(len(batch))
            ]
        )
    scale = alone.abs().max()
    assert (right - alone).abs().max() <= 1e-5 * scale
    assert (left - alone).abs().max() <= 1e-5 * scale


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_causal_and_echo_sees_the_ending(family):
    """Early tokens of the first copy do not know the ending; those of the second copy do."""
    tokenizer = family_tokenizer(family)
    template = PRESETS["echo"].views["query"][0].template
    states = []
    for ending in ("one", "two"):
        renderer = Renderer(template, HFTokenizer(tokenizer))
        text = f"The start is shared, the end is {ending}"
        ((batch,),) = plan([Made(render(renderer, [text]))], batch_tokens=999)
        first = Renderer(template.pooling_copy(0), HFTokenizer(tokenizer))
        ((start, _),) = render(first, [text])[0].spans
        with torch.no_grad():
            (h_TD,) = PlainBackbone(causal_model(family)).forward(batch)
        states.append((h_TD[start], h_TD[batch.spans_SK2[0, 0, 0]]))
    (first_a, second_a), (first_b, second_b) = states
    assert torch.allclose(first_a, first_b, atol=1e-5)
    assert (second_a - second_b).abs().max() > 1e-3


def test_no_cache_is_kept_and_gradients_flow():
    """The model is asked for no key-value cache, and states carry gradients."""
    model = causal_model("llama")
    asked = {}
    hook = model.base_model.register_forward_pre_hook(
        lambda module, args, kwargs: asked.update(kwargs), with_kwargs=True
    )
    try:
        (h_TD,) = PlainBackbone(model).forward(batch_of("llama", ["a text"]))
    finally:
        hook.remove()
    assert asked["use_cache"] is False
    assert h_TD.requires_grad


def test_float32_on_request_leaves_the_model_as_it_is():
    """A bfloat16 model computes one call in float32: close to float32 weights, itself unchanged."""
    low = copy.deepcopy(causal_model("llama")).bfloat16()
    wide = copy.deepcopy(low).float()
    batch = batch_of("llama", ["a text", "another one"])
    with torch.no_grad():
        (again,) = PlainBackbone(low).forward(batch, float32=True)
        (expected,) = PlainBackbone(wide).forward(batch)
    assert again.dtype == torch.float32
    assert low.dtype == torch.bfloat16
    assert torch.allclose(again, expected, atol=1e-4)


def test_overflow_in_float16_is_mended():
    """Weights that overflow float16 in the middle of a pass still give finite unit vectors."""
    from echovec import Embedder, PrecisionWarning

    model = copy.deepcopy(causal_model("llama"))
    with torch.no_grad():
        model.base_model.layers[0].mlp.up_proj.weight.mul_(1e4)
        model.base_model.layers[0].mlp.down_proj.weight.mul_(1e4)
    half = model.half()
    embedder = Embedder.from_model(half, family_tokenizer("llama"))
    with pytest.warns(PrecisionWarning, match="not finite"):
        vectors = embedder.encode(["a text", "another text"])
    assert np.isfinite(vectors).all()
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_the_hash_follows_the_weights_not_their_dtype_or_place():
    """float16 weights hash alike in float16 and widened to float32; one changed number differs."""
    half = copy.deepcopy(causal_model("llama")).half()
    wide = copy.deepcopy(half).float()
    assert PlainBackbone(half).weights_hash() == PlainBackbone(wide).weights_hash()
    with torch.no_grad():
        wide.base_model.layers[1].mlp.down_proj.weight[0, 0] += 1e-3
    assert PlainBackbone(half).weights_hash() != PlainBackbone(wide).weights_hash()


def test_the_hash_follows_names_and_shapes():
    """The same numbers under another name, or in another shape, are other weights."""
    numbers = torch.arange(6.0)
    hashes = {
        hash_weights("{}", {name: numbers.reshape(shape)})
        for name in ("a", "b")
        for shape in ((6,), (2, 3), (3, 2))
    }
    assert len(hashes) == 6


def test_every_module_keeps_its_mode():
    """A part that is frozen in evaluation mode inside a model in training stays so, and back."""
    model = copy.deepcopy(causal_model("llama")).base_model
    modes = {}
    for number, module in enumerate(model.modules()):
        module.training = modes[module] = number % 2 == 0
    seen = []
    hook = model.layers[0].register_forward_pre_hook(
        lambda *_: seen.append(any(module.training for module in model.modules()))
    )
    with torch.no_grad():
        PlainBackbone(model).forward(batch_of("llama", ["a text"]))
    hook.remove()
    assert seen == [False]
    assert {module: module.training for module in model.modules()} == modes


def test_threads_take_turns_in_one_model():
    """Two embedders around one model: hooks of the one never see what the other computes."""
    model = copy.deepcopy(causal_model("llama")).base_model
    texts = list(sentences()[::60])
    mine, other = batch_of("llama", texts), batch_of("llama", [*texts[::-1], "one more"])
    how = How(attention=(1, 2), importance=(Importance(0),))
    with torch.no_grad():
        want = PlainBackbone(model).read(mine, [2], how)
    threads = []

    def meanwhile(*_):
        if not threads:  # in the middle of the first run, between its two blocks
            threads.append(Thread(target=run_other))
            threads[0].start()
            threads[0].join(0.3)

    def run_other():
        with torch.no_grad():
            PlainBackbone(model).forward(other)

    hook = model.layers[1].register_forward_pre_hook(meanwhile)
    with torch.no_grad():
        got = PlainBackbone(model).read(mine, [2], how)
    threads[0].join()
    hook.remove()
    for have, wanted in zip(
        got.hidden + got.attention + got.importance,
        want.hidden + want.attention + want.importance,
        strict=True,
    ):
        torch.testing.assert_close(have, wanted)
