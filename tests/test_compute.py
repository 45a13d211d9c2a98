"""Computing chunks: memory that runs out in the second try, and arrays of another process."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import families
from echovec import Embedder
from echovec.compute import compute
from echovec.errors import NonFiniteError, PrecisionWarning
from echovec.model import threads
from echovec.model.backbone import Backbone, hash_weights
from echovec.model.plain import PlainBackbone
from echovec.model.tiny import TinyBackbone
from echovec.text.batch import Batch, Chunk
from echovec.text.drafts import Rendered
from echovec.text.plan import Plan
from echovec.text.tokenizer import ByteTokenizer
from echovec.vector.pooling import selected
from laid import Made
from test_packed import made_batch, packed

LENGTHS = [3, 9, 5, 7, 4]


def first_ids(chunk: Chunk) -> Tensor:
    """Each sequence's length, as its vector."""
    return torch.from_numpy(chunk[0].lengths_S).float()[:, None].expand(-1, 2)


def test_the_second_try_is_halved_too_where_memory_runs_out() -> None:
    """Rows that are not finite come back in float32 in their order, though one fits at a time."""
    sizes: list[int] = []

    def forward(chunk: Chunk, *, float32: bool = False) -> Tensor:
        if not float32:
            return torch.full((len(chunk[0]), 2), torch.inf)
        if len(chunk[0]) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        sizes.append(len(chunk[0]))
        return first_ids(chunk)

    batch = made_batch(LENGTHS)
    with pytest.warns(PrecisionWarning, match="5 vectors"):
        vectors, _ = compute(forward, [(batch,)])
    assert sizes == [1] * len(LENGTHS)
    assert vectors[:, 0].tolist() == batch.lengths_S.tolist()


def test_a_row_that_stays_broken_is_named_after_halving() -> None:
    """The error has the place of the first text that float32 does not mend, not of its half."""

    def forward(chunk: Chunk, *, float32: bool = False) -> Tensor:
        if float32 and len(chunk[0]) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        short = first_ids(chunk)
        return torch.where(short == 4 * 2 + 13, torch.nan, short if float32 else torch.nan)

    with pytest.raises(NonFiniteError) as caught:
        compute(forward, [(made_batch(LENGTHS),)])
    assert caught.value.row == LENGTHS.index(4)


def test_rows_that_are_finite_are_not_computed_again() -> None:
    """The second try has the broken rows of a batch alone, and the others keep their vectors."""
    again: list[list[int]] = []

    def forward(chunk: Chunk, *, float32: bool = False) -> Tensor:
        lengths = first_ids(chunk)
        if float32:
            again.append(chunk[0].lengths_S.tolist())
            return -lengths
        return torch.where(lengths == 4 * 2 + 13, torch.inf, lengths)

    batch = made_batch(LENGTHS)
    with pytest.warns(PrecisionWarning, match="1 vectors"):
        vectors, _ = compute(forward, [(batch,)])
    assert again == [[4 * 2 + 13]]
    assert vectors[:, 0].tolist() == [*batch.lengths_S[:-1], -(4 * 2 + 13)]


@pytest.mark.parametrize("workers", [1, 3])
def test_chunks_are_laid_a_few_at_a_time_and_let_go(workers: int) -> None:
    """Of thousands of texts a handful of batches is there at once, however many there are."""
    laid: list[weakref.ref[Batch]] = []
    most = 0

    class Watched(Plan):
        def __getitem__(self, index: Any) -> Any:
            chunk = super().__getitem__(index)
            if isinstance(index, int):
                laid.append(weakref.ref(chunk[0]))
            return chunk

    def forward(chunk: Chunk, *, float32: bool = False) -> Tensor:
        nonlocal most
        most = max(most, sum(ref() is not None for ref in list(laid)))
        return first_ids(chunk)

    texts = [Rendered(np.arange(5), ((0, 5),), 0, False, place=place) for place in range(200)]
    vectors, _ = compute(forward, Watched([Made(texts)], batch_tokens=10), workers=workers)
    assert len(vectors) == 2 * len(laid) == 200
    assert most <= 3 * workers + 3


def locked(batch: Batch) -> Batch:
    """The same batch as another process would hand it on: nothing in it may be written."""
    arrays = {
        field.name: np.array(value)
        for field in dataclasses.fields(batch)
        if isinstance(value := getattr(batch, field.name), np.ndarray)
    }
    for array in arrays.values():
        array.setflags(write=False)
    return dataclasses.replace(batch, **arrays)


