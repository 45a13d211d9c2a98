"""Reports: only what can be compared stands together, and what is published is marked."""

from __future__ import annotations

import re
from dataclasses import replace
from html import escape
from pathlib import Path

import pytest
from typer.testing import CliRunner

from echovec.cli import app
from echovec.errors import InputError
from echovec.evaluate.report import (
    command_of,
    report,
    report_html,
    report_markdown,
    sections_of,
)
from echovec.evaluate.report_parts import Label, Measured
from echovec.evaluate.report_tables import common_tasks, plots_of, tables_of
from echovec.evaluate.reproduce import findings_in
from echovec.evaluate.results import Outcome, write_outcome

pytest.importorskip("matplotlib")

CATEGORY = {"STS16": "STS", "STSBenchmark": "STS", "Banking77": "Classification", "Odd": "Other"}
CATEGORY["Support tickets"] = "Classification"
DEFAULT = "/home/me/.cache/echovec/models/SmolLM2-135M-Instruct.Q4_1-b179c9523d0e"


def outcome(task, recipe="echo", score=0.5, **changes):
    """An outcome with an interval of 0.1 on both sides."""
    fields = {
        "task": task,
        "category": CATEGORY[task],
        "metric": "cosine_spearman",
        "main_score": score,
        "split": "test",
        "num_items": 100,
        "items": {},
        "interval": (score - 0.1, score + 0.1),
        "interval_method": "bootstrap over pairs",
        "sample": None,
        "seed": 42,
        "model": "tiny",
        "recipe_name": recipe,
        "fingerprint": f"{recipe}-print",
        "recipe": {"dtype": "bfloat16", "precision": "fast"},
        "described": f"{recipe}: {{text}} [mean]",
        "chosen_on": None,
        "texts": 200,
        "tokens": 4000,
        "truncated": 3,
        "forward_passes": 10,
        "computed_tokens": 4000,
        "seconds": 2.0,
        "exact_split": True,
        "published_name": task,
        "versions": {},
    }
    return Outcome(**(fields | changes))


def only(outcomes):
    (section,) = sections_of(outcomes)
    return section


def table(section, title):
    return next(t for t in tables_of(section) if t.title == title)


def test_a_mean_is_over_tasks_that_all_methods_have():
    """A task that one method lacks is in no mean, and the note names it."""
    section = only(
        [
            outcome("STS16", "echo", 0.6),
            outcome("STSBenchmark", "echo", 0.9),
            outcome("STS16", "classical", 0.4),
        ]
    )
    assert common_tasks(section) == {"STS": ["STS16"]}
    found = table(section, "By category")
    ours = {r[0].text: r[1] for i, r in enumerate(found.rows) if i not in found.published}
    assert ours["echo"].value == pytest.approx(60)
    assert ours["classical"].value == pytest.approx(40)
    assert "STSBenchmark" in found.note
    assert found.columns[1] == "STS (1)"


def test_a_category_that_a_method_lacks_leaves_it_blank():
    """A method without any task of a category has a dash there, and no mean over all."""
    section = only(
        [
            outcome("STS16", "echo"),
            outcome("Banking77", "echo"),
            outcome("STS16", "classical"),
        ]
    )
    found = table(section, "By category")
    classical = next(row for row in found.rows if row[0] == Label("classical", "tiny"))
    assert classical[1] is None  # classification
    assert classical[-1] is None
    echo = found.rows[0]
    assert echo[-1].value == pytest.approx(50)


def test_samples_never_meet_whole_tasks():
    """Outcomes of samples, of whole tasks and of development data are in sections of their own."""
    sections = sections_of(
        [
            outcome("STS16", score=0.1, sample=50),
            outcome("STS16", score=0.2),
            outcome("STS16", score=0.3, sample=200),
            outcome("STS16", score=0.4, sample=50, seed=7),
            outcome("STS16", score=0.5, split="dev"),
        ]
    )
    titles = [section.title for section in sections]
    assert titles == [
        "Test data, whole",
        "Test data, samples: at most 200 items of each task, seed 42",
        "Test data, samples: at most 50 items of each task, seed 7",
        "Test data, samples: at most 50 items of each task, seed 42",
        "Development data, whole",
    ]
    means = [table(section, "By category").rows[0][1].value for section in sections]
    assert means == pytest.approx([20, 30, 40, 10, 50])


