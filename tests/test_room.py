"""Room: a size that did not fit is remembered, and tried again later, ever less often."""

from __future__ import annotations

import asyncio
import itertools
import logging

import numpy as np
import torch

from echovec.embedder import Embedder
from echovec.model.tiny import TinyBackbone
from echovec.room import Room, size_of
from echovec.serve.batcher import Batcher
from echovec.serve.lane import Lane
from echovec.serve.metrics import Metrics
from echovec.text.tokenizer import ByteTokenizer

TEXTS = [f"{number:03} letters" for number in range(64)]


class Small(TinyBackbone):
    """A model whose memory takes so many tokens; `failed` has the sizes that were too much."""

    def __init__(self, tokens):
        super().__init__()
        self.tokens = tokens
        self.sizes, self.failed = [], []

    def forward(self, batch, layers=(-1,), **options):
        size = len(batch) * int(batch.lengths_S.max())
        if size > self.tokens and len(batch) > 1:
            self.failed.append(size)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")
        self.sizes.append(size)
        return super().forward(batch, layers, **options)


def embedder(backbone):
    """Echo on this backbone."""
    return Embedder("echo", ByteTokenizer(), backbone)


def one_chunk(count=64):
    """The first texts in one chunk."""
    (chunk,) = embedder(TinyBackbone()).prepare(TEXTS[:count], batch_tokens=10**6)
    return chunk


def each():
    """Tokens of the prompt of one text; all have as many."""
    return size_of(one_chunk(1))


def test_a_size_that_failed_is_not_tried_with_every_call():
    """The first call runs into it until it fits; the next ones do not, and vectors are the same."""
    backbone = Small(tokens=each() * 20)
    model, expected = embedder(backbone), embedder(TinyBackbone()).encode(TEXTS)
    first = model.encode(TEXTS, batch_tokens=10**6)
    assert backbone.failed == [each() * 64, each() * 32]
    later = [model.encode(TEXTS, batch_tokens=10**6) for _ in range(3)]
    assert len(backbone.failed) == 2
    assert max(backbone.sizes) == each() * 16
    for vectors in (first, *later):
        assert np.abs(vectors - expected).max() < 1e-6
    # Without a memory of it, each of the four calls would have failed as the first did.
    fresh = Small(tokens=each() * 20)
    for _ in range(4):
        embedder(fresh).encode(TEXTS, batch_tokens=10**6)
    assert len(fresh.failed) == 8


def test_memory_that_comes_back_is_used_again():
    """After some batches at the limit twice as much is tried, until nothing is cut any more."""
    backbone = Small(tokens=each() * 20)
    model = embedder(backbone)
    model.encode(TEXTS, batch_tokens=10**6)
    backbone.tokens = 10**9
    for _ in range(30):
        model.encode(TEXTS, batch_tokens=10**6)
    assert len(backbone.failed) == 2
    assert backbone.sizes[-1] == each() * 64


def test_memory_that_does_not_come_back_is_asked_ever_less_often():
    """Each try that fails doubles the batches until the next."""
    backbone = Small(tokens=each() * 20)
    model = embedder(backbone)
    tries = []
    for call in range(200):
        before = len(backbone.failed)
        model.encode(TEXTS, batch_tokens=10**6)
        if len(backbone.failed) > before and call:
            tries.append(call)
    gaps = np.diff(tries)
    assert len(tries) >= 4
    assert all(later > 1.5 * before for before, later in itertools.pairwise(gaps))
    assert set(backbone.sizes) == {each() * 16}


def test_a_try_that_fails_goes_back_to_what_is_known_to_fit():
    """Not to half of what failed, where more went well before; unless that fails too."""
    room = Room(patience=2)
    room.ran_out(one_chunk(40))
    assert room.tokens == each() * 20
    room.went(one_chunk(20))
    room.went(one_chunk(18))
    assert room.tokens == each() * 40
    room.ran_out(one_chunk(24))
    assert room.tokens == each() * 20
    room.ran_out(one_chunk(20))
    assert room.tokens == each() * 10


def test_small_batches_teach_nothing_about_larger_ones():
    """However many of them go well."""
    room = Room(patience=2)
    room.ran_out(one_chunk(40))
    for _ in range(10):
        room.went(one_chunk(10))
    assert room.tokens == each() * 20
    assert [len(part[0]) for part in room.parts(one_chunk(50))] == [12, 13, 12, 13]
    assert [len(part[0]) for part in room.parts(one_chunk(1))] == [1]


def test_what_ran_when_another_failed_teaches_it_once():
    """Two batches of one size that fail at once halve it once."""
    room = Room()
    room.ran_out(one_chunk(40))
    room.ran_out(one_chunk(40))
    assert room.tokens == each() * 20


async def test_a_server_remembers_too(caplog):
    """Groups of a server's queue after the first do not run into it, and the log says it once."""
    backbone = Small(tokens=each() * 20)
    lane = Lane(embedder(backbone), None, None)
    queue = Batcher(
        batch_tokens=each() * 32, workers=1, max_waiting_tokens=10**6, metrics=Metrics()
    )
    with caplog.at_level(logging.WARNING, "echovec"):
        for number in range(5):
            texts = [f"{number} {text}"[: len(TEXTS[0])] for text in TEXTS[:32]]
            await asyncio.gather(*(queue.vectors(lane, [one]) for one in lane.prepare(texts)))
    queue.close()
    assert len(backbone.failed) == 1
    (said,) = [record.getMessage() for record in caplog.records]
    assert f"in a batch of {backbone.failed[0]:,} tokens" in said
    assert f"have {each() * 16:,} at most" in said
