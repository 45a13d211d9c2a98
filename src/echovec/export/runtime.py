"""Runtime: an exported graph with its recipe and tokenizer, run by another engine.

    folder/model.onnx (or model.xml, model.bin)    ids, mask, spans of each pass -> unit vectors
    folder/echovec/                                recipe.json, its arrays, the tokenizer
    folder/graph.json                              which engine, the model's limit of positions,
                                                   numbers to a vector

Texts are rendered as everywhere in this package; only the arithmetic is the other engine's.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from echovec.errors import DependencyError, InputError, TruncationWarning
from echovec.recipe import ROLES, Recipe, Role
from echovec.saved import EXPORT_FOLDER
from echovec.text.batch import Batch
from echovec.text.drafts import render_passes
from echovec.text.render import Renderer
from echovec.text.tokenizer import HFTokenizer
from echovec.vector.passes import passes_of

GRAPH_FILE = "graph.json"
Vectors = NDArray[np.float32]
Run = Callable[[dict[str, NDArray[np.int64]]], Vectors]


_SEPARATE = 2
"""So many passes of a recipe stay apart, each as long as its own prompts."""


class Runtime:
    """Texts to unit vectors through ONNX Runtime or OpenVINO.

    Args:
        folder: what `echovec export --to onnx` (or openvino) wrote.
        threads: processors to use; by default the engine's choice.

    Raises:
        InputError: no such folder.
        DependencyError: the engine is not installed.
    """

    def __init__(self, folder: str | Path, *, threads: int | None = None) -> None:
        from transformers import AutoTokenizer

        folder = Path(folder)
        try:
            about = json.loads((folder / GRAPH_FILE).read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{folder} holds no exported graph ({error})") from None
        own = folder / EXPORT_FOLDER
        self.recipe = Recipe.load(own)
        tokenizer = HFTokenizer(AutoTokenizer.from_pretrained(str(own), local_files_only=True))
        self._passes = {role: passes_of(self.recipe.views[role]) for role in ROLES}
        self._renderers = {
            role: [
                Renderer(
                    one.templates,
                    tokenizer,
                    max_tokens=self.recipe.max_tokens,
                    max_positions=about["max_positions"],
                    text_share=self.recipe.text_share,
                )
                for one in self._passes[role]
            ]
            for role in ROLES
        }
        self._max_positions: int | None = about["max_positions"]
        self._dim = int(about.get("dim", 0))  # folders of before have none
        self._run = ENGINES[about["engine"]](folder / about["file"], threads)

    def encode(
        self,
        texts: Sequence[str],
        *,
        role: Role | None = None,
        instruction: str | None = None,
        batch_tokens: int = 4096,
    ) -> Vectors:
        """Unit vectors of texts, in order: float32 [n, d].

        Texts that are longer than the budget are cut, with a TruncationWarning; another budget is
        another export.

        Args:
            texts: a list; each is embedded as it stands.
            role: "query", "document", or None for neither.
            instruction: what the vectors are for, where the recipe takes one.
            batch_tokens: the most tokens of one run, padding included.

        Raises:
            InputError: a text cannot be embedded, and `index` is its place; or `texts` is a single
                text, or the role is unknown.
        """
        if isinstance(texts, str):
            raise InputError(f"texts is one text ({texts[:40]!r}); give a list of texts: [text]")
        chosen = role or "symmetric"
        if chosen not in ROLES:
            raise InputError(f"role={role!r}; there are 'query', 'document', or None for neither")
        rendered = render_passes(self._renderers[chosen], list(texts), instruction)
        lengths = np.max([own.lengths_S for own in rendered], axis=0)
        order = np.argsort(-lengths, kind="stable")
        found: list[tuple[NDArray[np.int64], Vectors]] = []
        cut = np.zeros(len(texts), bool)
        start = 0
        while start < len(order):
            places = order[start : start + max(1, batch_tokens // int(lengths[order[start]]))]
            start += len(places)
            feed: dict[str, NDArray[np.int64]] = {}
            longest = int(lengths[places].max()) if stacked(len(rendered)) else 0
            for k, (one, own) in enumerate(zip(self._passes[chosen], rendered, strict=True)):
                views = [self.recipe.views[chosen][place] for place in one.places]
                spans = [one.templates.index(view.template) for view in views]
                batch = own.lay(places)
                cut[places] |= batch.truncated_S
                feed |= _padded(batch, spans, k, longest)
            found.append((places, self._run(feed)))
        out = np.zeros((len(texts), found[0][1].shape[1] if found else self._dim), np.float32)
        for places, vectors in found:
            out[places] = vectors
        if cut.any():
            said = TruncationWarning.of(
                cut.tolist(),
                self.recipe.max_tokens,
                self._max_positions,
                "split them before, or export again with a larger --max-tokens",
            )
            warnings.warn(said, stacklevel=2)
        return out


def stacked(num_passes: int) -> bool:
    """Whether a graph runs all passes as one batch, padded to one length; see `pipeline`."""
    return num_passes > _SEPARATE


def _padded(batch: Batch, spans: list[int], k: int, least: int) -> dict[str, NDArray[np.int64]]:
    lengths = batch.lengths_S
    there = np.arange(max(least, int(lengths.max()))) < lengths[:, None]
    ids = np.zeros(there.shape, np.int64)
    ids[there] = batch.ids_T
    places = batch.spans_SK2[:, spans] - batch.offsets_S1[:-1, None, None]
    return {f"ids_{k}": ids, f"mask_{k}": there.astype(np.int64), f"spans_{k}": places}


def _onnx(file: Path, threads: int | None) -> Run:
    try:
        import onnxruntime
    except ImportError as error:
        raise DependencyError("needs ONNX Runtime: pip install 'echovec[export]'") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def run(feed: dict[str, NDArray[np.int64]]) -> Vectors:
        vectors: Vectors = session.run(None, feed)[0]
        return vectors

    return run


def _openvino(file: Path, threads: int | None) -> Run:
    try:
        import openvino
    except ImportError as error:
        raise DependencyError("needs OpenVINO: pip install 'echovec[export]'") from error
    # float32 as it is: the default may compute in bfloat16 where the processor has it.
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    compiled = openvino.Core().compile_model(str(file), "CPU", settings)

    def run(feed: dict[str, NDArray[np.int64]]) -> Vectors:
        return np.array(compiled(feed)[0], dtype=np.float32)

    return run


ENGINES: dict[str, Callable[[Path, int | None], Run]] = {"onnx": _onnx, "openvino": _openvino}
"""What runs a graph, by the name that `graph.json` has; to add one, add a row."""
