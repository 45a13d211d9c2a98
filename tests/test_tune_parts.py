"""The arithmetic of tuning: development data, kept states, scores, and the ledger."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score, ndcg_score

from echovec import Embedder, InputError, StorageError
from echovec.calibrate import Writing
from echovec.evaluate import layout
from echovec.evaluate.interval import replicates
from echovec.presets import recipe_of
from echovec.text.presets import TEMPLATES
from echovec.tune.dev import CATEGORIES, DevData, DevTask
from echovec.tune.ledger import Clock, Ledger
from echovec.tune.parts import Part, Sum, Vectors
from echovec.tune.plan import Plan
from echovec.tune.run import _scored_on
from echovec.tune.samples import halves, read_dev
from echovec.tune.score import items, mean_replicates, ndcg, score
from echovec.tune.space import NONE, PROMPTS, Method, prompts_of, step
from echovec.tune.states import KeptStates
from echovec.tune.texts import texts_for
from echovec.vector.spectrum import embed_filter
from families import causal_model, family_tokenizer, sentences

TEXTS = sentences(120)


def unit(rows, dim=6, seed=0):
    z_ND = np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)
    return z_ND / np.linalg.norm(z_ND, axis=1, keepdims=True)


def write_lines(file, rows):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


@pytest.fixture
def embedder():
    """A tiny llama with random weights."""
    model = causal_model("llama").eval()
    return Embedder.from_model(model, family_tokenizer("llama"), "echo", engine="plain")


# -- development data -------------------------------------------------------------------------


def test_a_task_of_a_test_split_cannot_be_made():
    """The guard: nothing may be chosen on test data, whoever asks."""
    with pytest.raises(InputError, match="nothing may be chosen on the split 'test'"):
        DevTask("Any", "STS", "test", {}, {})
    assert DevTask("Any", "STS", "validation", {}, {}).split == "validation"


PAIRS = [{"sentence1": TEXTS[i], "sentence2": TEXTS[i + 1], "score": float(i)} for i in range(20)]


def test_files_of_test_splits_are_never_opened(tmp_path):
    """A set with a broken test file and a good validation file is read without a word."""
    rows = [
        {"sentence1": TEXTS[i], "sentence2": TEXTS[i + 1], "score": float(i)} for i in range(20)
    ]
    write_lines(tmp_path / "Pairs" / "validation.jsonl", rows)
    (tmp_path / "Pairs" / "test.jsonl").write_text("not json", "utf-8")
    write_lines(tmp_path / "OnlyTest" / "test.jsonl", rows)
    found = read_dev(tmp_path)
    assert [task.name for task in found.tasks] == ["Pairs"]
    assert found.left_out == {"OnlyTest": "it has test data only"}


def test_every_file_is_read_once(tmp_path, monkeypatch):
    """Whole, that is: of a set of lines the first one is looked at before."""
    write_lines(tmp_path / "Pairs" / "dev.jsonl", PAIRS)
    write_lines(tmp_path / "E/corpus.jsonl", [{"_id": str(i), "text": TEXTS[i]} for i in range(9)])
    write_lines(tmp_path / "E/queries_dev.jsonl", [{"_id": str(i), "text": "q"} for i in range(9)])
    judged = "".join(f"{i}\t{i}\t1\n" for i in range(9))
    (tmp_path / "E" / "qrels_dev.tsv").write_text(judged, "utf-8")
    read = Counter()
    lines = layout._lines

    def counting(file):
        for number, line in lines(file):
            read[file.name] += 1
            yield number, line

    monkeypatch.setattr(layout, "_lines", counting)
    assert len(read_dev(tmp_path).tasks) == 2
    assert read == {
        "dev.jsonl": 1 + len(PAIRS),
        "corpus.jsonl": 9,
        "queries_dev.jsonl": 9,
        "qrels_dev.tsv": 9,
    }


def test_validation_is_preferred_to_train(tmp_path):
    """Of several development splits the one made for choosing is taken."""
    for split, first in (("train", 0), ("validation", 30)):
        rows = [
            {"sentence1": TEXTS[first + i], "sentence2": TEXTS[first + i + 1], "score": float(i)}
            for i in range(12)
        ]
        write_lines(tmp_path / "Pairs" / f"{split}.jsonl", rows)
    found = read_dev(tmp_path)
    assert found.tasks[0].split == "validation"
    assert set(found.texts) == set(TEXTS[30:43])


def test_every_layout_becomes_its_task(tmp_path):
    """Pairs with scores or labels, labelled texts, triplets and corpora are all recognised."""
    pair = [{"sentence1": TEXTS[i], "sentence2": TEXTS[i + 1]} for i in range(20)]
    write_lines(tmp_path / "A" / "validation.jsonl", [p | {"score": i} for i, p in enumerate(pair)])
    write_lines(tmp_path / "B" / "train.jsonl", [p | {"label": i % 2} for i, p in enumerate(pair)])
    labelled = [{"text": f"{t} {i}", "label": i % 30} for i, t in enumerate(TEXTS * 4)]
    write_lines(tmp_path / "C" / "train.jsonl", labelled)
    triplets = [{"query": TEXTS[i], "positive": TEXTS[i + 40]} for i in range(30)]
    write_lines(tmp_path / "D" / "train.jsonl", triplets)
    write_lines(
        tmp_path / "E" / "corpus.jsonl", [{"_id": str(i), "text": t} for i, t in enumerate(TEXTS)]
    )
    write_lines(
        tmp_path / "E" / "queries_train.jsonl",
        [{"_id": f"q{i}", "text": f"about {t}"} for i, t in enumerate(TEXTS[:12])],
    )
    (tmp_path / "E" / "qrels_train.tsv").write_text(
        "query-id\tcorpus-id\tscore\n" + "".join(f"q{i}\t{i}\t1\n" for i in range(12)), "utf-8"
    )
    found = read_dev(tmp_path)
    kinds = {task.name: task.category for task in found.tasks}
    assert kinds == {
        "A": "STS",
        "B": "PairClassification",
        "C": "Classification",
        "C clustered": "Clustering",
        "D": "Retrieval",
        "E": "Retrieval",
    }
    assert set(kinds.values()) == set(CATEGORIES)
    assert len(found.texts) == len(set(found.texts))
    task = next(t for t in found.tasks if t.name == "C")
    assert not set(task.rows["learn"]) & set(task.rows["ask"])
    assert read_dev(tmp_path, seed=1).texts != found.texts
    assert read_dev(tmp_path).texts == found.texts


def test_texts_that_share_a_text_are_clusters(tmp_path):
    """Queries of one positive, and positives of one query; a text of two groups is in none."""
    rows = [{"query": f"{TEXTS[i]} {i}", "positive": f"passage {i // 6}"} for i in range(36)] + [
        {"query": f"{TEXTS[0]} 0", "positive": "passage 5"}
    ]
    write_lines(tmp_path / "D" / "train.jsonl", rows)
    other = [{"query": row["positive"], "positive": row["query"]} for row in rows]
    write_lines(tmp_path / "E" / "train.jsonl", other)
    found = read_dev(tmp_path)
    tasks = {task.name: task for task in found.tasks if task.category == "Clustering"}
    assert set(tasks) == {"D, query by positive", "E, positive by query"}
    for task in tasks.values():
        by_label = {}
        for place, label in zip(task.rows["all"], task.gold["label"], strict=True):
            by_label.setdefault(label, set()).add(found.texts[place])
        wanted = [{f"{TEXTS[i]} {i}" for i in range(36) if i // 6 == n} for n in range(6)]
        wanted[0] -= {f"{TEXTS[0]} 0"}
        assert sorted(map(sorted, by_label.values())) == sorted(map(sorted, wanted))


def test_a_broken_line_is_named(tmp_path):
    """File and line stand in the message."""
    (tmp_path / "A").mkdir()
    (tmp_path / "A" / "train.jsonl").write_text('{"text": "a", "label": 1}\n{broken\n', "utf-8")
    with pytest.raises(InputError, match=r"train\.jsonl, line 2: is not JSON"):
        read_dev(tmp_path)
    with pytest.raises(InputError, match="not a folder"):
        read_dev(tmp_path / "none")


PAIR = {"sentence1": "a", "sentence2": "b", "score": 1}


@pytest.mark.parametrize(
    ("good", "wrong", "why"),
    [
        (PAIR, {"score": None}, "'score' is None, not a number"),
        (PAIR, {"score": "high"}, "'score' is 'high', not a number"),
        (PAIR, {"score": float("nan")}, "'score' is nan"),
        ({"text": "a", "label": 1}, {"label": [1]}, "'label' is \\[1\\], not a label"),
        ({"query": "a", "positive": "b"}, {"positive": None}, "'positive' is NoneType"),
    ],
    ids=["no-score", "text", "nan", "label", "positive"],
)
def test_a_line_that_cannot_be_used_is_named(tmp_path, good, wrong, why):
    """A value of another kind further down is an error with file and line, as in `eval`."""
    write_lines(tmp_path / "A" / "dev.jsonl", [good, good | wrong])
    with pytest.raises(InputError, match=rf"dev\.jsonl, line 2: {why}"):
        read_dev(tmp_path)


def test_a_corpus_is_read_as_by_eval(tmp_path):
    """Judgements that are no whole numbers and documents that are no texts name their line."""
    documents = [{"_id": str(i), "text": text} for i, text in enumerate(TEXTS[:20])]
    write_lines(tmp_path / "E/corpus.jsonl", documents)
    write_lines(tmp_path / "E/queries_dev.jsonl", [{"_id": "q", "text": "about"}])
    (tmp_path / "E/qrels_dev.tsv").write_text("q\t1\t1.0\n", "utf-8")
    with pytest.raises(InputError, match=r"qrels_dev\.tsv, line 1: needs query-id"):
        read_dev(tmp_path)
    (tmp_path / "E/qrels_dev.tsv").write_text("q\t1\t1\n", "utf-8")
    with pytest.raises(InputError, match=r"no development data.*; E: too few judged queries"):
        read_dev(tmp_path)
    write_lines(tmp_path / "E/corpus.jsonl", [*documents, {"_id": "n", "text": 5}])
    with pytest.raises(InputError, match=r"corpus\.jsonl, line 21: 'text' is int"):
        read_dev(tmp_path)


def test_what_is_learnt_from_is_never_asked(tmp_path):
    """A text that stands in both files is learnt from only: finding itself is no classification."""
    rows = [{"text": TEXTS[i], "label": i % 2} for i in range(80)]
    write_lines(tmp_path / "C/train.jsonl", rows)
    write_lines(tmp_path / "C/validation.jsonl", rows)
    (task,) = read_dev(tmp_path).tasks
    assert len(task.rows["ask"]) > 4
    assert not set(task.rows["ask"]) & set(task.rows["learn"])


def test_what_would_answer_unnoticed_is_not_among_the_others(tmp_path):
    """Neither other positives of a query that is asked, nor other documents that were judged."""
    rows = [{"query": f"q{i % 90}", "positive": f"passage {i}"} for i in range(180)]
    write_lines(tmp_path / "D/dev.jsonl", rows)
    documents = [{"_id": str(i), "text": f"document {i}"} for i in range(300)]
    write_lines(tmp_path / "E/corpus.jsonl", documents)
    queries = [{"_id": f"q{i}", "text": f"about {i}"} for i in range(90)]
    write_lines(tmp_path / "E/queries_dev.jsonl", queries)
    judged = [f"q{i}\t{i}\t1\nq{i}\t{i + 100}\t0\n" for i in range(90)]
    (tmp_path / "E/qrels_dev.tsv").write_text("".join(judged), "utf-8")
    found = read_dev(tmp_path)
    by_name = {task.name: task for task in found.tasks}
    task = by_name["D"]
    asked = {found.texts[i] for i in task.rows["queries"]}
    assert len(asked) < 90
    right_QN = task.gold["grade"] > 0
    for column, document in enumerate(task.rows["documents"]):
        number = int(found.texts[document].split()[-1])
        if f"q{number % 90}" in asked:
            assert right_QN[:, column].any()
    task = by_name["E"]
    numbers = {int(found.texts[i].split()[-1]) for i in task.rows["documents"]}
    asked = {int(found.texts[i].split()[-1]) for i in task.rows["queries"]}
    assert len(asked) < 90
    assert {n for n in numbers if n < 90} == asked
    assert not {n for n in numbers if 100 <= n < 190}
    assert len(numbers) > len(asked)


@pytest.mark.parametrize("share", [1.0, 0.5, 0.1])
def test_a_sample_is_a_share_of_the_usual_one(tmp_path, share):
    """500 pairs of short texts; and of texts of any length no more than 70,000 characters."""
    for name, more in (("Short", ""), ("Long", "x" * 2_000)):
        rows = [
            {"sentence1": f"a{i} {more}", "sentence2": f"b{i} {more}", "score": i}
            for i in range(700)
        ]
        write_lines(tmp_path / name / "dev.jsonl", rows)
    found = {task.name: len(task.rows["first"]) for task in read_dev(tmp_path, share=share).tasks}
    assert found == {"Short": 500 * share, "Long": max(8, int(share * 70_000 / 1_600))}


def test_sets_are_drawn_apart(tmp_path):
    """Two sets of the same lines give other samples, so that they are not one drawn twice."""
    rows = [{"sentence1": f"a{i}", "sentence2": f"b{i}", "score": i} for i in range(900)]
    for name in "AB":
        write_lines(tmp_path / name / "dev.jsonl", rows)
    one, other = read_dev(tmp_path).tasks
    assert set(one.gold["score"]) != set(other.gold["score"])


def test_an_empty_negative_is_none(tmp_path):
    """What could not be embedded is no text to choose by."""
    rows = [{"query": TEXTS[i], "positive": TEXTS[i + 20], "negative": ""} for i in range(12)]
    write_lines(tmp_path / "D/dev.jsonl", rows)
    assert "" not in read_dev(tmp_path).texts


def test_a_single_folder_is_a_set(tmp_path):
    """The folder that is given may be a set itself, as in `eval`."""
    write_lines(tmp_path / "dev.jsonl", [PAIR | {"score": i} for i in range(9)])
    (task,) = read_dev(tmp_path).tasks
    assert (task.name, task.split) == (tmp_path.name, "dev")


def test_halves_find_each_other():
    """Each first half's answer is its own second half; short texts are counted as left out."""
    texts = [f"{t} and here is some more of it for the count {i}" for i, t in enumerate(TEXTS[:15])]
    found = halves([*texts, "too short"])
    (task,) = found.tasks
    for query, row in zip(task.rows["queries"], task.gold["grade"], strict=True):
        answer = found.texts[task.rows["documents"][row.argmax()]]
        assert f"{found.texts[query]} {answer}" in texts
    assert found.left_out == {"texts too short to be halved": "1 of 16"}
    with pytest.raises(InputError, match="give --data"):
        halves(["too short"] * 20)


