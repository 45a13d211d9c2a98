"""The batcher: texts of many requests through one model, each once, none lost."""

from __future__ import annotations

import asyncio
import time
from functools import partial

import numpy as np
import pytest
import torch

from echovec.model.tiny import TinyBackbone
from echovec.serve.batcher import Batcher
from echovec.serve.lane import Lane, chunks_of
from echovec.serve.metrics import Metrics
from echovec.serve.problem import Problem
from echovec.serve.waiting import Waiting, Wanted
from echovec.text.batch import join
from echovec.text.drafts import render
from echovec.text.render import Renderer
from echovec.text.template import Template
from echovec.text.tokenizer import ByteTokenizer
from echovec.vector.transform import Normalize
from laid import lay
from serve_stub import Gated, tiny

TEXTS = ["one", "two and a half", "three", "f" * 90, "five and more of it", "6"]


def batcher(**options):
    """A batcher with room for a few short texts in a group."""
    values = {"batch_tokens": 600, "workers": 1, "max_waiting_tokens": 10_000}
    return Batcher(**{**values, **options}, metrics=Metrics())


async def until(true, seconds=10):
    """Wait until something holds."""
    for _ in range(int(seconds / 0.005)):
        if true():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it never came true")


def value(metrics, name):
    """What a counter or gauge says."""
    return metrics.registry.get_sample_value(name)


def test_joined_batches_are_those_laid_together():
    """Batches laid apart and joined equal the batch of all their texts laid at once."""
    renderer = Renderer(Template("say {text}: {text}"), ByteTokenizer())
    rendered = render(renderer, TEXTS)
    joined = join([lay(rendered[:2]), lay(rendered[2:3]), lay(rendered[3:])])
    whole = lay(rendered)
    for name in ("ids_T", "offsets_S1", "spans_SK2", "order_S", "share_S", "truncated_S"):
        assert np.array_equal(getattr(joined, name), getattr(whole, name)), name
    assert joined.prefix == whole.prefix


@pytest.mark.parametrize("recipe", ["echo", "echo-eol", "echo-windows", "meta-eol"])
def test_vectors_of_prepared_texts_are_those_of_encode(recipe):
    """Texts prepared apart and put into chunks together have the vectors of `encode`.

    Also with several passes, several windows a text, and places in another order.
    """
    embedder = tiny(recipe, max_positions=600)
    lane = Lane(embedder, None, None)
    texts = [*TEXTS, "long " * 150]
    prepared = [*lane.prepare(texts[:3]), *lane.prepare(texts[3:])]
    chunks = chunks_of(prepared, 900)
    vectors, _ = embedder.vectors(chunks)
    expected = embedder.encode(texts, return_truncated=True)[0]
    found = Normalize()(torch.from_numpy(vectors)).numpy()
    assert len(chunks) > 1
    assert np.abs(found - expected).max() <= 1e-5
    assert np.abs(found[::-1] - expected).max() > 1e-3


def test_chunks_keep_to_the_budget():
    """No chunk of several sequences holds more than the budget, counted as if padded."""
    lane = Lane(tiny(), None, None)
    for chunk in chunks_of(lane.prepare(TEXTS), 500):
        lengths = chunk[0].lengths_S
        assert len(lengths) == 1 or len(lengths) * lengths.max() <= 500
        assert list(lengths) == sorted(lengths, reverse=True)


async def test_a_lone_text_is_computed_at_once_and_load_fills_the_batches():
    """What comes while the model computes goes into the next group together."""
    backbone = Gated()
    lane, queue = Lane(tiny(backbone=backbone), None, None), batcher()
    backbone.gate.clear()
    first = asyncio.create_task(queue.vectors(lane, lane.prepare(["first"])))
    await until(backbone.running.is_set)
    others = [asyncio.create_task(queue.vectors(lane, lane.prepare([t]))) for t in "abcd"]
    await asyncio.sleep(0.05)
    backbone.gate.set()
    await asyncio.gather(first, *others)
    queue.close()
    assert backbone.batches[0] == 1
    assert sum(backbone.batches) == 5
    assert len(backbone.batches) <= 3  # one group, of one chunk or two


