"""mteb: the recipes and trained embedders that ship, as models of mteb's registry.

    from echovec.plugins.mteb import register
    register()
    model = mteb.get_model("echovec/SmolLM2-135M-Instruct--best")

mteb has no entry points, so `register` puts `shipped_metas()` into its registry: full `ModelMeta`,
as in mteb's own files. Name and revision are those that `echovec eval` writes: model, recipe,
fingerprint. The fingerprint is known without loading anything, because what ships fitted or trained
holds the default model's hashes; other weights are refused.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from echovec.embedder import Embedder
from echovec.errors import DependencyError, InputError
from echovec.evaluate.encoder import MtebEncoder, model_meta
from echovec.evaluate.results import result_name
from echovec.presets import preset
from echovec.recipe import Recipe
from echovec.saved import saved_folder, shipped_names

try:
    from mteb.models import ModelMeta
    from mteb.models.model_implementations import MODEL_REGISTRY
    from mteb.models.model_meta import ScoringFunction
except ImportError as error:
    raise DependencyError(
        f'register needs mteb 2.26 or newer ({error}): pip install "echovec[eval]"'
    ) from None

RECIPES = (
    *("best", "one-pass", "fast", "static", "similarity"),
    *("echo", "echo-sentence", "classical", "prompt-eol"),
)
"""Recipes that are models of mteb, all on the default model."""

TRAINED = shipped_names()
"""Trained embedders that ship: the default model with an adapter, and a recipe of their own."""

_TRAINED_ON = {
    "smollm2-135m-echo": {"SNLI", "SQuAD", "CLINC150", "Banking77Classification", "SciFact"}
}
"""What each trained embedder that ships saw; the rest trains nothing of the language model."""

_WEIGHTS = "HuggingFaceTB/SmolLM2-135M-Instruct"
_PAPER = """@inproceedings{springer2025repetition,
  title = {Repetition Improves Language Model Embeddings},
  author = {Springer, Jacob Mitchell and Kotha, Suhas and Fried, Daniel and Neubig, Graham
            and Raghunathan, Aditi},
  booktitle = {The Thirteenth International Conference on Learning Representations},
  year = {2025},
  url = {https://arxiv.org/abs/2402.15449},
}"""


def register(*embedders: Embedder) -> list[str]:
    """Put all that ships, and any embedders, into mteb's registry for this process.

    Args:
        embedders: others, under the names of their models and recipes; they stay in memory.

    Returns:
        The names to give to `mteb.get_model` or `mteb.evaluate`.
    """
    metas = [*shipped_metas(), *map(meta_of, embedders)]
    MODEL_REGISTRY.update({meta.name: meta for meta in metas})
    return [meta.name for meta in metas]


def meta_of(embedder: Embedder) -> ModelMeta:
    """An embedder in memory as a row of mteb's registry."""

    def load(name: str, *, revision: str | None = None, **options: Any) -> MtebEncoder:
        _only_known(options)
        return MtebEncoder(embedder)

    return model_meta(embedder).model_copy(update={"loader": load, "loader_kwargs": {}})


def shipped_metas() -> list[ModelMeta]:
    """One row for each of RECIPES and TRAINED; no model is loaded."""
    plain = [_meta(_bound(name)) for name in RECIPES]
    return plain + [_trained(name) for name in TRAINED]


def _bound(name: str) -> Recipe:
    """A recipe that ships, bound to the default model in float32."""
    fitted = preset("best")
    return replace(preset(name), model=fitted.model, dtype=fitted.dtype)


def _meta(recipe: Recipe) -> ModelMeta:
    assert recipe.model is not None, "bound above"

    def load(
        name: str, *, revision: str | None = None, device: str | None = None, **options: Any
    ) -> MtebEncoder:
        _only_known(options)
        # The recipe is bound: other weights than the default model's are refused.
        return MtebEncoder(Embedder.load(recipe=recipe, device=device))

    takes = any(v.template.takes_instruction for views in recipe.views.values() for v in views)
    return ModelMeta(
        loader=load,
        loader_kwargs={},
        name=result_name(recipe.model.name, recipe.name, None, 0),
        revision=recipe.fingerprint,
        release_date=None,
        languages=["eng-Latn"],
        n_parameters=134_515_008,
        n_embedding_parameters=49_152 * 576,
        memory_usage_mb=513,
        max_tokens=recipe.max_tokens,
        embed_dim=576,
        license="apache-2.0",
        open_weights=True,
        public_training_code=None,
        public_training_data=None,
        framework=["PyTorch", "Transformers", "GGUF"],
        reference=f"https://huggingface.co/{_WEIGHTS}",
        similarity_fn_name=ScoringFunction.COSINE,
        use_instructions=takes,
        training_datasets=None,  # of the language model, which nobody has listed
        adapted_from=_WEIGHTS,
        modalities=["text"],
        model_type=["dense"],
        citation=_PAPER,
        contacts=None,
    )


def _trained(name: str) -> ModelMeta:
    folder = saved_folder(name)
    assert folder is not None, "it ships"

    def load(
        _name: str, *, revision: str | None = None, device: str | None = None, **options: Any
    ) -> MtebEncoder:
        _only_known(options)
        return MtebEncoder(Embedder.load(name, device=device))

    changed = {
        "loader": load,
        "license": "cc-by-sa-4.0",  # as its training sets are
        "training_datasets": _TRAINED_ON[name],
    }
    return _meta(Recipe.load(folder)).model_copy(update=changed)


def _only_known(options: dict[str, Any]) -> None:
    """Refuse what would move the vectors away from the fingerprint.

    Raises:
        InputError: an option is not supported.
    """
    if options:
        raise InputError(
            f"{', '.join(options)}: these models take no options but device; make the embedder "
            "with Embedder.load and use register(embedder)"
        )
