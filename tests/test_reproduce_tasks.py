"""Experiments on tasks: comparisons from outcomes, and what each experiment claims about them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from echovec import Embedder
from echovec.errors import InputError, ModelError
from echovec.evaluate.interval import RESAMPLES
from echovec.evaluate.reproduce import experiment
from echovec.evaluate.reproduce.comparison import Comparison, Scored, Task
from echovec.evaluate.reproduce.findings import Options
from echovec.evaluate.reproduce.page import findings_html, findings_markdown
from echovec.evaluate.reproduce.scores import (
    compare_on_tasks,
    comparison_of,
    data_settings,
    size_of,
)
from echovec.evaluate.reproduce.token_budget import BUDGETS, at_budget
from echovec.model.tiny import TinyBackbone
from echovec.presets import preset
from echovec.text.tokenizer import ByteTokenizer
from test_report import outcome
from test_reproduce_pairs import rows

pytest.importorskip("mteb")
pytest.importorskip("matplotlib")

TASKS = (
    Task("STS16", "STS", "test", 100),
    Task("STSBenchmark", "STS", "test", 100),
    Task("Emotion", "Classification", "test", 100),
    Task("Subjects", "Clustering", "test", 100),
    Task("XQuAD", "Retrieval", "test", 100),
    Task("Rerank", "Reranking", "test", 43),
)
HOLDS, FAILS = "holds", "does not hold"


def made_up(scores, width=1.0):
    """A comparison in which each method has its score on every task, give or take `width`."""
    noise = np.random.default_rng(0).normal(0, width, (len(TASKS), 2000))
    return Comparison(
        TASKS,
        {
            method: {t.name: Scored(s, s + noise[i]) for i, t in enumerate(TASKS)}
            for method, s in scores.items()
        },
    )


@pytest.fixture
def embedder():
    return Embedder("echo", ByteTokenizer(), TinyBackbone())


@pytest.fixture
def run(embedder, monkeypatch):
    """Run an experiment whose recipes score what `score` says of their names."""

    def with_scores(name, score, noise=1.0):
        function = experiment(name)
        asked = []

        def compare(_, methods, data, options, **sizes):
            asked.extend(methods.values())
            return made_up({method: score(method) for method in methods}, noise)

        monkeypatch.setitem(function.__globals__, "compare_on_tasks", compare)
        found = function(embedder, None, Options())
        assert "<svg" in findings_html(found)
        assert found.title in findings_markdown(found)
        return found, asked

    return with_scores


def verdicts(findings):
    return {claim.statement: claim.verdict for claim in findings.claims}


def test_zero_shot_as_in_the_paper(run):
    """With the paper's order of methods, its claims hold; each comes with its printed numbers."""
    scores = {"echo": 48.6, "echo-halved": 49.0, "classical": 42.4, "prompt-eol": 43.7}
    found, asked = run("zero-shot", scores.__getitem__)
    assert asked == [preset(name) for name in scores]
    assert found.verdict == HOLDS
    assert "48.64 against 42.38 on 56 datasets" in found.claims[0].paper
    by = verdicts(found)
    assert by["Echo beats the one-word prompt over all tasks"] == HOLDS
    assert by["Halving the text costs echo nothing"] == HOLDS
    # Here the single copy is worse on clustering too, unlike in the paper.
    assert by["On clustering a single copy beats echo"] == FAILS
    clustering = next(c for c in found.claims if "clustering" in c.statement)
    assert "34.14 against 33.80" in clustering.paper


def test_zero_shot_turned_round(run):
    """Negative control: with the methods' scores reversed, no claim for echo holds."""
    scores = {"echo": 42.0, "echo-halved": 41.0, "classical": 48.0, "prompt-eol": 49.0}
    found, _ = run("zero-shot", scores.__getitem__)
    by = verdicts(found)
    assert found.verdict == FAILS
    assert by["On STS echo beats a single copy"] == FAILS
    assert by["On clustering a single copy beats echo"] == HOLDS
    assert by["On classification the one-word prompt beats echo"] == HOLDS


def test_zero_shot_published_rows_are_marked(run):
    """Our rows and the printed ones alternate; only the printed ones are marked."""
    found, _ = run("zero-shot", lambda method: 50.0)
    table = found.tables[0]
    assert table.published == {1, 3, 5, 7}
    assert [row[0].detail for row in table.rows][::2] == ["this run"] * 4
    assert [row[-1] for row in table.rows][1::2] == [48.64, 49.02, 42.38, 43.69]