def test_the_interval_of_a_mean_adds_independent_errors():
    """Two tasks with 10 points on each side have 10 / sqrt(2) together."""
    section = only([outcome("STS16", score=0.4), outcome("STSBenchmark", score=0.6)])
    mean = table(section, "By category").rows[0][1]
    assert mean.value == pytest.approx(50)
    assert mean.high - mean.value == pytest.approx(10 / 2**0.5)
    assert mean.value - mean.low == pytest.approx(10 / 2**0.5)


def test_a_task_without_an_interval_makes_a_mean_without_one():
    """Half of an interval would be too narrow, so there is none."""
    section = only([outcome("STS16"), outcome("STSBenchmark", interval=None)])
    mean = table(section, "By category").rows[0][1]
    assert mean == pytest.approx(50)
    assert not isinstance(mean, Measured)


def test_published_rows_stand_beside_and_are_marked():
    """The printed row follows ours, marked, with its backbone, task set and table."""
    section = only([outcome("STS16", "echo"), outcome("STS16", "echo-sentence")])
    found = table(section, "By category")
    assert found.published == {1}
    label, sts, average = found.rows[1]
    assert label.text == "echo"
    assert label.detail == "Mistral-7B-Instruct-v0.1; MTEB English, 56 datasets, v2 table 1"
    assert (sts, average) == (73.74, 48.64)
    assert [row[0].text for row in found.rows] == ["echo", "echo", "echo-sentence"]


def test_single_datasets_say_whether_the_items_are_the_same():
    """Version 1's scores stand beside ours in marked columns, and ours says if they compare."""
    exact = table(only([outcome("STSBenchmark")]), "Single datasets that the paper prints")
    ((label, method, ours, *printed),) = exact.rows
    assert (label.detail, method, ours.value) == ("the same test set", "echo", 50)
    assert printed == [73.85, 65.73, 71.31]
    assert exact.published_columns == {3, 4, 5}
    assert exact.columns[3] == "Mistral-7B-Instruct-v0.1, v1 table 11"
    for changes in ({"exact_split": False}, {"sample": 50}):
        other = only([outcome("STSBenchmark", **changes)])
        found = table(other, "Single datasets that the paper prints")
        assert found.rows[0][0].detail == "not the items of STSBenchmark"


def test_disagreeing_results_are_an_error():
    """The same method, task and sample with two scores cannot both be reported."""
    with pytest.raises(
        InputError, match=r"two results of echo on STS16 \(test\) disagree: 0\.5.*0\.6"
    ):
        sections_of([outcome("STS16", score=0.5), outcome("STS16", score=0.6)])
    assert len(only([outcome("STS16"), outcome("STS16")]).outcomes) == 1


def test_a_score_that_is_undefined_is_no_disagreement():
    """A correlation of equal numbers is NaN: it is shown, on the page too."""
    section = only([outcome("STS16", score=float("nan"), interval=None)] * 2)
    assert "nan" in report_html([section])


def test_odd_names_are_shown_as_they_are():
    """Dollar signs, links, tags and entities in a task's name are letters, in both forms."""
    CATEGORY[name := "$_$ [a](javascript:b) <b>|&lt;\rx"] = "STS"
    section = only([outcome(name), outcome("STS16")])
    markup, text = report_html([section]), report_markdown([section])
    assert "<b>" not in markup
    assert "&lt;b&gt;|&amp;lt;" in markup
    shown = r"$\_$ [a]\(javascript:b) \<b>\|\&lt; x"
    assert any(line.startswith(f"| {shown} (STS") for line in text.split("\n"))


