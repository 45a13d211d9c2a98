"""The paper's kind of toy: what means the same against what begins the same, recipe by recipe.

    python examples/similarity.py

A large model under echo prefers what means the same (docs/results.md); see what yours does.
"""

from __future__ import annotations

from echovec import Embedder

QUERY = "She loves to travel in summer, especially to cold places, avoiding hot and crowded ones."
SAME = "She loves to travel in summer, but prefers chilly locations to hot, popular ones."
OTHER = "She loves to travel in summer, specifically to hot, crowded places, not cold ones."


def main(model: Embedder) -> dict[str, float]:
    """How much nearer the sentence that means the same is than the one that begins the same."""
    margins = {}
    for name in ("classical", "echo", "prompt-eol"):
        query, same, other = model.with_recipe(name).encode([QUERY, SAME, OTHER])
        margins[name] = float(query @ same - query @ other)
        print(f"{name:<10} cosine(same) - cosine(other) = {margins[name]:+.4f}")
    return margins


if __name__ == "__main__":
    main(Embedder.load())