def test_pooling_claims(run):
    """The mean beats the last token where it does, and echo has to beat the weighted mean too."""
    scores = {"mean": 50.0, "lasttoken": 30.0, "weightedmean": 55.0}
    found, asked = run("pooling", lambda method: scores[method.split(", ")[1]])
    by = verdicts(found)
    assert by["For echo the mean beats the last token"] == HOLDS
    assert by["With the last token echo is no better than a single copy"] == HOLDS
    assert by["Echo also beats the position-weighted mean of a single copy"] == FAILS
    poolings = [recipe.views["symmetric"][0].pooling for recipe in asked]
    assert poolings == ["mean", "lasttoken", "weightedmean"] * 2
    prompts = [recipe.views["symmetric"][0].template.prompt for recipe in asked]
    echo, classical = (preset(name).views["symmetric"][0] for name in ("echo", "classical"))
    assert prompts == [echo.template.prompt] * 3 + [classical.template.prompt] * 3


def test_controls_claims(run):
    """Six recipes: repetition and instruction apart, and up to four copies."""
    scores = {"classical": 40, "instruction-only": 40, "repeat-only": 45, "echo": 50, "echo-3": 50}
    found, asked = run("controls", lambda method: float(scores.get(method, 48)))
    by = list(verdicts(found).values())
    assert by == [HOLDS, HOLDS, HOLDS, FAILS, FAILS]
    copies = {recipe.name: recipe.views["symmetric"][0].template.num_copies for recipe in asked}
    assert copies == {
        "echo": 2,
        "classical": 1,
        "instruction-only": 1,
        "repeat-only": 2,
        "echo-3": 3,
        "echo-4": 4,
    }


def test_bidirectional_needs_a_model_whose_mask_can_be_switched(run):
    """The tiny backbone cannot, and says so."""
    with pytest.raises(ModelError):
        run("bidirectional", lambda method: 50.0)


def test_bidirectional_claims(run, monkeypatch):
    """Where the mask can be switched, the paper's three averages of each model stand beside."""
    monkeypatch.setattr(Embedder, "with_recipe", lambda self, recipe: self)
    scores = {"echo": 57.0, "classical": 47.0, "classical-both-ways": 43.0}
    found, asked = run("bidirectional", scores.__getitem__)
    assert list(verdicts(found).values()) == [HOLDS] * 3
    assert "59.78 against 58.24 (Mistral-7B)" in found.claims[0].paper
    assert asked == [preset(name) for name in scores]
    masks = [recipe.views["symmetric"][0].mask for recipe in asked]
    assert masks == ["causal", "causal", "bidirectional"]
    assert found.tables[1].published == set(range(9))


def test_token_budget_gives_all_the_same_number_of_tokens(run):
    """Copies times tokens per copy is the budget; without a switched mask that curve is missing."""
    found, asked = run("token-budget", lambda method: 50.0 if "echo" in method else 45.0)
    for recipe in asked:
        (view,) = recipe.views["symmetric"]
        assert view.template.num_copies * recipe.max_tokens in BUDGETS
    assert len(asked) == 2 * len(BUDGETS)
    assert set(verdicts(found).values()) == {HOLDS}
    assert any("cannot be switched" in note for note in found.notes)


def test_token_budget_claims_of_a_switched_mask(run, monkeypatch):
    """Where the mask can be switched there is a third curve: ahead at 16 tokens, behind at 256."""
    monkeypatch.setattr(Embedder, "with_recipe", lambda self, recipe: self)
    scores = {"echo": 50.0, "classical": 45.0, "classical-both-ways": 47.0}

    def score(name):
        method, budget = name.split(", ")
        return scores[method] - 10 * (method == "echo" and budget == "16")

    found, asked = run("token-budget", score)
    by = verdicts(found)
    assert by["At 256 tokens echo beats the single copy without its causal mask"] == HOLDS
    assert by["At 16 tokens the single copy without its causal mask beats echo"] == HOLDS
    assert by["At 16 tokens echo beats a single copy"] == FAILS
    masks = [recipe.views["symmetric"][0].mask for recipe in asked]
    assert masks == ["causal"] * 2 * len(BUDGETS) + ["bidirectional"] * len(BUDGETS)


def test_a_budget_is_at_least_a_token_a_copy():
    """A budget below the number of copies still leaves a token for each."""
    assert at_budget(preset("echo-4"), "echo-4", 2).max_tokens == 1


def items(values):
    return {"kind": "mean", "values": list(values)}


