"""Recorded passes: what they read, when they are used, and what they are held to; on any device."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields

import numpy as np
import pytest
import torch
from torch import Tensor

import families
from echovec.model import packed as packed_module
from echovec.model import ragged as ragged_module
from echovec.model.feed import Feed, Sizes
from echovec.model.layout import lay_out
from echovec.model.packed import PackedBackbone
from echovec.model.recorded import KEPT, Pass, Recorded, Recording, recorded
from test_packed import furthest, made_batch, one_by_one, packed
from test_ragged import naive

CPU = torch.device("cpu")


def rerun(run: Pass, numbers: Tensor) -> Recording:
    """What CUDA does, by hand: the same memory is read and written at each replay."""
    outputs = [output.clone() for output in run(numbers)]

    def replay() -> None:
        for output, found in zip(outputs, run(numbers), strict=True):
            output.copy_(found)

    return Recording(numbers, outputs, replay, run)


def wrong(run: Pass, numbers: Tensor) -> Recording:
    """Negative control: the second row of all states is another one's."""
    made = rerun(run, numbers)

    def replay() -> None:
        made.replay()
        for output in made.outputs:
            output[1] = output[0]

    return Recording(numbers, made.outputs, replay, run)


def refusing(run: Pass, numbers: Tensor) -> Recording:
    """A device that cannot."""
    raise RuntimeError("operation not permitted when stream is capturing\nand more")


@pytest.fixture
def backbone(monkeypatch: pytest.MonkeyPatch) -> PackedBackbone:
    """A tiny packed model with ragged attention, whose passes are recorded."""
    monkeypatch.setattr(packed_module, "can_attend", lambda *_: True)
    monkeypatch.setattr(ragged_module, "varlen", naive)
    made = packed("llama", prepack=True)
    made._recorded = Recorded(CPU, rerun)
    return made