async def test_what_is_computed_is_counted():
    """Texts that others brought, tokens, batches and their fill, seconds in the model."""
    backbone = Gated(seconds=0.01)
    lane, queue = Lane(tiny(backbone=backbone), None, None), batcher()
    prepared = lane.prepare(["one", "two", "one"])
    await queue.vectors(lane, prepared[:1])
    backbone.gate.clear()
    calls = [asyncio.create_task(queue.vectors(lane, prepared[1:])) for _ in range(2)]
    await asyncio.sleep(0.02)
    backbone.gate.set()
    await asyncio.gather(*calls)
    queue.close()
    counted, tokens = partial(value, queue._metrics), [one.tokens for one in prepared]
    assert counted("echovec_shared_texts_total") == 2
    assert counted("echovec_tokens_total") == sum(tokens)
    assert counted("echovec_batch_texts_count") == len(backbone.batches)
    assert counted("echovec_batch_texts_sum") == sum(backbone.batches) == 3
    assert counted("echovec_batch_fill_sum") == pytest.approx(sum(tokens) / queue.batch_tokens)
    assert counted("echovec_model_seconds_total") >= 0.01 * len(backbone.batches)


async def test_a_text_in_flight_is_computed_once():
    """The same text of several requests is computed once, while it waits and while it runs."""
    backbone = Gated()
    lane, queue = Lane(tiny(backbone=backbone), None, None), batcher()
    backbone.gate.clear()
    calls = [asyncio.create_task(queue.vectors(lane, lane.prepare(["same"]))) for _ in range(3)]
    await until(backbone.running.is_set)
    calls += [asyncio.create_task(queue.vectors(lane, lane.prepare(["same", "x"])))]
    await asyncio.sleep(0.02)
    backbone.gate.set()
    found = await asyncio.gather(*calls)
    again = await queue.vectors(lane, lane.prepare(["same"]))
    queue.close()
    assert sum(backbone.batches) == 3  # same, x, and same again later: nothing is kept
    assert all(np.array_equal(one[0], again[0]) for one in found)


async def test_other_lanes_do_not_mix():
    """Texts of another recipe or role have the vectors of their own, and all are computed."""
    backbone = Gated()
    echo, classical = tiny("echo", backbone), tiny("classical", backbone)
    lanes = [Lane(echo, None, None), Lane(classical, None, None), Lane(echo, "query", None)]
    queue = batcher()
    backbone.gate.clear()
    calls = [
        asyncio.create_task(queue.vectors(lane, lane.prepare([f"text {i}"])))
        for i in range(4)
        for lane in lanes
    ]
    await until(backbone.running.is_set)
    backbone.gate.set()
    found = await asyncio.gather(*calls)
    queue.close()
    for place, rows in enumerate(found):
        lane = lanes[place % 3]
        expected = lane.embedder.encode([f"text {place // 3}"], normalize_embeddings=False)
        assert np.abs(rows[0] - expected[0]).max() <= 1e-5


async def test_another_lane_comes_next_however_much_of_the_first_waits():
    """What is passed over, as it fits no batch of the lane before it, is the head of the queue."""
    echo, classical = tiny("echo"), tiny("classical")
    waiting = Waiting(lambda *_: None, pytest.fail)
    for embedder, text in ((echo, "1"), (classical, "2"), (echo, "3"), (echo, "4"), (echo, "5")):
        lane = Lane(embedder, None, None)
        done = asyncio.get_running_loop().create_future()
        waiting.add([Wanted(lane, lane.prepare([text])[0], done)])
    room = 2 * waiting.first().prepared.tokens
    batches = [[one.prepared.text for one in waiting.take(room)] for _ in range(3)]
    assert batches == [["1", "3"], ["2"], ["4", "5"]]


