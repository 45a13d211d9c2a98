"""The encoder for mteb: every text task type runs, and known vectors score as at mteb itself."""

from __future__ import annotations

import hashlib
from types import SimpleNamespace

import numpy as np
import pytest

from evaluate_data import TYPES, Counting, embedder, make_sets, write

mteb = pytest.importorskip("mteb")

from mteb.mocks import MOCK_TASK_TEST_GRID  # noqa: E402
from mteb.models import ModelMeta  # noqa: E402
from mteb.models.abs_encoder import AbsEncoder  # noqa: E402
from mteb.types import PromptType  # noqa: E402

from echovec.errors import InputError  # noqa: E402
from echovec.evaluate import interval as interval_module  # noqa: E402
from echovec.evaluate.encoder import MtebEncoder, role_of, task_instruction  # noqa: E402
from echovec.evaluate.instructions import INSTRUCTIONS  # noqa: E402
from echovec.evaluate.items import Watch  # noqa: E402
from echovec.evaluate.layout import find_sets  # noqa: E402
from echovec.evaluate.local import SEED, LocalTask  # noqa: E402
from echovec.evaluate.method import Method, _fresh  # noqa: E402
from echovec.evaluate.quiet import without_noise  # noqa: E402
from echovec.evaluate.shards import records_of  # noqa: E402
from echovec.evaluate.texts import texts_of  # noqa: E402
from echovec.evaluate.vectors import Vectors  # noqa: E402


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch):
    monkeypatch.setattr(interval_module, "RESAMPLES", 20)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    sets, _ = find_sets(make_sets(tmp_path_factory.mktemp("sets")))
    return {one.name: LocalTask(one) for one in sets}


@pytest.mark.parametrize("task", MOCK_TASK_TEST_GRID, ids=lambda task: task.metadata.name)
def test_every_text_task_type_of_mteb_runs(task):
    """Mteb's own offline mock tasks, all text types, give finite scores."""
    with without_noise():
        found = mteb.evaluate(
            MtebEncoder(embedder()), task, cache=None, show_progress_bar=False, co2_tracker=False
        )
    assert np.isfinite(found.task_results[0].get_score())


