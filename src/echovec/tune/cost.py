"""Cost: tokens and runs of the model that a recipe takes for the texts to choose by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from echovec.presets import preset, recipe_of
from echovec.tune.parts import Sum
from echovec.tune.space import Prompt, Target
from echovec.vector.view import View

if TYPE_CHECKING:
    from echovec.embedder import Embedder
    from echovec.recipe import Recipe

COMPARED = ("classical", "echo")


@dataclass(frozen=True)
class Cost:
    """What a recipe takes for all texts, as the model runs it: cut texts, shared passes.

    Token embeddings take nothing: no block runs for them.
    """

    tokens: int

    passes: int


class Costs:
    """Costs over given texts, every prompt counted once.

    Args:
        embedder: whose tokenizer and limits.
        prompts: by name.
        texts: counted once each.
        max_tokens: budget for each copy of a text.
    """

    def __init__(
        self,
        embedder: Embedder,
        prompts: Mapping[str, Prompt],
        texts: Sequence[str],
        *,
        max_tokens: int,
    ) -> None:
        self._embedder = embedder
        self._prompts = prompts
        self._texts = list(texts)
        self._max_tokens = max_tokens
        self._counted: dict[str, int] = {}
        self.compared = {name: self._count(preset(name)) for name in COMPARED}
        """Tokens of the paper's two recipes."""

    def of(self, mix: Sum) -> Cost:
        """Tokens and passes of a sum of parts."""
        tokens = passes = 0
        for name, read in mix.prompts.items():
            if self._prompts[name].embeddings:
                continue  # no block runs
            template = next(iter(self._prompts[name].reading(read).values())).template
            if template.prompt not in self._counted:
                own = recipe_of(name, View(template))
                self._counted[template.prompt] = self._count(own)
            tokens += self._counted[template.prompt]
            passes += 1
        return Cost(tokens, passes)

    def allows(self, target: Target, mix: Sum) -> bool:
        """Whether a sum stays within what a target may cost."""
        cost = self.of(mix)
        most = target.times * self.compared[target.than]
        return cost.tokens <= most and (target.passes is None or cost.passes <= target.passes)

    def _count(self, recipe: Recipe) -> int:
        other = self._embedder.with_recipe(recipe, max_tokens=self._max_tokens)
        chunks = other.prepare(self._texts)
        return sum(len(batch.ids_T) for chunk in chunks for batch in chunk)
