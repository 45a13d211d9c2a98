"""`tune` from end to end, on tiny models of two families."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from echovec import Embedder, InputError
from echovec.calibrate import Writing
from echovec.calibrate.fitting import RECORD
from echovec.cli import app
from echovec.recipe import Recipe
from echovec.tune import tune
from echovec.tune.run import Tuned
from echovec.tune.space import FEWEST_TEXTS, METHODS, WHOLE
from echovec.vector.calibrate import fit
from families import causal_model, family_tokenizer, sentences

TEXTS = sentences(160)
FEW = ["echo-eol", "classical"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Pairs to choose by, and a test split that would break the run if it were read."""
    folder = tmp_path_factory.mktemp("sets")
    (folder / "Pairs").mkdir()
    rows = [
        {"sentence1": TEXTS[i], "sentence2": TEXTS[i + 20], "score": len(TEXTS[i]) % 5}
        for i in range(60)
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "Pairs" / "validation.jsonl").write_text(lines, "utf-8")
    (folder / "Pairs" / "test.jsonl").write_text("not json", "utf-8")
    return folder


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def folder(request, tmp_path_factory):
    """A tiny model of a family, saved."""
    made = tmp_path_factory.mktemp(request.param)
    causal_model(request.param).save_pretrained(made)
    family_tokenizer(request.param).save_pretrained(made)
    return made


@pytest.fixture
def undrawn(monkeypatch):
    """Pictures take time to draw; where other things are tested, a card has none."""
    monkeypatch.setattr("echovec.tune.card._pictures", lambda *_: None)


def test_tune_ends_with_recipes_that_load(folder, data, tmp_path, monkeypatch):
    """The recipes load, give their scored vectors alone or in a batch, and cost what they may.

    A second run takes all states and scores from the first.
    """
    embedder = Embedder.load(folder, "echo")
    lines = []
    tuned = tune(
        embedder,
        tmp_path / "found",
        data=data,
        prompts=FEW,
        texts=TEXTS[100:],
        source="a test",
        say=lines.append,
        budget=5,
    )
    assert list(tuned.folders) == ["best", "one-pass", "fast"]
    costs = {entry.name: entry.cost for entry in tuned.entries}
    assert costs["one-pass"].passes == costs["fast"].passes == 1
    assert costs["fast"].tokens <= costs["one-pass"].tokens <= costs["best"].tokens
    for entry in tuned.entries:
        recipe = Recipe.load(tuned.folders[entry.name])
        assert recipe.long_text == "windows"
        assert recipe.name == entry.name
        record = recipe.versions[RECORD]
        assert record.startswith("tuned on 60 texts, a test, sha256:")
        assert record.endswith("; chosen on Pairs")
        assert entry.interval[0] <= entry.scores.mean <= entry.interval[1]
    own = Embedder.load(folder, tuned.folders["best"])
    together = own.encode(TEXTS[:9])
    alone = np.concatenate([own.encode([text]) for text in TEXTS[:9]])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    card = tuned.card.read_text("utf-8")
    assert "| Pairs | STS | validation | 120 |" in card
    for picture in ("layers.svg", "methods.svg", "cost.svg"):
        assert f"({picture})" in card
        assert (tmp_path / "found" / picture).stat().st_size > 1000

    def refused(*args, **kwargs):
        raise AssertionError("the model ran for states that are kept")

    monkeypatch.setattr(Embedder, "states", refused)
    monkeypatch.setattr("echovec.tune.card._pictures", lambda *_: None)
    scores = sorted((tmp_path / "found.work").glob("scores-*.jsonl"))
    before = [file.read_bytes() for file in scores]
    again = tune(
        embedder,
        tmp_path / "again",
        data=data,
        prompts=FEW,
        texts=TEXTS[100:],
        source="a test",
        work=tmp_path / "found.work",
        budget=5,
    )
    assert [file.read_bytes() for file in scores] == before
    assert [entry.mix for entry in again.entries] == [entry.mix for entry in tuned.entries]