def test_a_script_without_spaces_is_halved_too():
    """Cut in the middle where there is no space; the halves join to the text."""
    texts = [f"{i}{'吾輩は猫である名前はまだ無い' * 2}{i}" for i in range(12)]
    found = halves(texts)
    (task,) = found.tasks
    first, second = task.rows["queries"][0], task.rows["documents"][0]
    assert found.texts[first] + found.texts[second] == texts[0]


# -- scores -----------------------------------------------------------------------------------


def test_ndcg_equals_scikit_learns():
    """On distinct scores our nDCG at 10 is the library's; shuffled gains are not (control)."""
    source = np.random.default_rng(0)
    likeness = source.normal(size=(12, 40))
    grade = source.integers(0, 3, size=(12, 40))
    own = ndcg(likeness, grade)
    twin = [ndcg_score(g[None], s[None], k=10) for g, s in zip(grade, likeness, strict=True)]
    np.testing.assert_allclose(own, twin, atol=1e-12)
    assert np.abs(own - ndcg(likeness, np.roll(grade, 1, axis=1))).max() > 0.1


def test_scores_equal_the_libraries():
    """STS is scipy's Spearman, pairs are scikit-learn's average precision, x 100."""
    z_ND = unit(40)
    first, second = np.arange(20), np.arange(20, 40)
    gold = np.random.default_rng(1).random(20)
    cosines = [float(z_ND[i] @ z_ND[j]) for i, j in zip(first, second, strict=True)]
    rows = {"first": first, "second": second}
    sts = DevTask("a", "STS", "dev", rows, {"score": gold})
    pairs = DevTask("b", "PairClassification", "dev", rows, {"score": (gold > 0.5).astype(float)})
    found = score([sts, pairs], z_ND)
    assert found.tasks["a"] == pytest.approx(100 * spearmanr(cosines, gold).statistic)
    assert found.tasks["b"] == pytest.approx(100 * average_precision_score(gold > 0.5, cosines))
    assert found.mean == pytest.approx((found.tasks["a"] + found.tasks["b"]) / 2)
    assert score([sts], unit(40, seed=5)).tasks["a"] != pytest.approx(found.tasks["a"])


