"""Handle: named, loaded at the first call, shared, called in turn."""

from __future__ import annotations

import asyncio
import copy
import pickle
import threading
import time

import numpy as np
import pytest

from echovec.embedder import Embedder
from echovec.errors import InputError
from echovec.plugins import handle as handle_module
from echovec.plugins.handle import Handle
from plugins_stub import TEXTS, embedder, saved


def test_nothing_is_loaded_before_the_first_call(tmp_path):
    """A handle on a folder that is not there yet can be made, and loads it when asked."""
    handle = Handle(tmp_path / "echo")
    saved(tmp_path)
    np.testing.assert_allclose(handle.vectors(TEXTS), embedder().encode(TEXTS), atol=1e-5)


def test_handles_of_the_same_names_share_one_model(tmp_path):
    """Two parts of a pipeline load once; another recipe is another embedder."""
    folder = saved(tmp_path)
    first, second, other = Handle(folder), Handle(folder), Handle(folder, max_tokens=8)
    assert first.embedder is second.embedder
    assert other.embedder is not first.embedder


def test_a_model_that_nobody_holds_is_let_go(tmp_path):
    """The last handle's end frees the model: nothing here keeps it."""
    handle = Handle(saved(tmp_path))
    key = tuple(handle.names().values())
    assert handle.embedder is handle_module._LOADED[key]
    del handle
    assert key not in handle_module._LOADED


class Watched(Embedder):
    """An embedder that notes how many calls run at once."""

    now = 0
    most = 0

    def encode(self, texts, **options):
        self.now += 1
        self.most = max(self.most, self.now)
        time.sleep(0.01)
        found = super().encode(texts, **options)
        self.now -= 1
        return found


def watched():
    plain = embedder()
    return Watched("echo", plain.tokenizer, plain.backbone)


def test_one_call_at_a_time():
    """Threads and coroutines at once: never two in the model, and each gets its own vectors."""
    model = watched()
    handles = [Handle(model), Handle(model)]
    expected = embedder().encode(TEXTS)
    found = {}

    def call(place):
        found[place] = handles[place % 2].vectors([TEXTS[place % 3]])[0]

    threads = [threading.Thread(target=call, args=(place,)) for place in range(6)]
    for thread in threads:
        thread.start()

    async def many():
        return await asyncio.gather(
            *(handles[i % 2].vectors_async([TEXTS[i % 3]]) for i in range(6))
        )

    vectors = asyncio.run(many())
    for thread in threads:
        thread.join()
    assert model.most == 1
    for place in range(6):
        np.testing.assert_allclose(found[place], expected[place % 3], atol=1e-5)
        np.testing.assert_allclose(vectors[place][0], expected[place % 3], atol=1e-5)


def test_the_event_loop_goes_on_meanwhile():
    """While a text is embedded the loop runs other things."""
    handle = Handle(watched())
    ticks = []

    async def tick():
        while True:
            ticks.append(1)
            await asyncio.sleep(0.001)

    async def both():
        ticking = asyncio.create_task(tick())
        await handle.vectors_async(TEXTS)
        ticking.cancel()

    asyncio.run(both())
    assert len(ticks) > 3


def test_a_pickle_holds_names_and_no_weights(tmp_path):
    """A pickled handle is small, and gives the same vectors elsewhere."""
    handle = Handle(saved(tmp_path))
    expected = handle.vectors(TEXTS)
    written = pickle.dumps(handle)
    assert len(written) < 1000
    assert np.array_equal(pickle.loads(written).vectors(TEXTS), expected)


def test_what_is_in_memory_only_cannot_be_written():
    """An embedder without a name is refused with what to do, and never copied."""
    handle = Handle(embedder())
    with pytest.raises(InputError, match=r"embedder.save\(folder\)"):
        pickle.dumps(handle)
    assert copy.deepcopy(handle).embedder is handle.embedder


def test_a_loaded_embedder_travels_with_its_handle(tmp_path):
    """Given as an object, it says in a pickle how it was loaded; a file has no name for it."""
    handle = Handle(Embedder.load(saved(tmp_path)))
    written = pickle.dumps(handle)
    assert len(written) < 4000
    arrived = pickle.loads(written)
    assert np.array_equal(arrived.vectors(TEXTS), handle.vectors(TEXTS))
    assert arrived.name == handle.name
    for one in (handle, arrived):
        with pytest.raises(InputError, match="has no name to write"):
            one.names()


def test_options_of_loading_do_not_go_with_a_loaded_embedder():
    """A recipe beside an embedder is an error, not silently left out."""
    with pytest.raises(InputError, match="with_recipe"):
        Handle(embedder(), "classical")


def test_a_text_in_place_of_a_list_is_refused():
    """A string is a sequence of its letters, and nobody wants a vector of each."""
    handle = Handle(embedder())
    with pytest.raises(InputError, match="single text"):
        handle.vectors("a cat")
    with pytest.raises(InputError, match="single text"):
        asyncio.run(handle.vectors_async("a cat"))


def test_a_bad_text_is_named():
    """The error of the embedder comes through, with the text's place; the next call works."""
    handle = Handle(embedder())
    with pytest.raises(InputError) as caught:
        handle.vectors(["fine", ""])
    assert caught.value.index == 1
    assert handle.vectors(["fine"]).shape == (1, 32)
