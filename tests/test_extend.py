"""docs/design.md, "To add something": each row of the table is true, shown by adding one.

Rooms whose own tests add one are named in the table; here are the others. What is added is taken
out again, so the tables are as they were.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from corpus_stub import Stub
from echovec import Embedder, InputError, Recipe, Template, View
from echovec.model.tiny import TinyBackbone
from echovec.presets import preset, recipe_of
from echovec.recipe import ROLES
from echovec.text.tokenizer import ByteTokenizer

ROOT = Path(__file__).parents[1]
TEXTS = ["a cat sat on the mat", "an open window"]
ECHO = Template("Once: {text} Again: {text}")


def embedder(recipe, backbone=None):
    return Embedder(recipe, ByteTokenizer(), backbone or TinyBackbone())


def test_a_template():
    """One line in one's own code; nothing of the package is touched."""
    vectors = embedder(Template("{text} - {text} - {text}")).encode(TEXTS)
    assert vectors.shape == (2, 32)


def test_a_preset(monkeypatch):
    """One row: the recipe is found by its name, in code and on the command line."""
    from echovec import presets

    mine = recipe_of("mine", View(ECHO))
    monkeypatch.setattr(presets, "PRESETS", {**presets.PRESETS, "mine": mine})
    assert preset("mine") is mine
    assert "mine" in presets.preset_names()


def test_a_pooling(monkeypatch):
    """A function, its row and its name: views use it, recipes say it."""
    from echovec.vector import pooling, view

    def first_token(h_TD, spans_S2):
        return h_TD[spans_S2[:, 0]].float()

    monkeypatch.setitem(pooling.POOLINGS, "firsttoken", first_token)
    monkeypatch.setattr(view, "POOLING_NAMES", (*view.POOLING_NAMES, "firsttoken"))
    recipe = recipe_of("first", View(ECHO, "firsttoken"))
    made = embedder(recipe)
    (chunk,) = made.prepare(TEXTS[:1])
    whole = made.backbone.forward(chunk[0])[0]
    start = int(chunk[0].spans_SK2[0, 0, 0])
    np.testing.assert_allclose(made.forward(chunk)[0], whole[start], atol=1e-6)
    assert Recipe.from_json(recipe.to_json()) == recipe


def test_a_transform(monkeypatch):
    """A dataclass and its row: it runs, it is in the JSON, it moves the fingerprint."""
    from echovec.vector import transform

    @dataclass(frozen=True)
    class Signs:
        """The sign of each number."""

        keep_zero: bool = True

        def __call__(self, z_SD):
            return torch.sign(z_SD)

        def dim_out(self, dim_in):
            return dim_in

    monkeypatch.setitem(transform.TRANSFORMS, "signs", Signs)
    plain = recipe_of("signs", View(ECHO))
    recipe = dataclasses.replace(plain, transforms=(Signs(),))
    signs = embedder(recipe).encode(TEXTS, normalize_embeddings=False)
    assert set(np.unique(signs)) <= {-1.0, 0.0, 1.0}
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert recipe.fingerprint != plain.fingerprint


def test_a_calibration(monkeypatch):
    """A function of vectors and its row: fitted by name, and a recipe says the transform."""
    from echovec.vector import calibrate

    def largest(z_ND):
        """Divide each dimension by its largest size."""
        zeros = np.zeros(z_ND.shape[1], np.float32)
        return calibrate.Scale(zeros, (1 / np.abs(z_ND).max(axis=0)).astype(np.float32))

    monkeypatch.setattr(calibrate, "FITS", {**calibrate.FITS, "largest": largest})
    plain = recipe_of("largest", View(ECHO))
    raw = embedder(plain).encode(TEXTS, normalize_embeddings=False)
    recipe = dataclasses.replace(plain, transforms=(calibrate.fit("largest", raw),))
    fitted = embedder(recipe).encode(TEXTS, normalize_embeddings=False)
    np.testing.assert_allclose(np.abs(fitted).max(axis=0), 1, atol=1e-6)
    alone = embedder(recipe).encode(TEXTS[0], normalize_embeddings=False)
    np.testing.assert_allclose(alone, fitted[0], atol=1e-5)
    with pytest.raises(InputError, match="largest takes no options"):
        calibrate.fit("largest", raw, strength=1)


def test_a_kind_of_text(monkeypatch):
    """A row: the model writes it, and its opening is no part of the text."""
    from echovec.calibrate import Writing, kinds, write
    from echovec.text.tokenizer import HFTokenizer
    from families import causal_model, family_tokenizer

    known = {**kinds.KINDS, "verse": "Lines of poems:\n-"}
    monkeypatch.setattr(kinds, "KINDS", known)
    monkeypatch.setattr(write, "KINDS", known)
    writing = Writing(count=3, shortest=4, longest=8, kinds=("verse",))
    tokenizer = HFTokenizer(family_tokenizer("llama"))
    texts, _ = write.write_texts(causal_model("llama"), tokenizer, writing, range(3))
    assert len(texts) == 3
    assert not any("poems" in text or "\n" in text for text in texts)