async def test_requests_take_turns():
    """A short request that comes after a long one does not wait for all of it."""
    backbone = Gated()
    lane, queue = Lane(tiny(backbone=backbone), None, None), batcher(batch_tokens=300)
    backbone.gate.clear()
    long = asyncio.create_task(queue.vectors(lane, lane.prepare([f"{i:03}" for i in range(40)])))
    await until(backbone.running.is_set)
    short = asyncio.create_task(queue.vectors(lane, lane.prepare(["short"])))
    await asyncio.sleep(0.02)
    backbone.gate.set()
    await short
    assert not long.done()
    await long
    queue.close()
    assert sum(backbone.batches) == 41


async def test_like_requests_are_served_in_order():
    """Requests of like size that wait together end one after the other, not all at the end."""
    backbone = Gated()
    lane, queue = Lane(tiny(backbone=backbone), None, None), batcher(batch_tokens=500)
    ended = []

    async def ask(number):
        await queue.vectors(lane, lane.prepare([f"{number} {n}" for n in range(3)]))
        ended.append((number, len(backbone.batches)))

    backbone.gate.clear()
    first = asyncio.create_task(queue.vectors(lane, lane.prepare(["first"])))
    await until(backbone.running.is_set)
    calls = [asyncio.create_task(ask(number)) for number in range(12)]
    await asyncio.sleep(0.02)
    backbone.gate.set()
    await asyncio.gather(first, *calls)
    queue.close()
    assert [number for number, _ in ended] == list(range(12))
    assert ended[0][1] < ended[6][1] < ended[-1][1]


async def test_a_caller_that_leaves_takes_nothing_from_others():
    """A cancelled call ends alone; a text that another waits for is computed; others are not."""
    backbone = Gated()
    lane, queue = Lane(tiny(backbone=backbone), None, None), batcher()
    backbone.gate.clear()
    first = asyncio.create_task(queue.vectors(lane, lane.prepare(["first"])))
    await until(backbone.running.is_set)
    leaving = asyncio.create_task(queue.vectors(lane, lane.prepare(["shared", "lonely"])))
    staying = asyncio.create_task(queue.vectors(lane, lane.prepare(["shared"])))
    await asyncio.sleep(0.02)
    leaving.cancel()
    await asyncio.sleep(0.02)
    backbone.gate.set()
    await asyncio.gather(first, staying)
    queue.close()
    assert leaving.cancelled()
    assert sum(backbone.batches) == 2
    assert value(queue._metrics, "echovec_dropped_texts_total") == 1
    assert value(queue._metrics, "echovec_queue_tokens") == 0
    assert value(queue._metrics, "echovec_queue_texts") == 0


async def test_a_full_queue_says_when_to_come_back():
    """Beyond the limit a call is refused with a time; one that finds nothing waiting is taken."""
    backbone = Gated()
    lane, queue = Lane(tiny(backbone=backbone), None, None), batcher(max_waiting_tokens=300)
    backbone.gate.clear()
    running = asyncio.create_task(queue.vectors(lane, lane.prepare(["r" * 400])))
    await until(backbone.running.is_set)
    waiting = asyncio.create_task(queue.vectors(lane, lane.prepare(["w" * 400])))
    await asyncio.sleep(0.02)
    with pytest.raises(Problem, match="full") as refused:
        await queue.vectors(lane, lane.prepare(["one more"]))
    assert refused.value.status_code == 429
    assert refused.value.headers["retry-after"] == "1"
    queue._rate = value(queue._metrics, "echovec_queue_tokens") / 6.5
    with pytest.raises(Problem, match=r"try again in 7 s") as refused:
        await queue.vectors(lane, lane.prepare(["one more"]))
    assert refused.value.headers["retry-after"] == "7"
    slow = queue._rate
    backbone.gate.set()
    await asyncio.gather(running, waiting)
    await queue.vectors(lane, lane.prepare(["one more"]))
    queue.close()
    assert queue._rate > 1.5 * slow, "it follows what was computed since"