def two_methods():
    rng = np.random.default_rng(3)
    hard = rng.random(80)
    better = np.clip(hard + 0.05, 0, 1)
    return [
        outcome("STS16", "a", float(better.mean()), items=items(better), num_items=80),
        outcome("STS16", "b", float(hard.mean()), items=items(hard), num_items=80),
    ]


def test_outcomes_are_resampled_together():
    """Two methods on the same items give a narrow paired difference, as a naive loop does."""
    a, b = two_methods()
    found = comparison_of([a, b], ["a", "b"])
    difference = found.difference("a", "b")
    rng = np.random.default_rng(42)
    apart = np.array(a.items["values"]) - np.array(b.items["values"])
    means = 100 * apart[rng.integers(0, 80, (RESAMPLES, 80))].mean(axis=1)
    assert (difference.low, difference.high) == pytest.approx(
        tuple(np.percentile(means, [2.5, 97.5]))
    )
    assert found.mean("a").value == pytest.approx(100 * a.main_score)
    unpaired = found.mean("a").high - found.mean("a").low
    assert difference.high - difference.low < unpaired / 3


def test_tasks_that_one_method_lacks_are_not_compared():
    """A comparison is over tasks of all methods only; without any it is an error."""
    a, b = two_methods()
    more = replace(a, task="STSBenchmark")
    assert [t.name for t in comparison_of([a, b, more], ["a", "b"]).tasks] == ["STS16"]
    with pytest.raises(InputError, match="no task"):
        comparison_of([a], ["a", "b"])
    with pytest.raises(InputError, match="no task"):
        comparison_of([replace(a, items={}), replace(b, items={})], ["a", "b"])


def test_other_items_are_refused():
    """A whole and a sampled outcome, other numbers of items, or samples of another seed."""
    a, b = two_methods()
    sampled = replace(a, sample=80)
    for one, other in (
        (a, replace(b, sample=80)),
        (a, replace(b, num_items=79)),
        (sampled, replace(b, sample=80, seed=7)),
    ):
        with pytest.raises(InputError, match="other items"):
            comparison_of([one, other], ["a", "b"])
    assert comparison_of([a, replace(b, seed=7)], ["a", "b"]).tasks  # drawn by no seed


def test_a_comparison_needs_a_folder(embedder):
    """Without data the error says how to give them."""
    with pytest.raises(InputError, match="--data DIR"):
        compare_on_tasks(embedder, {}, None, Options(), size=10)


def test_tasks_are_run_by_mteb_and_a_second_run_needs_no_model(embedder, tmp_path):
    """Recipes on a folder of pairs, end to end: mteb's scores, paired, and cached."""
    lines = [json.dumps({"sentence1": a, "sentence2": b, "score": s}) for a, b, s in rows()]
    for name in ("STS16", "STSBenchmark"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "test.jsonl").write_text("\n".join(lines), "utf-8")
    methods = {name: preset(name) for name in ("echo", "classical")}
    options = Options(sample=40, cache=tmp_path / "cache")
    first, second = (
        compare_on_tasks(embedder, methods, tmp_path / "data", options, size=9) for _ in range(2)
    )
    assert [task.items for task in first.tasks] == [40, 40]
    assert {task.category for task in first.tasks} == {"STS"}
    assert first.mean("echo") == second.mean("echo")
    difference = first.difference("echo", "classical")
    assert difference.low < difference.value < difference.high
    other = replace(options, seed=7)
    drawn_anew = compare_on_tasks(embedder, methods, tmp_path / "data", other, size=9)
    assert drawn_anew.mean("echo").value != first.mean("echo").value
    forward, embedder.backbone.forward = embedder.backbone.forward, None
    compare_on_tasks(embedder, methods, tmp_path / "data", options, size=9)
    embedder.backbone.forward = forward


def test_sizes_are_on_the_page():
    """The page says how many items were taken, and if they were all."""
    found = made_up({"a": 1.0})
    assert data_settings(found, Options())["size"] == "543 items, samples, seed 42"
    assert data_settings(found, Options(sample=0))["size"] == "543 items, whole tasks"


def test_long_tasks_take_fewer_items_by_default():
    """A fifth of the size and at least 10, unless the caller says how many; 0 is all."""
    assert size_of("STS16", Options(), 100) == 100
    assert size_of("SummEval-12systems", Options(), 100) == 20
    assert size_of("SummEval-12systems", Options(), 20) == 10
    assert size_of("SummEval-12systems", Options(sample=70), 100) == 70
    assert size_of("SummEval-12systems", Options(sample=0), 100) is None