def states(backbone: PackedBackbone, lengths: list[int], layers: tuple[int, ...]) -> float:
    """How far the states of a batch are from each sequence alone."""
    batch = made_batch(lengths)
    with torch.inference_mode():
        found = backbone.forward(batch, layers, pooled_only=True)
    model = families.causal_model("llama").base_model
    wanted = [one_by_one(model, batch, layer)[batch.pooled[0]] for layer in layers]
    return max(map(furthest, found, wanted))


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the log says of recordings."""
    return [record.message for record in caplog.records if "recorded" in record.message]


def test_a_replay_gives_the_states_of_its_batch(backbone: PackedBackbone) -> None:
    """One recording serves batches of other texts and other lengths, each as if alone."""
    every = [[5, 3, 2], [4, 4, 2], [3], [6, 1, 3], [2, 2], [4]]
    for layers in ((-1,), (1, -1), (0, 2)):
        for lengths in every * 2:
            assert states(backbone, lengths, layers) < 3e-5
    assert backbone._recorded is not None
    kept = list(backbone._recorded._kept.values())
    assert None not in kept
    assert len(kept) < 3 * len(every)


def test_what_a_wrong_recording_gives_is_noticed(
    backbone: PackedBackbone, caplog: pytest.LogCaptureFixture
) -> None:
    """It is never used: the states stay right, and the log says what happened, once."""
    caplog.set_level(logging.WARNING, "echovec")
    backbone._recorded = Recorded(CPU, wrong)
    for _ in range(4):
        assert states(backbone, [5, 3, 2], (-1,)) < 3e-5
    (said,) = told(caplog)
    assert "on cpu (a replay does not give the states of the pass): slower" in said
    with pytest.MonkeyPatch.context() as patch:  # without being held to anything it would be
        patch.setattr("echovec.model.recorded._far", lambda *_: False)
        backbone._recorded = Recorded(CPU, wrong)
        assert max(states(backbone, [5, 3, 2], (-1,)) for _ in range(3)) > 1e-2


def test_a_device_that_cannot_record_goes_on(
    backbone: PackedBackbone, caplog: pytest.LogCaptureFixture
) -> None:
    """The reason is said, and passes run as before."""
    caplog.set_level(logging.WARNING, "echovec")
    backbone._recorded = Recorded(CPU, refusing)
    for _ in range(3):
        assert states(backbone, [4, 2], (-1,)) < 3e-5
    (said,) = told(caplog)
    assert "on cpu (operation not permitted when stream is capturing): slower" in said


def test_threads_take_turns(backbone: PackedBackbone) -> None:
    """Two threads that replay one recording get the states of their own batches."""
    every = [[5, 3, 2], [4, 4, 2], [3], [6, 1, 1, 1], [2, 2], [4]] * 3
    with ThreadPoolExecutor(3) as pool:
        assert max(pool.map(lambda lengths: states(backbone, lengths, (-1,)), every)) < 3e-5


def test_a_replay_is_not_disturbed_by_another() -> None:
    """A second thread's numbers come once the first one's results are out."""

    def slowly(run: Pass, numbers: Tensor) -> Recording:
        made = rerun(run, numbers)

        def replay() -> None:
            time.sleep(0.01)  # the card takes its time: the numbers are there already
            made.replay()

        return Recording(numbers, made.outputs, replay, run)

    kept = Recorded(CPU, slowly)

    def asked(number: int) -> bool:
        numbers = np.array([number, number + 1])

        def run(x: Tensor) -> list[Tensor]:
            return [x[:, None] * 2]

        with torch.inference_mode():
            (found,) = kept("key", lambda: numbers, run, lambda: run(torch.from_numpy(numbers)))
        return found[:, 0].tolist() == [2 * number, 2 * number + 2]

    assert asked(0)
    assert asked(0)
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(asked, range(24)))


def test_where_it_is_not_used(backbone: PackedBackbone) -> None:
    """Not for all rows, in float32 as a second try, with a gradient, or for much work."""
    batch = made_batch([5, 3])
    assert backbone._recorded is not None
    for _ in range(2):
        with torch.inference_mode():
            backbone.forward(batch)
            backbone.forward(batch, pooled_only=True, float32=True)
        with torch.enable_grad():
            backbone.forward(batch, pooled_only=True)
    assert not backbone._recorded._kept
    backbone._block_size = 10**12
    with torch.inference_mode():
        backbone.forward(batch, pooled_only=True)
    assert not backbone._recorded._kept


def test_a_model_that_may_change_is_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The states of a shared model are those of its weights as they are, at every call."""
    monkeypatch.setattr(packed_module, "can_attend", lambda *_: True)
    monkeypatch.setattr(ragged_module, "varlen", naive)
    monkeypatch.setattr(packed_module, "recorded", lambda _: Recorded(CPU, rerun))
    shared = packed("llama", prepack=False)
    batch = made_batch([5, 3, 2])
    source = torch.Generator().manual_seed(0)
    for _ in range(4):
        with torch.inference_mode():
            (found,) = shared.forward(batch, pooled_only=True)
        assert furthest(found, one_by_one(shared.model, batch, -1)[batch.pooled[0]]) < 3e-5
        with torch.no_grad():
            for parameter in shared.model.parameters():
                parameter += 0.05 * torch.randn(parameter.shape, generator=source)
    assert packed("llama", prepack=True)._recorded is not None


