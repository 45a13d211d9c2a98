"""Recipes: saved and read back whole, and a fingerprint that follows the vectors."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from echovec import Recipe, RecipeError, Template, View
from echovec.recipe import PRESETS, ROLES, ModelIdentity, as_recipe, preset, preset_names
from echovec.vector.transform import Normalize, Truncate

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
    return replace(recipe, views={r: replace(v, **view) for r, v in recipe.views.items()})


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
        changed(BASE, template=Template("{text} {text}")),
        changed(BASE, template=replace(BASE.views["query"].template, bos="absent")),
        changed(BASE, template=replace(BASE.views["query"].template, pooled=0)),
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
        (lambda c: c["views"]["symmetric"].update(pooling="max"), "unknown pooling 'max'"),
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
    assert as_recipe(template).views == dict.fromkeys(ROLES, View(template))
    assert as_recipe(Template("{text}:", pooled="end")).views["query"].pooling == "lasttoken"
    with pytest.raises(RecipeError, match="cannot read the recipe"):
        as_recipe(tmp_path / "absent.json")


def test_a_recipe_needs_a_view_for_every_role():
    """Leaving a role out is refused when the recipe is made."""
    with pytest.raises(RecipeError, match="needs symmetric, query, document"):
        Recipe(name="x", views={"query": View(Template("{text}"))})
