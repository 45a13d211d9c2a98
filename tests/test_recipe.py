"""Recipes: saved and read back whole, and a fingerprint that follows the vectors."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from echovec import InputError, Recipe, RecipeError, StorageError, Template, View
from echovec.presets import PRESETS, as_recipe, preset, preset_names, recipe_of
from echovec.recipe import ROLES, ModelIdentity
from echovec.text.presets import PROMPT_EOL_PREPENDED
from echovec.vector.transform import Center, Linear, Normalize, Truncate

IDENTITY = ModelIdentity(
    name="m", hash="sha256:a", tokenizer_hash="sha256:b", bos_id=1, eos_id=None, path="somewhere"
)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_survives_json(name):
    """A recipe read from its own JSON is the same recipe."""
    recipe = replace(
        PRESETS[name], model=IDENTITY, dtype="float32", transforms=(Truncate(8), Normalize())
    )
    assert Recipe.from_json(recipe.to_json()) == recipe


def test_fingerprints_of_all_presets_differ():
    """No two presets share a fingerprint unless they are the same definition."""
    assert len({recipe.fingerprint for recipe in PRESETS.values()}) == len(PRESETS)


def changed(recipe, **view):
    views = {r: tuple(replace(v, **view) for v in vs) for r, vs in recipe.views.items()}
    return replace(recipe, views=views)


BASE = replace(PRESETS["echo"], model=IDENTITY, dtype="float32")


@pytest.mark.parametrize(
    "other",
    [
        replace(BASE, max_tokens=100),
        replace(BASE, dtype="bfloat16"),
        replace(BASE, transforms=(Truncate(8),)),
        replace(BASE, model=replace(IDENTITY, hash="sha256:c")),
        replace(BASE, model=replace(IDENTITY, tokenizer_hash="sha256:c")),
        replace(BASE, model=replace(IDENTITY, bos_id=None)),
        replace(BASE, model=replace(IDENTITY, eos_id=2)),
        changed(BASE, pooling="lasttoken"),
        changed(BASE, layer=3),
        changed(BASE, layer=(3, 4)),
        changed(BASE, layer="all"),
        changed(BASE, weight=2.0),
        changed(BASE, mask="bidirectional"),
        changed(BASE, states="attention"),
        changed(BASE, pooling="selected"),
        changed(BASE, threshold=2.0),
        changed(BASE, template=PROMPT_EOL_PREPENDED, prepend=(2, 8)),
        changed(BASE, transforms=(Normalize(),)),
        replace(BASE, combine="concat"),
        replace(BASE, long_text="windows"),
        replace(BASE, text_share=0.5),
        replace(BASE, views={role: views * 2 for role, views in BASE.views.items()}),
        changed(BASE, template=Template("{text} {text}")),
        changed(BASE, template=replace(BASE.views["query"][0].template, bos="absent")),
        changed(BASE, template=replace(BASE.views["query"][0].template, pooled=0)),
        replace(BASE, views=dict(BASE.views, query=View(Template("q {text}")))),
    ],
)
def test_whatever_changes_vectors_changes_the_fingerprint(other):
    """Model, tokenizer, token ids, template, pooling, layer, limits, dtype: each one counts."""
    assert other.fingerprint != BASE.fingerprint


@pytest.mark.parametrize(
    "other",
    [
        replace(BASE, name="another"),
        replace(BASE, versions={"torch": "9"}),
        replace(BASE, model=replace(IDENTITY, name="n", path=None)),
    ],
)
def test_names_places_and_versions_do_not(other):
    """The same weights under another name or another library version are the same recipe."""
    assert other.fingerprint == BASE.fingerprint


def test_precision_says_what_the_dtype_is():
    """float32 is exact, bfloat16 is fast."""
    assert BASE.precision == "exact"
    assert replace(BASE, dtype="bfloat16").precision == "fast"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(max_tokens=7), "it was edited"),
        (lambda c: c.update(format=99), "recipe format 99"),
        (lambda c: c.pop("views"), "not a recipe (KeyError"),
        (lambda c: c["views"].update(nobody={}), "unknown roles ['nobody']"),
        (lambda c: c["views"]["symmetric"][0].update(pooling="max"), "unknown pooling 'max'"),
        (lambda c: c.update(transforms=[{"kind": "magic"}]), "unknown transform 'magic'"),
        (lambda c: c["model"].update(colour="red"), "not a recipe (TypeError"),
    ],
)
def test_a_broken_recipe_file_says_what_is_wrong(change, message):
    """Missing, unknown, newer or edited content is refused, naming the file."""
    content = json.loads(BASE.to_json())
    change(content)
    with pytest.raises(RecipeError) as caught:
        Recipe.from_json(json.dumps(content), where="my.json")
    assert message in str(caught.value)


def test_text_that_is_not_json_is_refused():
    """A file of something else is no recipe."""
    with pytest.raises(RecipeError, match=r"my\.json: not a recipe \(JSONDecodeError"):
        Recipe.from_json("hello", where="my.json")


def test_a_file_of_other_bytes_is_no_recipe(tmp_path):
    """Bytes that are no UTF-8 are refused as a recipe, with the file's name."""
    (tmp_path / "mine.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(RecipeError, match=r"cannot read the recipe .*mine\.json: 'utf-8' codec"):
        Recipe.load(tmp_path / "mine.json")


@pytest.mark.parametrize("times", [1, 100])
def test_a_prompt_is_no_name_and_the_message_says_what_it_is(times):
    """A prompt in place of a recipe's name, also one too long for a path, points to Template."""
    with pytest.raises(RecipeError, match=r"a prompt is a template: Template\('...'\)"):
        as_recipe("Say {text} again " * times)


def test_numpy_s_numbers_are_numbers():
    """A recipe made with numbers of numpy's is written, and has the same fingerprint."""
    view = View(Template("{text}"), layer=1, weight=0.5)
    plain = recipe_of("x", view, max_tokens=8, text_share=0.5, transforms=(Truncate(2),))
    other = recipe_of(
        "x",
        replace(view, layer=np.int64(1), weight=np.float32(0.5)),
        max_tokens=np.int64(8),
        text_share=np.float32(0.5),
        transforms=(Truncate(np.int32(2)),),
    )
    assert other.to_json() == plain.to_json()
    assert Recipe.from_json(other.to_json()) == plain


def test_several_layers_may_be_a_list():
    """They are kept as a tuple, so that a saved view is the view."""
    view = View(Template("{text}"), layer=[1, 2])
    assert view == View(Template("{text}"), layer=(1, 2))
    assert Recipe.from_json(recipe_of("x", view).to_json()) == recipe_of("x", view)
    assert hash(view) == hash(View(Template("{text}"), layer=(1, 2)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": ()}, r"layer=\(\); give a number"),
        ({"layer": []}, r"layer=\[\]; give a number"),
        ({"layer": "last"}, "layer='last'; give a number"),
        ({"layer": 1.5}, "layer=1.5; give a number"),
        ({"layer": (1, 1.5)}, r"layer=\(1, 1.5\); give a number"),
        ({"prepend": (8, 2)}, r"prepend=\(8, 2\); give the first block"),
        ({"prepend": (0, 2)}, r"prepend=\(0, 2\); give the first block"),
        ({"prepend": (2, -1)}, r"prepend=\(2, -1\); give the first block"),
        ({"prepend": (1, 2, 3)}, r"prepend=\(1, 2, 3\); give the first block"),
    ],
)
def test_layers_and_blocks_that_cannot_be_are_refused(options, message):
    """No layer, half a layer, and blocks in the wrong order, which would do nothing."""
    with pytest.raises(RecipeError, match=message):
        View(PROMPT_EOL_PREPENDED, **options)


def test_an_unknown_name_offers_the_nearest():
    """A typo in a recipe's name is answered with the name that was meant."""
    with pytest.raises(RecipeError, match="unknown recipe 'ecco'; did you mean echo"):
        preset("ecco")
    assert "echo" in preset_names()


def test_a_recipe_comes_from_a_name_a_template_a_file_or_itself(tmp_path):
    """`as_recipe` takes whatever the caller has."""
    file = tmp_path / "mine.json"
    file.write_text(BASE.to_json(), "utf-8")
    assert as_recipe("echo") is PRESETS["echo"]
    assert as_recipe(BASE) is BASE
    assert as_recipe(file) == BASE
    assert as_recipe(str(file)) == BASE
    template = Template("A: {text} B: {text}")
    assert as_recipe(template).views == dict.fromkeys(ROLES, (View(template),))
    assert as_recipe(Template("{text}:", pooled="end")).views["query"][0].pooling == "lasttoken"
    with pytest.raises(RecipeError, match=r"cannot read .*; check the path .*`echovec recipes`"):
        as_recipe(tmp_path / "absent.json")


def test_a_path_is_a_folder_also_where_a_recipe_that_ships_has_its_name(tmp_path, monkeypatch):
    """`Path("best")` is the folder here, or an error; "best" is what ships."""
    monkeypatch.chdir(tmp_path)
    for name in ("best", "echo"):
        with pytest.raises(RecipeError, match=f"cannot read the recipe {name}: .*; check the path"):
            as_recipe(Path(name))
        BASE.save(tmp_path / name)
        assert as_recipe(Path(name)) == BASE
        assert as_recipe(name) is preset(name)


def test_a_recipe_needs_a_view_for_every_role():
    """Leaving a role out is refused when the recipe is made."""
    with pytest.raises(RecipeError, match="needs symmetric, query, document"):
        Recipe(name="x", views={"query": View(Template("{text}"))})


# -- arrays ---------------------------------------------------------------------------------------

FITTED = recipe_of(
    "fitted",
    View(Template("{text}"), transforms=(Center(np.arange(4)), Normalize()), weight=0.5),
    View(Template("{text}:", pooled="end"), "lasttoken", (1, 2)),
    combine="concat",
    long_text="windows",
    text_share=0.75,
    transforms=(Linear(np.zeros(8), np.eye(8)[:, :3]), Truncate(2)),
)


def test_a_recipe_with_arrays_survives_its_folder(tmp_path):
    """Saved and loaded, a fitted recipe is the same, arrays included, by folder and by file."""
    folder = FITTED.save(tmp_path / "mine")
    assert sorted(file.name for file in folder.iterdir()) == ["recipe.json", "recipe.safetensors"]
    for again in (Recipe.load(folder), Recipe.load(folder / "recipe.json"), as_recipe(folder)):
        assert again == FITTED
        assert again.fingerprint == FITTED.fingerprint


def test_an_array_that_all_roles_share_is_kept_once(tmp_path):
    """Three roles with the same fitted view cost one array; without arrays there is no file."""
    FITTED.save(tmp_path)
    assert len(load_file(tmp_path / "recipe.safetensors")) == len(FITTED.arrays) == 3
    plain = PRESETS["echo"].save(tmp_path / "plain")
    assert [file.name for file in plain.iterdir()] == ["recipe.json"]


def test_the_fingerprint_covers_the_arrays():
    """One changed number in one array is another recipe."""
    view = FITTED.views["query"][0]
    other = replace(view, transforms=(Center(np.arange(4) + 1e-3), Normalize()))
    views = dict(FITTED.views, query=(other, FITTED.views["query"][1]))
    assert replace(FITTED, views=views).fingerprint != FITTED.fingerprint


def test_a_missing_or_edited_array_file_is_refused(tmp_path):
    """Without its arrays, with others, or with another kind of file, a recipe does not load."""
    FITTED.save(tmp_path)
    file = tmp_path / "recipe.safetensors"
    arrays = load_file(file)
    name = next(name for name, array in arrays.items() if array.shape == (4,))
    save_file(arrays | {name: arrays[name] + 1}, file)
    with pytest.raises(RecipeError, match="was edited"):
        Recipe.load(tmp_path)
    save_file({n: a for n, a in arrays.items() if n != name}, file)
    with pytest.raises(RecipeError, match="is not there: it lies in recipe"):
        Recipe.load(tmp_path)
    file.write_bytes(b"something else")
    with pytest.raises(RecipeError, match="not a safetensors file"):
        Recipe.load(tmp_path)
    file.unlink()
    with pytest.raises(RecipeError, match="keep the two files together"):
        Recipe.load(tmp_path)


def test_a_folder_that_cannot_be_written_is_a_storage_error(tmp_path):
    """A file in the way of the folder is exit code 4."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot save to"):
        FITTED.save(tmp_path / "file")


def test_a_save_that_fails_leaves_nothing_behind(tmp_path):
    """A folder in the way of the file is exit code 4, and no unfinished file stays."""
    (tmp_path / "recipe.json").mkdir()
    with pytest.raises(StorageError, match=r"cannot write .*recipe\.json"):
        PRESETS["echo"].save(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["recipe.json"]


def test_a_recipe_may_be_saved_by_two_at_once(tmp_path):
    """Writers of one folder do not take each other's unfinished file."""
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(FITTED.save, tmp_path) for _ in range(40)]:
            done.result()
    assert Recipe.load(tmp_path) == FITTED


