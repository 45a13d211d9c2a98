"""Exports to sentence-transformers: same vectors, loadable as promised, removed where they fail."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest

from echovec import Embedder, Template
from echovec.errors import ExportError, InputError, RecipeError
from echovec.export import to_sentence_transformers
from echovec.export.echo_tokenizer import budget, echo_tokenizer
from echovec.export.linear import Affine, steps_of
from echovec.export.parity import HOSTILE, REAL, compare
from echovec.export.program import program_of
from echovec.presets import one_view, preset, recipe_of
from echovec.recipe import ROLES
from echovec.text.drafts import render
from echovec.text.presets import WORDS
from echovec.vector.transform import Center, Linear, Normalize, Remove, Scale, Truncate
from echovec.vector.view import View
from families import TOKENIZERS, causal_model, family_tokenizer, tokenizer

st = pytest.importorskip("sentence_transformers", reason="the extra train")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:sentence_transformers")

ECHO_EOL = Template('A: {text}\nB: {text} means "', pooled="end")
PLAIN = {
    "prompt-eol": "prompt-eol",
    "echo and a word": one_view("echo-word", ECHO_EOL),
    "echo and EOS": one_view("echo-eos", Template("{text} again {text}", eos="pooled")),
    "last of the second copy": recipe_of("last", View(Template("{text}, {text}"), "lasttoken")),
    "fixed instruction": one_view(
        "instruct", Template("{instruction}: {text}", eos="pooled", instruction="Find")
    ),
}
MODULE = {
    "echo": "echo",
    "echo-instruct": "echo-instruct",
    "weighted, layers": recipe_of("w", View(Template("a {text} b {text}"), "weightedmean", (1, 2))),
    "views of two passes": recipe_of(
        "two",
        View(Template("a {text}", bos="absent"), layer=1, weight=0.5, transforms=(Normalize(),)),
        View(ECHO_EOL, "lasttoken", transforms=(Normalize(),)),
        View(dataclasses.replace(ECHO_EOL, pooled=0)),
        combine="concat",
    ),
    "other wordings": recipe_of(
        "worded",
        View(Template("a {text} b {text:bare} c {text:sorted} d {text:reversed}", pooled=1)),
        View(Template("a {text} b {text:bare} c {text:sorted} d {text:reversed}")),
    ),
    "token embeddings by how rare they are": recipe_of(
        "rare", View(Template("a {text} b {text:bare}"), "sif", layer=(0, 2)), View(WORDS, "sif", 0)
    ),
    "half": recipe_of("half", View(Template("a {text} b {text}")), text_share=0.5),
}


def embedder(recipe, family="llama", max_tokens=24):
    return Embedder.from_model(causal_model(family), family_tokenizer(family), recipe).with_recipe(
        recipe, max_tokens=max_tokens
    )


def vectors(made, texts, **options):
    """Ours, cut texts among them."""
    return made.encode(texts, return_truncated=True, **options)[0]


@pytest.mark.parametrize("name", PLAIN)
def test_a_plain_export_loads_without_code_and_is_the_same(name, tmp_path):
    """Route plain: a bare SentenceTransformer(folder) gives our vectors, cut texts included."""
    from echovec.sentence_transformers import load

    made = embedder(PLAIN[name])
    parity = made.save_sentence_transformers(tmp_path / "x")
    assert parity.holds
    assert parity.route == "plain"
    assert not list((tmp_path / "x").rglob("*.py"))
    loaded = st.SentenceTransformer(str(tmp_path / "x"), device="cpu", local_files_only=True)
    texts = [*REAL, "long " * 60]
    np.testing.assert_allclose(loaded.encode(texts), vectors(made, texts), atol=2e-6)
    assert loaded.similarity_fn_name == "cosine"
    ours = load(tmp_path / "x", device="cpu")
    np.testing.assert_allclose(ours.encode(texts), vectors(made, texts), atol=2e-6)


@pytest.mark.parametrize("name", MODULE)
def test_a_module_export_is_the_same_with_the_flag_and_with_our_loader(name, tmp_path):
    """Route module: several views, passes, layers, roles; loaded by the flag and without it."""
    from echovec.sentence_transformers import load

    made = embedder(MODULE[name])
    parity = made.save_sentence_transformers(tmp_path / "x")
    assert parity.holds
    assert parity.route == "module"
    with pytest.raises(ValueError, match="trust_remote_code"):
        st.SentenceTransformer(str(tmp_path / "x"), device="cpu", local_files_only=True)
    loaded = load(tmp_path / "x", device="cpu")
    for encode, role in ((loaded.encode_query, "query"), (loaded.encode_document, "document")):
        np.testing.assert_allclose(encode(list(REAL)), vectors(made, REAL, role=role), atol=2e-6)


@pytest.mark.parametrize(
    "table", [[], {}, None, ["x"], [{}], [{"type": "os.system", "path": ""}], [{"type": "x"}]]
)
def test_a_table_of_modules_that_no_export_has_is_refused(table, tmp_path):
    """As an input error that shows it; nothing that it names is imported."""
    from echovec.errors import InputError
    from echovec.sentence_transformers import load

    (tmp_path / "modules.json").write_text(json.dumps(table))
    with pytest.raises(InputError, match="which no export has"):
        load(tmp_path)
    with pytest.raises(InputError, match="is no sentence-transformers folder"):
        load(tmp_path / "none")


@pytest.mark.parametrize("key", ["arrays", "roles", "special", None])
def test_an_echo_json_that_is_not_whole_is_refused(key, tmp_path):
    """As an error that names the file and what it lacks, by our loader and by the module alone."""
    from echovec.errors import InputError
    from echovec.export.echo_module import EchoModule
    from echovec.sentence_transformers import load

    embedder("echo").save_sentence_transformers(tmp_path / "x")
    file = tmp_path / "x" / "echo.json"
    content = json.loads(file.read_text("utf-8"))
    file.write_text(json.dumps({k: v for k, v in content.items() if k != key} if key else []))
    said = rf"x: echo.json lacks {key}: .* export again" if key else "no object; export again"
    with pytest.raises(InputError, match=said):
        load(tmp_path / "x", device="cpu")
    with pytest.raises(ValueError, match=said):
        EchoModule.load(str(tmp_path / "x"), local_files_only=True)


def test_an_instruction_is_a_prompt(tmp_path):
    """sentence-transformers' prompt is our instruction, and a role without one refuses it."""
    from echovec.sentence_transformers import load

    made = embedder("echo-instruct")
    made.save_sentence_transformers(tmp_path / "x")
    loaded = load(tmp_path / "x", device="cpu")
    flagged = st.SentenceTransformer(
        str(tmp_path / "x"), device="cpu", trust_remote_code=True, local_files_only=True
    )
    for attribute in ("prompts", "similarity_fn_name"):
        assert getattr(loaded, attribute) == getattr(flagged, attribute)
    assert loaded.prompts["query"] == made.definition.views["query"][0].template.instruction
    theirs = loaded.encode_query(["a cat"], prompt="Find animals")
    np.testing.assert_allclose(
        theirs, made.encode_query(["a cat"], instruction="Find animals"), atol=2e-6
    )
    with pytest.raises(ValueError, match="takes no instruction"):
        loaded.encode_document(["a cat"], prompt="Find animals")