def test_without_data_the_model_finds_halves_of_its_own_texts(
    folder, tmp_path, monkeypatch, undrawn
):
    """No data set is needed: the model writes texts and the recipe is chosen by halves."""
    monkeypatch.setenv("ECHOVEC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("echovec.tune.texts.HALVED", 40)
    embedder = Embedder.load(folder, "echo")
    writing = Writing(count=20, shortest=12, longest=20)
    tuned = tune(embedder, tmp_path / "found", prompts=FEW, writing=writing, budget=None)
    assert "halves of its own texts" in tuned.card.read_text("utf-8")
    assert "written by the model itself" in tuned.card.read_text("utf-8")
    assert "long texts: whole up to 1,024 tokens" in tuned.card.read_text("utf-8")


def test_a_budget_of_a_moment_still_finds_recipes(data, tmp_path, monkeypatch):
    """However short the budget, views as they are are scored; any folder will do.

    Also "." and "best", which is the name of a recipe that ships.
    """
    embedder = Embedder.from_model(
        causal_model("llama").eval(), family_tokenizer("llama"), "echo", engine="plain"
    )
    (tmp_path / "a, b" / "here").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a, b" / "here")
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets" / "odd|name").symlink_to(data / "Pairs")
    for out in (Path(), Path("best")):
        tuned = tune(
            embedder,
            out,
            data=tmp_path / "sets",
            prompts=FEW,
            texts=TEXTS[100:],
            source="a test",
            budget=0.0001,
        )
        assert list(tuned.folders) == ["best", "one-pass", "fast"]
        assert embedder.with_recipe(tuned.folders["fast"]).dimension == embedder.dimension
    assert (tmp_path / "a, b" / "here.work" / "plan.json").is_file()
    card = tuned.card.read_text("utf-8")
    assert "--recipe ./best,./best/one-pass,./best/fast,echo " in card
    assert "cut short by the budget: layers: " in card
    assert r"| odd\|name | STS | validation | " in card


def test_recipes_come_last(data, tmp_path, monkeypatch, undrawn):
    """What fails its check, or is broken off, leaves no recipe: the same command goes on."""
    embedder = Embedder.from_model(
        causal_model("llama").eval(), family_tokenizer("llama"), "echo", engine="plain"
    )
    options = {"data": data, "prompts": FEW, "texts": TEXTS[100:], "budget": 0.0001}

    def stop(*_, **__):
        raise KeyboardInterrupt

    for step in ("checked", "write_card"):
        with monkeypatch.context() as patch:
            patch.setattr(f"echovec.tune.run.{step}", stop)
            with pytest.raises(KeyboardInterrupt):
                tune(embedder, tmp_path / "out", **options)
        assert not list(tmp_path.glob("out/**/recipe.*"))
    tuned = tune(embedder, tmp_path / "out", **options)
    assert list(tuned.folders) == ["best", "one-pass", "fast"]
    assert tuned.folders["best"] == tmp_path / "out"
    assert all((folder / "recipe.json").is_file() for folder in tuned.folders.values())


def test_bad_options_are_refused_before_any_work(data, tmp_path):
    """A budget of nothing, an unknown prompt, a folder without sets: said at once."""
    embedder = Embedder.from_model(
        causal_model("llama").eval(), family_tokenizer("llama"), "echo", engine="plain"
    )
    with pytest.raises(InputError, match="budget=-1"):
        tune(embedder, tmp_path / "a", data=data, budget=-1)
    with pytest.raises(InputError, match="unknown prompts"):
        tune(embedder, tmp_path / "a", data=data, prompts=["no"])
    for texts, message in ((["one", "one"], "1 distinct texts"), (TEXTS[:5], "5 distinct texts")):
        with pytest.raises(InputError, match=f"{message} to calibrate on; give 6 or more"):
            tune(embedder, tmp_path / "a", data=data, prompts=FEW, texts=texts)
    (tmp_path / "file").touch()
    for options in ({"out": tmp_path / "file"}, {"out": tmp_path, "work": tmp_path / "file" / "w"}):
        with pytest.raises(InputError, match=r"file is not a folder; choose another place"):
            tune(embedder, **options, data=data, prompts=FEW, texts=TEXTS[:20])
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="no development data"):
        tune(embedder, tmp_path / "a", data=empty, prompts=FEW, texts=TEXTS[:20])


