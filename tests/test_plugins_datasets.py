"""datasets: a column of vectors, kept by the recipe's fingerprint."""

from __future__ import annotations

import numpy as np
import pytest

datasets = pytest.importorskip("datasets")

from echovec.errors import InputError  # noqa: E402
from echovec.plugins.datasets import with_vectors  # noqa: E402
from plugins_stub import TEXTS, embedder  # noqa: E402


@pytest.fixture
def on_disk(tmp_path):
    """A data set that lies in a file, so that `map` keeps its results beside it."""
    datasets.Dataset.from_dict({"text": TEXTS, "n": [1, 2, 3]}).save_to_disk(tmp_path / "set")
    return datasets.load_from_disk(tmp_path / "set")


def test_the_column_holds_our_vectors(on_disk):
    """float32 of a fixed width, in order, beside the columns that were there."""
    model = embedder("echo-instruct")
    found = with_vectors(on_disk, model, role="query", instruction="Find it", batch_size=2)
    assert found.column_names == ["text", "n", "vector"]
    assert found.features["vector"] == datasets.List(datasets.Value("float32"), length=32)
    expected = model.encode_query(TEXTS, instruction="Find it")
    vectors = found.with_format("numpy")["vector"][:]
    np.testing.assert_allclose(vectors, expected, atol=1e-5)


def test_the_same_recipe_is_embedded_once(on_disk):
    """A second call reads what the first wrote; another recipe or role embeds again."""
    calls = []
    for recipe, role in (("echo", None), ("echo", None), ("echo", "query"), ("classical", None)):
        model = embedder(recipe)
        encode = model.encode
        model.encode = lambda texts, encode=encode, **options: (
            calls.append(len(texts)) or encode(texts, **options)
        )
        with_vectors(on_disk, model, role=role)
    assert calls == [3, 3, 3]


def test_another_column_or_instruction_is_embedded_anew(on_disk, tmp_path):
    """What an earlier call kept is not given back for other texts, or for another question."""
    rows = on_disk.add_column("title", TEXTS[::-1])
    rows.save_to_disk(tmp_path / "wide")
    rows = datasets.load_from_disk(tmp_path / "wide")
    model = embedder("echo-instruct")
    for column, texts in (("text", TEXTS), ("title", TEXTS[::-1])):
        for instruction in ("Find it", "Sort it"):
            options = {"role": "query", "instruction": instruction}
            found = with_vectors(rows, model, column=column, **options)
            expected = model.encode(texts, **options)
            np.testing.assert_allclose(found["vector"][:], expected, atol=1e-5)


def test_a_stream_is_embedded_as_it_is_read(on_disk):
    """An iterable data set gives rows with vectors, and nothing is computed before."""
    stream = with_vectors(on_disk.to_iterable_dataset(), embedder(), to="v", batch_size=2)
    rows = list(stream)
    np.testing.assert_allclose([row["v"] for row in rows], embedder().encode(TEXTS), atol=1e-5)


def test_a_set_without_rows_has_the_column_too(on_disk):
    """No texts, no vectors: the column is there, of the same width."""
    for empty in (datasets.Dataset.from_dict({"text": []}), on_disk.select([])):
        found = with_vectors(empty, embedder())
        assert len(found) == 0
        assert found.features["vector"] == datasets.List(datasets.Value("float32"), length=32)


def test_a_bad_text_is_named_by_its_row():
    """The error has the row of the data set, whatever batch it is in; a stream's as well."""
    rows = datasets.Dataset.from_dict({"text": ["a", "b", "c", "d", None]})
    for given in (rows, rows.to_iterable_dataset()):
        with pytest.raises(InputError, match=r"^text\[4\] is NoneType") as caught:
            list(with_vectors(given, embedder(), batch_size=2))
        assert caught.value.index == 4


def test_columns_are_checked_first(on_disk):
    """A missing column, or a new one that is there already, before anything is embedded."""
    with pytest.raises(InputError, match="no column 'words', only text, n"):
        with_vectors(on_disk, embedder(), column="words")
    with pytest.raises(InputError, match="'n' already"):
        with_vectors(on_disk, embedder(), to="n")