@pytest.mark.parametrize(
    ("value", "wanted"), [("1", True), ("yes", True), ("0", False), ("false", False), ("", False)]
)
def test_who_asks_for_recordings(value: str, wanted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable says yes or no in words too, and on a CPU nothing is recorded."""
    monkeypatch.setenv("ECHOVEC_CUDA_GRAPHS", value)
    assert (recorded(torch.device("cuda:0")) is not None) is wanted
    assert recorded(CPU) is None


def test_a_row_that_is_not_finite_ends_no_recording(caplog: pytest.LogCaptureFixture) -> None:
    """What a dtype has no room for is computed again elsewhere; other rows are held to theirs."""
    caplog.set_level(logging.WARNING, "echovec")

    def run(x: Tensor) -> list[Tensor]:
        return [(x.float() / (x - 3))[:, None]]

    numbers = np.array([1, 5, 3])  # of the last the state is infinite
    for record, usable in ((rerun, True), (wrong, False)):
        kept = Recorded(CPU, record)
        with torch.inference_mode():
            for _ in range(3):
                (found,) = kept("key", lambda: numbers, run, lambda: run(torch.from_numpy(numbers)))
        assert found[:2, 0].tolist() == [-0.5, 2.5]
        assert (kept._kept.get("key") is not None) is usable
    assert len(told(caplog)) == 1


def test_recordings_are_few() -> None:
    """What was asked for before all others goes, and `forget` lets go of all."""
    kept = Recorded(CPU, rerun)
    passes: list[Callable[[Tensor], list[Tensor]]] = [
        lambda x, n=n: [x[:, None] * n]
        for n in range(KEPT + 5)  # type: ignore[misc]
    ]
    for n, run in enumerate(passes):
        for number in (1, 2, 3):
            numbers = np.array([number, 4])
            with torch.inference_mode():
                (found,) = kept(n, lambda: numbers, run, lambda: run(torch.from_numpy(numbers)))  # noqa: B023
            assert found.tolist() == [[n * number], [n * 4]]
    assert list(kept._kept) == list(range(5, KEPT + 5))
    assert None not in kept._kept.values()
    kept.forget()
    assert not kept._kept


def test_what_is_asked_for_often_stays_recorded() -> None:
    """Sizes that come once push none out that comes again and again."""
    made = []

    def counted(run: Pass, numbers: Tensor) -> Recording:
        made.append(numbers)
        return rerun(run, numbers)

    def run(x: Tensor) -> list[Tensor]:
        return [x[:, None] * 2]

    kept = Recorded(CPU, counted)
    numbers = np.array([1, 2])
    for once in range(3 * KEPT):
        for key in (once, "often"):
            with torch.inference_mode():
                kept(key, lambda: numbers, run, lambda: run(torch.from_numpy(numbers)))
    assert kept._kept["often"] is not None
    assert len(made) == 1


def test_rounded_sizes_have_room_and_are_few() -> None:
    """Nothing becomes smaller, rows at most a sixteenth more, and batches share some."""
    rng = np.random.default_rng(5)
    found = set()
    for _ in range(200):
        lengths = rng.integers(1, 40, rng.integers(1, 9)).tolist()
        sizes = Feed(lay_out(made_batch(lengths)), 6).sizes
        room = sizes.rounded()
        for field in fields(Sizes):
            assert getattr(room, field.name) >= getattr(sizes, field.name)
        assert room.rows <= max(sizes.rows * 17 / 16, sizes.rows + 16)
        assert room.keys == room.rows + 6 * room.sequences
        found.add(room)
    assert len(found) < 100


@pytest.mark.gpu
def test_cuda_replays_what_it_recorded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """CUDA graphs, from several threads: the states of passes that are not recorded."""
    caplog.set_level(logging.WARNING, "echovec")
    monkeypatch.setenv("ECHOVEC_CUDA_GRAPHS", "1")
    model = copy.deepcopy(families.causal_model("llama")).to("cuda", torch.bfloat16)
    backbone = PackedBackbone(model, prepack=True)
    assert backbone._recorded is not None
    plain = families.causal_model("llama").base_model
    batches = [made_batch(lengths) for lengths in ([5, 3, 2], [4, 4, 2], [3], [6, 1, 3], [40] * 9)]
    wanted = [one_by_one(plain, batch, -1)[batch.pooled[0]] for batch in batches]

    def nearest(place: int) -> float:
        with torch.inference_mode():
            (found,) = backbone.forward(batches[place], pooled_only=True)
        cosines = torch.nn.functional.cosine_similarity(found.float().cpu(), wanted[place])
        return float(cosines.min())

    with ThreadPoolExecutor(2) as pool:
        assert min(pool.map(nearest, [*range(len(batches))] * 6)) > 0.995
    assert any(kept is not None for kept in backbone._recorded._kept.values())
    assert not told(caplog)
