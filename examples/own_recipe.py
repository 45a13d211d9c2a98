"""A recipe of one's own: two views of one pass, centred on unlabelled texts, saved and loaded.

python examples/own_recipe.py
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from echovec import Embedder, Recipe, Template, View
from echovec.recipe import ROLES
from echovec.vector.transform import Center, Normalize

PROMPT = Template('Rewrite: {text}\nRewritten: {text}\nIn one word: "')
TEXTS = ("A cat sat on the mat.", "Rates rise again.", "Prune the apple tree in winter.")


def main(model: Embedder, texts: Sequence[str] = TEXTS) -> Recipe:
    """The second copy's mean and the last token, each centred, added up."""
    views = (View(PROMPT), View(replace(PROMPT, pooled="end"), "lasttoken"))
    bare = Recipe(name="own", views=dict.fromkeys(ROLES, views))
    states = model.with_recipe(bare).states(list(texts))  # for each view: layers, texts, width
    fitted = tuple(
        replace(view, transforms=(Center(z_LND[-1].mean(axis=0)), Normalize()))
        for view, z_LND in zip(views, states, strict=True)
    )
    own = model.with_recipe(replace(bare, views=dict.fromkeys(ROLES, fitted)))
    with tempfile.TemporaryDirectory() as folder:
        own.recipe.save(folder)
        read = Recipe.load(Path(folder))
    print(own.recipe.describe().replace("\n", " "))
    print("fingerprint", read.fingerprint)
    return read


if __name__ == "__main__":
    main(Embedder.load())
