"""Graphs for ONNX Runtime and OpenVINO: the same vectors from ids and spans."""

from __future__ import annotations

import dataclasses
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import numpy as np
import pytest

from echovec import Embedder, InputError, RecipeError, Template, TruncationWarning, View
from echovec.errors import DependencyError
from echovec.export.parity import REAL
from echovec.presets import recipe_of
from echovec.recipe import Recipe
from echovec.text.drafts import render
from echovec.train.tiny import tiny_model
from echovec.vector.transform import Linear

pytest.importorskip("sentence_transformers", reason="the extra train")
ECHO = Template('A: {text}\nB: {text} means "')
TWO = recipe_of(
    "two",
    View(Template("a {text}"), "weightedmean", layer=1),
    View(Template("a {text}"), "sif", layer=0),
    View(ECHO),
    View(dataclasses.replace(ECHO, pooled="end"), "lasttoken", weight=0.5),
)
ECHO_VIEWS = (View(ECHO), View(dataclasses.replace(ECHO, pooled="end"), "lasttoken"))


def embedder(recipe="echo-instruct"):
    made = Embedder.from_model(*tiny_model(), recipe)
    return made.with_recipe(recipe, max_tokens=24)


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    """One ONNX export: prompts of their own for queries and documents, windows of long texts."""
    pytest.importorskip("onnxruntime", reason="the extra export")
    pytest.importorskip("onnxscript", reason="the extra export")
    from echovec.export.to_graph import export_graph

    folder = tmp_path_factory.mktemp("graph") / "onnx"
    made = embedder()
    windows = dataclasses.replace(made.definition, long_text="windows")
    return folder, export_graph(made.with_recipe(windows), folder, "onnx")


def test_of_windows_a_graph_holds_the_cut_and_says_so(graph):
    """One run of the graph is one text: its recipe cuts, and the first line printed names that."""
    folder, parity = graph
    assert "texts of more than 24 tokens are cut" in parity.lines()[0]
    assert Recipe.load(folder / "echovec").long_text == "cut"
    assert "cut to 24 tokens" in (folder / "README.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("kind", "missing"),
    [("openvino", "openvino"), ("openvino-int8", "openvino"), ("openvino-int8", "nncf")],
)
def test_a_missing_converter_is_named_before_anything_is_converted(
    kind, missing, tmp_path, monkeypatch
):
    """OpenVINO's packages come last into play and are asked for first."""
    from echovec.export import to_graph

    monkeypatch.setattr(to_graph, "_write", lambda *_: pytest.fail("converted"))
    for name in ("openvino", "nncf"):
        monkeypatch.setitem(sys.modules, name, None if name == missing else here())
    with pytest.raises(
        DependencyError, match=rf"{missing} is missing: pip install 'echovec.export"
    ):
        to_graph.export_graph(embedder(), tmp_path / "x", kind)
    assert not list(tmp_path.iterdir())


def here():
    """A module that is installed."""
    module = ModuleType("here")
    module.__spec__ = ModuleSpec("here", None)
    return module


def test_an_onnx_graph_gives_our_vectors(graph):
    """Token ids and spans to unit vectors, every role, padded and cut batches: rounding only."""
    from echovec.export.runtime import Runtime

    folder, parity = graph
    assert parity.holds
    assert parity.max_diff < 1e-5
    runtime = Runtime(folder, threads=1)
    made = embedder()
    ours, _ = made.encode(REAL, role="query", instruction="Find it", return_truncated=True)
    with pytest.warns(TruncationWarning):
        theirs = runtime.encode(list(REAL), role="query", instruction="Find it", batch_tokens=100)
    np.testing.assert_allclose(theirs, ours, atol=1e-5)
    assert not list(folder.rglob("*.unfinished"))


