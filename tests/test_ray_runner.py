"""The corpus job on Ray: the same shards as on one machine, whatever comes back when.

Most of it runs on a stand-in for Ray in this process, which hands results back in any order and
pickles what travels; the slow tests use Ray itself, with processes that are killed.
"""

import json
import os
import pickle
import random
import signal
import socket
import subprocess
import sys
import time
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from corpus_stub import Stub, job, shards, table
from echovec.cli import app
from echovec.corpus import ray_runner
from echovec.corpus.formats import Contents
from echovec.corpus.ray_runner import Model, RayRunner, plan_piece
from echovec.corpus.source import Row
from echovec.embedder import Embedder
from echovec.errors import DependencyError, EchovecError, InputError, NonFiniteError
from echovec.presets import preset
from echovec.text.planner import Planned
from echovec.text.template import Template
from echovec.vector.view import View
from families import causal_model, family_tokenizer
from plugins_stub import embedder as tiny

REAL = Path(__file__).with_name("ray_stub.py")


class TaskError(Exception):
    """As Ray's: what a worker raised."""

    def __init__(self, cause):
        super().__init__(str(cause))
        self.cause = cause


class UnreachableError(RuntimeError):
    """As Ray's: an actor cannot be reached now."""


class Ref:
    """A result that is made when somebody waits for it."""

    def __init__(self, make):
        self.make, self.value, self.ready = make, None, False

    def get(self):
        if not self.ready:
            try:
                self.value = pickle.loads(pickle.dumps(self.make()))
            except EchovecError as error:
                raise TaskError(pickle.loads(pickle.dumps(error))) from error
            self.ready = True
        return self.value


class StandIn:
    """As much of the ray module as the runner uses; results come in any order."""

    exceptions = SimpleNamespace(
        RayTaskError=TaskError, RayError=RuntimeError, ActorUnavailableError=UnreachableError
    )

    def __init__(self, seed=0, gpus=0):
        self.dice, self.started, self.most, self.options = random.Random(seed), False, 0, {}
        self.gpus, self.killed, self.asked, self.waits = gpus, 0, None, []

    def is_initialized(self):
        return self.started

    def init(self, **options):
        self.started, self.asked = True, options

    def shutdown(self):
        self.started = False

    def cluster_resources(self):
        return {"CPU": 8.0, "GPU": float(self.gpus)}

    def put(self, value):
        ref = Ref(lambda: value)
        ref.get()
        return ref

    def get(self, refs):
        return [ref.get() for ref in refs] if isinstance(refs, list) else refs.get()

    def wait(self, refs, num_returns):
        assert num_returns == 1
        self.most = max(self.most, len(refs))
        self.waits.append(len(refs))
        one = self.dice.choice(refs)
        try:
            one.get()
        except TaskError as error:
            one.make = partial(_raise, error.cause)
        except UnreachableError as error:
            one.make = partial(_raise, error)
        return [one], [ref for ref in refs if ref is not one]

    def kill(self, actor):
        self.killed += 1

    def remote(self, **options):
        def wrap(what):
            self.options[what.__name__] = options
            if isinstance(what, type):
                return SimpleNamespace(remote=lambda *given: Actor(what(*pickled(given))))
            return SimpleNamespace(remote=lambda *given: Ref(lambda: what(*resolved(given))))

        return wrap


class Actor:
    """An object whose methods give references."""

    def __init__(self, inner):
        self.inner = inner

    def __getattr__(self, name):
        method = getattr(self.inner, name)
        return SimpleNamespace(remote=lambda *given: Ref(lambda: method(*resolved(given))))


def _raise(error):
    raise error


def pickled(given):
    return pickle.loads(pickle.dumps(given))


def resolved(given):
    return [one.get() if isinstance(one, Ref) else pickled(one) for one in given]


@pytest.fixture
def ray(monkeypatch):
    """The stand-in, at the door."""
    stand_in = StandIn()
    monkeypatch.setattr(ray_runner, "_door", lambda: stand_in)
    return stand_in


def write(path, lines):
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def on_ray(inputs, folder, load=Stub, **options):
    """The job of corpus_stub, on whatever Ray there is."""
    with RayRunner(load, **options.pop("ray", {"workers": 3})) as models:
        return job(inputs, folder, models, runner=models, **options)


