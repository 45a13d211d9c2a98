"""Runs: finished tasks stay, no vector is made twice, samples are marked, failures are told."""

from __future__ import annotations

import errno
import json
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evaluate_data import TYPES, Counting, embedder, make_sets, write
from forked import NEEDS_FORK, Forked

mteb = pytest.importorskip("mteb")

from echovec.embedder import Embedder  # noqa: E402
from echovec.errors import InputError, NotAvailableError, StorageError  # noqa: E402
from echovec.evaluate import interval as interval_module  # noqa: E402
from echovec.evaluate import results, vectors  # noqa: E402
from echovec.evaluate.hub import HubTask  # noqa: E402
from echovec.evaluate.layout import rows_of  # noqa: E402
from echovec.evaluate.local import LocalTask  # noqa: E402
from echovec.evaluate.reproduce.scores import comparison_of  # noqa: E402
from echovec.evaluate.results import read_outcomes  # noqa: E402
from echovec.evaluate.run import Evaluation, evaluate  # noqa: E402
from echovec.evaluate.sample import stratified_rows  # noqa: E402
from echovec.evaluate.suites import MTEB_MINI, find_tasks  # noqa: E402
from echovec.loading import Source  # noqa: E402
from echovec.presets import preset  # noqa: E402

RECIPES = ["classical", "echo"]


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch):
    monkeypatch.setattr(interval_module, "RESAMPLES", 20)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    return make_sets(tmp_path_factory.mktemp("sets"))


@pytest.fixture(scope="module")
def finished(sets, tmp_path_factory):
    """All tasks with two recipes: the folder, the outcomes and the backbone."""
    out, backbone = tmp_path_factory.mktemp("out"), Counting(dim=12)
    outcomes = evaluate(embedder("echo", backbone), RECIPES, ["local"], out=out, data=sets)
    return out, outcomes, backbone


def scores(outcomes):
    return {(one.task, one.recipe_name, one.split): one.main_score for one in outcomes}


def test_all_types_have_a_score_and_an_interval(finished):
    """Seven types times two recipes, each with a finite score inside its interval."""
    _, outcomes, _ = finished
    assert [(o.task, o.category) for o in outcomes[::2]] == sorted(TYPES.items())
    for one in outcomes:
        low, high = one.interval
        assert low <= one.main_score <= high
        assert one.num_items >= 8
        assert not one.exact_split
        assert one.tokens == one.computed_tokens > one.texts > 10


def test_mteb_reads_the_results(finished):
    """Mteb's own reader finds every result, with the scores that we report."""
    out, outcomes, _ = finished
    found = {
        (of_model.model_name, result.task_name): result.get_score()
        for of_model in mteb.ResultCache(out).load_results().model_results
        for result in of_model.task_results
    }
    assert found == {
        (one.name, one.task): pytest.approx(one.main_score, abs=2e-6) for one in outcomes
    }


def test_a_second_run_does_nothing(finished, sets):
    """Everything finished: no forward pass, the same outcomes from disk."""
    out, outcomes, backbone = finished
    before = backbone.passes
    again = evaluate(embedder("echo", backbone), RECIPES, ["local"], out=out, data=sets)
    assert backbone.passes == before
    assert scores(again) == scores(outcomes)


def test_a_warm_cache_needs_no_model(finished, sets, tmp_path):
    """Results gone, vectors there: every task is evaluated again without a forward pass."""
    out, outcomes, backbone = finished
    before = backbone.passes
    model = embedder("echo", backbone)
    again = evaluate(model, RECIPES, ["local"], out=tmp_path, data=sets, cache=out / "vectors")
    assert backbone.passes == before
    assert {one.forward_passes for one in again} == {0}
    assert scores(again) == pytest.approx(scores(outcomes), abs=1e-9)
    assert [one.tokens for one in again] == [one.tokens for one in outcomes]