def test_methods_of_one_name_are_told_apart():
    """Two models, or two recipes of one name, have different names in the tables."""
    models = only([outcome("STS16"), outcome("STS16", model="other", fingerprint="o")])
    assert list(models.names().values()) == ["echo, tiny", "echo, other"]
    twins = only([outcome("STS16"), outcome("STS16", fingerprint="abcdefgh")])
    assert list(twins.names().values()) == ["echo (echo-p)", "echo (abcdef)"]


def test_cost_counts_what_was_computed():
    """The rate is over computed tokens; with all from the cache there is none."""
    row = table(only([outcome("STS16"), outcome("STSBenchmark")]), "Cost").rows[0]
    assert row == ("echo", 2, 400, 6, 8000, 20, 4.0, 2000)
    cached = outcome("STS16", forward_passes=0, computed_tokens=0, seconds=0.0)
    assert table(only([cached]), "Cost").rows[0][-3:] == (0, 0.0, None)


def test_what_was_chosen_where_is_printed():
    """The data that decided a recipe stand beside it; "nothing" where nothing was chosen."""
    section = only([outcome("STS16", "a", chosen_on="STSBenchmark dev"), outcome("STS16", "b")])
    rows = table(section, "Methods").rows
    assert [row[2] for row in rows] == ["STSBenchmark dev", "nothing"]
    assert [row[0].detail for row in rows] == ["tiny, bfloat16, a-print", "tiny, bfloat16, b-print"]


def test_unknown_categories_are_kept():
    """A type of task that the paper has not is shown after the others."""
    section = only([outcome("Odd"), outcome("STS16")])
    assert table(section, "By category").columns[1:] == ("STS (1)", "Other (1)", "all (2)")
    assert [plot.title for plot in plots_of(section)] == ["By category"]


def test_the_command_writes_both(tmp_path):
    """`echovec report` reads several folders and writes the page and the Markdown."""
    write_outcome(outcome("STS16", "echo", 0.6), tmp_path / "one")
    write_outcome(outcome("STS16", "classical", 0.4), tmp_path / "two")
    page, text = tmp_path / "page.html", tmp_path / "results.md"
    result = CliRunner().invoke(
        app,
        [
            "report",
            *map(str, (tmp_path / "one", tmp_path / "two")),
            *("-o", str(page), "--markdown", str(text), "--title", "Mine & yours"),
        ],
    )
    assert result.exit_code == 0, result.output
    markup = page.read_text("utf-8")
    assert "<h1>Mine &amp; yours</h1>" in markup
    assert "60.0<small>50.0 to 70.0</small>" in markup
    assert markup.count("<svg") == 1
    assert not re.search(r'(src|href)="(?!#)', markup)
    lines = text.read_text("utf-8").splitlines()
    assert lines[0] == "# Mine & yours"
    assert any("*(published)*" in line and "48.6" in line for line in lines)
    assert any("60.0 [50.0, 70.0]" in line for line in lines)


def test_findings_follow_the_tables(tmp_path):
    """`--findings` appends what `echovec reproduce` wrote, in the order of the experiments."""
    write_outcome(outcome("STS16"), tmp_path / "one")
    for name in ("zero-shot", "toy", "other"):
        (tmp_path / f"{name}.md").write_text(f"## About {name}\n", "utf-8")
    text = tmp_path / "all.md"
    options = ("--markdown", str(text), "--findings", str(tmp_path))
    result = CliRunner().invoke(app, ["report", str(tmp_path / "one"), *options])
    assert result.exit_code == 0, result.output
    headings = [line for line in text.read_text("utf-8").splitlines() if line.startswith("#")]
    assert headings == ["# Evaluation", "## Test data, whole", "## About toy", "## About zero-shot"]
    with pytest.raises(InputError, match="echovec reproduce"):
        findings_in(tmp_path / "one")


def test_the_command_is_above_the_tables():
    """Each section says what to type: recipes, tasks, split, sample and seed."""
    section = only([outcome("STS16", r, split="dev", sample=50) for r in ("echo", "classical")])
    command = (
        "echovec eval --recipe echo,classical --tasks STS16 --data DIR --out RESULTS "
        "--split dev --sample 50 --seed 42 --precision fast"
    )
    assert command_of(section) == command
    assert f"```bash\n{command}\n```" in report_markdown([section])
    assert command in report_html([section])