def test_classification_takes_the_nearest_mean():
    """Each asked text gets the label whose learnt texts' mean is nearest: a naive loop agrees."""
    z_ND = unit(60, seed=3)
    labels = np.array([str(i % 4) for i in range(60)])
    rows = {"learn": np.arange(32), "ask": np.arange(32, 60)}
    gold = {"learn": labels[:32], "ask": labels[32:]}
    task = DevTask("c", "Classification", "train", rows, gold)
    means = {name: z_ND[:32][labels[:32] == name].mean(axis=0) for name in "0123"}
    right = [
        min(means, key=lambda name: float(np.linalg.norm(means[name] - z_ND[i]))) == labels[i]
        for i in range(32, 60)
    ]
    np.testing.assert_array_equal(items(task, z_ND)["values"], np.array(right, dtype=float))


def test_clusters_that_are_apart_are_found():
    """Texts in three tight clusters score 100; random labels do not (control)."""
    centre = np.eye(6, dtype=np.float32)[np.arange(30) % 3]
    z_ND = centre + 0.01 * unit(30)
    rows = {"all": np.arange(30)}
    task = DevTask("d", "Clustering", "train", rows, {"label": np.arange(30) % 3})
    other = DevTask("d", "Clustering", "train", rows, {"label": np.arange(30) // 10})
    assert score([task], z_ND).mean == pytest.approx(100)
    assert score([other], z_ND).mean < 50


def test_draws_are_paired():
    """The replicates of the same vectors are the same, so a recipe gains nothing over itself."""
    task = DevTask(
        "a",
        "STS",
        "dev",
        {"first": np.arange(20), "second": np.arange(20, 40)},
        {"score": np.arange(20.0)},
    )
    own, again = mean_replicates([task], unit(40)), mean_replicates([task], unit(40))
    np.testing.assert_array_equal(own, again)
    assert own.std() > 0


def test_runs_of_a_clustering_are_one_sample():
    """Three clusterings of the same texts are resampled together: a mean of them is no surer."""
    rows = {"all": np.arange(60)}
    centre = np.eye(6, dtype=np.float32)[np.arange(60) % 6]
    task = DevTask("d", "Clustering", "train", rows, {"label": np.arange(60) % 6})
    own = items(task, centre + 0.4 * unit(60))
    draws = [replicates(part, resamples=100) for part in own["parts"]]
    np.testing.assert_allclose(replicates(own, resamples=100), np.mean(draws, axis=0))


# -- states and parts -------------------------------------------------------------------------


def ran(kept, calibration, dev):
    return sum(work() for work in [*kept.calibrate_on(calibration), *kept.choose_on(dev)])


def test_kept_states_are_the_recipes_states(embedder, tmp_path):
    """Any view at any layer, from the kept states, is what a recipe computes from the texts."""
    prompt = PROMPTS["echo-eol"]
    kept = KeptStates(embedder, prompt, tmp_path, max_tokens=128)
    assert ran(kept, TEXTS[:40], TEXTS[40:60]) > 0
    for read, view in prompt.views.items():
        for layers in ((1,), (1, 2)):
            layer = layers[0] if len(layers) == 1 else layers
            recipe = recipe_of("one", replace(view, layer=layer), max_tokens=128)
            own = embedder.with_recipe(recipe)
            exact = own.encode(TEXTS[:40], normalize_embeddings=False)
            np.testing.assert_allclose(kept.calibration(read, layers), exact, atol=2e-5)
            near = own.encode(TEXTS[40:60], normalize_embeddings=False)
            assert np.abs(kept.dev(read, layers) - near).max() < 2e-3 * np.abs(near).max()
            wrong = kept.dev(read, (2,) if layers == (1,) else (1,))
            assert np.abs(wrong - near).max() > 2e-2 * np.abs(near).max()


def test_kept_states_are_not_computed_again(embedder, tmp_path):
    """A second run computes nothing; a block that was cut off is computed again."""
    prompt = PROMPTS["prompt-eol"]
    assert ran(KeptStates(embedder, prompt, tmp_path, max_tokens=128), TEXTS[:9], TEXTS[9:20]) > 0
    again = KeptStates(embedder, prompt, tmp_path, max_tokens=128)
    assert ran(again, TEXTS[:9], TEXTS[9:20]) == 0
    before = again.dev("word", (1,))
    (block,) = [f for f in tmp_path.rglob("*.npy") if np.load(f).dtype == np.float16]
    block.write_bytes(block.read_bytes()[:100])
    once_more = KeptStates(embedder, prompt, tmp_path, max_tokens=128)
    assert ran(once_more, TEXTS[:9], TEXTS[9:20]) > 0
    np.testing.assert_array_equal(once_more.dev("word", (1,)), before)


def test_other_texts_to_calibrate_on_do_not_spoil_what_is_kept(embedder, tmp_path):
    """Texts to choose by are kept as distances from the calibration's mean, so under its name."""
    prompt = PROMPTS["prompt-eol"]
    found = []
    for calibration in (TEXTS[:12], TEXTS[60:100]):
        kept = KeptStates(embedder, prompt, tmp_path, max_tokens=128)
        assert ran(kept, calibration, TEXTS[20:30]) > 0
        found.append((kept.calibration("copy", (1,)).mean(axis=0), kept.dev("copy", (1,))))
    (mean, first), (other, second) = found
    largest = np.abs(first).max()
    assert np.abs(first - second).max() < 2e-3 * largest
    assert np.abs(mean - other).max() > 2e-2 * largest


def test_nothing_is_fitted_on_texts_to_choose_by(embedder, tmp_path):
    """Calibrations of views and of the whole are of the calibration texts alone."""
    kept = {"classical": KeptStates(embedder, PROMPTS["classical"], tmp_path, max_tokens=128)}
    ran(kept["classical"], TEXTS[:60], TEXTS[60:90])
    table_VD = np.random.default_rng(0).normal(size=(50, embedder.dimension))
    vectors = Vectors(kept, lambda: table_VD)
    scaled = Part("classical", "mean", (2,), Method((step("center-scale"),)))
    filtered = Part("classical", "mean", (2,), Method((step("center"),), window=("top", 0.5)))
    mix = Sum(((scaled, 1.0), (filtered, 0.5)), Method((step("center"),)))
    one, other = vectors.views(mix, PROMPTS)
    z_ND = kept["classical"].calibration("mean", (2,)).astype(np.float64)
    assert len(z_ND) == 60
    near = {"atol": 1e-5 * np.abs(z_ND).max()}
    np.testing.assert_allclose(one.transforms[0].mean_D, z_ND.mean(axis=0), **near)
    np.testing.assert_allclose(one.transforms[0].scale_D, 1 / z_ND.std(axis=0), rtol=1e-4)
    assert other.transforms[0] == embed_filter(table_VD, keep=0.5, window="top")
    f_ND = z_ND @ other.transforms[0].matrix_DE
    np.testing.assert_allclose(other.transforms[1].mean_D, f_ND.mean(axis=0), **near)
    total_ND = 0
    for weight, c_ND in (
        (1.0, (z_ND - z_ND.mean(axis=0)) / z_ND.std(axis=0)),
        (0.5, f_ND - f_ND.mean(axis=0)),
    ):
        total_ND = total_ND + weight * c_ND / np.linalg.norm(c_ND, axis=1, keepdims=True)
    (whole,) = vectors.whole(mix)
    np.testing.assert_allclose(whole.mean_D, total_ND.mean(axis=0), atol=1e-5)
    dev_ND = kept["classical"].dev("mean", (2,))
    assert np.abs(dev_ND.mean(axis=0) - z_ND.mean(axis=0)).max() > 10 * near["atol"]


def test_sums_equal_the_recipe_that_is_saved(embedder, tmp_path):
    """What was scored is what the finished recipe computes: views, weights, fits, the whole."""
    names = ("echo-eol", "classical", "echo-worded-eol", "words")
    kept = {name: KeptStates(embedder, PROMPTS[name], tmp_path, max_tokens=128) for name in names}
    for states in kept.values():
        ran(states, TEXTS[:60], TEXTS[60:90])
    kinds = [f"kind {n % 3}" for n in range(60)]
    vectors = Vectors(kept, lambda: None, kinds)
    whiten = Method(
        (step("center-scale"), step("remove-kinds", count=1), step("whiten", strength=0.5))
    )
    mix = Sum(
        (
            (
                Part(
                    "echo-eol",
                    "copy",
                    (2,),
                    Method((step("center-scale"), step("remove-kinds", count=2))),
                ),
                1.0,
            ),
            (Part("echo-eol", "word", (1, 2), NONE), 0.5),
            (Part("classical", "mean", (1,), whiten), 1.5),
            (Part("echo-worded-eol", "bare", (2,), whiten), 0.7),
            (Part("words", "rare", (0,), whiten), 0.8),
        ),
        Method((step("center"),)),
    )
    prompts = {name: PROMPTS[name] for name in names}
    recipe = recipe_of("mix", *vectors.views(mix, prompts), transforms=vectors.whole(mix))
    own = embedder.with_recipe(recipe, max_tokens=128).encode(TEXTS[60:90])
    np.testing.assert_allclose(vectors.of(mix), own, atol=4e-3)
    for left_out in range(len(mix.parts)):
        parts = tuple(part for place, part in enumerate(mix.parts) if place != left_out)
        assert np.abs(vectors.of(replace(mix, parts=parts)) - own).max() > 0.05, "control"


def test_what_nobody_reads_is_not_run():
    """A prompt whose end is not pooled is cut after the last copy that is read."""
    prompt = PROMPTS["echo-eol"]
    (copy,) = prompt.reading({"copy"}).values()
    assert copy.template == TEMPLATES["echo"]
    assert prompt.reading({"copy", "word"}) == prompt.views
    worded = PROMPTS["echo-worded-eol"]
    for read, ends, pooled in (
        (("bare",), "{text:bare}", [1]),
        (("sorted",), "{text:sorted}", [2]),
        (("bare", "sorted"), "{text:sorted}", [1, 2]),
    ):
        found = [view.template for view in worded.reading(read).values()]
        assert [one.pooled % one.num_copies for one in found] == pooled
        assert {one.prompt.rpartition(": ")[2] for one in found} == {ends}
    assert worded.reading(worded.views) == worded.views


def test_of_words_the_token_embeddings_are_read(embedder, tmp_path):
    """Layer 0 alone is kept, and is what the preset "sif" reads of the same texts."""
    states = KeptStates(embedder, PROMPTS["words"], tmp_path, max_tokens=128)
    ran(states, TEXTS[:20], TEXTS[20:30])
    (own_LND,) = embedder.with_recipe("sif").states(TEXTS[:20])
    np.testing.assert_allclose(states.calibration("rare", (0,)), own_LND[0], atol=1e-6)
    assert {np.load(file).shape[:2] for file in tmp_path.rglob("*.npy")} == {(1, 1)}


def test_prompts_are_asked_for_by_name():
    """Unknown names and missing needed ones are said."""
    assert [p.name for p in prompts_of(("classical", "echo-eol"))] == ["classical", "echo-eol"]
    with pytest.raises(InputError, match="unknown prompts"):
        prompts_of(("classical", "echo-eol", "nonsense"))
    with pytest.raises(InputError, match="are needed"):
        prompts_of(("classical",))


# -- the ledger -------------------------------------------------------------------------------


def test_scores_are_kept_under_all_that_decides_them():
    """Other states, texts, kinds, tasks or judgements make another file of scores."""
    task = DevTask("a", "STS", "dev", {"first": np.arange(2)}, {"score": np.arange(2.0)})
    given = ({"a": SimpleNamespace(fingerprint="1")}, DevData(["x"], tasks=[task]), ["c"], ["k"])
    others = (
        {"a": SimpleNamespace(fingerprint="2")},
        DevData(["y"], tasks=[task]),
        ["d"],
        ["l"],
    )
    names = [_scored_on(*given)] + [
        _scored_on(*given[:place], other, *given[place + 1 :]) for place, other in enumerate(others)
    ]
    for change in (
        {"name": "b"},
        {"rows": {"first": np.arange(1, 3)}},
        {"gold": {"score": np.ones(2)}},
    ):
        data = DevData(["x"], tasks=[replace(task, **change)])
        names.append(_scored_on(given[0], data, *given[2:]))
    assert len(set(names)) == 8
    assert _scored_on(*given) == names[0]


def test_scores_are_kept_under_every_judgement():
    """Another grade in the middle of a large array makes another file of scores."""
    grade_QN = np.eye(60, dtype=np.int64)
    rows = {"queries": np.arange(60), "documents": np.arange(60)}
    names = set()
    for value in (0, 1):
        grade_QN[30, 31] = value
        task = DevTask("a", "Retrieval", "dev", rows, {"grade": grade_QN.copy()})
        names.add(_scored_on({}, DevData(tasks=[task]), [], []))
    assert len(names) == 2


class Counted:
    """Vectors that count how often they are asked for."""

    def __init__(self):
        self.asked = 0

    def of(self, mix):
        self.asked += 1
        return unit(40)


def test_nothing_is_scored_twice(tmp_path):
    """A recipe is scored once, also by a later process, also after a torn last line."""
    task = DevTask(
        "a",
        "STS",
        "dev",
        {"first": np.arange(20), "second": np.arange(20, 40)},
        {"score": np.arange(20.0)},
    )
    mix = Sum(((Part("echo-eol", "copy", (2,), NONE), 1.0),))
    other = Sum(((Part("echo-eol", "copy", (1,), NONE), 1.0),))
    vectors = Counted()
    file = tmp_path / "scores.jsonl"
    ledger = Ledger(file, [task], vectors)
    first = ledger.score(mix)
    assert ledger.score(mix) == first
    assert vectors.asked == 1
    with file.open("a", encoding="utf-8") as opened:
        opened.write('{"recipe": "torn')
    later = Ledger(file, [task], vectors)
    assert later.score(mix).tasks == first.tasks
    assert vectors.asked == 1
    later.score(other)
    Ledger(file, [task], vectors).score(other)
    assert vectors.asked == 2


def test_a_ledger_that_cannot_be_written_says_so(tmp_path):
    """The folder and the next step stand in the message."""
    (tmp_path / "file").write_text("", "utf-8")
    task = DevTask(
        "a",
        "STS",
        "dev",
        {"first": np.arange(20), "second": np.arange(20, 40)},
        {"score": np.arange(20.0)},
    )
    ledger = Ledger(tmp_path / "file" / "scores.jsonl", [task], Counted())
    with pytest.raises(StorageError, match="--work"):
        ledger.score(Sum(((Part("echo-eol", "copy", (2,), NONE), 1.0),)))


# -- texts to calibrate on and to halve ---------------------------------------------------------


def test_what_is_halved_is_drawn_apart_from_what_is_calibrated_on(monkeypatch):
    """Another seed, of one kind and full length; what is calibrated on comes once each."""
    asked = []

    def write(embedder, writing):
        asked.append(writing)
        names = [f"{writing.seed}: {n // 2}" for n in range(6)]
        return SimpleNamespace(texts=names, kinds=[f"kind {n // 2}" for n in range(6)])

    monkeypatch.setattr("echovec.tune.texts.self_texts", write)
    how = Writing(count=30, longest=20, seed=4, top_p=0.8)
    found = texts_for(None, None, None, how, halved=True, tell=lambda line: None)
    assert asked == [replace(how, kinds=("free",), count=320, seed=5), how]
    assert (found.calibration, found.kinds) == (
        ["4: 0", "4: 1", "4: 2"],
        ["kind 0", "kind 1", "kind 2"],
    )
    assert not set(found.halved) & set(found.calibration)
    given = texts_for(None, ["a", "b", "a"], "a file", how, halved=False, tell=lambda line: None)
    assert (given.calibration, given.kinds, given.halved) == (["a", "b"], ["given"] * 2, [])
    assert given.origin.startswith("2 texts, a file, sha256:")
    assert len(asked) == 2


# -- what a budget has time for ---------------------------------------------------------------

ASKED = prompts_of(("echo-eol", "prompt-eol", "short-eol", "classical"))


def planned(folder, monkeypatch, *, budget=10.0, rate=10, prompts=ASKED):
    """A plan where a text is a token, `rate` tokens take a second, 60 texts are calibrated on."""
    clock = SimpleNamespace(budget=60 * budget, spent=0.0)
    own = [f"{i:04} is how it begins, and it ends in {i:04}" for i in range(1_000)]

    class Kept:
        def tokens(self, texts):
            return len(texts)

        def calibrate_on(self, texts):
            def work():
                clock.spent += len(texts) / rate
                return len(texts)

            yield work

    monkeypatch.setattr(Plan, "kept", lambda self, prompt: Kept())
    plan = Plan(None, prompts, TEXTS[:60], own, None, folder, 0)
    chosen, dev = plan.made(clock, lambda line: None)
    return [prompt.name for prompt in chosen], plan.share, len(dev.texts), clock.spent


def test_a_budget_decides_the_sample_and_then_the_prompts(tmp_path, monkeypatch):
    """Half of it is for the model; what is left after calibration is shared by all prompts."""
    every = [prompt.name for prompt in ASKED]
    # 10 minutes: 300 s at 10 a second less 6 s spent, less 3 x 60 texts, over 4 x 2,000 halves.
    names, share, texts, _ = planned(tmp_path / "a", monkeypatch)
    assert (names, share, texts) == (every, round((2_940 - 180) / 8_000, 2), 680)
    # 5 minutes: too little for four prompts and for three, so the last that are not needed go.
    names, share, _, _ = planned(tmp_path / "b", monkeypatch, budget=5.0)
    assert (names, share) == (["echo-eol", "classical"], round((1_440 - 60) / 4_000, 2))
    names, share, _, _ = planned(tmp_path / "c", monkeypatch, budget=6.7)
    assert names == ["echo-eol", "prompt-eol", "classical"]
    names, share, _, _ = planned(tmp_path / "d", monkeypatch, budget=0.01)
    assert (names, share) == (["echo-eol", "classical"], 0.1)
    names, share, texts, _ = planned(tmp_path / "e", monkeypatch, budget=float("inf"))
    assert (names, share, texts) == (every, 1.0, 2_000)


def test_a_plan_is_kept_for_the_same_question_only(tmp_path, monkeypatch):
    """What went on at another speed has the same sample; another budget has another plan."""
    first = planned(tmp_path, monkeypatch)
    assert planned(tmp_path, monkeypatch, rate=5) == (*first[:3], 0.0)
    for change in ({"budget": 5.0}, {"prompts": ASKED[:1] + ASKED[2:]}):
        assert planned(tmp_path, monkeypatch)[:3] == first[:3]
        other = planned(tmp_path, monkeypatch, **change)
        assert other[:2] != first[:2]
        assert other[3] > 0


def test_a_clock_without_a_budget_never_ends():
    """`until` of no limit is infinite; of a budget it is the share of what is left."""
    assert Clock(None).until(0.1) == float("inf")
    assert 0 < Clock(1).until(0.5) <= 30.1