def test_texts_are_shared_between_tasks(sets, tmp_path):
    """A task over texts that another has embedded embeds nothing; the plan knows it."""
    shutil.copytree(sets / "Alike", tmp_path / "data/Alike")
    shutil.copytree(sets / "Alike", tmp_path / "data/Zwilling")
    backbone = Counting(dim=12)
    run = Evaluation(
        embedder("echo", backbone), ["echo"], ["local"], out=tmp_path / "o", data=tmp_path / "data"
    )
    steps = run.plan(count_tokens=True)
    assert [step.work[0].missing for step in steps] == [80, 0]
    first, second = run.run(steps)
    assert backbone.texts == 80
    assert (first.tokens, second.forward_passes) == (steps[0].work[0].tokens, 0)


class Slow(Counting):
    """A tiny backbone that takes its time."""

    def forward(self, *args, **options):
        time.sleep(0.02)
        return super().forward(*args, **options)


@NEEDS_FORK
def test_a_killed_run_goes_on(finished, sets, tmp_path):
    """Kill -9 after three outcomes, run again: same scores, nothing finished is done again."""
    _, expected, _ = finished

    def run():
        vectors.PART_TEXTS = 8
        model = embedder("echo", Slow(dim=12))
        said = {"say": lambda line: print(line, flush=True)}
        evaluate(model, RECIPES, ["local"], out=tmp_path, data=sets, **said)

    with Forked(run) as process:
        said = [process.stdout.readline() for _ in range(3)]
        time.sleep(0.1)
        process.send(signal.SIGKILL)
        assert process.ended() == -signal.SIGKILL
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "echovec").rglob("*.json")}
    done, shards = len(before), len(list(tmp_path.rglob("*.npy")))
    assert 3 <= done < len(expected), said
    backbone = Counting(dim=12)
    model, again = embedder("echo", backbone), []
    found = evaluate(
        model, RECIPES, ["local"], out=tmp_path, data=sets, say=lambda line: again.append(line)
    )
    assert scores(found) == pytest.approx(scores(expected), abs=1e-9)
    assert len(again) == len(expected) - done
    assert all(file.stat().st_mtime_ns == then for file, then in before.items())
    assert shards > 3
    needed = sum(one.texts for one in expected)
    assert backbone.texts < needed, "vectors of the killed run are used"


def test_samples_are_smaller_and_marked(sets, tmp_path):
    """A sample has at most its items, has its size in every name, and is the same again."""
    first, second = (
        evaluate(embedder(), ["echo"], ["local"], out=tmp_path / name, data=sets, sample=10)
        for name in "ab"
    )
    assert scores(first) == scores(second)
    for one in first:
        assert one.sample == 10
        assert one.num_items <= 10
        assert one.name.endswith("--sample-10-seed-42")
    files = [*(tmp_path / "a/results").rglob("*.json"), *(tmp_path / "a/echovec").rglob("*.json")]
    assert all("sample-10-seed-42" in str(file) for file in files)
    other = evaluate(
        embedder(), ["echo"], ["Alike"], out=tmp_path / "a", data=sets, sample=10, seed=1
    )
    assert other[0].main_score != scores(first)["Alike", "echo", "test"]


def test_a_sample_keeps_what_the_task_is_about(sets):
    """Retrieval keeps relevant documents and adds distractors; labels keep their shares."""
    run = Evaluation(
        embedder(), ["echo"], ["retrieval", "reranking"], out=Path("x"), data=sets, sample=6
    )
    search, ranks = (step.task.dataset["default"]["test"] for step in run.plan())
    documents = set(search["corpus"]["id"])
    assert len(search["queries"]) == 6
    assert len(documents) == 18
    for grades in search["relevant_docs"].values():
        assert set(grades) <= documents
    for query, documents in ranks["top_ranked"].items():
        assert sum(ranks["relevant_docs"][query][one] for one in documents) == 2
        assert len(documents) == 7
    labels = ["a"] * 50 + ["b"] * 30 + ["c"] * 20
    rows = stratified_rows(labels, 10, np.random.default_rng(0))
    assert sorted(labels[row] for row in rows) == ["a"] * 5 + ["b"] * 3 + ["c"] * 2