def test_a_runtime_says_what_it_was_given_wrong(graph):
    """A cut is a warning; one text for a list and an unknown role are errors; no text is [0, d]."""
    from echovec.export.runtime import Runtime

    runtime = Runtime(graph[0], threads=1)
    with pytest.warns(
        TruncationWarning,
        match=r"1 of 2 texts were cut to the budget of 24 tokens .*; split .* export again",
    ):
        runtime.encode(["short", "word " * 50], instruction="Find it")
    with pytest.raises(InputError, match="give a list"):
        runtime.encode("a text", instruction="Find it")
    with pytest.raises(InputError, match="role='both'"):
        runtime.encode(["a text"], role="both", instruction="Find it")
    assert runtime.encode([], instruction="Find it").shape == (0, embedder().dimension)


def test_no_two_example_inputs_are_one_tensor():
    """A converter ties inputs that are one object: the mask was embedded once (cosine 0.32)."""
    from echovec.export.pipeline import Pipeline
    from echovec.export.program import program_of

    pipeline = Pipeline(embedder(TWO), program_of(embedder(TWO)))
    example = pipeline.example()
    assert len({id(one) for one in example}) == len({one.data_ptr() for one in example}) == 6
    assert pipeline.names == ["ids_0", "mask_0", "spans_0", "ids_1", "mask_1", "spans_1"]


def test_the_pipeline_is_the_embedder():
    """Before any converter: views of two passes, layers and weights, from ids and spans."""
    import torch

    from echovec.export.pipeline import Pipeline
    from echovec.export.program import program_of

    made = embedder(TWO)
    pipeline = Pipeline(made, program_of(made))
    inputs = []
    reader = made._readers["symmetric"]
    for renderer, one in zip(reader.renderers, reader.passes, strict=True):
        (rendered,) = render(renderer, ["a cat sat"])
        ids = torch.from_numpy(rendered.ids)[None]
        views = [reader.views[place] for place in one.places]
        spans = [rendered.spans[renderer.templates.index(view.template)] for view in views]
        spans = torch.tensor([spans])
        inputs += [ids, torch.ones_like(ids), spans]
    np.testing.assert_allclose(pipeline(*inputs)[0], made.encode("a cat sat"), atol=1e-6)


