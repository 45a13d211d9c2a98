"""To a graph: ONNX, the same with 8-bit weights, and OpenVINO, each compared before it is kept."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

import torch

from echovec.embedder import Embedder
from echovec.errors import DependencyError, ExportError, InputError, StorageError
from echovec.export.card import graph_card
from echovec.export.parity import Parity, Vectors, compare
from echovec.export.pipeline import OUTPUT, TRANSFORM_NAMES, Pipeline
from echovec.export.program import program_of, without_windows
from echovec.export.runtime import GRAPH_FILE, Runtime, stacked
from echovec.recipe import Role
from echovec.saved import EXPORT_FOLDER

_ANY_SIZE = 1 << 40
"""More numbers than a weight has."""


@dataclass(frozen=True)
class Graph:
    """One kind of graph: who runs it, its file, how it is made from the ONNX file, its limits."""

    engine: str
    file: str
    make: Callable[[Path, Path], None]
    limits: tuple[float, float] | None = None
    """The least cosine and largest difference; None for those of the dtype."""
    needs: tuple[str, ...] = ()
    """Packages that make it, beside those that every graph needs."""


def export_graph(
    embedder: Embedder, folder: Path, kind: str, *, source: Path | None = None
) -> Parity:
    """Write a graph's folder, run it, compare, and keep it if it is the same embedder.

    Args:
        embedder: float32, with any recipe that `program_of` takes.
        folder: where to; must not be there yet.
        kind: one of GRAPHS.
        source: a `model.onnx` of the same weights and `reading_of`, made before; it is copied.

    Raises:
        InputError: the folder is there, or the model does not compute in float32.
        RecipeError: no graph holds the recipe.
        ExportError: the graph's vectors differ; it was removed.
        DependencyError: a converter is not installed.
    """
    graph = GRAPHS[kind]
    if folder.exists():
        raise InputError(f"{folder} is there already; remove it or choose another folder")
    if embedder.backbone.dtype != "float32":
        raise InputError(
            f"the model computes in {embedder.backbone.dtype}; graphs are made of float32 ones: "
            "load it with precision='exact'"
        )
    _need_converters(graph)
    embedder, notes = without_windows(embedder)
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        try:
            _write(embedder, unfinished, graph, source)
        except OSError as error:
            raise StorageError(f"cannot write {unfinished}: {error.strerror or error}") from error
        runtime = Runtime(unfinished)
        parity = compare(embedder, encode_with(runtime), route=kind, limits=graph.limits)
        del runtime
        if not parity.holds:
            table = "\n".join(parity.lines())
            raise ExportError(
                f"the {kind} export computes other vectors, removed:\n{table}", parity=parity
            )
        (unfinished / "README.md").write_text(graph_card(embedder, parity), "utf-8")
        unfinished.replace(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return replace(parity, notes=notes)


def encode_with(runtime: Runtime) -> Callable[[Sequence[str], Role], Vectors]:
    """A runtime as the other side of a parity check."""
    return lambda texts, role: runtime.encode(texts, role=role)


def _write(embedder: Embedder, folder: Path, graph: Graph, known: Path | None) -> None:
    own = folder / EXPORT_FOLDER
    own.mkdir(parents=True)
    embedder.recipe.save(own)
    embedder.hugging_face[1].save_pretrained(own)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        source = Path(scratch) / "model.onnx"
        if known is None:
            _to_onnx(Pipeline(embedder, program_of(embedder)), source)
        else:
            for file in known.parent.glob(f"{known.name}*"):
                shutil.copy(file, scratch)
        graph.make(source, folder / graph.file)
    about = {
        "format": 1,
        "engine": graph.engine,
        "file": graph.file,
        "max_positions": embedder.backbone.max_positions,
        "dim": embedder.dimension,
    }
    (folder / GRAPH_FILE).write_text(json.dumps(about, indent=2) + "\n", "utf-8")


def _to_onnx(pipeline: Pipeline, file: Path) -> None:
    rows = torch.export.Dim("rows")
    shapes: list[dict[int, Any]] = []
    for place in range(len(pipeline.views)):
        own = 0 if stacked(len(pipeline.views)) else place
        both = {0: rows, 1: torch.export.Dim(f"length_{own}")}
        shapes += [both, both, {0: rows}]
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        warnings.simplefilter("ignore")  # the converter talks much; parity is what counts
        torch.onnx.export(
            pipeline,
            pipeline.example(),
            str(file),
            dynamo=True,
            input_names=pipeline.names,
            output_names=[OUTPUT],
            dynamic_shapes={"inputs": tuple(shapes)},
            verbose=False,
        )


def _need_converters(graph: Graph) -> None:
    """DependencyError where one is not installed: said before minutes of converting."""
    for name in graph.needs:  # not imported yet: nncf changes functions of torch
        if find_spec(name) is None:
            raise DependencyError(f"{name} is missing: pip install 'echovec[export]'")
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
        import sentence_transformers  # noqa: F401
    except ImportError as error:
        raise DependencyError(f"{error.name} is missing: pip install 'echovec[export]'") from error


def _moved(source: Path, target: Path) -> None:
    for file in source.parent.iterdir():  # weights lie in a file of their own
        file.replace(target.parent / file.name)


def _int8(source: Path, target: Path) -> None:
    # Blocks of 32 weights with a scale each. The dynamic kind, one scale for all activations of a
    # tensor, loses this family: a few of its activations are a hundred times larger than the rest.
    import onnx
    from onnxruntime.quantization import matmul_nbits_quantizer as nbits
    from onnxscript import ir, optimizer

    nbits.logger.setLevel(logging.ERROR)
    config = nbits.DefaultWeightOnlyQuantConfig(
        block_size=32, is_symmetric=True, accuracy_level=4, bits=8
    )
    # The converter leaves it to the running graph to transpose a weight that the products of two
    # passes share; what is not a constant, the quantizer passes over.
    model = ir.from_proto(onnx.load(str(source)))
    optimizer.fold_constants(model, input_size_limit=_ANY_SIZE, output_size_limit=_ANY_SIZE)
    quantizer = nbits.MatMulNBitsQuantizer(
        ir.to_proto(model), algo_config=config, nodes_to_exclude=_transforms(source)
    )
    quantizer.process()
    # It writes a weight once for every product that takes it, under one name.
    graph = quantizer.model.model.graph
    kept = list({tensor.name: tensor for tensor in graph.initializer}.values())
    del graph.initializer[:]
    graph.initializer.extend(kept)
    onnx.save(quantizer.model.model, str(target))


def _transforms(source: Path) -> list[str]:
    """The products of an ONNX file that are the recipe's transforms, by name: they stay float32.

    They take the large common part of all states away, so what rounding does to them is not small
    beside what is left: in 8 bits they alone moved cosines by 0.008, all of the model's weights by
    0.003 (docs/LOG.md, 2026-11-28). They are 1 % of the numbers at most.
    """
    import onnx

    graph = onnx.load(str(source), load_external_data=False).graph
    return [
        node.name
        for node in graph.node
        if node.op_type in ("MatMul", "Gemm")
        and any(name.startswith(TRANSFORM_NAMES) for name in node.input)
    ]


def _openvino(source: Path, target: Path) -> None:
    try:
        import openvino
    except ImportError as error:
        raise DependencyError("needs OpenVINO: pip install 'echovec[export]'") from error
    openvino.save_model(openvino.convert_model(str(source)), str(target), compress_to_fp16=False)


def _openvino_int8(source: Path, target: Path) -> None:
    try:
        import nncf
        import openvino
    except ImportError as error:
        raise DependencyError(f"{error.name} is missing: pip install 'echovec[export]'") from error
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        kept = nncf.IgnoredScope(names=_transforms(source))
        model = nncf.compress_weights(openvino.convert_model(str(source)), ignored_scope=kept)
    openvino.save_model(model, str(target), compress_to_fp16=False)


_EIGHT_BITS = (0.99, 0.1)
"""The least cosine and the largest difference of weights in 8 bits."""

GRAPHS: dict[str, Graph] = {
    "onnx": Graph("onnx", "model.onnx", _moved),
    "onnx-int8": Graph("onnx", "model.onnx", _int8, _EIGHT_BITS),
    "openvino": Graph("openvino", "model.xml", _openvino, needs=("openvino",)),
    "openvino-int8": Graph(
        "openvino", "model.xml", _openvino_int8, _EIGHT_BITS, needs=("openvino", "nncf")
    ),
}
"""The kinds of graph; to add one, add a row."""
