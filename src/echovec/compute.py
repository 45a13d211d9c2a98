"""Compute: chunks through a model, whatever happens.

If memory runs out a chunk is halved until it fits, and later ones are cut to that. Every vector is
checked: a row with NaN or infinity is computed again in float32, and if that does not help it is an
error that names it. The windows of a long text are put together here: its vector is their mean.

On a CPU several chunks may run at once, each on a core of its own: cores that share a chunk wait
for each other some three hundred times in it (docs/performance.md).
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from itertools import islice
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from echovec.errors import InputError, NonFiniteError, PrecisionWarning
from echovec.model.backbone import is_out_of_memory
from echovec.model.threads import heed_fork, sharing
from echovec.room import Room, halves
from echovec.text.batch import Chunk
from echovec.text.plan import Plan

_FEW_ROUNDS = 4
"""With so many chunks for each worker, one more or less is not worth a thought."""

_LARGE = 512
"""Tokens of a chunk whose products are large enough to be shared by several cores."""


class Forward(Protocol):
    """A chunk to vectors z_SD, in the chunk's order."""

    def __call__(self, chunk: Chunk, *, float32: bool = False) -> Tensor:
        """`float32`: compute in float32 whatever the model's dtype."""


def compute(
    forward: Forward,
    chunks: Sequence[Chunk],
    *,
    workers: int = 1,
    room: Room | None = None,
    show_progress_bar: bool | None = None,
) -> tuple[Tensor, NDArray[np.bool_]]:
    """Run planned chunks and restore the order.

    Args:
        forward: what to run.
        chunks: all chunks of one plan; they are laid while others run, and not kept.
        workers: how many chunks run at once; `forward` is then called from several threads.
        room: what earlier calls of `forward` taught about memory; by default nothing.
        show_progress_bar: True, False, or None: on a terminal, after half a second.

    Returns:
        float32 vectors z_ND on the CPU and whether each text was cut, in the order planned.

    Raises:
        InputError: chunks of the plan are missing, or there twice: a text would have no vector, or
            a part of one. Those of the last texts are missed only if a place after them is there.
        NonFiniteError: a row stays NaN or infinite; its `row` is the place that was planned.
    """
    heed_fork()
    num_texts, num_sequences = _counted(chunks)
    room = room or Room()
    vectors: Tensor | None = None
    truncated = np.zeros(num_texts, dtype=np.bool_)
    with (
        torch.inference_mode(),
        tqdm(
            total=num_sequences,
            unit=" texts" if num_sequences == num_texts else " windows",
            disable=None if show_progress_bar is None else not show_progress_bar,
            delay=0.5 if show_progress_bar is None else 0,
        ) as bar,
    ):
        for chunk, finite_SD in _all(forward, _shared_out(chunks, workers), workers, room):
            if vectors is None:
                vectors = finite_SD.new_zeros(num_texts, finite_SD.shape[1])
            order_S = torch.tensor(chunk[0].order_S)
            share_S = torch.tensor(chunk[0].share_S, dtype=torch.float32)
            vectors.index_add_(0, order_S, finite_SD * share_S[:, None])
            for batch in chunk:
                truncated[batch.order_S[batch.truncated_S]] = True
            bar.update(len(chunk[0]))
    assert vectors is not None, "a plan holds at least one chunk"
    return vectors, truncated


def _counted(chunks: Sequence[Chunk]) -> tuple[int, int]:
    """How many texts and sequences there are; a plan knows without laying its chunks."""
    if isinstance(chunks, Plan):
        return chunks.num_texts, chunks.num_sequences
    order_S = np.concatenate([chunk[0].order_S for chunk in chunks])
    parts_N = np.bincount(order_S, np.concatenate([chunk[0].share_S for chunk in chunks]))
    odd = np.flatnonzero(np.abs(parts_N - 1) > 1e-6)
    if len(odd):
        place, parts = int(odd[0]), parts_N[odd[0]]
        raise InputError(
            f"these chunks are not one whole plan: {len(odd):,} of {len(parts_N):,} texts are not "
            f"in them once, texts[{place}] {parts:.3g} times; give all chunks that `prepare` made, "
            "each once, or run single ones with `forward`",
            index=place,
        )
    return len(parts_N), len(order_S)