@pytest.mark.parametrize("views", [2, 3])
def test_many_passes_are_one_batch(views):
    """Three prompts or more go through the model together, padded alike: the same vectors."""
    import torch

    from echovec.export.pipeline import Pipeline
    from echovec.export.program import program_of

    own = [View(Template(f"{'so ' * 3 * place}{{text}}"), layer=1) for place in range(views)]
    made = embedder(recipe_of("several", *own))
    pipeline = Pipeline(made, program_of(made))
    calls = []
    pipeline.echo.model.register_forward_hook(lambda *_: calls.append(1))
    chunks = made.prepare(list(REAL[:5]))
    (chunk,) = chunks
    longest = max(int(batch.lengths_S.max()) for batch in chunk)
    inputs = []
    for batch in chunk:
        ids = torch.zeros(5, longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        starts = batch.offsets_S1
        for row in range(5):
            length = int(batch.lengths_S[row])
            ids[row, :length] = torch.from_numpy(batch.ids_T[starts[row] : starts[row + 1]])
            mask[row, :length] = 1
        spans = torch.from_numpy(batch.spans_SK2) - torch.from_numpy(starts[:-1])[:, None, None]
        inputs += [ids, mask, spans]
    with torch.no_grad():
        found = pipeline(*inputs).numpy()
    runs = len(calls)
    expected = made.encode(REAL[:5], return_truncated=True)[0][chunk[0].order_S]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert runs == (1 if views > 2 else views)
    others = [one.flip(0) if place % 3 == 0 else one for place, one in enumerate(inputs)]
    with torch.no_grad():
        assert np.abs(pipeline(*others).numpy() - expected).max() > 1e-3


def test_what_a_graph_cannot_hold_is_refused(tmp_path):
    """Roles that are read in different ways, narrower dtypes, a folder that is there."""
    import torch

    from echovec.export.pipeline import Pipeline
    from echovec.export.program import program_of
    from echovec.export.to_graph import export_graph

    views = {"symmetric": View(ECHO), "query": View(ECHO), "document": View(ECHO, layer=1)}
    made = embedder(dataclasses.replace(TWO, views=views))
    with pytest.raises(RecipeError, match="document texts in another way"):
        Pipeline(made, program_of(made))
    with pytest.raises(InputError, match="there already"):
        export_graph(made, tmp_path, "onnx")
    model, tokenizer = tiny_model()
    half = Embedder.from_model(model.to(torch.bfloat16), tokenizer)
    with pytest.raises(InputError, match="bfloat16"):
        export_graph(half, tmp_path / "x", "onnx")


def test_a_recipes_transforms_are_kept_out_of_the_rounding(tmp_path):
    """Products with a view's and a recipe's matrices are named, no product of the model is."""
    for needed in ("onnxruntime", "onnxscript"):
        pytest.importorskip(needed, reason="the extra export")
    import onnx

    from echovec.export.pipeline import Pipeline
    from echovec.export.program import program_of
    from echovec.export.to_graph import _int8, _to_onnx, _transforms

    rng = np.random.default_rng(0)
    dim = embedder().dimension
    mean, square = rng.normal(size=dim), rng.normal(size=(dim, dim))
    views = [dataclasses.replace(v, transforms=(Linear(mean, square),)) for v in ECHO_VIEWS]
    made = embedder(recipe_of("turned", *views, transforms=(Linear(mean, square),)))
    source = tmp_path / "model.onnx"
    _to_onnx(Pipeline(made, program_of(made)), source)
    kept = _transforms(source)
    assert len(kept) == len(views) + 1
    _int8(source, tmp_path / "small.onnx")
    kinds = {node.name: node.op_type for node in onnx.load(tmp_path / "small.onnx").graph.node}
    assert all(kinds[name] == "MatMul" for name in kept)
    # the control: the model's own products were rounded
    assert list(kinds.values()).count("MatMulNBits") > len(kept)


def test_weights_that_two_passes_share_are_rounded_once(tmp_path):
    """A graph transposes what two products share as it runs; they were passed over once."""
    for needed in ("onnxruntime", "onnxscript"):
        pytest.importorskip(needed, reason="the extra export")
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    from echovec.export.to_graph import _int8

    rng = np.random.default_rng(0)
    weight, x = (rng.normal(size=size).astype(np.float32) for size in ((64, 32), (3, 32)))
    nodes = [
        helper.make_node("Transpose", ["weight"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "turned"], ["once"], name="first"),
        helper.make_node("MatMul", ["x", "turned"], ["again"], name="second"),
        helper.make_node("Add", ["once", "again"], ["y"]),
    ]
    ends = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [3, width])]
        for name, width in (("x", 32), ("y", 64))
    ]
    graph = helper.make_graph(nodes, "two", *ends, [numpy_helper.from_array(weight, "weight")])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), tmp_path / "a.onnx"
    )
    _int8(tmp_path / "a.onnx", tmp_path / "b.onnx")
    small = onnx.load(tmp_path / "b.onnx").graph
    assert [n.op_type for n in small.node].count("MatMulNBits") == 2
    names = [tensor.name for tensor in small.initializer]
    assert len(names) == len(set(names)) == 2  # numbers and their scales
    session = onnxruntime.InferenceSession(
        str(tmp_path / "b.onnx"), providers=["CPUExecutionProvider"]
    )
    (y,) = session.run(None, {"x": x})
    np.testing.assert_allclose(y, 2 * x @ weight.T, atol=0.3)
    assert np.abs(y - 2 * x @ rng.permutation(weight).T).max() > 3  # the control


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx-int8", "openvino", "openvino-int8"])
@pytest.mark.parametrize("recipe", ["echo-instruct", TWO], ids=["roles", "two passes"])
def test_other_graphs(kind, recipe, tmp_path):
    """OpenVINO to rounding, 8-bit weights to their precision."""
    for needed in ("openvino", "onnxruntime", "onnxscript", "nncf"):
        pytest.importorskip(needed, reason="the extra export")
    from echovec.export.to_graph import export_graph

    parity = export_graph(embedder(recipe), tmp_path / "x", kind)
    assert parity.holds
    assert parity.lowest_cosine > (0.99 if kind.endswith("int8") else 0.999999)