async def test_a_text_on_its_way_needs_no_room():
    """A call that adds nothing to a full queue waits with the others, and is not refused."""
    backbone = Gated()
    lane, queue = Lane(tiny(backbone=backbone), None, None), batcher(max_waiting_tokens=300)
    backbone.gate.clear()
    calls = [asyncio.create_task(queue.vectors(lane, lane.prepare(["first"])))]
    await until(backbone.running.is_set)
    for _ in range(2):
        calls.append(asyncio.create_task(queue.vectors(lane, lane.prepare(["w" * 400]))))
        await asyncio.sleep(0.02)
    backbone.gate.set()
    found = await asyncio.gather(*calls)
    queue.close()
    assert np.array_equal(found[1], found[2])
    assert sum(backbone.batches) == 2


async def test_texts_of_callers_that_left_take_no_room():
    """What nobody waits for is out at once: it fills no queue, and nobody is refused for it."""
    backbone = Gated()
    lane, queue = Lane(tiny(backbone=backbone), None, None), batcher(max_waiting_tokens=2000)
    backbone.gate.clear()
    first = asyncio.create_task(queue.vectors(lane, lane.prepare(["first"])))
    await until(backbone.running.is_set)
    staying = asyncio.create_task(queue.vectors(lane, lane.prepare(["one", "two"])))
    texts = [f"text {number}" for number in range(20)]
    leaving = asyncio.create_task(queue.vectors(lane, lane.prepare([*texts, "two"])))
    await asyncio.sleep(0.02)
    before = value(queue._metrics, "echovec_queue_texts")
    leaving.cancel()
    await asyncio.sleep(0.02)
    assert (before, value(queue._metrics, "echovec_queue_texts")) == (22, 2)
    again = asyncio.create_task(queue.vectors(lane, lane.prepare(texts)))
    await asyncio.sleep(0.02)
    backbone.gate.set()
    found = await asyncio.gather(first, staying, again)
    queue.close()
    expected = lane.embedder.encode(texts, normalize_embeddings=False)
    assert np.abs(np.array(found[2]) - expected).max() <= 1e-5
    assert value(queue._metrics, "echovec_dropped_texts_total") == 20
    assert value(queue._metrics, "echovec_queue_tokens") == 0
    assert not queue._known


class Poisoned(TinyBackbone):
    """Gives NaN, or an error, for every batch that holds a text with "!"."""

    def __init__(self, error=None):
        super().__init__()
        self.error = error

    def forward(self, batch, layers=(-1,), **options):
        states = super().forward(batch, layers, **options)
        if ord("!") in batch.ids_T:
            if self.error:
                raise self.error
            states = [h * float("nan") for h in states]
        return states


@pytest.mark.parametrize("error", [None, RuntimeError("bad!"), MemoryError()], ids=repr)
async def test_a_text_without_a_vector_fails_alone(error, caplog):
    """NaN or an error of one text is that request's 500; all others in the batch are served.

    The log has the kind of error, and nothing that may hold the text.
    """
    lane, queue = Lane(tiny(backbone=Poisoned(error)), None, None), batcher()
    texts = ["a", "b", "bad!", "c", "d"]
    calls = [asyncio.create_task(queue.vectors(lane, lane.prepare([t]))) for t in texts]
    done = await asyncio.gather(*calls, return_exceptions=True)
    queue.close()
    for text, result in zip(texts, done, strict=True):
        if "!" in text:
            assert isinstance(result, Problem)
            assert (result.status_code, result.code) == (500, "no_vector")
            assert "bad!" not in str(result.detail)
        else:
            expected = tiny().encode([text], normalize_embeddings=False)
            assert np.abs(result[0] - expected[0]).max() <= 1e-5
    assert (type(error).__name__ if error else "NonFiniteError") in caplog.text
    assert "bad!" not in caplog.text
    assert value(queue._metrics, "echovec_failed_texts_total") == 1


class Cores(Gated):
    """A model for two batches at once, which notes how many run and with how many cores."""

    workers = 2

    def __init__(self, **options):
        super().__init__(**options)
        self.inside = 0
        self.most = 0
        self.cores = []

    def forward(self, batch, layers=(-1,), **options):
        self.inside += 1
        self.most = max(self.most, self.inside)
        self.cores.append((len(batch), torch.get_num_threads()))
        try:
            return super().forward(batch, layers, **options)
        finally:
            self.inside -= 1


