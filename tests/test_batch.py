"""Batches: every text once, lengths sorted, budgets kept, spans still exact."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from echovec.text.drafts import Rendered
from echovec.text.plan import plan
from laid import Made, lay


def rendered(length, place=0, start=0):
    ids = np.arange(start, start + length, dtype=np.int64)
    spans = ((length // 2, length), (0, length // 3 + 1))
    return Rendered(ids, spans, length // 2, length > 50, place=place)


lengths = st.lists(st.integers(1, 80), min_size=1, max_size=40)


@given(lengths, st.integers(1, 300), st.none() | st.integers(1, 7))
def test_a_plan_holds_every_text_once_within_its_budgets(sizes, batch_tokens, batch_size):
    """Each text is in one batch, batches keep their budgets, spans point at the tokens."""
    texts = [rendered(n, i, start=1000 * i) for i, n in enumerate(sizes)]
    batches = [
        batch for (batch,) in plan([Made(texts)], batch_tokens=batch_tokens, batch_size=batch_size)
    ]
    order = np.concatenate([b.order_S for b in batches])
    assert sorted(order.tolist()) == list(range(len(sizes)))
    in_order = np.concatenate([b.lengths_S for b in batches])
    assert (np.diff(in_order) <= 0).all()
    for batch in batches:
        assert len(batch) == 1 or len(batch) * batch.lengths_S.max() <= batch_tokens
        assert batch_size is None or len(batch) <= batch_size
        for s, place in enumerate(batch.order_S):
            text = texts[place]
            a, b = batch.offsets_S1[s : s + 2]
            assert np.array_equal(batch.ids_T[a:b], text.ids)
            for (start, stop), span in zip(batch.spans_SK2[s], text.spans, strict=True):
                assert np.array_equal(batch.ids_T[start:stop], text.ids[slice(*span)])
            assert batch.truncated_S[s] == text.truncated
            assert np.array_equal(batch.positions_T[a:b], np.arange(b - a))


@given(lengths, lengths, st.integers(1, 300))
def test_the_passes_of_a_chunk_hold_the_same_texts(sizes, others, batch_tokens):
    """Each batch of a chunk has the same texts in the same order, and each keeps the budget."""
    count = min(len(sizes), len(others))
    passes = [
        [rendered(n, i) for i, n in enumerate(sizes[:count])],
        [rendered(n, i) for i, n in enumerate(others[:count])],
    ]
    chunks = plan([Made(one) for one in passes], batch_tokens=batch_tokens)
    assert sum(len(first) for first, _ in chunks) == count
    for first, second in chunks:
        assert first.order_S.tolist() == second.order_S.tolist()
        for batch in (first, second):
            assert len(batch) == 1 or len(batch) * batch.lengths_S.max() <= batch_tokens


@given(lengths)
def test_pooled_rows_are_the_union_of_all_spans(sizes):
    """`pooled` lists every pooled token once, ascending, and spans in it are the same tokens."""
    batch = lay([rendered(n, i, 1000 * i) for i, n in enumerate(sizes)])
    rows_P, spans_SK2 = batch.pooled
    naive = sorted(
        {t for start, stop in batch.spans_SK2.reshape(-1, 2) for t in range(start, stop)}
    )
    assert rows_P.tolist() == naive
    assert rows_P.dtype == np.int64
    for in_T, in_P in zip(batch.spans_SK2.reshape(-1, 2), spans_SK2.reshape(-1, 2), strict=True):
        assert rows_P[slice(*in_P)].tolist() == list(range(*in_T))


@given(lengths, st.data())
def test_selected_rows_are_the_same_rows(sizes, data):
    """Any rows in any order form a batch whose ids, spans and places are those rows'."""
    batch = lay([rendered(n, i, 1000 * i) for i, n in enumerate(sizes)])
    rows = data.draw(st.lists(st.integers(0, len(sizes) - 1), min_size=1, max_size=10))
    chosen = batch.select(rows)
    assert chosen.order_S.tolist() == rows
    for s, row in enumerate(rows):
        a, b = chosen.offsets_S1[s : s + 2]
        c, d = batch.offsets_S1[row : row + 2]
        assert np.array_equal(chosen.ids_T[a:b], batch.ids_T[c:d])
        assert (chosen.spans_SK2[s] - a).tolist() == (batch.spans_SK2[row] - c).tolist()


def test_halves_are_the_whole():
    """Two halves hold the sequences of the batch in order."""
    batch = lay([rendered(n, place) for n, place in ((5, 2), (4, 0), (3, 1))])
    first, second = batch.halves()
    assert first.order_S.tolist() + second.order_S.tolist() == [2, 0, 1]
    assert len(first) == 1
    assert len(second) == 2
