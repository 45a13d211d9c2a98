"""Encoder: an embedder as mteb wants it: `AbsEncoder` with a full `ModelMeta`.

    import mteb
    from echovec import Embedder
    from echovec.evaluate.encoder import MtebEncoder

    mteb.evaluate(MtebEncoder(Embedder.load()), mteb.get_tasks(tasks=["STS12"]))

mteb says of each text whether it is a query, a document or neither; these are the roles of a
recipe. Instructions come from instructions.py and go only to recipes that take one. mteb's batches
are only a way to hand over texts: batches are made by tokens here.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from echovec.errors import DependencyError, InputError
from echovec.evaluate.instructions import instruction_of
from echovec.evaluate.results import result_name
from echovec.evaluate.vectors import Vectors
from echovec.recipe import Role
from echovec.version import __version__

try:
    from mteb.models import ModelMeta
    from mteb.models.abs_encoder import AbsEncoder
    from mteb.models.model_meta import ScoringFunction
except ImportError as error:
    raise DependencyError(
        f"evaluation needs mteb 2.26 or newer ({error}): pip install echovec[eval]"
    ) from None

if TYPE_CHECKING:
    from mteb.abstasks.task_metadata import TaskMetadata

    from echovec.embedder import Embedder


class MtebEncoder(AbsEncoder):  # type: ignore[misc]
    """An embedder that mteb can evaluate.

    Args:
        embedder: what makes the vectors.
        cache: folder to keep vectors in; by default they are kept in memory.
        batch_tokens: tokens per batch, padding included.
        vectors: where vectors come from, instead of the three above.
        sample: the most items of each task that are taken, for the name; None for whole tasks.
        seed: what the sample is drawn with, for the name.
    """

    def __init__(
        self,
        embedder: Embedder,
        cache: Path | None = None,
        *,
        batch_tokens: int | None = None,
        vectors: Vectors | None = None,
        sample: int | None = None,
        seed: int = 42,
    ) -> None:
        self.model = embedder
        self.vectors = vectors or Vectors(embedder, cache, batch_tokens=batch_tokens)
        self._meta = model_meta(embedder, sample=sample, seed=seed)

    @property
    def mteb_model_meta(self) -> ModelMeta:
        """What mteb knows of the model; the revision is its fingerprint as it is now."""
        revision = self.model.recipe.fingerprint
        if self._meta.revision != revision:  # trained in memory since
            self._meta = self._meta.model_copy(update={"revision": revision})
        return self._meta

    @mteb_model_meta.setter
    def mteb_model_meta(self, meta: ModelMeta) -> None:
        self._meta = meta

    def encode(
        self,
        inputs: Any,
        *,
        task_metadata: TaskMetadata,
        hf_split: str,
        hf_subset: str,
        prompt_type: Any = None,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        precision: str | None = None,
        **unknown: Any,
    ) -> NDArray[np.float32]:
        """Unit vectors of all texts of mteb's batches, in order: float32 [n, d].

        `batch_size` and `show_progress_bar` are mteb's habits and change nothing here.

        Raises:
            InputError: a text cannot be embedded, the input is not text, or mteb asks for
                something that is not known here.
        """
        if unknown or precision not in (None, "float32"):
            asked = {**unknown, **({"precision": precision} if precision else {})}
            raise InputError(f"encode options {asked} are not supported; vectors are float32")
        texts: list[str] = []
        for batch in inputs:
            if "text" not in batch:
                raise InputError(
                    f"{task_metadata.name} hands over {', '.join(batch)}; only text can be embedded"
                )
            texts.extend(batch["text"])
        role = role_of(prompt_type)
        try:
            return self.vectors.encode(texts, role, task_instruction(task_metadata, role))
        except InputError as error:
            raise InputError(f"{task_metadata.name}, {hf_split} ({hf_subset}): {error}") from None


def role_of(prompt_type: Any) -> Role:
    """The role that mteb's prompt type (query, document or None) stands for."""
    roles: dict[str | None, Role] = {None: "symmetric", "query": "query", "document": "document"}
    return roles[getattr(prompt_type, "value", prompt_type)]


def task_instruction(metadata: TaskMetadata, role: Role) -> str:
    """The instruction of a task for a role: ours, or what the task itself says, or its type's."""
    own = metadata.prompt
    if isinstance(own, dict):
        own = own.get("query" if role == "symmetric" else role) or own.get("query")
    return instruction_of(metadata.name, metadata.type, own)


def model_meta(embedder: Embedder, *, sample: int | None = None, seed: int = 42) -> ModelMeta:
    """All that mteb wants to know of a model; what is not known is None.

    Name and revision are those of the result files: model, recipe and sample, and the fingerprint.
    """
    recipe = embedder.recipe
    assert recipe.model is not None, "an embedder's recipe is bound"
    takes = any(v.template.takes_instruction for views in recipe.views.values() for v in views)
    parameters = _num_parameters(embedder)
    return ModelMeta(
        loader=None,
        name=result_name(recipe.model.name, recipe.name, sample, seed),
        revision=recipe.fingerprint,
        release_date=None,
        languages=None,
        n_parameters=parameters,
        memory_usage_mb=parameters and parameters * _BYTES.get(recipe.dtype or "", 4) / 2**20,
        max_tokens=recipe.max_tokens,
        embed_dim=embedder.dimension,
        license=None,
        open_weights=True,
        public_training_code=None,
        public_training_data=None,
        framework=["PyTorch", "Transformers"],
        similarity_fn_name=ScoringFunction.COSINE,
        use_instructions=takes,
        training_datasets=None,
        adapted_from=recipe.model.path,
        modalities=["text"],
        model_type=["dense"],
        contacts=None,
        loader_kwargs={"recipe": recipe.describe(), "echovec": __version__},
    )


_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}


def _num_parameters(embedder: Embedder) -> int | None:
    model = getattr(embedder.backbone, "model", None)
    if model is None or not hasattr(model, "parameters"):
        return None
    return int(sum(parameter.numel() for parameter in model.parameters()))