async def test_under_load_each_core_has_a_batch_of_its_own():
    """What waits is shared out; a core that is done takes the next, whatever the others do."""
    backbone = Cores()
    lane, queue = Lane(tiny(backbone=backbone), None, None), batcher(workers=2)
    backbone.gate.clear()
    texts = [f"text {number}" for number in range(6)]
    load = [asyncio.create_task(queue.vectors(lane, lane.prepare([text]))) for text in texts]
    await until(lambda: backbone.inside == 2)
    backbone.gate.set()
    found = await asyncio.gather(*load)
    assert backbone.most == 2
    assert sorted(backbone.batches) == [3, 3]
    assert {cores for _, cores in backbone.cores} == {1}
    expected = lane.embedder.encode(texts, normalize_embeddings=False)
    assert np.abs(np.concatenate(found) - expected).max() <= 1e-5
    queue.close()


async def test_a_lone_text_has_all_cores_before_and_after_a_load():
    """Threads of one core each take nothing from the one that computes alone."""
    own = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        backbone = Cores()
        lane, queue = Lane(tiny(backbone=backbone), None, None), batcher(workers=2)
        await queue.vectors(lane, lane.prepare(["before"]))
        await queue.vectors(lane, lane.prepare(["a1", "b2", "c3", "d4"]))
        await queue.vectors(lane, lane.prepare(["after"]))
        queue.close()
    finally:
        torch.set_num_threads(own)
    assert backbone.cores == [(1, 2), (2, 1), (2, 1), (1, 2)]


async def test_after_a_load_a_request_is_for_all_cores_again():
    """The sizes of a load's batches do not keep a later request on one core."""
    backbone = Cores()
    lane, queue = Lane(tiny(backbone=backbone), None, None), batcher(workers=2)
    for _ in range(3):
        await queue.vectors(lane, lane.prepare([f"of a load {n}" for n in range(24)]))
    await until(lambda: not queue._resting)
    backbone.batches.clear()
    await queue.vectors(lane, lane.prepare(["a1", "b2", "c3", "d4"]))
    assert backbone.batches == [2, 2]
    queue.close()


def timed(embedder):
    """A list that gets begin and end of each of an embedder's runs."""
    spans, forward = [], embedder._reader(None).forward

    def run(chunk, **options):
        begun = time.perf_counter()
        found = forward(chunk, **options)
        spans.append((begun, time.perf_counter()))
        return found

    embedder._reader(None).forward = run
    return spans


async def test_what_needs_the_model_alone_has_it_alone():
    """A recipe with hooks in the model, and a function, run beside nothing and all get there."""
    backbone = Cores(seconds=0.002)
    sharing, hooking = tiny(backbone=backbone), tiny("classical", backbone)
    assert sharing.workers() == 2
    hooking._reader(None).workers = 1  # as a reader sets it for parts that hook into the model
    spans = {id(embedder): timed(embedder) for embedder in (sharing, hooking)}
    lanes, queue = [Lane(e, None, None) for e in (sharing, hooking)], batcher(workers=2)
    beside = []

    def function():
        beside.append(backbone.inside)
        return len(beside)

    calls = [
        asyncio.create_task(queue.vectors(lane, lane.prepare([f"text {i}"])))
        for i in range(20)
        for lane in lanes
    ]
    await asyncio.sleep(0.01)
    gone = asyncio.create_task(queue.in_turn(function))
    turn = asyncio.create_task(queue.in_turn(function))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.gather(turn, *calls)
    assert gone.cancelled()
    assert beside == [0]
    alone = spans[id(hooking)]
    others = spans[id(sharing)]
    for begun, ended in alone:
        assert all(end <= begun or ended <= start for start, end in others)
        assert sum(end > begun and start < ended for start, end in alone) == 1
    assert sum(backbone.batches) == 40
    assert await queue.in_turn(function) == 2
    queue.close()
