"""scikit-learn: its own checks of estimators, and a transformer's life in pipelines."""

from __future__ import annotations

import copy
import pickle
import warnings

import numpy as np
import pytest

pytest.importorskip("sklearn")

import joblib
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import SkipTestWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.validation import check_is_fitted, validate_data

from echovec.embedder import Embedder
from echovec.errors import InputError
from echovec.plugins.handle import FIELDS
from echovec.plugins.sklearn import EchovecTransformer, texts_of
from plugins_stub import TEXTS, embedder, norms, saved

TWICE = TEXTS * 2


def test_vectors_are_those_of_the_embedder():
    """Unit vectors in the role asked for, with or without fit."""
    model = embedder("echo-instruct")
    made = EchovecTransformer(model, role="query", instruction="Find it")
    expected = model.encode_query(TEXTS, instruction="Find it")
    np.testing.assert_allclose(made.transform(TEXTS), expected, atol=1e-6)
    np.testing.assert_allclose(made.fit_transform(TEXTS), expected, atol=1e-6)
    assert norms(made.transform(TEXTS)) == {1.0}
    assert made.n_features_out_ == 32


def test_a_clone_shares_the_model():
    """Cloning copies parameters, never a model in memory; output settings stay."""
    model = embedder()
    made = EchovecTransformer(model, role="query").set_output(transform="pandas")
    copied = clone(made)
    assert copied is not made
    assert copied.model is model
    assert copied.get_params() == made.get_params()
    assert list(copied.fit_transform(TEXTS).columns[:2]) == [
        "echovectransformer0",
        "echovectransformer1",
    ]


def test_a_pickle_holds_no_weights(tmp_path):
    """Fitted and pickled it is small, and gives the same vectors."""
    made = EchovecTransformer(saved(tmp_path)).fit(TEXTS)
    written = pickle.dumps(made)
    assert len(written) < 2000
    assert np.array_equal(pickle.loads(written).transform(TEXTS), made.transform(TEXTS))


def test_a_shallow_copy_shares_an_embedder_in_memory():
    """Only a pickle needs a name to load; a copy in memory does not."""
    made = EchovecTransformer(embedder(), role="query").set_output(transform="pandas")
    copied = copy.copy(made)
    assert copied.model is made.model
    assert copied.transform(TEXTS).equals(made.transform(TEXTS))
    copied.set_params(role=None)
    assert made.role == "query"


def test_a_loaded_embedder_goes_to_other_processes(tmp_path):
    """Written by joblib and sent to the workers of a search, it gives the same vectors."""
    made = EchovecTransformer(Embedder.load(saved(tmp_path)))
    joblib.dump(made, tmp_path / "made.joblib")
    arrived = joblib.load(tmp_path / "made.joblib")
    assert np.array_equal(arrived.transform(TEXTS), made.transform(TEXTS))
    assert np.array_equal(clone(arrived).transform(TEXTS), made.transform(TEXTS))
    (there,) = joblib.Parallel(n_jobs=2)([joblib.delayed(made.transform)(TEXTS)])
    assert np.array_equal(there, made.transform(TEXTS))


def test_an_embedder_in_memory_is_not_pickled():
    """What has no name is refused with what to do, as by every plugin."""
    with pytest.raises(InputError, match=r"embedder.save\(folder\)"):
        pickle.dumps(EchovecTransformer(embedder()))


def test_a_pipeline_learns_and_searches_over_recipes(tmp_path):
    """Texts to labels, and a grid search over the recipe as over any parameter."""
    pipeline = make_pipeline(EchovecTransformer(saved(tmp_path)), LogisticRegression())
    labels = ["animal", "place", "thing"] * 2
    assert list(pipeline.fit(TWICE, labels).predict(TEXTS)) == labels[:3]
    grid = {"echovectransformer__recipe": ["echo", "classical"]}
    search = GridSearchCV(pipeline, grid, cv=2, error_score="raise").fit(TWICE, labels)
    assert search.best_params_["echovectransformer__recipe"] in ("echo", "classical")


def test_a_column_of_a_table(tmp_path):
    """One column of a frame, by ColumnTransformer."""
    frame = pytest.importorskip("pandas").DataFrame({"words": TEXTS, "number": [1, 2, 3]})
    columns = ColumnTransformer(
        [("text", EchovecTransformer(embedder()), "words")], remainder="passthrough"
    )
    assert columns.fit_transform(frame).shape == (3, 33)


def test_what_is_not_texts_is_named():
    """A single text, several columns, and a number where a text should be."""
    assert texts_of(np.array([["a"], ["b"]], dtype=object)) == ["a", "b"]
    for wrong, message in (("a text", "single text"), (np.ones((2, 2)), r"\(2, 2\)")):
        with pytest.raises(InputError, match=message):
            texts_of(wrong)
    with pytest.raises(InputError, match=r"X\[1\] is int"):
        texts_of(["a", 1])


# scikit-learn's own checks. Of an estimator of strings they are those of the interface alone; the
# others need tables of numbers. So all of them also run on a stand-in that reads rows of numbers as
# texts: nothing but the kind of input keeps them from the transformer itself.


class OfNumbers(EchovecTransformer):
    """The transformer of rows of numbers, written as texts."""

    def fit(self, X, y=None):
        return super().fit(self._written(X, reset=True), y)

    def transform(self, X):
        check_is_fitted(self)
        return super().transform(self._written(X, reset=False))

    def _written(self, X, *, reset):
        X = validate_data(self, X, reset=reset, dtype="numeric")
        return [" ".join(f"{number:.1f}" for number in row) for row in X.astype(float)]

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.string = False
        tags.input_tags.two_d_array = True
        tags.requires_fit = True
        return tags


# The folder is named from where the tests stand, so that their names are the same in every run.
with warnings.catch_warnings():  # that only the interface's checks are for strings
    warnings.simplefilter("ignore", SkipTestWarning)
    every_check = parametrize_with_checks([EchovecTransformer("./echo"), OfNumbers("./echo")])


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a saved embedder named echo."""
    folder = tmp_path_factory.mktemp("home")
    saved(folder)
    return folder


@every_check
def test_scikit_learns_own_checks(estimator, check, home, monkeypatch):
    """Every check of scikit-learn that applies; none is expected to fail.

    Two compare a row in one batch with the same row in another, to 1e-9 and 1e-7. A float32 product
    may round by its number of rows, a sum by its number of places, so there our promise counts.
    """
    monkeypatch.chdir(home)
    compare = estimator_checks.assert_allclose_dense_sparse

    def promised(x, y, *, err_msg="", **_):
        compare(x, y, atol=1e-5, err_msg=err_msg)

    if "invariance" in check.func.__name__:
        monkeypatch.setattr(estimator_checks, "assert_allclose_dense_sparse", promised)
        monkeypatch.setattr(estimator_checks, "assert_allclose", promised)
    check(estimator)


def test_every_option_reaches_the_embedder():
    """What is to be loaded is what was said, none of it left out."""
    said = dict(zip(FIELDS, ("m", "r", "cpu", "exact", 9), strict=True))
    assert EchovecTransformer(**said)._handle().names() == said


def test_a_parameter_that_changes_changes_the_vectors():
    """`set_params` after a call is heeded: a grid of recipes is no repetition of the first."""
    made = EchovecTransformer(embedder("echo"))
    made.fit_transform(TEXTS)
    made.set_params(model=embedder("classical"))
    expected = embedder("classical").encode(TEXTS)
    np.testing.assert_allclose(made.transform(TEXTS), expected, atol=1e-6)