def test_a_part_of_a_view(monkeypatch):
    """What changes the run: a field of View and of How, the reader, the pass, a hook, `read`."""
    from contextlib import contextmanager

    from echovec import reader
    from echovec.model import hooks, parts, plain
    from echovec.vector import as_json
    from echovec.vector.passes import Pass
    from families import causal_model, family_tokenizer

    @dataclass(frozen=True)
    class Louder(View):
        louder: float | None = None  # what the first block's states are multiplied by

    @dataclass(frozen=True)
    class How(parts.How):
        louder: float | None = None

    @contextmanager
    def made_louder(blocks, factor):
        def hook(module, args, output):
            return (
                (output[0] * factor, *output[1:]) if isinstance(output, tuple) else output * factor
            )

        handle = blocks[0].register_forward_hook(hook)
        try:
            yield
        finally:
            handle.remove()

    how, read = reader.Reader._how, plain.PlainBackbone.read

    def louder_how(self, one, wanted):
        louder = self.views[one.places[0]].louder
        return dataclasses.replace(how(self, one, wanted), louder=louder)

    def louder_read(self, batch, layers, how, *, float32=False):
        with made_louder(hooks.blocks_of(self.model, self.num_layers), how.louder):
            return read(self, batch, layers, how, float32=float32)

    def louder_passes(views):
        return tuple(Pass((view.template,), (place,)) for place, view in enumerate(views))

    monkeypatch.setattr(as_json, "View", Louder)
    monkeypatch.setattr(reader, "How", How)
    monkeypatch.setattr(reader, "passes_of", louder_passes)
    monkeypatch.setattr(reader.Reader, "_how", louder_how)
    monkeypatch.setattr(plain.PlainBackbone, "read", louder_read)
    model, tokenizer = causal_model("llama"), family_tokenizer("llama")
    quiet = recipe_of("quiet", Louder(ECHO))
    recipe = recipe_of("louder", Louder(ECHO, louder=3.0))
    made = Embedder.from_model(model, tokenizer, recipe)
    together = made.encode(TEXTS)
    np.testing.assert_allclose(together[0], made.encode(TEXTS[0]), atol=1e-5)
    before = Embedder.from_model(model, tokenizer, quiet).encode(TEXTS)
    assert np.abs(together - before).max() > 1e-3
    monkeypatch.undo()
    np.testing.assert_array_equal(before, Embedder.from_model(model, tokenizer, ECHO).encode(TEXTS))


def test_a_part_of_a_view_is_said_in_the_recipe():
    """A field of View with its default is not written, so old fingerprints stay; any other is."""
    plain = recipe_of("x", View(ECHO))
    other = recipe_of("x", View(ECHO, mask="bidirectional"))
    assert "mask" not in plain.to_json()
    assert Recipe.from_json(other.to_json()) == other
    assert other.fingerprint != plain.fingerprint


def test_a_backbone():
    """A class with six members, written here: the whole package runs on it."""

    class Embeddings:
        """Token embeddings alone, from a fixed table."""

        dim, num_layers, max_positions, dtype = 6, 0, None, "float32"
        table = torch.randn(300, 6, generator=torch.Generator().manual_seed(1))

        def forward(self, batch, layers=(-1,), *, pooled_only=False, float32=False):
            ids = batch.ids_T[batch.pooled[0]] if pooled_only else batch.ids_T
            return [self.table[torch.from_numpy(ids)]] * len(layers)

        def weights_hash(self):
            return "sha256:by-hand"

    made = embedder(ECHO, Embeddings())
    want = Embeddings.table[torch.tensor(list(b" " + TEXTS[0].encode()))].mean(dim=0)
    np.testing.assert_allclose(
        made.encode(TEXTS[0], normalize_embeddings=False), want.numpy(), atol=1e-6
    )
    assert made.recipe.model.hash == "sha256:by-hand"


def test_an_input_format(tmp_path, monkeypatch):
    """A reader and its ending: rows of a new kind of file come out like those of others."""
    from echovec.corpus import inputs, readers
    from echovec.corpus.source import read_rows

    def read(source, text, id_field):
        for number, line in enumerate(source.path.read_text("utf-8").split("|"), 1):
            yield number, {text: line}

    monkeypatch.setitem(readers.READERS, "bars", read)
    monkeypatch.setitem(inputs.ENDINGS, ".bars", "bars")
    (tmp_path / "x.bars").write_text("one|two", "utf-8")
    assert [row.text for row in read_rows([tmp_path / "x.bars"])] == ["one", "two"]