@pytest.mark.parametrize(
    ("name", "path", "said"),
    [
        ("someone/tiny", "someone/tiny", "--model someone/tiny"),
        ("my model", "/home/me/my model", "--model 'my model'"),
        ("my-run", DEFAULT, "--model my-run"),
        (Path(DEFAULT).name, DEFAULT, None),
        ("SmolLM2-135M-Instruct", DEFAULT, None),
        ("in memory", None, None),
    ],
)
def test_the_command_names_the_model(name, path, said):
    """A hub name, or a folder's or run's; not the default model, which is taken anyway."""
    one = replace(outcome("STS16"), recipe={"model": {"name": name, "path": path}})
    words = ["echovec eval --recipe echo --tasks STS16", said, "--data DIR --out RESULTS"]
    assert command_of(only([one])) == " ".join(word for word in words if word)


def test_the_command_names_the_adapter():
    """A shipped one or a run's folder, also where a recipe by name leaves the base's name."""
    base = {"model": {"name": "SmolLM2-135M-Instruct", "path": DEFAULT}}
    made = [
        replace(outcome("STS16"), recipe=base),
        replace(outcome("STS16", model="b"), recipe=base, adapter="smollm2-135m-echo"),
    ]
    plain, adapted = command_of(only(made)).splitlines()
    assert "--model" not in plain
    assert " --model smollm2-135m-echo --data" in adapted


def test_the_command_names_the_revision():
    """The commit of a model of the hub, whose default branch may move."""
    model = {"name": "a/b", "path": "a/b", "revision": "c0ffee"}
    one = replace(outcome("STS16"), recipe={"model": model})
    assert " --model a/b --revision c0ffee --data" in command_of(only([one]))


def test_what_one_command_cannot_do_has_several():
    """Each model, precision and token budget has a command; names with blanks are quoted."""
    ours = {"model": {"name": "a/b", "path": "a/b"}, "max_tokens": 512}
    made = [
        *(replace(outcome("STS16", r, model="a/b"), recipe=ours) for r in ("echo", "classical")),
        replace(outcome("Support tickets", "classical", model="a/b"), recipe=ours),
        replace(outcome("STS16"), recipe={"precision": "int8"}),
        replace(outcome("STS16", "prompt-eol"), recipe={"max_tokens": 64}),
    ]
    section = only(made)
    lines = [
        (
            "echovec eval --recipe echo,classical --tasks 'STS16,Support tickets' --model a/b "
            "--data DIR --out RESULTS"
        ),
        "echovec eval --recipe echo --tasks STS16 --data DIR --out RESULTS --precision int8",
        "echovec eval --recipe prompt-eol --tasks STS16 --data DIR --out RESULTS --max-tokens 64",
    ]
    assert command_of(section).splitlines() == lines
    assert "<br>".join(escape(line) for line in lines) in report_html([section])


def test_the_page_lies_in_the_first_folder_by_default(tmp_path):
    """Without -o the page is DIR/report.html, and reading it again is no trouble."""
    write_outcome(outcome("STS16"), tmp_path)
    for _ in range(2):
        assert CliRunner().invoke(app, ["report", str(tmp_path)]).exit_code == 0
    assert (tmp_path / "report.html").is_file()


def test_a_folder_without_results(tmp_path):
    """Nothing to report is an error that says how to make something."""
    with pytest.raises(InputError, match="echovec eval"):
        report([tmp_path])


def test_both_forms_have_every_section():
    """HTML and Markdown have the same sections and say how to read them."""
    sections = sections_of([outcome("STS16"), outcome("STS16", sample=50)])
    markup, text = report_html(sections), report_markdown(sections)
    for section in sections:
        assert section.title in markup
        assert section.title in text
    assert "quick look" in markup
    assert "quick look" in text