def test_a_sample_takes_no_relevant_document_for_another(tmp_path):
    """A judged document that a sample leaves out is none of those that fill it up."""
    documents = [{"_id": f"d{q}{i}", "text": f"topic{q} word{i}"} for q in range(4) for i in "abc"]
    others = [{"_id": f"x{i}", "text": f"other{i}"} for i in range(20)]
    write(tmp_path / "Search/corpus.jsonl", [*documents, *others])
    queries = [{"_id": f"q{q}", "text": f"topic{q}"} for q in range(4)]
    write(tmp_path / "Search/queries.jsonl", queries)
    judged = [f"q{q}\td{q}{i}\t1\n" for q in range(4) for i in "abc"]
    (tmp_path / "Search/qrels.tsv").write_text("".join(judged))
    run = Evaluation(embedder(), ["echo"], ["local"], out=Path("x"), data=tmp_path, sample=2)
    (cut,) = (step.task.dataset["default"]["test"] for step in run.plan())
    kept = {one for grades in cut["relevant_docs"].values() for one in grades}
    assert len(kept) == 4
    assert {one for one in cut["corpus"]["id"] if one.startswith("d")} == kept


def test_only_the_whole_test_split_is_mtebs_own(sets, tmp_path, monkeypatch):
    """A sample of exact data, or its development split, is not compared with published scores."""
    shutil.copytree(sets / "Alike", tmp_path / "data/Alike")
    (tmp_path / "data/Alike/task.toml").write_text('mteb = "STSBenchmark"')
    monkeypatch.setattr(LocalTask, "exact", True)
    options = {"out": tmp_path / "o", "data": tmp_path / "data"}
    found = [
        evaluate(embedder(), ["echo"], ["local"], **options, **more)[0]
        for more in ({}, {"sample": 10}, {"split": "dev"})
    ]
    assert [one.task for one in found] == ["STSBenchmark"] * 3
    assert [one.exact_split for one in found] == [True, False, False]


def test_a_budget_is_that_of_every_recipe(sets, tmp_path):
    """`max_tokens` cuts the texts of each, and is part of what its results are kept under."""
    found = [
        evaluate(embedder(), RECIPES, ["Alike"], out=tmp_path, data=sets, max_tokens=limit)
        for limit in (None, 4)
    ]
    assert [[one.truncated for one in run] for run in found] == [[0, 0], [80, 80]]
    assert [one.recipe["max_tokens"] for one in found[1]] == [4, 4]


def test_development_splits_are_apart_from_test(finished, sets, tmp_path):
    """Dev runs only where there is such a split, is marked, and joins test in mteb's file."""
    out, outcomes, backbone = finished
    shutil.copytree(out, tmp_path / "out")
    found = evaluate(
        embedder("echo", backbone), RECIPES, ["local"], out=tmp_path / "out", data=sets, split="dev"
    )
    assert {(one.task, one.split, one.is_test) for one in found} == {
        ("Alike", "dev", False),
        ("Topics", "validation", False),
    }
    assert len(read_outcomes(tmp_path / "out")) == len(outcomes) + len(found)
    (file,) = (tmp_path / "out/results").rglob("*--echo/*/Alike.json")
    assert set(json.loads(file.read_text())["scores"]) == {"test", "dev"}
    with pytest.raises(InputError, match="Same has no split 'dev'"):
        evaluate(embedder(), ["echo"], ["Same"], out=tmp_path, data=sets, split="dev")


def test_a_broken_set_keeps_the_others(sets, tmp_path):
    """The set that breaks while it is read is an error at the plan, with file and line."""
    shutil.copytree(sets, tmp_path / "data")
    with (tmp_path / "data/Same/test.jsonl").open("a") as file:
        file.write("{broken\n")
    with pytest.raises(InputError, match=r"Same/test\.jsonl, line 31: is not JSON"):
        evaluate(embedder(), ["echo"], ["local"], out=tmp_path / "o", data=tmp_path / "data")


