"""The published rows: complete, consistent with themselves, and found by name."""

from __future__ import annotations

import pytest

from echovec.evaluate.published import (
    ALL,
    CATEGORIES,
    COUNTS,
    LLM2VEC,
    MTEB_56,
    PER_TASK,
    TABLE_1,
    TABLE_2,
    TABLE_3,
    TABLE_5,
    published_row,
)

WHOLE = [row for row in (*TABLE_1, *TABLE_2, *TABLE_5) if row.scores]


def weighted(scores):
    return sum(scores[c] * COUNTS[c] for c in CATEGORIES) / sum(COUNTS.values())


@pytest.mark.parametrize("row", WHOLE, ids=lambda r: f"{r.table}, {r.method}, {r.backbone}")
def test_printed_averages_are_those_of_their_categories(row):
    """The printed average over 56 datasets is the categories', weighted by their counts, to 0.01.

    A digit copied wrongly would show here.
    """
    assert weighted(row.scores) == pytest.approx(row.average, abs=0.011)


def test_a_wrong_digit_is_noticed():
    """Negative control: one category off by a point moves the average by more than 0.01."""
    row = TABLE_1[0]
    for category in CATEGORIES:
        wrong = dict(row.scores) | {category: row.scores[category] + 1}
        assert weighted(wrong) != pytest.approx(row.average, abs=0.011)


def test_the_replication_agrees_with_its_averages():
    """LLM2Vec's echo rows add up to their averages too."""
    for row in LLM2VEC:
        if row.scores:
            assert weighted(row.scores) == pytest.approx(row.average, abs=0.02), row.backbone


def test_every_row_says_what_it_belongs_to():
    """Backbone, task set and table are there, and scores are between 0 and 100."""
    for row in ALL:
        assert row.backbone
        assert row.task_set
        assert row.table
        numbers = [*row.scores.values(), *row.tasks.values()]
        numbers += [] if row.average is None else [row.average]
        assert numbers
        assert all(0 < n < 100 for n in numbers)


def test_the_claims_of_the_papers_text():
    """4.95 points over the one-word prompt, 6.26 over a single copy, and a loss on clustering."""
    rows = {row.method: row for row in TABLE_1 if "Mistral" in row.backbone}
    assert rows["echo"].average - rows["prompt-eol"].average == pytest.approx(4.95)
    assert rows["echo"].average - rows["classical"].average == pytest.approx(6.26)
    assert rows["echo"].scores["Clustering"] < rows["classical"].scores["Clustering"]


def test_table_3_has_three_methods_on_three_backbones():
    """Nine averages, and only Mistral survives the switch of the mask."""
    found = {(row.backbone, row.method): row.average for row in TABLE_3}
    assert len(found) == 9
    assert found["Mistral-7B", "classical-both-ways"] > found["Mistral-7B", "classical"]
    assert found["LLaMA-2-7B-chat", "classical-both-ways"] == 43.03


def test_single_datasets():
    """26 datasets, three methods, three backbones, as in version 1's tables 11 to 13."""
    assert len(PER_TASK) == 9
    assert {len(row.tasks) for row in PER_TASK} == {26}
    (echo,) = [r for r in PER_TASK if r.method == "echo" and r.backbone.startswith("Mistral")]
    assert echo.tasks["STSBenchmark"] == 73.85
    assert echo.tasks["STS22"] == 57.60


def test_rows_are_found_by_recipe_and_model():
    """A model's own row where it has one, else the main model's; none for unknown methods."""
    assert published_row("echo", "SmolLM2-135M").average == 48.64
    assert published_row("echo", "meta-llama/LLaMA-2-7B-chat-hf").average == 45.84
    assert published_row("echo", "x").task_set == MTEB_56
    assert published_row("echo-sentence", "x") is None
    assert published_row("llm2vec-unsup", "x") is None


def test_fine_tuned_rows_stand_only_beside_the_fine_tuned_model():
    """An untrained model with the instruction format is not the method of table 5."""
    assert published_row("echo-instruct", "SmolLM2-135M") is None
    name = "jspringer/echo-mistral-7b-instruct-lasttoken"
    assert published_row("echo-instruct", name).average == 64.68
    assert published_row("echo", name) is None