@pytest.mark.parametrize("seed", range(4))
def test_shards_equal_those_of_one_machine(tmp_path, ray, monkeypatch, seed):
    """In any order of results: the same bytes, rejected rows included, slices in order."""
    ray.dice.seed(seed)
    monkeypatch.setattr(ray_runner, "CHUNK_ROWS", 2)
    texts = [f"text {n % 23}" for n in range(40)] + ["!", "last"]
    path = write(tmp_path / "in.txt", texts)
    seen = []
    done = on_ray([path], tmp_path / "ray", on_progress=lambda p: seen.append(p.rows))
    job([path], tmp_path / "plain")
    assert table(tmp_path / "ray") == table(tmp_path / "plain")
    assert shards(tmp_path / "ray") == shards(tmp_path / "plain")
    assert (done.rows, done.rejected, done.shards) == (41, 1, 11)
    assert seen == sorted(seen)
    assert ray.killed == 3, "actors are stopped"
    assert not ray.started, "and Ray, which was started for the job"


def test_what_is_kept_stays_with_its_row(tmp_path, ray, monkeypatch):
    """`--keep` on a cluster: the same bytes, rows that a model turns away and equal texts too."""
    monkeypatch.setattr(ray_runner, "CHUNK_ROWS", 2)
    texts = [f"text {n % 23}" for n in range(40)] + ["!", "last"]
    rows = [json.dumps({"text": text, "n": n, "lang": "en"}) for n, text in enumerate(texts)]
    path = write(tmp_path / "in.jsonl", rows)
    on_ray([path], tmp_path / "ray", keep=["n", "lang"])
    job([path], tmp_path / "plain", keep=["n", "lang"])
    assert shards(tmp_path / "ray") == shards(tmp_path / "plain")
    kept = [pq.read_table(tmp_path / "ray" / name).column("n") for name in shards(tmp_path / "ray")]
    assert [n for column in kept for n in column.to_pylist()] == [*range(40), 41]


def test_what_is_under_way_is_bounded(tmp_path, ray, monkeypatch):
    """Two pieces for each model and as many slices as models and two, however long the input."""
    monkeypatch.setattr(ray_runner, "CHUNK_ROWS", 1)
    path = write(tmp_path / "in.txt", [f"text {n}" for n in range(200)])
    taken = []

    def rows(tasks):
        for task in tasks:
            taken.append(task.slice.start)
            yield task

    with RayRunner(Stub, workers=2) as models:
        job(
            [path], tmp_path / "out", models, runner=lambda tasks: spied(models(rows(tasks)), taken)
        )
    assert ray.most <= 2 * ray_runner.WAITING


@pytest.mark.parametrize("workers", [2, 3])
def test_all_models_are_at_work_until_the_end(tmp_path, ray, workers):
    """Slices of one piece each, done in their order: one that is written makes room at once."""
    ray.dice.choice = lambda refs: refs[0]
    path = write(tmp_path / "in.txt", [f"text {n}" for n in range(80)])
    on_ray([path], tmp_path / "out", ray={"workers": workers})
    assert ray.waits == [workers] * (21 - workers) + list(range(workers - 1, 0, -1))


def spied(results, taken):
    for given, result in enumerate(results):
        assert len(taken) - given <= 4
        yield result


def test_a_job_may_begin_on_one_machine_and_end_on_a_cluster(tmp_path, ray):
    """What the manifest has is not embedded again, in both directions."""
    path = write(tmp_path / "in.txt", [f"text {n}" for n in range(10)])
    job([path], tmp_path / "out")
    write(path, [f"text {n}" for n in range(22)])
    done = on_ray([path], tmp_path / "out")
    assert (done.rows, done.resumed) == (22, 10)
    write(path, [f"text {n}" for n in range(25)])
    stub = Stub()
    job([path], tmp_path / "out", stub)
    assert len(stub.seen) == 3
    assert [text for _, text, _ in table(tmp_path / "out")] == [f"text {n}" for n in range(25)]


def roles_apart():
    """A real embedder whose queries have a prompt and a pooling of their own."""
    recipe = preset("echo-instruct")
    query = View(Template("Find {instruction}: {text} again {text}"), pooling="weightedmean")
    return tiny(replace(recipe, views={**recipe.views, "query": (query,)}))