def _shared_out(chunks: Sequence[Chunk], workers: int) -> Sequence[Chunk]:
    """Few chunks cut into parts of like work, so that no worker waits long for the last."""
    if workers == 1 or len(chunks) > _FEW_ROUNDS * workers:
        return chunks
    parts = []
    for chunk in chunks:
        # Every n-th sequence: lengths descend, so the parts are alike.
        places = [np.arange(first, len(chunk[0]), workers) for first in range(workers)]
        parts += [tuple(batch.select(p) for batch in chunk) for p in places if len(p)]
    return parts


def _all(
    forward: Forward, chunks: Sequence[Chunk], workers: int, room: Room
) -> Iterator[tuple[Chunk, Tensor]]:
    """Every chunk, or its parts, with finite vectors on the CPU; in the chunks' order."""

    def run(planned: Chunk) -> list[tuple[Chunk, Tensor]]:
        with torch.inference_mode():  # a setting of each thread
            return [
                (chunk, _finite(forward, chunk, z_SD).float().cpu())
                for part in room.parts(planned)
                for chunk, z_SD in _fitting(forward, part, room)
            ]

    workers = min(workers, len(chunks))
    if workers == 1:
        for planned in chunks:
            yield from run(planned)
        return
    ahead: deque[Future[list[tuple[Chunk, Tensor]]]] = deque()
    together = _uneven(chunks, workers)
    # A core each; where chunks are fewer than cores, what would be idle is shared out.
    with sharing(workers, cores=max(1, torch.get_num_threads() // workers)) as pool:
        for planned in islice(chunks, len(chunks) - len(together)):
            ahead.append(pool.submit(run, planned))
            if len(ahead) > 2 * workers:  # enough that none waits for the next to be laid
                yield from ahead.popleft().result()
        while ahead:
            yield from ahead.popleft().result()
    if together:
        yield from _all(forward, together, workers, room)


def _uneven(chunks: Sequence[Chunk], workers: int) -> Sequence[Chunk]:
    """The last of few large chunks, which would leave cores idle: they get all of them."""
    if len(chunks) > _FEW_ROUNDS * workers:
        return ()
    last = [chunks[place] for place in range(len(chunks) - len(chunks) % workers, len(chunks))]
    return last if all(len(chunk[0].ids_T) >= _LARGE for chunk in last) else ()


def _fitting(forward: Forward, chunk: Chunk, room: Room) -> Iterator[tuple[Chunk, Tensor]]:
    """Run a chunk; if memory runs out, its halves, down to one text."""
    try:
        z_SD = forward(chunk)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error) or len(chunk[0]) == 1:
            raise
    else:
        room.went(chunk)
        yield chunk, z_SD
        return
    # Outside the handler, so that the failed call's tensors are free before the next try.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    room.ran_out(chunk)
    for half in halves(chunk):
        for part in room.parts(half):
            yield from _fitting(forward, part, room)


def _finite(forward: Forward, chunk: Chunk, z_SD: Tensor) -> Tensor:
    """The vectors, with non-finite rows computed again in float32."""
    bad = (~torch.isfinite(z_SD).all(dim=1)).nonzero()[:, 0]
    if not len(bad):
        return z_SD
    rows = bad.cpu().numpy()
    # What float32 has room for says nothing about the model's own dtype.
    wide = partial(forward, float32=True)
    fitted = _fitting(wide, tuple(batch.select(rows) for batch in chunk), Room())
    again = torch.cat([z_SD for _, z_SD in fitted])
    still = (~torch.isfinite(again).all(dim=1)).nonzero()[:, 0]
    if len(still):
        row = int(chunk[0].order_S[int(bad[still[0]])])
        raise NonFiniteError(
            f"the model gave NaN or infinity for texts[{row}], in float32 too; the weights may be "
            "broken: load the model again or check its files",
            row=row,
        )
    warnings.warn(
        f"{len(bad)} vectors were not finite in the model's dtype and were computed again in "
        "float32; load with precision='exact' to avoid this",
        PrecisionWarning,
        stacklevel=2,
    )
    return z_SD.index_copy(0, bad, again.to(z_SD.dtype))