def test_a_module_is_read_at_one_revision(tmp_path, monkeypatch):
    """Weights and tokenizer of a hub name come from the revision that was asked for."""
    from echovec.export import echo_module

    embedder("echo").save_sentence_transformers(tmp_path / "x")
    asked = {}
    for name in ("AutoModel", "AutoTokenizer"):
        original = getattr(echo_module, name).from_pretrained

        def read(*names, original=original, name=name, **options):
            asked[name] = options["revision"]
            return original(*names, **options)

        monkeypatch.setattr(echo_module, name, SimpleNamespace(from_pretrained=read))
    echo_module.EchoModule.load(str(tmp_path / "x"), local_files_only=True, revision="abc")
    assert asked == {"AutoModel": "abc", "AutoTokenizer": "abc"}


def test_the_budget_heeds_the_model_s_positions():
    """Copies are cut so that the whole prompt fits, or to the recipe's budget if that is less."""
    made = embedder(ECHO_EOL)
    program = program_of(made)
    around = budget(made, program) - program.max_tokens
    for positions, copy in ((around + 9, 4), (around + 10, 5), (around + 1000, program.max_tokens)):
        limited = dataclasses.replace(program, max_positions=positions)
        assert budget(made, limited) == around + copy


def test_the_module_gives_no_nan(tmp_path):
    """A text without tokens, or without room beside the instruction, is an error."""
    from echovec.sentence_transformers import load

    made = embedder(Template("{text}{text}"))
    made.save_sentence_transformers(tmp_path / "x")
    loaded = load(tmp_path / "x", device="cpu")
    with pytest.raises(ValueError, match="no tokens"):
        loaded.encode(["a cat", ""])
    loaded[0].program["max_positions"] = 1
    with pytest.raises(ValueError, match="budget 0"):
        loaded.encode(["a cat"])


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_the_echo_tokenizer_writes_our_prompt(kind):
    """Its file gives the very ids of our renderer, for every kind of tokenizer but one."""
    inner = tokenizer(kind)
    for template in (ECHO_EOL, Template("{text} {text}", eos="pooled")):
        made = Embedder.from_model(causal_model("llama"), inner, one_view("x", template))
        made = made.with_recipe(made.definition, max_tokens=9)
        echo = echo_tokenizer(made, program_of(made))
        if kind == "unigram":
            continue  # "</s>" is a plain piece there: parity finds that, and takes the module
        texts = [*REAL, *HOSTILE, *(f"a {t} b" for t in inner.all_special_tokens)]
        ids = echo(texts, truncation=True, max_length=echo.model_max_length)["input_ids"]
        rendered = render(made._readers["symmetric"].renderers[0], texts)
        assert ids == [one.ids.tolist() for one in rendered]