def test_planned_pieces_give_the_vectors_of_encode(tmp_path, ray):
    """A real embedder: tokenised apart from its model, pickled on the way, equal to the bit."""
    embedder = roles_apart()
    texts = [f"a cat sat on mat number {n % 7}" for n in range(19)] + [" word" * 900]
    run_of = {"role": "query", "instruction": "find it", "truncate_dim": 5}
    path = write(tmp_path / "in.txt", texts)
    contents = Contents(
        recipe_json=embedder.recipe.to_json(), fingerprint=embedder.recipe.fingerprint, **run_of
    )
    with RayRunner(roles_apart, workers=2, **run_of) as models:
        assert models.fingerprint == embedder.recipe.fingerprint
        assert ray.get(models._planner) is not None
        done = job([path], tmp_path / "ray", models, runner=models, contents=contents)
    job([path], tmp_path / "plain", embedder, contents=contents)
    assert done.truncated == 1
    assert table(tmp_path / "ray") == table(tmp_path / "plain")


def test_texts_that_cannot_be_planned_are_set_aside():
    """The tokenizer's refusal is a Problem with its place; the rest of the piece goes on."""

    def planner(texts, instruction):
        for index, text in enumerate(texts):
            if text == "bad":
                raise InputError(f"texts[{index}] has no tokens; drop it", index=index)
        return Planned(tuple(texts), np.arange(len(texts)))

    rows = [Row(str(n), text, f"in.txt:{n}") for n, text in enumerate(["a", "bad", "b"])]
    piece = plan_piece(planner, rows, None)
    assert (piece.planned.chunks, [row.text for row in piece.rows]) == (["a", "b"], ["a", "b"])
    assert [(p.where, p.reason) for p in piece.problems] == [("in.txt:1", "the text has no tokens")]
    none = plan_piece(planner, rows[1:2], None)
    assert (none.planned, none.rows, len(none.problems)) == (None, [], 1)
    model = Model(Stub, {"role": None, "instruction": None, "truncate_dim": None})
    assert len(model.embed(none).problems) == 1


def test_models_of_two_fingerprints_are_refused(tmp_path, ray):
    """As where one machine has another processor: both are shown, and nothing stays running."""
    made = iter(["a" * 16, "b" * 16])
    ray.remote = lambda **_: (
        lambda what: SimpleNamespace(
            remote=lambda *given: (
                Actor(what(partial(Stub, next(made)), given[1])) if what is Model else None
            )
        )
    )
    with pytest.raises(InputError, match="aaaaaaaaaaaaaaaa and bbbbbbbbbbbbbbbb"):
        RayRunner(Stub, workers=2).__enter__()
    assert (ray.killed, ray.started) == (2, False)


def test_errors_of_workers_come_back_as_they_are(tmp_path, ray):
    """Our own errors keep their kind and exit code, also those with more than a message."""
    path = write(tmp_path / "in.txt", ["a", "b"])
    with pytest.raises(NonFiniteError, match=r"in\.txt:2: .* NaN"):
        on_ray([path], tmp_path / "out", Broken)
    with pytest.raises(InputError, match="no such model"):
        on_ray([path], tmp_path / "other", no_model)


def without_numbers():
    """A real embedder to which the token of "mat" is no number."""
    model, tokenizer = deepcopy(causal_model("llama")), family_tokenizer("llama")
    made = Embedder.from_model(model, tokenizer)
    weights = model.get_input_embeddings().weight
    weights.data[made.tokenizer.tokenize(["mat"])[0][0]] = float("nan")
    return made


def test_a_row_without_numbers_is_named_also_behind_equal_texts(tmp_path, ray):
    """What is planned apart holds each text once; the row that is named is the input's."""
    path = write(tmp_path / "in.txt", ["a cat", "a cat", "a cat", "a mat", "a cat"])
    with pytest.raises(NonFiniteError, match=r"in\.txt:4: .* for the text, in float32 too"):
        on_ray([path], tmp_path / "out", without_numbers)


def out_of_reach(monkeypatch, times):
    """The next so many pieces find their model out of reach; returns the naps taken."""
    embed, left, naps = Model.embed, [times], []

    def unreachable(self, piece):
        left[0] -= 1
        if left[0] >= 0:
            raise UnreachableError("The actor is unavailable")
        return embed(self, piece)

    monkeypatch.setattr(Model, "embed", unreachable)
    monkeypatch.setattr(
        ray_runner, "time", SimpleNamespace(sleep=naps.append, monotonic=time.monotonic)
    )
    return naps