def test_an_output_format(tmp_path, monkeypatch):
    """A sink: a class with write and close and its ending; a whole file or none."""
    from echovec.corpus import formats
    from echovec.corpus.sink import Sink
    from echovec.corpus.source import Row

    class Count:
        beside = ()

        def __init__(self, files, contents, dimension):
            self.file, self.count = files[""], 0

        def write(self, chunk):
            self.count += len(chunk.rows)

        def close(self):
            self.file.write(str(self.count).encode())

    monkeypatch.setitem(formats.FORMATS, ".count", Count)
    rows = [Row(str(place), text, f"x:{place}") for place, text in enumerate(TEXTS)]
    contents = formats.Contents(recipe_json="{}", fingerprint="0123456789abcdef")
    with Sink(tmp_path / "x.count", contents) as sink:
        sink.write(formats.Chunk(rows, np.zeros((2, 8), np.float32), np.zeros(2, bool)))
    assert (tmp_path / "x.count").read_text() == "2"


def test_an_export_format(tmp_path, monkeypatch):
    """A function and its row: `echovec export --to NAME` runs it and prints its parity."""
    from typer.testing import CliRunner

    from echovec.cli import app
    from echovec.export import formats, parity

    def export(made, folder, route):
        folder.mkdir()
        texts = {"real": TEXTS}
        return parity.compare(
            made,
            lambda own, role: made.encode(own, role=None if role == "symmetric" else role),
            route="copy",
            texts=texts,
        )

    monkeypatch.setitem(formats.FORMATS, "copy", export)
    monkeypatch.setattr(Embedder, "load", lambda *a, **k: embedder(ECHO))
    result = CliRunner().invoke(app, ["export", str(tmp_path / "x"), "--to", "copy"])
    assert result.exit_code == 0, result.output
    assert "same vectors" in result.output


def test_a_graph_engine(tmp_path, monkeypatch):
    """A runtime's engine is a row that makes a function from a file."""
    pytest.importorskip("transformers")
    from echovec.export import runtime
    from families import causal_model, family_tokenizer

    made = Embedder.from_model(causal_model("llama"), family_tokenizer("llama"), "echo")
    made.recipe.save(tmp_path / "echovec")
    made.tokenizer.inner.save_pretrained(tmp_path / "echovec")
    (tmp_path / "graph.json").write_text('{"engine": "by hand", "file": "x", "max_positions": 99}')

    def load(file, threads):
        return lambda feed: feed["spans_0"][:, 0].astype(np.float32)

    monkeypatch.setitem(runtime.ENGINES, "by hand", load)
    spans = runtime.Runtime(tmp_path).encode(TEXTS)
    assert (spans[:, 0] < spans[:, 1]).all()


def test_a_training_set(tmp_path):
    """A file of rows with an anchor and a positive, named in a run; no code is written."""
    from echovec.train.data import Source, read

    rows = '{"query": "who?", "positive": "a cat", "negative": "a dog"}\n'
    (tmp_path / "mine.jsonl").write_text(rows, "utf-8")
    (example,) = read(Source(path="mine.jsonl"), tmp_path).examples
    assert (example.anchor, example.positive, example.negatives) == ("who?", "a cat", ("a dog",))


def test_a_task(tmp_path):
    """A folder of files is a task of the kind that its fields say; no code is written."""
    from echovec.evaluate.layout import find_sets

    (tmp_path / "My pairs").mkdir()
    row = '{"sentence1": "a", "sentence2": "b", "score": 3.0}\n'
    (tmp_path / "My pairs" / "test.jsonl").write_text(row, "utf-8")
    ((one,), none) = find_sets(tmp_path)
    assert (one.name, one.category, one.splits, none) == ("My pairs", "STS", ("test",), {})


async def test_a_route(monkeypatch):
    """A router in one tuple: its route answers, behind the same guard as all others."""
    fastapi = pytest.importorskip("fastapi", reason="the extra serve")
    import httpx

    from echovec.serve import app
    from serve_stub import service

    router = fastapi.APIRouter()

    @router.get("/mine")
    async def mine() -> dict[str, str]:
        """A route of one's own."""
        return {"said": "hello"}

    monkeypatch.setattr(app, "ROUTERS", (*app.ROUTERS, router))
    transport = httpx.ASGITransport(app.create_app(service()))
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as http:
        answer = await http.get("/mine")
    assert answer.json() == {"said": "hello"}


def test_the_stub_model_is_an_embedder_for_jobs():
    """What a corpus job asks of an embedder is little: recipe, dimension, encode."""
    vectors, cut = Stub().encode(TEXTS, return_truncated=True)
    assert vectors.shape == (2, Stub.dimension)
    assert not cut.any()


def test_the_table_names_these_tests():
    """Every test that the table names exists."""
    page = (ROOT / "docs" / "design.md").read_text("utf-8")
    named = set(re.findall(r"`(tests/test_\w+\.py)::(test_\w+)`", page))
    rows = re.findall(r"^\| (.*?) \|.*`tests/test_\w+\.py::(test_\w+)`", page, re.MULTILINE)
    for noun in ("template", "pooling", "backbone", "recipe", "set", "task", "route", "sink"):
        assert any(noun in added for added, _ in rows), f"no row with a test for a {noun}"
    for file, function in named:
        assert f"def {function}(" in (ROOT / file).read_text("utf-8"), f"{file}::{function}"
    assert set(ROLES) == {"symmetric", "query", "document"}