def test_where_a_tokenizer_file_is_not_enough_the_module_is_taken(tmp_path):
    """A vocabulary with "</s>" as a plain piece fails as plain modules and says so."""
    made = Embedder.from_model(causal_model("llama"), tokenizer("unigram"), "prompt-eol")
    parity = made.save_sentence_transformers(tmp_path / "x")
    assert parity.route == "module"
    assert "lose parity" in parity.notes[0]
    with pytest.raises(ExportError, match="NOT the same"):
        made.save_sentence_transformers(tmp_path / "y", route="plain")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_an_export_that_differs_is_removed(tmp_path, monkeypatch):
    """Control: with other weights in the folder the check fails and nothing is left."""
    from safetensors.numpy import load_file, save_file

    own = to_sentence_transformers._write

    def wrong(made, program, folder, route):
        own(made, program, folder, route)
        weights = load_file(folder / "model.safetensors")
        weights["norm.weight"] = weights["norm.weight"] * np.linspace(1, 1.1, 32, dtype=np.float32)
        save_file(weights, folder / "model.safetensors", {"format": "pt"})

    monkeypatch.setattr(to_sentence_transformers, "_write", wrong)
    with pytest.raises(ExportError, match="removed"):
        embedder("echo").save_sentence_transformers(tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_nan_is_no_parity():
    """Vectors that are not finite never count as the same."""
    made = embedder("echo")
    parity = compare(made, lambda texts, role: np.full((len(texts), 32), np.nan), route="x")
    assert not parity.holds
    assert parity.lowest_cosine == -1


@pytest.mark.parametrize("wrong", ROLES)
def test_a_role_that_differs_is_no_parity(wrong):
    """Each role is compared: one that is read like another does not pass for the same."""
    made = embedder("echo-instruct")
    like = {"symmetric": "query", "query": "document", "document": "query"}

    def export(texts, role):
        return vectors(made, texts, role=like[role] if role == wrong else role)

    texts = {"real": list(REAL[:2])}
    assert not compare(made, export, route="x", texts=texts).holds


def test_calibrations_become_standard_modules(tmp_path):
    """One view's linear transforms are Dense and Normalize modules of sentence-transformers."""
    made = embedder("prompt-eol")
    states = made.states(list(REAL))[0][-1]
    mean = states.mean(axis=0)
    transforms = (Scale(mean, 1 / states.std(axis=0)), Normalize(), Center(mean), Truncate(8))
    view = dataclasses.replace(made.definition.views["query"][0], transforms=transforms, weight=2.0)
    made = made.with_recipe(recipe_of("calibrated", view), max_tokens=24)
    parity = made.save_sentence_transformers(tmp_path / "x")
    kinds = [
        m["type"].rpartition(".")[2] for m in json.loads((tmp_path / "x/modules.json").read_text())
    ]
    assert parity.route == "plain"
    assert kinds == ["Transformer", "Pooling", "Dense", "Normalize", "Dense", "Normalize"]


def test_affine_steps_are_their_transforms():
    """Each linear transform, and their composition, equals itself as one matrix and bias."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(5, 6)).astype(np.float32)
    q, _ = np.linalg.qr(rng.normal(size=(6, 2)))
    mean = z.mean(axis=0)
    import torch

    for transforms in (
        (Center(mean),),
        (Scale(mean, np.arange(1, 7)),),
        (Remove(mean, q.T),),
        (Linear(mean, rng.normal(size=(6, 4))), Truncate(3), Center(np.ones(3))),
    ):
        (step,) = steps_of(transforms, 6, 1.5)
        assert isinstance(step, Affine)
        want = torch.from_numpy(z)
        for transform in transforms:
            want = transform(want)
        got = z @ step.matrix_DE + step.bias_E
        np.testing.assert_allclose(got, 1.5 * want.numpy(), atol=1e-5)


def test_what_no_export_holds_is_refused_by_name(tmp_path):
    """Other masks, attention poolings, prepending: refused, with the reason; nothing is written."""
    refused = {
        "classical-both-ways": "mask",
        "echo-attended": "attention",
        "prompt-eol-prepended": "prepend",
    }
    for name, reason in refused.items():
        chosen = preset(name)
        if name == "prompt-eol-prepended":
            views = tuple(dataclasses.replace(v, prepend=(1, 2)) for v in chosen.views["query"])
            chosen = dataclasses.replace(chosen, views=dict.fromkeys(ROLES, views))
        with pytest.raises(RecipeError, match=reason):
            embedder(chosen).save_sentence_transformers(tmp_path / "x")
    with pytest.raises(RecipeError, match="last token"):
        embedder("echo").save_sentence_transformers(tmp_path / "x", route="plain")
    (tmp_path / "there").mkdir()
    with pytest.raises(InputError, match="there already"):
        embedder("echo").save_sentence_transformers(tmp_path / "there")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_windows_are_exported_as_cut_and_it_is_said(tmp_path):
    """Of windows an export holds the same recipe with long texts cut, and a note says so."""
    made = embedder("echo-windows")
    parity = made.save_sentence_transformers(tmp_path / "x")
    assert "texts of more than 24 tokens are cut" in parity.lines()[0]
    again = Embedder.load(tmp_path / "x", device="cpu")
    assert again.definition.long_text == "cut"
    long = ["a text of many words " * 20]
    cut = made.with_recipe(dataclasses.replace(made.definition, long_text="cut"))
    np.testing.assert_allclose(vectors(again, long), vectors(cut, long), atol=2e-6)
    # the control: windows of this text are other vectors
    assert np.abs(vectors(again, long) - vectors(made, long)).max() > 1e-3


def test_an_export_is_an_embedder_again(tmp_path):
    """`Embedder.load` of an export of either route: the same fingerprint, the same vectors."""
    for recipe in ("echo", "prompt-eol"):
        made = embedder(recipe)
        made.save_sentence_transformers(tmp_path / recipe)
        again = Embedder.load(tmp_path / recipe, device="cpu")
        assert again.recipe.fingerprint == made.recipe.fingerprint
        np.testing.assert_allclose(vectors(again, REAL), vectors(made, REAL), atol=2e-6)