def test_a_model_out_of_reach_is_asked_again(tmp_path, ray, monkeypatch):
    """More often than Ray tries by itself: until the model is up elsewhere, nothing is lost."""
    path = write(tmp_path / "in.txt", [f"text {n}" for n in range(10)])
    naps = out_of_reach(monkeypatch, 20)
    assert on_ray([path], tmp_path / "out").rows == 10
    assert naps == [1] * 20
    job([path], tmp_path / "plain")
    assert shards(tmp_path / "out") == shards(tmp_path / "plain")


def test_a_model_out_of_reach_now_and_then_does_not_end_a_long_job(tmp_path, ray, monkeypatch):
    """The five minutes count from the last piece that came back."""
    path = write(tmp_path / "in.txt", [f"text {n}" for n in range(10)])
    hours, embed, tries = [0.0], Model.embed, [0]

    def now_and_then(self, piece):
        hours[0] += 200
        tries[0] += 1
        if tries[0] % 2:
            raise UnreachableError("The actor is unavailable")
        return embed(self, piece)

    monkeypatch.setattr(Model, "embed", now_and_then)
    clock = SimpleNamespace(sleep=lambda _: None, monotonic=lambda: hours[0])
    monkeypatch.setattr(ray_runner, "time", clock)
    assert on_ray([path], tmp_path / "out").rows == 10


def test_a_model_out_of_reach_for_long_ends_the_job(tmp_path, ray, monkeypatch):
    """With what to do."""
    path = write(tmp_path / "in.txt", ["a"])
    out_of_reach(monkeypatch, 10**9)
    monkeypatch.setattr(ray_runner, "_PATIENCE", 0.05)
    with pytest.raises(EchovecError, match=r"is unavailable; .* the same command goes on"):
        on_ray([path], tmp_path / "out")


class Broken(Stub):
    """A model that gives no number for the second text."""

    def encode(self, texts, **_):
        raise NonFiniteError("texts[1] gives NaN", row=1)


def no_model():
    """What is loaded and is not there."""
    raise InputError("no such model")


@pytest.mark.parametrize(
    ("gpus", "options", "workers", "share"),
    [
        (0, {}, 4, 0.0),
        (4, {}, 4, 1.0),
        (4, {"gpus_per_worker": 0.5}, 8, 0.5),
        (4, {"workers": 2}, 2, 1.0),
        (4, {"gpus_per_worker": 0, "workers": 3}, 3, 0),
    ],
)
def test_workers_follow_what_the_cluster_has(ray, gpus, options, workers, share):
    """One model for each GPU or each two CPUs, unless it is said otherwise."""
    ray.gpus = gpus
    with RayRunner(Stub, address="auto", **options) as models:
        assert models.workers == workers
    assert ray.options["Model"]["num_gpus"] == share
    # What Ray itself does about processes that die, and about machines.
    again = {"max_restarts": -1, "max_task_retries": 5, "scheduling_strategy": "SPREAD"}
    assert again.items() <= ray.options["Model"].items()
    assert ray.options["plan_piece"]["max_retries"] == 5
    assert (ray.killed, ray.started) == (workers, False)
    assert "num_cpus" not in ray.asked, "a cluster has the CPUs it has"


@pytest.mark.parametrize(("cause", "said"), [(MemoryError(), "MemoryError"), (None, "died: x")])
def test_a_worker_that_fails_is_named_by_its_last_line_or_its_kind(cause, said):
    """Also where the error that it raised says nothing, as a MemoryError does."""
    error = TaskError(cause)
    error.args = ("Traceback\ndied: x",)

    def get(_):
        raise error

    ray = SimpleNamespace(get=get, exceptions=StandIn.exceptions)
    with pytest.raises(EchovecError, match=f"a worker failed: {said}$"):
        ray_runner._get(ray, [])


@pytest.mark.parametrize("error", [ConnectionError, RuntimeError, ValueError])
def test_a_cluster_that_does_not_answer_is_named(ray, monkeypatch, error):
    """With its address, Ray's reason and what to give."""

    def init(**_):
        raise error("Failed to connect to GCS\nand more")

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(InputError, match=r"at auto \(Failed to connect to GCS\); .*ray start"):
        RayRunner(Stub, address="auto").__enter__()


