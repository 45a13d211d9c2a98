"""What a card says and draws: numbers that are known beforehand, in their places."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from echovec import Embedder, ModelError
from echovec.evaluate.interval import replicates
from echovec.model.tiny import TinyBackbone
from echovec.text.tokenizer import ByteTokenizer
from echovec.tune import card, plots
from echovec.tune.card import Entry, entries_of, write_card
from echovec.tune.cost import Cost, Costs
from echovec.tune.dev import DevData, DevTask
from echovec.tune.found import checked, options_of
from echovec.tune.ledger import Ledger
from echovec.tune.parts import Part, Sum
from echovec.tune.score import Scores, items, mean_replicates, middle, score
from echovec.tune.space import NONE, PROMPTS, TARGETS, USUAL
from families import sentences

TEXTS = list(sentences(30))
BEST, ONE_PASS, FAST = TARGETS


def unit(rows, dim=6, seed=0):
    z_ND = np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)
    return z_ND / np.linalg.norm(z_ND, axis=1, keepdims=True)


def pairs(name, seed):
    rows = {"first": np.arange(20), "second": np.arange(20, 40)}
    return DevTask(name, "STS", "dev", rows, {"score": np.random.default_rng(seed).random(20)})


LABELS = {"learn": np.arange(20) % 2, "ask": np.arange(20) % 2}
THREE = [
    pairs("a", 1),
    pairs("b", 2),
    DevTask(
        "c", "Classification", "dev", {"learn": np.arange(20), "ask": np.arange(20, 40)}, LABELS
    ),
]
"""Two tasks of one category and one of another."""


def alone(prompt, read, layer=2, method=NONE):
    return Sum(((Part(prompt, read, (layer,), method), 1.0),))


COPY, WORD = alone("echo-eol", "copy"), alone("echo-eol", "word")
CLASSICAL = alone("classical", "mean")


# -- scores and their intervals ---------------------------------------------------------------


def test_categories_count_alike_however_many_tasks_they_have():
    """The mean of category means, in the score and in each of its draws; not that of tasks."""
    z_ND = unit(40)
    found = score(THREE, z_ND)
    a, b, c = (found.tasks[name] for name in "abc")
    assert found.mean == pytest.approx(((a + b) / 2 + c) / 2)
    assert found.mean != pytest.approx((a + b + c) / 3)
    a, b, c = (100 * replicates(items(task, z_ND), resamples=300) for task in THREE)
    np.testing.assert_allclose(mean_replicates(THREE, z_ND), ((a + b) / 2 + c) / 2)


def test_intervals_hold_19_draws_of_20():
    """The middle 95 %, draws without a score passed over."""
    assert middle(np.array([*range(1001), np.nan])) == (25.0, 975.0)


class Known:
    """Vectors of sums that are known."""

    def __init__(self, vectors):
        self.of = vectors.__getitem__


def test_a_gain_is_what_a_recipe_has_over_echo(tmp_path):
    """Its middle is the difference of scores, and its interval that of paired draws."""
    z_ND = unit(40)
    good = z_ND.copy()
    good[20:] = (good[:20] + 0.3 * good[20:]) * np.float32(1)
    good /= np.linalg.norm(good, axis=1, keepdims=True)
    task = DevTask(
        "a",
        "STS",
        "dev",
        {"first": np.arange(20), "second": np.arange(20, 40)},
        {"score": (good[:20] * good[20:]).sum(axis=1)},
    )
    vectors = Known({COPY: z_ND, WORD: good})
    ledger = Ledger(tmp_path / "scores.jsonl", [task], vectors)
    costs = SimpleNamespace(of=lambda mix: Cost(7, 1))
    (one,) = entries_of({"ours": WORD}, COPY, ledger, vectors, costs)
    plain = score([task], z_ND).mean
    assert one.scores.mean == pytest.approx(100)
    assert one.gain[0] == pytest.approx(100 - plain)
    draws = mean_replicates([task], good) - mean_replicates([task], z_ND)
    assert one.gain[1:] == pytest.approx(tuple(np.percentile(draws, [2.5, 97.5])))
    assert one.interval == pytest.approx((100, 100))
    assert one.cost == Cost(7, 1)


# -- costs ------------------------------------------------------------------------------------


def test_costs_are_the_tokens_that_the_model_runs():
    """A suffix that nobody reads costs nothing; prompts add up, views of one prompt do not."""
    embedder = Embedder("echo", ByteTokenizer(), TinyBackbone())
    prompts = {name: PROMPTS[name] for name in ("echo-eol", "classical", "words")}
    costs = Costs(embedder, prompts, TEXTS, max_tokens=50)

    def tokens(prompt):  # a byte is a token, and BOS is one
        fixed = len(prompt.replace("{text}", "")) + 1
        return sum(
            fixed + prompt.count("{text}") * min(50, len(text.encode()) + 1) for text in TEXTS
        )

    echo = "Rewrite the following paragraph: {text}. The rewritten paragraph: {text}"
    end = '\nThis paragraph means in one word:"'
    # The blank before a slot is tokenised with the text.
    echo, classical = tokens(echo) - 2 * len(TEXTS), tokens("Write a paragraph: {text}")
    classical -= len(TEXTS)
    assert costs.compared == {"classical": classical, "echo": echo}
    assert costs.of(COPY) == Cost(echo, 1)
    both = Sum((*COPY.parts, *WORD.parts))
    assert costs.of(WORD) == costs.of(both) == Cost(echo + len(end) * len(TEXTS), 1)
    two = Sum((*COPY.parts, *CLASSICAL.parts))
    assert costs.of(two) == Cost(echo + classical, 2)
    words = Sum(((Part("words", "rare", (0,), NONE), 1.0),))
    assert costs.of(words) == Cost(0, 0)
    assert costs.of(Sum((*two.parts, *words.parts))) == costs.of(two)


@pytest.mark.parametrize(
    ("target", "tokens", "passes", "allowed"),
    [
        (BEST, 450, 3, True),
        (BEST, 451, 1, False),
        (ONE_PASS, 450, 1, True),
        (ONE_PASS, 300, 2, False),
        (ONE_PASS, 451, 1, False),
        (FAST, 125, 1, True),
        (FAST, 126, 1, False),
        (FAST, 100, 2, False),
    ],
)
def test_a_target_says_what_a_recipe_may_cost(target, tokens, passes, allowed):
    """2.25 times echo's tokens, in one pass, or 1.25 times classical's: not one token more."""
    costs = object.__new__(Costs)
    costs.compared = {"classical": 100, "echo": 200}
    costs.of = lambda mix: Cost(tokens, passes)
    assert costs.allows(target, COPY) == allowed


# -- the page and its pictures ----------------------------------------------------------------


def entry(name, mix, mean, tokens, passes=1):
    scores = Scores({"a": mean}, {"STS": mean})
    return Entry(name, mix, scores, (mean - 2, mean + 3), (mean - 50, mean - 53, mean - 48), tokens)


@pytest.fixture
def page(tmp_path, monkeypatch):
    """A card of recipes whose scores and costs are known, and what was drawn for it."""
    both = Sum(((COPY.parts[0][0], 1.0), (WORD.parts[0][0], 0.5)))
    scored = {
        COPY: 50.0,
        WORD: 40.0,
        CLASSICAL: 45.0,
        both: 61.25,
        Sum(((WORD.parts[0][0], 0.5),)): 41.0,
        alone("echo-eol", "copy", 1, USUAL): 55.0,
        alone("echo-eol", "copy", 2, USUAL): 52.0,
        alone("classical", "mean", 2, USUAL): 47.5,
        alone("classical", "copy"): 44.0,
    }
    ledger = Ledger(tmp_path / "none", [], None)
    ledger.scores = {mix: Scores({"a": v}, {"STS": v}) for mix, v in scored.items()}
    search = SimpleNamespace(
        ledger=ledger,
        views=[("echo-eol", "copy"), ("classical", "mean")],
        last_layer=lambda prompt, read: alone(prompt, read),
        best_of=lambda prompt, read: next(
            mix
            for mix, _ in ledger.single()
            if (mix.parts[0][0].prompt, mix.parts[0][0].read) == (prompt, read)
        ),
        cut=["layers: 3 of 9 not tried"],
    )
    drawn = {}
    for name in ("line_plot", "bar_plot", "point_plot"):
        monkeypatch.setattr(card, name, lambda file, data, **_: drawn.update({file.name: data}))
    write_card(
        tmp_path / "out",
        model="a model",
        options=" --model 'my model'",
        found=[entry("best", both, 61.25, Cost(300, 2)), entry("fast", COPY, 50.0, Cost(110, 1))],
        compared=[entry("classical", CLASSICAL, 45.0, Cost(100, 1))],
        search=search,
        data=DevData(tasks=[pairs("a", 1)], left_out={"B": "it has test data only"}),
        costs=SimpleNamespace(compared={"classical": 100, "echo": 200}),
        facts={"dtype": "float32"},
    )
    return tmp_path / "out", drawn


def test_a_card_has_each_number_in_its_place(page):
    """Scores, gains and costs of recipes; each view left out and alone; the best of each view."""
    folder, _ = page
    lines = (folder / "card.md").read_text("utf-8").splitlines()
    command = f"echovec eval --recipe {folder},{folder}/fast,echo --model 'my model'"
    for line in (
        f"{command} --data DIR -o RESULTS --chosen-on 'development data'",
        "| classical | 45.0 (43.0 to 48.0) | -5.0 (-8.0 to -3.0) | 45.0 | 1.00 | 1 |",
        "| best | 61.2 (59.2 to 64.2) | +11.2 (+8.2 to +13.2) | 61.2 | 3.00 | 2 |",
        "| fast | 50.0 (48.0 to 53.0) | +0.0 (-3.0 to +2.0) | 50.0 | 1.10 | 1 |",
        "| 1 x echo-eol copy, layer 2, none | -20.25 | 50.0 |",
        "| 0.5 x echo-eol word, layer 2, none | -11.25 | 40.0 |",
        "| echo-eol copy | 50.0 | 55.0 | layer 1, center-scale |",
        "| classical mean | 45.0 | 47.5 | layer 2, center-scale |",
        "9 recipes were scored, 8 of them of one view.",
        "| a | STS | dev | 40 |",
        "- not used: B: it has test data only",
        "- dtype: float32",
        "- cut short by the budget: layers: 3 of 9 not tried",
    ):
        assert line in lines


def test_pictures_show_what_was_scored(page):
    """Scores by layer of the usual calibration, the best of each calibration, cost and quality."""
    _, drawn = page
    assert drawn == {
        "layers.svg": {
            "echo-eol copy": [(1, 55.0), (2, 52.0)],
            "classical mean": [(2, 47.5)],
        },
        "methods.svg": {"center-scale": 55.0, "none": 50.0},
        "cost.svg": {"classical": (1.0, 45.0), "best": (3.0, 61.25), "fast": (1.1, 50.0)},
    }


def test_pictures_have_each_value_where_it_belongs(tmp_path, monkeypatch):
    """Points at (x, y), sorted along a line; bars as long as their values, the first on top."""
    shown = []
    monkeypatch.setattr(plots, "_save", lambda figure, axes, *_: shown.append(axes))
    plots.line_plot(tmp_path / "a.svg", {"one": [(3, 5.0), (1, 4.0)]}, x="x", y="y")
    plots.bar_plot(tmp_path / "b.svg", {"first": 55.0, "second": 50.0}, x="x")
    plots.point_plot(tmp_path / "c.svg", {"one": (1.5, 61.0)}, x="x", y="y")
    line, bars, point = shown
    assert line.get_lines()[0].get_xydata().tolist() == [[1, 4], [3, 5]]
    assert [(bar.get_y() > 0.5, bar.get_width()) for bar in bars.patches] == [
        (False, 50.0),
        (True, 55.0),
    ]
    assert [text.get_text() for text in bars.get_yticklabels()] == ["second", "first"]
    assert point.get_lines()[0].get_xydata().tolist() == [[1.5, 61.0]]


@pytest.mark.parametrize(
    ("path", "adapter", "revision", "precision", "words"),
    [
        ("/home/my models/m", None, None, "exact", " --model '/home/my models/m'"),
        ("org/name", None, "abc", "fast", " --model org/name --revision abc --precision fast"),
        ("org/name", Path("/runs/one/adapter"), None, "exact", " --model /runs/one"),
        ("default", None, None, "exact", ""),
        (None, None, None, "int8", " --precision int8"),
    ],
)
def test_the_command_says_which_model(path, adapter, revision, precision, words, monkeypatch):
    """Recipes are bound to it, so without it the command would be refused."""
    monkeypatch.setattr("echovec.tune.found.is_default", lambda path: path == "default")
    recipe = SimpleNamespace(
        model=SimpleNamespace(path=path, revision=revision), precision=precision
    )
    assert options_of(SimpleNamespace(recipe=recipe, adapter_path=adapter)) == words


# -- the check of what was saved --------------------------------------------------------------


@pytest.mark.parametrize(("precision", "limit"), [("exact", 0.01), ("fast", 0.1)])
def test_saved_recipes_that_give_other_vectors_are_an_error(precision, limit):
    """More than rounding apart from what was scored is no success, whichever recipe it is."""
    z_ND = unit(30)
    asked = []

    def saved(off):
        def encode(texts, **_):
            rows = [TEXTS.index(text) for text in texts]
            return z_ND[rows] + np.float32(off)

        return SimpleNamespace(encode=encode)

    for off in (0.9 * limit, 1.1 * limit):
        offs = {"best": 0.0, "fast": off}
        embedder = SimpleNamespace(
            with_recipe=lambda folder, offs=offs: asked.append(folder) or saved(offs[folder]),
            recipe=SimpleNamespace(precision=precision),
        )
        entries = [entry("best", COPY, 50.0, None), entry("fast", WORD, 50.0, None)]
        vectors = Known({COPY: z_ND, WORD: z_ND})
        check = (embedder, {"best": "best", "fast": "fast"}, entries, vectors, DevData(TEXTS))
        if off > limit:
            with pytest.raises(ModelError, match="give other vectors than those that were scored"):
                checked(*check)
        else:
            assert checked(*check) == pytest.approx(off, rel=1e-3)
    assert asked == ["best", "fast"] * 2
