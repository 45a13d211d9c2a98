"""Embedder: a recipe, a tokenizer and a backbone composed; texts in, unit vectors out.

    text --Renderer--> Drafts --plan--> Chunk --Backbone--> h_PD --pooling--> z_SD --> vectors
    |---------------- prepare ----------------|----------------- forward ----------|

`prepare` needs no device and `forward` no text: evaluation, serving, corpus jobs and training all
use this seam. `encode` is both, with identical texts computed once and the order restored.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Unpack, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from echovec.errors import InputError, RecipeError, TruncationWarning
from echovec.loading import IN_MEMORY, Source, open_model, source_of
from echovec.model.backbone import Backbone, has_changed, hash_now
from echovec.model.hashed import hash_of
from echovec.model.load import Engine
from echovec.model.packed import PackedBackbone
from echovec.model.plain import PlainBackbone
from echovec.model.precision import Precision
from echovec.options import Options, Preparing
from echovec.pickled import Picklable
from echovec.presets import as_recipe, with_limits
from echovec.reader import Reader
from echovec.recipe import ROLES, ModelIdentity, Recipe, Role
from echovec.saved import check_same_model, library_versions, write_saved
from echovec.text.batch import Chunk
from echovec.text.drafts import LongText
from echovec.text.planner import Planner
from echovec.text.template import Template
from echovec.text.tokenizer import HFTokenizer, Tokenizer
from echovec.vector.finish import finish
from echovec.vector.similarity import cosine, cosine_pairwise
from echovec.vector.transform import Truncate

Vectors = NDArray[np.float32]
Flags = NDArray[np.bool_]
AnyRecipe = Recipe | Template | str | Path


class Embedder(Picklable):
    """Embeds texts with a causal language model.

    Make one with `Embedder.load` (from disk or hub; a pickle says how, see `echovec.pickled`) or
    `Embedder.from_model` (a model in memory); the constructor takes the parts themselves.

    Args:
        recipe: how texts are embedded: a Recipe, a Template, a preset's name, or a recipe file.
        tokenizer: text -> ids.
        backbone: ids -> hidden states.
        source: where the model came from; by default it lives in memory only.

    Raises:
        RecipeError: the recipe is unknown, or was made for a model with another hash.
        TemplateError: a template does not fit the tokenizer.
    """

    def __init__(
        self,
        recipe: AnyRecipe,
        tokenizer: Tokenizer,
        backbone: Backbone,
        *,
        source: Source = IN_MEMORY,
    ) -> None:
        self._definition = as_recipe(recipe)
        self.tokenizer = tokenizer
        self.backbone = backbone
        self._source = source
        self._bound: Recipe | None = None
        self._readers = {r: Reader(self._definition, r, tokenizer, backbone) for r in ROLES}
        dimensions = {role: self._readers[role].dimension for role in ROLES}
        if len(set(dimensions.values())) > 1:
            raise RecipeError(f"roles have vectors of different width: {dimensions}")
        self.dimension = dimensions["symmetric"]
        """Numbers in each vector."""
        if self._definition.model is not None:
            check_same_model(self._definition, self.identity, backbone.dtype)

    # -- where embedders come from ------------------------------------------------------------

    @classmethod
    def load(
        cls,
        model: str | Path | None = None,
        recipe: AnyRecipe | None = None,
        *,
        device: str | None = None,
        dtype: str | torch.dtype | None = None,
        precision: Precision | None = None,
        max_tokens: int | None = None,
        long_text: LongText | None = None,
        engine: Engine = "auto",
        revision: str | None = None,
        trust_remote_code: bool = False,
    ) -> Embedder:
        """Load a model and make an embedder of it.

        Args:
            model: None for the default model (SmolLM2-135M-Instruct), a hub name, a folder of a
                model or of a LoRA adapter, a .gguf file, a folder by `save`, `echovec train` or
                `echovec export`, or the name of one that ships trained ("smollm2-135m-echo").
            recipe: how texts are embedded. By default "best" for the default model, the folder's
                own, or the authors' for their checkpoints; "echo", the paper's, for any other.
            device: "cuda", "mps", "cpu", ...; by default the first of these that is there.
            dtype: what the model computes in; by default what the recipe was bound to (float32
                for "best" and its like), else float32 on CPU, and elsewhere bfloat16 where the
                device multiplies it natively.
            precision: instead of `dtype`: "exact" is float32; "fast" is bfloat16 where the device
                multiplies it natively, and float32 with a warning where it does not; "int8" rounds
                weights and inputs of products to 8 bits, on CPUs that multiply these and in the
                packed engine, and is "fast" with a warning elsewhere.
            max_tokens: budget per copy of a text, in tokens; by default the recipe's (1,024 for
                "best" and its like, else 512).
            long_text: what becomes of a text beyond it: "cut", or "windows", each of them embedded
                and their vectors averaged; by default the recipe's.
            engine: "packed" is the fast one, for Llama-like families; "plain" runs any model as
                transformers does; "auto" takes the packed one where it can. Vectors are the same.
            revision: branch, tag or commit of a hub name; of a saved embedder, by default its own.
            trust_remote_code: whether Python code that comes with the model may run.

        Raises:
            ModelError: the model cannot be found, fetched or read.
            RecipeError: the recipe is unknown, or belongs to a model with another hash.
            InputError: an option is not usable.
        """
        opened = open_model(
            model,
            recipe,
            device=device,
            dtype=dtype,
            precision=precision,
            engine=engine,
            revision=revision,
            trust_remote_code=trust_remote_code,
        )
        bound = with_limits(opened.recipe, max_tokens, long_text)
        return cls(bound, opened.tokenizer, opened.backbone, source=opened.source)

    @classmethod
    def from_model(
        cls,
        model: Any,
        tokenizer: Any,
        recipe: AnyRecipe = "echo",
        *,
        engine: Literal["plain", "packed"] = "plain",
    ) -> Embedder:
        """An embedder around a causal language model that is already in memory.

        The weights are shared, not copied, and the model, its configuration and its tokenizer
        stay as they are: one model generates and embeds (the paper's closing point).

        Args:
            model: a Hugging Face causal model, with or without its LM head, on any device.
            tokenizer: its tokenizer.
            recipe: how texts are embedded.
            engine: "plain" calls the model as a whole; "packed" calls its linear modules one by
                one and skips wasted work (Llama-like families). Neither copies weights.

        Raises:
            ModelError: the packed engine does not know this family.
        """
        packed = engine == "packed"
        backbone = PackedBackbone(model, prepack=False) if packed else PlainBackbone(model)
        return cls(recipe, HFTokenizer(tokenizer), backbone, source=source_of(model))

    def with_recipe(
        self,
        recipe: AnyRecipe,
        *,
        max_tokens: int | None = None,
        long_text: LongText | None = None,
    ) -> Embedder:
        """Another recipe on the same model in memory, limits as for `load`; nothing is copied."""
        other_recipe = with_limits(as_recipe(recipe), max_tokens, long_text)
        return Embedder(other_recipe, self.tokenizer, self.backbone, source=self._source)

    # -- what it is ---------------------------------------------------------------------------

    @property
    def model_path(self) -> Path | str | None:
        """What plain `AutoModel` loads: a folder (`Path`) or hub name; None if in memory only."""
        return self._source.path

    @property
    def adapter_path(self) -> Path | None:
        """The folder of the adapter that is merged into the model in memory, if there is one."""
        return self._source.adapter

    @property
    def identity(self) -> ModelIdentity:
        """Which model and tokenizer this is, by hash.

        Hashing weights takes about a second per GB and core, once, and again after they changed.
        """
        return replace(self.identity_without_weights, hash=hash_now(self.backbone))

    @property
    def identity_without_weights(self) -> ModelIdentity:
        """The same with an empty hash: for a model whose weights are hashed elsewhere."""
        renderers = [r for role in ROLES for r in self._readers[role].renderers]
        path = self._source.path  # absolute: a recipe is read from other folders than this one
        path = path.absolute() if isinstance(path, Path) else path
        return ModelIdentity(
            name=self._source.name,
            hash="",
            tokenizer_hash=self.tokenizer.fingerprint,
            bos_id=next((r.bos_id for r in renderers if r.bos_id is not None), None),
            eos_id=next((r.eos_id for r in renderers if r.eos_id is not None), None),
            path=None if path is None else str(path),
            revision=self._source.revision,
        )

    @property
    def recipe(self) -> Recipe:
        """The recipe bound to this model as it is now: hashes, token ids, dtype, versions.

        What else the record of the recipe says, such as what it was fitted on, stays in it.
        """
        model, dtype = self.identity, self.backbone.dtype
        if self._bound is None or (self._bound.model, self._bound.dtype) != (model, dtype):
            versions = {**self._definition.versions, **library_versions()}
            self._bound = replace(self._definition, model=model, dtype=dtype, versions=versions)
        return self._bound

    @property
    def hugging_face(self) -> tuple[Any, Any]:
        """The transformers model without its head, an adapter merged, and its tokenizer.

        Raises:
            InputError: the backbone is no Hugging Face model.
        """
        plain = self.backbone
        if isinstance(plain, PackedBackbone) and plain.plain is not None:
            plain = plain.plain
        if not isinstance(plain, PlainBackbone) or not isinstance(self.tokenizer, HFTokenizer):
            raise InputError("only Hugging Face models can be saved with their weights")
        return plain.model, self.tokenizer.inner

    @property
    def definition(self) -> Recipe:
        """The recipe as it was given, not bound to this model: no hash is computed."""
        return self._definition

    @property
    def batch_tokens(self) -> int:
        """Tokens per batch where the caller says nothing, by device."""
        return self._reader(None).batch_tokens

    def __repr__(self) -> str:
        shown = f"{self._definition.name!r} on {self._source.name}"
        return f"<Embedder {shown}, {self.dimension} dimensions, {self.backbone.dtype}>"

    # -- the seam -----------------------------------------------------------------------------

    def prepare(
        self,
        texts: Sequence[str],
        *,
        role: Role | None = None,
        instruction: str | None = None,
        batch_tokens: int | None = None,
        batch_size: int | None = None,
    ) -> list[Chunk]:
        """Texts to chunks, longest first; `order_S` of a batch holds places in `texts`. No torch.

        A chunk is a tuple of one batch for each pass of the recipe (one, unless its views have
        several prompts), of the same texts in the same order.

        Args:
            texts: what to embed.
            role: "query", "document", or None for both sides alike.
            instruction: fills the template's `{instruction}`.
            batch_tokens: tokens per batch, padding included.
            batch_size: texts per batch at most.

        Raises:
            InputError: a text cannot be embedded; `index` is its place. Or a limit is below 1, or
                `texts` is a single text.
        """
        planner = self._reader(role).planner
        return list(planner.plan(texts, instruction, batch_tokens, batch_size))

    def planner(self, role: Role | None = None) -> Planner:
        """What `prepare` does, to send to another process: no torch and no model in it."""
        return self._reader(role).planner

    def forward(self, chunk: Chunk, *, role: Role | None = None, float32: bool = False) -> Tensor:
        """One chunk to vectors z_SD: float32 [S, dimension], in the chunk's order, not normalised.

        A row is a text, or a window of one (`share_S` of a batch is below 1 there). A row may be
        non-finite. Differentiable, where gradients are on, if the weights are the model's own
        (`from_model`, or engine="plain"); the packed engine of `load` keeps none.
        """
        return self._reader(role).forward(chunk, float32=float32)

    def vectors(
        self, chunks: Sequence[Chunk], *, role: Role | None = None, workers: int | None = None
    ) -> tuple[Vectors, Flags]:
        """Chunks to vectors [n, dimension] in the order of their texts, and which texts were cut.

        `forward` with all that `encode` does around it: several cores, memory that runs out, rows
        that are not finite (NonFiniteError), windows put together. Not normalised. `chunks`: all
        of one `prepare`, in any order; a gap before the last text, or one twice, is an InputError.
        `workers`: how many chunks run at once; by default and at most what `workers()` says.
        """
        reader = self._reader(role)
        vectors, cut = reader.vectors(chunks, workers=workers, show_progress_bar=False)
        return vectors.numpy(), cut

    def workers(self, role: Role | None = None) -> int:
        """How many chunks may run at once, from as many threads."""
        return self._reader(role).workers

    def states(
        self,
        texts: Sequence[str],
        layers: Sequence[int] | None = None,
        *,
        role: Role | None = None,
        **options: Unpack[Preparing],
    ) -> list[Vectors]:
        """The pooled states of each view by layer, for tuning and calibration: one run for all.

        Args:
            texts: what to embed.
            layers: which layers to pool for every view, 0 to the model's number of blocks; by
                default those that each view averages.
            role: "query", "document", or None for both sides alike.
            options: as for `prepare`.

        Returns:
            For each of the role's views, in order, float32 z_LND: layers, texts in order, width;
            before layers are averaged, transformed, weighted or normalised. Always finite.
        """
        reader = self._reader(role)
        planned = reader.planner(texts, **options)
        with planned.naming_places():
            states = reader.all_states(planned.chunks, layers)
        return [z_LND.numpy()[:, planned.inverse_N] for z_LND in states]

    # -- the public verbs ---------------------------------------------------------------------

    @overload
    def encode(
        self,
        texts: str | Sequence[str],
        *,
        role: Role | None = ...,
        return_truncated: Literal[False] = ...,
        **options: Unpack[Options],
    ) -> Vectors: ...
    @overload
    def encode(
        self,
        texts: str | Sequence[str],
        *,
        role: Role | None = ...,
        return_truncated: Literal[True],
        **options: Unpack[Options],
    ) -> tuple[Vectors, Flags]: ...
    def encode(
        self,
        texts: str | Sequence[str],
        *,
        role: Role | None = None,
        instruction: str | None = None,
        batch_tokens: int | None = None,
        batch_size: int | None = None,
        normalize_embeddings: bool = True,
        truncate_dim: int | None = None,
        show_progress_bar: bool | None = None,
        return_truncated: bool = False,
    ) -> Vectors | tuple[Vectors, Flags]:
        """Embed texts.

        Args:
            texts: one text, or a list of them. Any valid Unicode that is not empty.
            role: "query", "document", or None for both sides alike (similarity, clustering).
            instruction: what the vectors are for; only for recipes that take one.
            batch_tokens: tokens per batch, padding included; by default 2,048 on CPU and 65,536
                on CUDA. A batch that does not fit into memory is halved until it does.
            batch_size: texts per batch at most; by default as many as `batch_tokens` allows.
            normalize_embeddings: unit length (on by default; sentence-transformers has it off).
            truncate_dim: keep the first numbers of each vector only, before normalising.
            show_progress_bar: True, False, or None: on a terminal, after half a second.
            return_truncated: also return which texts were cut, instead of warning.

        Returns:
            float32 [n, d] for a list, [d] for a single text; always finite. With
            `return_truncated`, also bool [n] (or [] for a single text).

        Raises:
            InputError: a text cannot be embedded; the message and `index` name it. Or an option
                cannot be used.
            NonFiniteError: the model gave NaN or infinity, in float32 too.
        """
        reader = self._reader(role)
        given = [texts] if isinstance(texts, str) else list(texts)
        if truncate_dim is not None:  # said before hours of work
            Truncate(truncate_dim).dim_out(self.dimension)
        planned = reader.planner(
            given, instruction=instruction, batch_tokens=batch_tokens, batch_size=batch_size
        )
        with planned.naming_places():
            computed, truncated = reader.vectors(
                planned.chunks, show_progress_bar=show_progress_bar
            )
        vectors = finish(computed, truncate_dim=truncate_dim, normalize=normalize_embeddings)
        # Where all differ they are in the caller's order already.
        repeats = len(vectors) < len(given)
        result = vectors.numpy()[planned.inverse_N] if repeats else vectors.numpy()
        cut = truncated[planned.inverse_N]
        if cut.any() and not return_truncated:
            limits = self._definition.max_tokens, self.backbone.max_positions
            warnings.warn(TruncationWarning.of(cut.tolist(), *limits), stacklevel=2)
        if isinstance(texts, str):
            result, cut = result[0], cut[0]
        return (result, cut) if return_truncated else result

    def encode_query(self, texts: str | Sequence[str], **options: Unpack[Options]) -> Vectors:
        """`encode` for the side that asks, e.g. `encode_query(texts, instruction="...")`."""
        return self.encode(texts, role="query", **options)

    def encode_document(self, texts: str | Sequence[str], **options: Unpack[Options]) -> Vectors:
        """`encode` for the side that is searched."""
        return self.encode(texts, role="document", **options)

    def similarity(self, a: Vectors, b: Vectors) -> Vectors:
        """Cosine of every vector of `a` [n, d] (or [d]) with every one of `b`: float32 [n, m]."""
        return cosine(a, b)

    def similarity_pairwise(self, a: Vectors, b: Vectors) -> Vectors:
        """Cosine of each row of `a` with the same row of `b`: float32 [n]."""
        return cosine_pairwise(a, b)

    def save(self, folder: str | Path, *, include_model: bool | None = None) -> Path:
        """Write the recipe, and the model where it has to be; `Embedder.load(folder)` reads it.

        Args:
            folder: where to; made if it is not there.
            include_model: also write weights and tokenizer. By default only for a model that
                was given in memory or has changed there: others are named, with their hash. An
                adapter is copied; with the weights it is merged, and the fingerprint becomes that
                of the merged.

        Raises:
            StorageError: the disk does not take it.
            InputError: another model's weights or adapter lie there, and would be loaded; or
                these have changed in memory, and are not to be written.
        """
        recipe, adapter = self.recipe, self._source.adapter
        changed = include_model is not True and has_changed(self.backbone)
        if changed and include_model is False:
            raise InputError(
                f"the weights of {self!r} have changed in memory, and there is no place to name "
                "that has them; use include_model=True"
            )
        if include_model is None:
            include_model = changed or self._source.path is None or self._source.asked is None
        if not include_model:
            return write_saved(Path(folder), recipe, adapter=adapter)
        parts = self.hugging_face  # an adapter is merged into what is written: that counts
        recipe = replace(recipe, model=replace(self.identity, hash=hash_of(parts[0])))
        return write_saved(Path(folder), recipe, parts)

    def save_sentence_transformers(
        self, folder: str | Path, *, route: Literal["auto", "plain", "module"] = "auto"
    ) -> Any:
        """Write a new folder that `SentenceTransformer(folder)` loads, and compare it with this.

        Returns an `echovec.export.parity.Parity`: how far apart the vectors are. Route "plain"
        loads without code of ours, for recipes that pool the prompt's last token; "module" is for
        nearly all; "auto" is plain where that can be.

        Raises:
            RecipeError: this route cannot hold the recipe.
            ExportError: the export's vectors differ; it was removed.
        """
        from echovec.export.to_sentence_transformers import export

        return export(self, Path(folder), route=route)

    # -- inside -------------------------------------------------------------------------------

    def _reader(self, role: Role | None) -> Reader:
        if role is not None and role not in ROLES:
            raise InputError(f"role={role!r}; there are 'query', 'document', or None for neither")
        return self._readers[role or "symmetric"]