def known_vector(text):
    """Sixteen numbers that only the text decides."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
    return np.random.default_rng(seed).standard_normal(16).astype(np.float32)


class Direct(AbsEncoder):
    """Known vectors, handed to mteb without anything of ours."""

    def __init__(self):
        self.mteb_model_meta = ModelMeta.create_empty()

    def encode(self, inputs, **_):
        vectors = np.stack([known_vector(text) for batch in inputs for text in batch["text"]])
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class Known(Vectors):
    """The same vectors, but through our cache, roles and order."""

    shift = 0.0

    def _embed(self, texts, role, instruction):
        vectors = np.stack([known_vector(text) for text in texts])
        vectors[:, 0] += self.shift
        count = len(texts)
        return records_of(texts, vectors, np.ones(count, int), np.zeros(count, bool))


@pytest.mark.parametrize("name", TYPES)
def test_known_vectors_score_as_at_mteb_itself(name, tasks, tmp_path):
    """Every score of a task, not only the main one, equals mteb called directly."""
    source = tasks[name]
    with without_noise():
        direct = mteb.evaluate(
            Direct(), source.make("test"), cache=None, show_progress_bar=False, co2_tracker=False
        ).task_results[0]
    scores = {}
    for shift in (0.0, 2.0):
        model = embedder("echo", Counting(dim=16))
        vectors = Known(model)
        vectors.shift = shift
        method = Method(MtebEncoder(model, vectors=vectors), tmp_path / str(shift))
        outcome = method.run(source, source.make("test"), "test")
        found = mteb.ResultCache(method.out).load_task_result(
            source.name, method.encoder.mteb_model_meta
        )
        scores[shift] = found.scores["test"][0]
    expected = direct.scores["test"][0]
    compared = [key for key, value in expected.items() if isinstance(value, float)]
    assert outcome.metric in compared
    assert len(compared) > 2
    for key in compared:
        assert scores[0.0][key] == pytest.approx(expected[key], abs=2e-6, nan_ok=True), key
    other = [key for key in compared if abs(scores[2.0][key] - expected[key]) > 1e-6]
    assert other, "the control: other vectors score otherwise"


class Sense(Known):
    """Vectors that say the first word of a text, and little of the rest; or, as a control, all."""

    part = 0

    def _embed(self, texts, role, instruction):
        found = super()._embed(texts, role, instruction)
        words = [known_vector(text.split()[self.part]) for text in texts]
        found["vector"] = np.stack(words) + 0.1 * found["vector"]
        return found


def sensible(folder):
    """A set of each type: texts are alike, relevant or of one class by their first word."""
    places = range(20)
    pairs = [(f"s{i % 5} a{i}", f"s{(i + i % 2) % 5} b{i}", 1 - i % 2) for i in places]
    texts = [{"text": f"s{i % 5} c{i}", "label": f"class {i % 5}"} for i in range(80)]
    of = {sense: [f"{sense} {n}{sense}" for n in "defg"] for sense in ("s0", "s1", "s2", "s3")}
    senses = [(one, other) for one in of for other in of if one != other]
    alike = [{"sentence1": a, "sentence2": b, "score": 5.0 * same} for a, b, same in pairs]
    write(folder / "Alike/test.jsonl", alike)
    same = [{"sentence1": a, "sentence2": b, "label": same} for a, b, same in pairs]
    write(folder / "Same/test.jsonl", same)
    write(folder / "Topics/train.jsonl", texts[:40])
    write(folder / "Topics/test.jsonl", texts[40:])
    write(folder / "Groups/test.jsonl", texts[:40])
    documents = [{"_id": text, "text": text} for texts in of.values() for text in texts]
    write(folder / "Search/corpus.jsonl", documents)
    write(folder / "Search/queries.jsonl", [{"_id": one, "text": f"{one} q"} for one in of])
    judged = [f"{one}\t{text}\t1\n" for one, texts in of.items() for text in texts]
    (folder / "Search/qrels.tsv").write_text("".join(judged))
    ranks = [
        {"query": f"{one} q", "positive": of[one], "negative": of[other]} for one, other in senses
    ]
    write(folder / "Ranks/test.jsonl", ranks)
    digests = [
        {
            "human_summaries": of[one][:2],
            "machine_summaries": of[one][2:] + of[other][2:],
            "relevance": [5, 4, 1, 1],
        }
        for one, other in senses
    ]
    write(folder / "Digests/test.jsonl", digests)
    return {one.name: LocalTask(one) for one in find_sets(folder)[0]}


def test_a_score_is_high_where_vectors_agree_with_the_file(tmp_path):
    """Labels, grades and gold scores are read the right way round, of every type of set."""
    sets, scores = sensible(tmp_path / "sets"), {}
    assert {name: one.category for name, one in sets.items()} == TYPES
    for part in (0, 1):
        model = embedder("echo", Counting(dim=16))
        vectors = Sense(model)
        vectors.part = part
        method = Method(MtebEncoder(model, vectors=vectors), tmp_path / str(part))
        for name, source in sets.items():
            task = source.make("test")
            task.n_experiments = 1  # of classification, where ten draws take their time
            outcome = method.run(source, task, "test")
            scores.setdefault(name, []).append(outcome.main_score)
    assert {name: both for name, both in scores.items() if not both[0] > 0.8 > both[1]} == {}


def test_draws_are_those_of_a_fresh_task(tasks):
    """What was evaluated before takes none of a task's random numbers."""
    task = tasks["Groups"].make("test")
    fresh = type(task)(seed=SEED)
    expected = fresh.rng_state.random(), fresh.np_rng.random()
    for _ in range(2):
        again = _fresh(task)
        assert again.dataset is task.dataset
        assert (again.rng_state.random(), again.np_rng.random()) == expected
        task.rng_state.random(), task.np_rng.random()