@pytest.mark.filterwarnings("always:The given NumPy array is not writable")
def test_arrays_that_cannot_be_written_are_read_in_silence(
    recwarn: pytest.WarningsRecorder,
) -> None:
    """Ray hands out such arrays: no engine warns of them, and vectors are the same."""
    model = families.causal_model("llama")
    backbones: list[Backbone] = [
        PlainBackbone(model),
        packed("llama", prepack=True),
        TinyBackbone(vocab_size=1000),
    ]
    batch = made_batch(LENGTHS)
    torch.set_warn_always(True)
    try:
        for backbone in backbones:

            def forward(
                chunk: Chunk, *, float32: bool = False, backbone: Backbone = backbone
            ) -> Tensor:
                (h_TD,) = backbone.forward(chunk[0])
                return h_TD[torch.tensor(chunk[0].offsets_S1[1:] - 1)]

            want, _ = compute(forward, [(batch,)])
            got, _ = compute(forward, [(locked(batch),)])
            torch.testing.assert_close(got, want)
    finally:
        torch.set_warn_always(False)
    assert not [w for w in recwarn if "not writable" in str(w.message)]


@pytest.fixture
def default_bfloat16() -> Iterator[None]:
    """Another thread reads a model in 16 bits: torch's default dtype is theirs meanwhile."""
    torch.set_default_dtype(torch.bfloat16)
    yield
    torch.set_default_dtype(torch.float32)


def test_torchs_default_dtype_is_nothing_to_us(default_bfloat16: None) -> None:
    """Vectors are float32 while another thread reads a model in 16 bits."""
    vectors, _ = compute(lambda chunk, float32=False: first_ids(chunk), [(made_batch([3]),)])
    assert vectors.dtype == torch.float32


def test_no_vectors_are_float32_too(default_bfloat16: None) -> None:
    """Without a text there is nothing in 16 bits either."""
    embedder = Embedder("echo", ByteTokenizer(), TinyBackbone())
    assert embedder.encode([]).dtype == np.float32
    assert all(states.dtype == np.float32 for states in embedder.states([]))


def test_what_is_selected_is_so_in_float32(default_bfloat16: None) -> None:
    """The share of each of 150 tokens is no number of 16 bits: below it all would be kept."""
    h_TD, w_R = (
        torch.arange(150, dtype=torch.float32)[:, None],
        torch.full((150,), 1 / 150, dtype=torch.float32),
    )
    w_R[0] *= 1.01
    (z_D,) = selected(h_TD, torch.tensor([[0, 150]]), w_R, 1.001)
    assert z_D.item() == 0


@pytest.mark.parametrize("cores", [1, 2, 3, 6, 16])
def test_workers_have_the_cores_between_them_and_no_more(cores: int) -> None:
    """All alike, as many as go round, and afterwards torch's setting is what it was."""
    before = torch.get_num_threads()
    torch.set_num_threads(cores)
    try:
        for count in (1, 2, 5, 16):
            seen: set[int] = set()

            def forward(chunk: Chunk, *, float32: bool = False, seen: set[int] = seen) -> Tensor:
                seen.add(torch.get_num_threads())
                return first_ids(chunk)

            batch = made_batch([4] * count)
            vectors, _ = compute(forward, [(batch,)], workers=cores)
            assert len(vectors) == count
            assert seen == {cores // min(cores, count)}
            assert torch.get_num_threads() == cores
    finally:
        torch.set_num_threads(before)


def test_hashing_takes_as_many_threads_as_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not as many as the machine has: each holds a tensor in float32, and some are not ours."""
    asked: list[int] = []

    class Pool(threads.ThreadPoolExecutor):
        def __init__(self, count: int, *rest: Any) -> None:
            asked.append(count)
            super().__init__(count, *rest)

    monkeypatch.setattr(threads, "ThreadPoolExecutor", Pool)
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        hash_weights("{}", {"a": torch.zeros(3)})
    finally:
        torch.set_num_threads(before)
    assert asked == [3]


def test_one_core_in_a_forked_process(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Not in the process that computes first; in one forked from it, which says so once."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for process, wanted in ((None, 2), (os.getpid(), 2), (os.getpid() + 1, 1)):
            monkeypatch.setattr(threads, "_process", process)
            compute(lambda chunk, **_: first_ids(chunk), [(made_batch([4]),)])
            assert torch.get_num_threads() == wanted
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert "forked" in caplog.text
        compute(lambda chunk, **_: first_ids(chunk), [(made_batch([4]),)])
        assert len(caplog.records) == 1
    finally:
        torch.set_num_threads(before)


FORKED = """
import os, sys
import numpy as np, torch
from echovec.compute import compute
from echovec.text.batch import Batch

w_DD = torch.eye(1000)
batch = Batch(
    ids_T=np.arange(3), offsets_S1=np.array([0, 3]), spans_SK2=np.array([[[0, 3]]]), prefix=0,
    order_S=np.array([0]), share_S=np.array([1.0]), truncated_S=np.array([False]),
)

def forward(chunk, *, float32=False):
    return (w_DD @ w_DD)[:1]

torch.set_num_threads(2)
z_ND, _ = compute(forward, [(batch,)])
child = os.fork()
if not child:
    again_ND, _ = compute(forward, [(batch,)])
    os._exit(0 if torch.equal(again_ND, z_ND) else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_process_computes() -> None:
    """A real one, after a product by a team of two: without `heed_fork` it waits forever."""
    subprocess.run([sys.executable, "-c", FORKED], check=True, timeout=60)