def test_a_view_may_stand_alone():
    """One bare view is a tuple of one."""
    view = View(Template("{text}"))
    assert recipe_of("x", view) == Recipe(name="x", views=dict.fromkeys(ROLES, view))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"combine": "mean"}, RecipeError, "combine='mean'; there are sum, concat"),
        ({"long_text": "drop"}, RecipeError, "long_text='drop'; there are cut, windows"),
        ({"text_share": 0.0}, InputError, "text_share=0.0; give a number above 0"),
        ({"max_tokens": 0}, InputError, "max_tokens=0 leaves no text"),
        ({"views": dict.fromkeys(ROLES, ())}, RecipeError, "has no view for symmetric"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(options, error, message):
    """Unknown names and impossible numbers are refused when the recipe is made."""
    with pytest.raises(error, match=message):
        replace(PRESETS["echo"], **options)


def test_a_transform_of_one_s_own_cannot_be_saved():
    """A recipe in memory may hold any transform, its JSON only those that ship."""

    class Double:
        def __call__(self, z_SD):
            return 2 * z_SD

        def dim_out(self, dim_in):
            return dim_in

    with pytest.raises(RecipeError, match="Double is no transform that a recipe can be saved with"):
        replace(PRESETS["echo"], transforms=(Double(),)).to_json()