def test_items_that_do_not_give_the_score_are_thrown_away(tmp_path):
    """No interval rather than a wrong one: mteb's score has to be the mean of the queries."""
    task = SimpleNamespace(
        metadata=SimpleNamespace(main_score="ndcg_at_10"), prediction_file_name="none.json"
    )
    watch = Watch(task, tmp_path)
    watch.per_query["test", "en"] = {"q1": {"ndcg_cut_10": 0.25}, "q2": {"ndcg_cut_10": 0.75}}
    found = watch.items("test", {"en": {"main_score": 0.5}})
    assert found["values"] == [0.25, 0.75]
    assert watch.items("test", {"en": {"main_score": 0.501}}) == {}


@pytest.mark.parametrize("name", TYPES)
def test_texts_are_known_before_they_are_asked_for(name, tasks):
    """What a plan lists is what mteb then asks for, in the same roles."""
    task = tasks[name].make("test")
    listed = {(role, text) for role, texts in texts_of(task, "test") for text in texts}
    asked = set()

    class Listening(Direct):
        def encode(self, inputs, *, prompt_type=None, **options):
            inputs = list(inputs)
            asked.update((role_of(prompt_type), t) for batch in inputs for t in batch["text"])
            return super().encode(inputs)

    with without_noise():
        mteb.evaluate(Listening(), task, cache=None, show_progress_bar=False, co2_tracker=False)
    assert listed == asked


def test_instructions_are_those_that_mteb_has_too():
    """All 56 English tasks have one, and where mteb knows one it is the same."""
    for task in mteb.get_benchmark("MTEB(eng, v1)").tasks:
        theirs = task.metadata.prompt
        theirs = theirs.get("query") if isinstance(theirs, dict) else theirs
        assert INSTRUCTIONS[task.metadata.name] == (theirs or INSTRUCTIONS[task.metadata.name])


def test_an_instruction_goes_to_recipes_that_take_one(tasks):
    """The task's own instruction reaches the prompt of an instructed recipe, and no other."""
    metadata = tasks["Search"].make("test").metadata
    asked = task_instruction(metadata, "query")
    assert asked.startswith("Given a web search query")
    for recipe, takes in (("echo-instruct", True), ("echo", False)):
        vectors = Vectors(embedder(recipe))
        tokens = np.concatenate([b.ids_T for (b,) in vectors.chunks(["cat"], "query", asked)])
        assert (bytes(int(t) for t in tokens if t < 256).find(asked.encode()) >= 0) == takes


def test_roles_are_mtebs_prompt_types():
    """Query, document and neither."""
    assert [role_of(one) for one in (PromptType.query, PromptType.document, None)] == [
        "query",
        "document",
        "symmetric",
    ]


def test_the_model_is_described_in_full():
    """Name and revision say model, recipe, sample and fingerprint; dimensions are there."""
    model = embedder("echo")
    meta = MtebEncoder(model, sample=9, seed=1).mteb_model_meta
    assert meta.name == "echovec/in-memory--echo--sample-9-seed-1"
    assert meta.revision == model.recipe.fingerprint
    assert (meta.embed_dim, meta.max_tokens, meta.use_instructions) == (12, 512, False)
    assert MtebEncoder(embedder("echo-instruct")).mteb_model_meta.use_instructions


def test_a_model_that_was_trained_since_is_another_revision(monkeypatch):
    """Mteb keeps results by it; what it sets itself stays but for that."""
    monkeypatch.setattr(Counting, "has_changed", lambda self: True, raising=False)
    model = embedder("echo")
    encoder = MtebEncoder(model)
    before = encoder.mteb_model_meta
    assert encoder.mteb_model_meta is before
    encoder.mteb_model_meta = before.model_copy(update={"license": "mit"})
    model.backbone._mix_LDD.mul_(-1)
    after = encoder.mteb_model_meta
    assert (after.revision, after.license) == (model.recipe.fingerprint, "mit")
    assert after.revision != before.revision


def test_what_cannot_be_done_is_refused(tasks):
    """Images and unknown options are errors, not silently left out."""
    encoder, metadata = MtebEncoder(embedder()), tasks["Alike"].make("test").metadata
    common = {"task_metadata": metadata, "hf_split": "test", "hf_subset": "default"}
    with pytest.raises(InputError, match="only text can be embedded"):
        encoder.encode([{"image": [0]}], **common)
    with pytest.raises(InputError, match="normalise"):
        encoder.encode([{"text": ["a"]}], **common, normalise=True)