def test_an_address_where_nobody_listens_is_refused_at_once(ray):
    """Ray would try for minutes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(InputError, match=f"at {address} .*refused"):
            RayRunner(Stub, address=address).__enter__()
    assert ray.asked is None, "Ray was not started"


def test_wrong_numbers_and_a_missing_ray_say_so(monkeypatch):
    """Each with what to give, or what to install; Ray is told to report to nobody beforehand."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "")  # so that it is as before afterwards
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED")
    with pytest.raises(InputError, match="workers=0"):
        RayRunner(Stub, workers=0)
    with pytest.raises(InputError, match="gpus_per_worker=-1"):
        RayRunner(Stub, gpus_per_worker=-1)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(DependencyError, match=r"echovec\[ray\]"):
        RayRunner(Stub).__enter__()
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


class Told(Stub):
    """A stub whose vectors say what they are asked for."""

    def encode(self, texts, *, role=None, instruction=None, **options):
        return super().encode([f"{role} {instruction} {text}" for text in texts], **options)


def test_the_command_line_gives_its_options_to_models_on_ray(tmp_path, ray, monkeypatch):
    """Shards are those of the same command on one machine, to the byte."""
    from echovec.cli import embed

    monkeypatch.setattr(embed, "_load", _told_of_the_command_line)
    path = write(tmp_path / "in.txt", [f"text {n}" for n in range(9)])
    options = ["--role", "document", "--instruction", "find it", "--truncate-dim", "5"]
    for runner in ("local", "ray"):
        command = ["embed", str(path), "--runner", runner, *options, "-o", f"{tmp_path}/{runner}/"]
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, done.output
    assert len(table(tmp_path / "ray")[0][2]) == 5
    assert shards(tmp_path / "ray") == shards(tmp_path / "local")


def test_the_command_line_runs_on_ray(tmp_path, ray, monkeypatch):
    """--runner ray writes the folder; a single file is refused."""
    from echovec.cli import embed

    monkeypatch.setattr(embed, "_load", _stub_of_the_command_line)
    path = write(tmp_path / "in.txt", [f"text {n}" for n in range(9)])
    arguments = ["embed", str(path), "--runner", "ray", "--workers", "2", "-o"]
    done = CliRunner().invoke(app, [*arguments, f"{tmp_path}/out/"])
    assert done.exit_code == 0, done.output
    assert "9 texts" in done.stderr
    assert len(table(tmp_path / "out")) == 9
    refused = CliRunner().invoke(app, [*arguments, str(tmp_path / "out.npy")])
    assert "--runner ray is for a folder" in str(refused.exception)


def _stub_of_the_command_line(*_):
    return Stub()


def _told_of_the_command_line(*_):
    return Told()


def cluster(tmp_path, workers=2, rows=400, seconds="0.01"):
    """A job on Ray in a process of its own: (process, input, folder)."""
    pytest.importorskip("ray", reason="the extra ray")
    path = write(tmp_path / "in.txt", [f"text {n}" for n in range(rows)])
    command = [sys.executable, str(REAL), str(path), str(tmp_path / "out"), seconds, str(workers)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    return process, path, tmp_path / "out"


def same_as_one_machine(path, out, tmp_path):
    job([path], tmp_path / "plain", shard_rows=20)
    assert shards(out) == shards(tmp_path / "plain")
    assert table(out) == table(tmp_path / "plain")


@pytest.mark.slow
def test_real_workers_that_are_killed_cost_nothing(tmp_path):
    """Two models on Ray, one killed in the middle: complete, each row once, the same bytes."""
    process, path, out = cluster(tmp_path)
    pids = [int(pid) for pid in process.stdout.readline().split()]
    assert len(set(pids)) == 2
    while len(list(out.glob("rows-*"))) < 4:
        time.sleep(0.05)
        assert process.poll() is None
    os.kill(pids[0], signal.SIGKILL)
    rest, _ = process.communicate(timeout=400)
    assert "done 400" in rest
    same_as_one_machine(path, out, tmp_path)


@pytest.mark.slow
def test_a_real_driver_that_is_killed_goes_on_here(tmp_path):
    """The driver killed in the middle: this machine goes on, nothing done is embedded again."""
    process, path, out = cluster(tmp_path)
    assert process.stdout.readline()
    while len(list(out.glob("rows-*"))) < 4:
        time.sleep(0.05)
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    stub = Stub()
    done = job([path], out, stub, shard_rows=20)
    assert done.rows == 400
    assert len(stub.seen) == 400 - done.resumed
    same_as_one_machine(path, out, tmp_path)