def test_the_hub_without_a_network(sets, tmp_path, monkeypatch):
    """The local tasks are finished, then the error says that the network is needed."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    said = []
    with pytest.raises(NotAvailableError, match=r"cannot fetch BIOSSES.*network.*--data"):
        evaluate(
            embedder(),
            ["echo"],
            ["BIOSSES", "SICK-R", "Alike"],
            out=tmp_path,
            data=sets,
            say=lambda line: said.append(line),
        )
    assert [one.task for one in read_outcomes(tmp_path)] == ["Alike"]
    assert "SICK-R: left out, the hub was not reached before" in said


def test_a_full_disk_keeps_what_is_finished(sets, tmp_path, monkeypatch):
    """The disk fills at the second task: StorageError, and the first outcome stays."""
    whole = results.write_whole

    def filling(path, content):
        if "Groups" in path.name:
            raise StorageError(f"cannot write {path}: no space")
        whole(path, content)

    monkeypatch.setattr(results, "write_whole", filling)
    with pytest.raises(StorageError):
        evaluate(embedder(), ["echo"], ["Alike", "Groups", "Same"], out=tmp_path, data=sets)
    assert [one.task for one in read_outcomes(tmp_path)] == ["Alike"]

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(mteb.ResultCache, "save_to_cache", full)
    with pytest.raises(StorageError, match="what is finished is kept"):
        evaluate(embedder(), ["echo"], ["Same"], out=tmp_path, data=sets)


def test_unknown_tasks_offer_the_nearest(sets):
    """A typo of a suite, a folder or an mteb task names what was meant."""
    for typo, meant in (("locl", "local"), ("Serch", "Search"), ("STSBenchmrk", "STSBenchmark")):
        with pytest.raises(InputError, match=f"unknown task '{typo}'.*did you mean.*{meant}"):
            find_tasks([typo], sets)
    with pytest.raises(InputError, match="needs the folder"):
        find_tasks(["local"], None)


def test_suites_have_the_tasks_they_name():
    """56 English datasets, the 26 that the paper names, and categories of the 56."""
    assert len(find_tasks(["mteb-eng-56"], None).tasks) == 56
    assert len(set(MTEB_MINI)) == 26
    assert [one.name for one, _ in find_tasks(["mteb-mini"], None).tasks] == list(MTEB_MINI)
    assert len(find_tasks(["sts"], None).tasks) == 10
    assert len(find_tasks(["sts", "STS12", "summarization"], None).tasks) == 11


def test_an_mteb_name_is_kept_only_by_the_exact_split(data, tmp_path):
    """The real STSBenchmark keeps its name; one pair less and it is called otherwise."""
    (real,) = find_tasks(["STSBenchmark"], data).tasks
    assert isinstance(real[0], LocalTask)
    assert (real[0].name, real[0].exact) == ("STSBenchmark", True)
    write(tmp_path / "STSBenchmark/test.jsonl", [{"sentence1": "a", "sentence2": "b", "score": 1}])
    (other,) = find_tasks(["local"], tmp_path).tasks
    assert (other[0].name, other[0].exact) == ("STSBenchmark-local", False)
    assert other[0].published_name == "STSBenchmark"


def test_two_recipes_of_one_name_are_refused(sets, tmp_path):
    """Results are kept by name: the same recipe twice, or under one name, is an error."""
    with pytest.raises(InputError, match="two recipes have one name"):
        evaluate(embedder(), ["echo", "echo"], ["local"], out=tmp_path, data=sets)


def test_changed_data_are_evaluated_again(sets, tmp_path):
    """A set whose files changed is not taken for finished; the others are."""
    shutil.copytree(sets, tmp_path / "data")
    options = {"out": tmp_path / "o", "data": tmp_path / "data"}
    before = evaluate(embedder(), ["echo"], ["sts", "reranking"], **options)
    write(
        tmp_path / "data/Alike/test.jsonl.gz",
        [{"sentence1": f"a {i}", "sentence2": f"b {i * i}", "score": i % 4} for i in range(12)],
    )
    said = []
    after = evaluate(embedder(), ["echo"], ["sts", "reranking"], say=said.append, **options)
    assert [one.num_items for one in before] == [40, 12]
    assert [one.num_items for one in after] == [12, 12]
    assert [line.split(",")[0] for line in said] == ["Alike"]


def test_a_changed_task_is_evaluated_again(sets, tmp_path):
    """Another instruction or type in task.toml is another score; a recipe without one stays."""
    shutil.copytree(sets / "Topics", tmp_path / "data/Topics")
    toml, said = tmp_path / "data/Topics/task.toml", []

    def run(text):
        toml.write_text(text)
        options = {"out": tmp_path / "o", "data": tmp_path / "data", "say": said.append}
        return evaluate(embedder(), ["echo", "echo-instruct"], ["Topics"], **options)

    run('instruction = "Find the topic"')
    said.clear()
    _, instructed = run('instruction = "Find the tone"')
    assert [line.split(":")[0] for line in said] == ["Topics, echo-instruct"]
    assert set(instructed.instruction.values()) == {"Find the tone"}
    clustered = run('category = "Clustering"\ninstruction = "Find the tone"')
    assert {(one.category, one.metric) for one in clustered} == {("Clustering", "v_measure")}


def test_whole_tasks_have_one_seed(sets, tmp_path):
    """The seed draws samples: whole tasks of runs with different seeds are on the same items."""
    found = [
        evaluate(embedder(), [name], ["Alike"], out=tmp_path, data=sets, seed=seed)[0]
        for name, seed in (("echo", 1), ("classical", 2))
    ]
    assert [one.seed for one in found] == [42, 42]
    assert len(comparison_of(found, ["echo", "classical"]).tasks) == 1
    before = replace(found[1], seed=2)  # as files of earlier versions have it
    assert len(comparison_of([found[0], before], ["echo", "classical"]).tasks) == 1


def test_lines_that_move_to_another_split_make_other_data(sets, tmp_path):
    """The same bytes, cut elsewhere: not taken for finished."""
    folder = tmp_path / "data/Alike"
    shutil.copytree(sets / "Alike", folder)
    rows = [{"sentence1": f"a {i}", "sentence2": f"b {i * i}", "score": i % 4} for i in range(30)]
    (folder / "test.jsonl.gz").unlink()
    counts = []
    for cut in (15, 14):
        write(folder / "dev.jsonl", rows[:cut])
        write(folder / "test.jsonl", rows[cut:])
        found = evaluate(embedder(), ["echo"], ["sts"], out=tmp_path / "o", data=tmp_path / "data")
        counts.append(found[0].num_items)
    assert counts == [15, 16]


def test_what_was_chosen_on_is_written_into_finished_results(sets, tmp_path):
    """`chosen_on` reaches outcomes of an earlier run; a run that does not say it keeps it."""
    options = {"out": tmp_path, "data": sets}
    evaluate(embedder(), ["echo"], ["Alike"], **options)
    for chosen_on in ("Same dev", None):
        (one,) = evaluate(embedder(), ["echo"], ["Alike"], chosen_on=chosen_on, **options)
        assert one.chosen_on == "Same dev"
        assert [one.chosen_on for one in read_outcomes(tmp_path)] == ["Same dev"]


def test_an_outcome_names_its_adapter(sets, tmp_path):
    """By the saved folder that it lies in, which is what loads it again; None without one."""
    plain = embedder("echo")
    adapted = Embedder(
        plain.recipe, plain.tokenizer, plain.backbone, source=Source(adapter=Path("/a/run/adapter"))
    )
    for one, name in ((plain, None), (adapted, "run")):
        (made,) = evaluate(one, ["echo"], ["Alike"], out=tmp_path / str(name), data=sets)
        assert made.adapter == name
    old = next((tmp_path / "None" / results.FOLDER).rglob("*.json"))
    content = json.loads(old.read_text("utf-8"))
    del content["adapter"]
    old.write_text(json.dumps(content), "utf-8")
    assert read_outcomes(tmp_path / "None")[0].adapter is None


def test_nothing_is_left_out_without_a_word(sets, tmp_path):
    """Sets of a category without the split, and of a name that is taken, are named."""
    found = find_tasks(["sts", "pair-classification"], sets, "dev")
    assert [source.name for source, _ in found.tasks] == ["Alike"]
    assert found.left_out == {"Same": "it has no split 'dev'"}
    for name in "ab":
        shutil.copytree(sets / "Alike", tmp_path / name)
        (tmp_path / name / "task.toml").write_text('name = "X"')
    found = find_tasks(["local", "sts"], tmp_path)
    assert [source.set.folder.name for source, _ in found.tasks] == ["a"]
    assert found.left_out == {"b": "an earlier set is called X, too"}
    with pytest.raises(InputError, match=r"there is no task of summarization in "):
        find_tasks(["summarization"], tmp_path)


def test_a_reranking_is_exact_by_texts_characters_and_judgements(tmp_path):
    """361 queries, 1,975 of 7,220 documents relevant, 397,127 characters: AskUbuntu; else not."""
    rows = [{"query": "a", "positive": ["b"] * 5, "negative": ["c"] * 15} for _ in range(361)]
    for row in rows[: 1975 - 5 * 361]:
        row["positive"].append(row["negative"].pop())
    rows[0]["query"] += "a" * (397_127 - 21 * 361)
    for missing, name in ((0, "AskUbuntuDupQuestions"), (1, "AskUbuntuDupQuestions-local")):
        rows[0]["query"] = rows[0]["query"][missing:]
        write(tmp_path / "AskUbuntuDupQuestions/test.jsonl", rows)
        ((source, _),) = find_tasks(["local"], tmp_path).tasks
        assert (source.name, source.exact) == (name, not missing)


def test_a_whole_summeval_has_the_name_of_the_version_that_scores_it(tmp_path):
    """The second one, whatever the folder is called; the SummEval of a suite is the first."""
    texts = {"human_summaries": (248_982, 11), "machine_summaries": (548_510, 16)}
    rows = [
        {name: ["a"] * count for name, (_, count) in texts.items()} | {"relevance": [1, 2] * 8}
        for _ in range(100)
    ]
    for name, (characters, count) in texts.items():
        rows[0][name][0] += "a" * (characters - 100 * count)
    for folder, options in (("SummEval", ""), ("News", 'mteb = "SummEval"\n')):
        write(tmp_path / folder / folder / "test.jsonl", rows)
        (tmp_path / folder / folder / "task.toml").write_text(options)
        for asked in ("local", folder):
            ((source, _),) = find_tasks([asked], tmp_path / folder).tasks
            assert source.exact
            assert source.name == source.published_name == "SummEvalSummarization.v2"
            task = source.make("test")
            assert task.metadata.name == "SummEvalSummarization.v2"
            assert isinstance(task, type(mteb.get_task("SummEvalSummarization.v2")))
    suite = [source for source, _ in find_tasks(["mteb-eng-56"], tmp_path / "SummEval").tasks]
    assert [type(one) for one in suite if one.name.startswith("SummEval")] == [HubTask]


def test_a_classification_is_exact_with_its_train_file(data, tmp_path):
    """The real Banking77 is mteb's; with fewer texts to learn from it is another task."""
    ((source, _),) = find_tasks(["Banking77"], data).tasks
    assert (source.name, source.revision_of("test")) == (source.published_name, source.revision)
    shutil.copytree(data / "Banking77", tmp_path / "Banking77")
    (train,) = (tmp_path / "Banking77").glob("train.jsonl*")
    rows = rows_of(source.set, "train")
    train.unlink()
    write(tmp_path / "Banking77/train.jsonl", rows[:-1])
    ((other, _),) = find_tasks(["local"], tmp_path).tasks
    assert not other.exact


def test_a_development_split_of_exact_data_is_known_by_its_file(data):
    """Only the test split is compared with mteb's, so only that has mteb's revision."""
    ((source, _),) = find_tasks(["STSBenchmark"], data).tasks
    assert source.revision_of("test") == source.revision != source.revision_of("dev")


def test_one_recipe_under_two_names_has_two_results(sets, tmp_path):
    """Equal vectors, other name: both are there, and the second needs no model."""
    twin = replace(preset("echo"), name="twin")
    found = evaluate(embedder(), ["echo", twin], ["Alike"], out=tmp_path, data=sets)
    assert [one.recipe_name for one in found] == ["echo", "twin"]
    assert len({one.main_score for one in found}) == 1
    assert found[1].forward_passes == 0