def test_a_wrong_prompt_is_known_before_a_model_is_loaded(monkeypatch, tmp_path):
    """A typo in `--prompts` is named at once."""
    monkeypatch.setattr(Embedder, "load", lambda *_, **__: pytest.fail("loaded"))
    command = ["tune", "--prompts", ",".join([*FEW, "ecko"]), "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(app, command)
    assert isinstance(done.exception, InputError)
    assert "ecko" in str(done.exception)


def test_as_many_texts_are_asked_for_as_the_fits_need():
    """Every calibration can be fitted on the fewest texts allowed, and not all on one fewer."""
    z_ND = np.random.default_rng(0).normal(size=(FEWEST_TEXTS, 32))
    steps = [step for method in (*METHODS, *WHOLE) for step in method.steps]
    for name, options in steps:
        fit(name, z_ND, **dict(options))
    (most,) = {options for options in steps if options[0] == "remove-top" and options[1][0][1] > 1}
    with pytest.raises(InputError, match="give fewer, or more texts"):
        fit(most[0], z_ND[1:], **dict(most[1]))


def test_the_command_line_passes_all_on(tmp_path, monkeypatch):
    """Each option reaches the search; of a file as many texts are read as it says."""
    texts = tmp_path / "texts.txt"
    texts.write_text("".join(f"text {n}\n" for n in range(1_100)), "utf-8")
    calls = []

    def found(embedder, out, **options):
        options.pop("say")
        calls.append((embedder, out, options))
        return Tuned((), {}, out / "card.md")

    monkeypatch.setattr(Embedder, "load", lambda *given, **how: (given, how))
    monkeypatch.setattr("echovec.tune.tune", found, raising=False)
    out = ["-o", str(tmp_path / "out")]
    many = ["--data", "sets", "--budget", "0", "--prompts", "echo-eol, classical", "--work", "kept"]
    many += ["--texts", str(texts), "--count", "7", "--seed", "3", "--model", "my-model"]
    many += ["--device", "cpu", "--precision", "fast"]
    for options in ([], many, ["--texts", str(texts)]):
        done = CliRunner().invoke(app, ["tune", *out, *options], catch_exceptions=False)
        assert done.exit_code == 0
    (plain, _, usual), (embedder, place, given), (_, _, read) = calls
    assert plain == ((None, "echo"), {"device": None, "precision": None})
    nothing = dict.fromkeys(("data", "prompts", "texts", "source", "work"))
    assert usual == nothing | {"budget": 20.0, "writing": Writing(), "seed": 0}
    assert embedder == (("my-model", "echo"), {"device": "cpu", "precision": "fast"})
    assert place == tmp_path / "out"
    assert given.pop("source").startswith("texts.txt (sha256:")
    assert given == {
        "data": Path("sets"),
        "budget": None,
        "prompts": ["echo-eol", "classical"],
        "texts": [f"text {n}" for n in range(7)],
        "writing": Writing(count=7),
        "work": Path("kept"),
        "seed": 3,
    }
    assert read["texts"] == [f"text {n}" for n in range(1_024)]


def test_the_command_line_tunes_and_keeps_what_is_there(data, tmp_path, undrawn):
    """Recipes are named on standard output; an existing recipe is not replaced unasked."""
    model = tmp_path / "model"
    causal_model("llama").save_pretrained(model)
    family_tokenizer("llama").save_pretrained(model)
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(TEXTS[100:]), "utf-8")
    out = tmp_path / "out"
    command = ["tune", "--model", str(model), "--data", str(data), "--texts", str(texts)]
    command += ["--prompts", ",".join(FEW), "--budget", "5", "-o", str(out)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "best: " in done.stdout
    assert "how they were found" in done.stdout
    assert f",echo --model {model} --data DIR -o " in (out / "card.md").read_text("utf-8")
    again = CliRunner().invoke(app, command)
    assert isinstance(again.exception, InputError)
    assert "--overwrite" in str(again.exception)
