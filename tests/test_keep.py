"""corpus/keep.py: fields of the input that go along into files, shards and indexes."""

import datetime
import io
import json
import os
import signal
import sys
import time
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from threading import Thread

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from corpus_stub import Stub, job, shards, table
from echovec import Index
from echovec.cli import app
from echovec.corpus import look, slices
from echovec.corpus.slices import cut
from echovec.corpus.source import Problem, Row, read_rows
from echovec.errors import InputError
from echovec.files import manifest
from echovec.files.vectors import open_vectors
from forked import Forked
from search_stub import RECIPE, Letters

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="POSIX signals")
NANOSECONDS = 10**18 + 1
TYPED = {
    "year": pa.array([2019, None, 2021], pa.int16()),
    "lang": pa.array(["en", None, "fr"]).dictionary_encode(),
    "ok": pa.array([True, None, False]),
    "score": pa.array([0.5, None, float("nan")], pa.float32()),
    "half": pa.array(np.array([0.5, 0, 2], np.float16), mask=np.array([False, True, False])),
    "day": pa.array([1, None, 20_000], pa.int32()).view(pa.date32()),
    "clock": pa.array([1, None, 2], pa.int64()).view(pa.time64("us")),
    "at": pa.array([NANOSECONDS, None, 0], pa.int64()).view(pa.timestamp("ns", "UTC")),
    "wait": pa.array([1, None, 2], pa.int64()).view(pa.duration("s")),
}
ROWS = [
    {"id": "a", "text": "a cat on a mat", "year": 2019, "lang": "en"},
    {"id": "b", "text": "a cat on the mat", "year": 2022, "lang": "de", "tags": ["x"]},
    {"id": "c", "text": "markets rose", "year": None, "lang": "en"},
    {"id": "d", "text": "stock markets fell", "lang": "fr"},
    {"id": "e", "text": "a mat", "year": 2024, "lang": "en"},
]


@pytest.fixture
def put(tmp_path):
    """Write an input, by its ending, and give back its path."""

    def write(name, rows):
        path = tmp_path / name
        if name.endswith(".parquet"):
            texts = [f"text {n}" for n in range(len(next(iter(rows.values()))))]
            pq.write_table(pa.table({"text": texts, **rows}), path)
        elif isinstance(rows, str):
            path.write_text(rows, "utf-8")
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        return path

    return write


@pytest.fixture
def embed(monkeypatch, tmp_path):
    """`echovec embed ARGUMENTS` in `tmp_path` with an embedder of letters; counts its loads."""

    class Fake(Letters):
        def __init__(self):
            super().__init__()
            self.recipe.max_tokens, self.recipe.to_json = 512, lambda: RECIPE
            self.recipe.save = lambda folder: (folder / "recipe.json").write_text(RECIPE)

        def encode(self, texts, **options):
            return super().encode(texts, **options), np.zeros(len(texts), bool)

    def load(*_):
        run.loads += 1
        return Fake()

    def run(*arguments, stdin=None):
        done = CliRunner().invoke(app, ["embed", *map(str, arguments)], input=stdin)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == 0, done.output

    run.loads = 0
    monkeypatch.setattr("echovec.cli.embed._load", load)
    monkeypatch.chdir(tmp_path)
    return run


def kept(*inputs, keep, **options):
    """The schema and the kept values of rows that are all good."""
    rows = read_rows(inputs, keep=keep, **options)
    values = list(rows)
    assert all(isinstance(row, Row) for row in values), values
    return {f.name: str(f.type) for f in rows.columns}, [row.kept for row in values]


def refused(*inputs, keep, **options):
    """The message of the InputError at the call, before a row is read."""
    with pytest.raises(InputError) as caught:
        read_rows(inputs, keep=keep, **options)
    return str(caught.value)


# --- what is kept, by the kind of input ---


def test_columns_of_a_table_keep_their_types_to_the_last_nanosecond(put, embed):
    """Numbers, truth values and times as they came; a dictionary of texts as texts."""
    put("in.parquet", TYPED)
    embed("in.parquet", "-o", "out.parquet", "--keep", ",".join(TYPED))
    found = pq.read_table("out.parquet")
    assert found.schema.names == ["id", "text", *TYPED, "embedding"]
    for name, column in TYPED.items():
        plain = column.dictionary_decode() if name == "lang" else column
        assert found.schema.field(name).type == plain.type
        expected = [repr(value) for value in plain.to_pylist()]
        assert [repr(value) for value in found.column(name).to_pylist()] == expected, name


def test_values_of_json_keep_their_kind(put):
    """Texts, whole numbers, others, truth values; null and missing are null."""
    rows = [
        {"text": "x", "s": "é", "n": 2**53 + 1, "f": 0.5, "b": True, "m": 1},
        {"text": "y", "s": None, "n": -1, "b": False, "m": 2.5},
    ]
    types, values = kept(put("a.jsonl", rows), keep=["m", "s", "n", "f", "b"])
    assert types == {"m": "double", "s": "string", "n": "int64", "f": "double", "b": "bool"}
    assert values == [(1, "é", 2**53 + 1, 0.5, True), (2.5, None, -1, None, False)]


def test_cells_of_csv_are_texts(put):
    """Nothing is guessed: 007 stays 007, and an empty cell an empty text."""
    path = put("a.csv", "text,code,year\nx,007,2020\ny,,\n")
    types, values = kept(path, keep=["year", "code"])
    assert types == {"year": "string", "code": "string"}
    assert values == [("2020", "007"), ("", "")]


def test_all_takes_what_can_be_kept_and_says_what_it_leaves(put):
    """Not the text and the ids twice, no lists, nothing that the output has itself."""
    columns = {"key": [1, 2], "n": [3, 4], "tags": [["x"], []], "truncated": [True, True]}
    path = put("a.parquet", {**columns, "raw": [b"x", b"y"], "none": pa.nulls(2)})
    with pytest.warns(UserWarning, match="--keep all leaves out") as caught:
        types, values = kept(path, keep="all", id_field="key")
    assert (types, values) == ({"n": "int64"}, [(3,), (4,)])
    said = str(caught[0].message)
    assert '"tags" (list<element: int64>)' not in said
    for left in ('"tags" (list<', '"truncated" (the output has its own)', '"raw" (binary)'):
        assert left in said
    assert '"none" (null wherever it was looked at)' in said
    assert len(caught) == 1
    assert kept(put("b.jsonl", [{"text": "x", "id": "1"}]), keep="all") == ({}, [()])


def test_all_of_several_inputs_is_what_any_of_them_has(put):
    """An input without a column that another has gives nulls."""
    a = put("a.jsonl", [{"text": "x", "n": 1}])
    b = put("b.parquet", {"lang": ["en"], "n": pa.array([2], pa.int32())})
    c = put("c.csv", "text,lang\nz,de\n")
    types, values = kept(a, b, c, keep="all")
    assert types == {"n": "int64", "lang": "string"}
    assert values == [(1, None), (2, "en"), (None, "de")]


def test_types_of_several_tables_widen_to_one(put):
    """Whole numbers of two widths, numbers beside others, times of two units."""
    a = put("a.parquet", {"n": pa.array([1], pa.int16()), "f": pa.array([2], pa.int64())})
    b = put("b.parquet", {"n": pa.array([2**40]), "f": pa.array([0.5])})
    types, values = kept(a, b, keep=["n", "f"])
    assert types == {"n": "int64", "f": "double"}
    assert values == [(1, 2.0), (2**40, 0.5)]
    big = put("c.parquet", {"n": [1], "f": [2**53 + 1]})
    with pytest.raises(InputError, match=r'c.parquet: the column "f" is to be kept as double'):
        kept(b, big, keep=["f"])


def test_a_field_may_be_id_and_kept(put):
    """An id becomes a text, and its number is what a filter wants."""
    path = put("a.parquet", {"key": [10, 20]})
    rows = list(read_rows([path], keep=["key"], id_field="key"))
    assert [(row.id, row.kept) for row in rows] == [("10", (10,)), ("20", (20,))]


def test_a_data_set_of_hugging_face_and_compressed_files_keep_too(put, tmp_path):
    """Arrow files of a saved data set, and .jsonl.gz."""
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_dict({"text": ["a", "b"], "year": [1, 2]})
    data.save_to_disk(tmp_path / "saved")
    assert kept(tmp_path / "saved", keep=["year"]) == ({"year": "int64"}, [(1,), (2,)])


@LINUX
def test_standard_input_and_pipes_lose_no_row_that_was_looked_at(embed, tmp_path):
    """What can be read only once is read once."""
    lines = "".join(json.dumps({"text": f"t{n}", "n": n}) + "\n" for n in range(50))
    embed("-", "--format", "jsonl", "-o", "out.parquet", "--keep", "n", stdin=lines)
    assert pq.read_table("out.parquet").column("n").to_pylist() == list(range(50))
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    writer = Thread(target=pipe.write_text, args=["text,n\nx,1\ny,2\n"])
    writer.start()
    assert kept(pipe, keep="all") == ({"n": "string"}, [("1",), ("2",)])
    writer.join()


def test_a_pipe_is_looked_at_when_its_turn_comes(put, monkeypatch):
    """Behind a file its fields are compared with those of the file, and no row is lost."""
    first = put("a.jsonl", [{"text": "x", "n": 1}])
    for line, said in (('{"text": "y", "n": 2}\n', None), ('{"text": "y", "n": "2"}\n', "int64")):
        stream = io.TextIOWrapper(io.BytesIO(line.encode() * 3), encoding="utf-8")
        monkeypatch.setattr(sys, "stdin", stream)
        rows = read_rows([first, "-"], kind="jsonl", keep=["n"])
        if said is None:
            assert [row.kept for row in rows] == [(1,), (2,), (2,), (2,)]
        else:
            with pytest.raises(InputError, match=r'stdin: the field "n" holds string, and int64'):
                list(rows)


def test_what_is_at_urls_is_looked_at_too(put):
    """Tables before the first row is read, text files behind the first at their turn."""
    fs = fsspec.filesystem("memory")
    for name, rows in {
        "a.parquet": {"n": pa.array([1], pa.int32())},
        "b.jsonl": [{"text": "y", "n": 2, "m": 0}],
        "c.parquet": {"n": [2**40]},
    }.items():
        fs.pipe_file(f"/keep/{name}", put(name, rows).read_bytes())
    try:
        assert kept("memory://keep", keep=["n"]) == ({"n": "int64"}, [(1,), (2,), (2**40,)])
        with pytest.warns(
            UserWarning, match=r'b\.jsonl: the field "m" comes after what --keep all'
        ):
            kept("memory://keep", keep="all")
        fs.pipe_file("/keep/c.parquet", put("d.parquet", {"m": ["x"]}).read_bytes())
        assert 'c.parquet has no column "n"' in refused("memory://keep", keep=["n"])
        fs.rm("/keep/c.parquet")
        fs.pipe_file("/keep/b.jsonl", b'{"text": "y", "n": "2"}\n')
        with pytest.raises(InputError, match=r'b\.jsonl: the field "n" holds string, and int32 in'):
            kept("memory://keep", keep=["n"])
    finally:
        fs.rm("/keep", recursive=True)


# --- what cannot be kept ---


BAD = {
    "txt": (["in.txt"], ["year"], "in.txt is read as txt, where each line is a text"),
    "txt-of-two": (["in.jsonl", "in.txt"], "all", "in.txt is read as txt"),
    "own-id": (["in.jsonl"], ["id"], '--keep "id": the output has a column of this name itself'),
    "own-text": (["in.jsonl"], ["text"], '--keep "text": the output has a column of this name'),
    "own-vector": (["in.parquet"], ["embedding"], '--keep "embedding": the output has a column'),
    "empty": (["in.jsonl"], ["year", ""], "--keep has an empty name"),
    "no-column": (["in.parquet"], ["yaer"], 'in.parquet has no column "yaer"; there are: "text"'),
    "near": (["in.parquet"], ["yaer"], 'did you mean "year"? (--keep names it)'),
    "no-cell": (["in.csv"], ["yaer"], 'in.csv has no column "yaer"; there are: "text", "year"'),
    "no-field": (["in.jsonl"], ["yaer"], 'in.jsonl has no row with the field "yaer" in the first'),
    "second-lacks": (["in.jsonl", "in.csv"], ["lang"], 'in.csv has no column "lang"'),
    "list": (["in.jsonl"], ["tags"], 'in.jsonl: the field "tags" holds a list at in.jsonl:2'),
    "struct": (["in.parquet"], ["deep"], 'in.parquet: the field "deep" holds struct<x: int64>'),
    "bytes": (["in.parquet"], ["raw"], '"raw" holds binary; --keep takes texts, numbers'),
    "null": (["in.jsonl"], ["none"], '"none" is null wherever it was looked at'),
    "mixed": (["in.jsonl"], ["mix"], '"mix" holds a number at in.jsonl:1 and a text at in.jsonl:2'),
    "unlike": (
        ["in.parquet", "in.csv"],
        ["year"],
        'in.csv: the field "year" holds string, and int64 in in.parquet; make them alike',
    ),
}


@pytest.mark.parametrize(("inputs", "names", "message"), BAD.values(), ids=BAD)
def test_what_cannot_be_kept_is_said_before_a_model_is_loaded(put, embed, inputs, names, message):
    """The file, the field, what it holds or what there is; nothing is loaded or written."""
    columns = {"year": [2020, 2021], "deep": [{"x": 1}] * 2, "raw": [b"x"] * 2}
    put("in.parquet", {**columns, "embedding": [[1.0], [2.0]]})
    put("in.csv", "text,year\nx,2020\n")
    put("in.txt", "a line\n")
    lines = [{"text": "x", "none": None, "mix": 1, "lang": "en"}, {"text": "y", "mix": "a"}]
    put("in.jsonl", [lines[0], {**lines[1], "tags": ["z"]}])
    for out in ("out.parquet", "out/"):
        with pytest.raises(InputError) as caught:
            embed(*inputs, "-o", out, "--keep", names if names == "all" else ",".join(names))
        assert message in str(caught.value)
        assert not Path(out).exists()
    assert embed.loads == 0


def test_lines_of_standard_input_have_no_fields(embed):
    """The message says what would help."""
    with pytest.raises(InputError, match=r"stdin is read as txt.*say what the input is with --for"):
        embed("-", "-o", "out.parquet", "--keep", "all", stdin="a line\n")


def test_a_value_that_does_not_fit_is_a_problem_in_its_place(put, monkeypatch):
    """What the first rows decided is not changed by later ones: those rows are named."""
    monkeypatch.setattr(look, "HEAD_ROWS", 2)
    later = [2020.5, "2020", True, [1], 2**63, None, 7]
    rows = [{"text": "x", "y": n} for n in [1, 2, *later]]
    found = list(read_rows([put("a.jsonl", rows)], keep=["y"]))
    bad = [row.reason for row in found if isinstance(row, Problem)]
    assert [row.kept for row in found if isinstance(row, Row)] == [(1,), (2,), (None,), (7,)]
    shown = ["2020.5", '"2020"', "true", "[1]", "9223372036854775808"]
    assert bad == [f'the field "y" is {one}, and is kept as int64' for one in shown]
    floats = [{"text": "x", "y": n} for n in [0.5, 1, 2**53 + 1]]
    *_, last = read_rows([put("b.jsonl", floats)], keep=["y"])
    assert "is kept as double" in last.reason, "it would be rounded"
    texts = '{"text": "x", "y": "a"}\n{"text": "x", "y": "b"}\n{"text": "x", "y": "\\ud800"}\n'
    *_, last = read_rows([put("c.jsonl", texts)], keep=["y"])
    assert last.reason == 'the field "y" is "\\ud800", and is kept as string'


def test_fields_that_come_too_late_for_all_are_told_of_once(put, monkeypatch):
    """Nothing is left out in silence, and names that are data make one warning."""
    monkeypatch.setattr(look, "HEAD_ROWS", 1)
    rows = [{"text": "x", "n": 1}, *({"text": "x", f"new{k}": k} for k in range(9))]
    with pytest.warns(UserWarning, match="--keep all") as caught:
        _, values = kept(put("a.jsonl", rows), keep="all")
    assert len(caught) == 1
    assert '"new0" comes after what --keep all looks at' in str(caught[0].message)
    assert values == [(1,)] + 9 * [(None,)]


def test_broken_first_rows_are_what_is_said(put):
    """A file of which no row can be used is not one that lacks a field."""
    rows = list(read_rows([put("a.jsonl", "{\n")], keep=["year"]))
    assert [row.reason[:17] for row in rows] == ["is not valid JSON"]
    with pytest.raises(InputError, match="holds no rows"):
        list(read_rows([put("a.csv", "text,year\n")], keep=["year"]))


# --- without it ---


def test_without_keep_nothing_changes(put, embed, tmp_path):
    """No field in job.json, no column, no dictionary, the slices' hashes and lines as ever."""
    put("in.jsonl", ROWS)
    embed("in.jsonl", "-o", "out/")
    embed("in.jsonl", "-o", "out.jsonl", "--truncate-dim", 1)
    assert "keep" not in json.loads(Path("out/job.json").read_text())
    (shard,) = Path("out").glob("rows-*")
    assert shard.name == "rows-000000000000-892d1e810ab5.parquet"
    file = pq.ParquetFile(shard)
    assert file.schema_arrow.names == ["id", "text", "embedding", "truncated", "text_hash"]
    group = file.metadata.row_group(0)
    assert not any(group.column(n).has_dictionary_page for n in range(group.num_columns))
    line = Path("out.jsonl").read_text().splitlines()[3]
    assert line == '{"id": "d", "text": "stock markets fell", "embedding": [1.0]}'


# --- files ---


@pytest.mark.parametrize("out", ["out.parquet", "out.jsonl", "out.npy", "out/"])
def test_every_output_gives_back_what_was_kept(put, embed, out):
    """Read as an index reads it; also beside texts that are left out and flags."""
    put("in.jsonl", ROWS)
    embed("in.jsonl", "-o", out, "--keep", "year, lang", "--no-text", "--flag-truncated")
    (file,) = open_vectors([out])
    rows = pa.concat_tables([block.rows for block in file.blocks()]).to_pylist()
    wanted = [
        {"id": row["id"], "year": row.get("year"), "lang": row["lang"], "truncated": False}
        for row in ROWS
    ]
    assert rows == wanted


def test_times_are_texts_in_json_and_what_json_lacks_is_null(put, embed):
    """ISO 8601, durations as numbers of their unit, NaN as null; the line is JSON."""
    put("in.parquet", TYPED)
    embed("in.parquet", "-o", "out.jsonl", "--keep", "at,day,clock,wait,score")
    lines = Path("out.jsonl").read_text().splitlines()
    first, none, last = (json.loads(line, parse_constant=pytest.fail) for line in lines)
    assert first["at"] == "2001-09-09 01:46:40.000000001Z"
    assert first["day"] == "1970-01-02"
    assert first["clock"] == "00:00:00.000001"
    assert (first["wait"], first["score"], last["score"]) == (1, 0.5, None)
    assert {none[name] for name in ("at", "day", "clock", "wait", "score")} == {None}
    datetime.datetime.fromisoformat(first["at"])


# --- shards ---


def test_shards_hold_what_was_kept_and_a_second_run_changes_nothing(put, tmp_path):
    """Every shard has one schema, also where all its values are null."""
    rows = [{"text": f"t{n}", "n": n if n < 4 else None, "s": "x" * n} for n in range(10)]
    path, out = put("in.jsonl", rows), tmp_path / "out"
    job([path], out, keep=["n", "s"])
    found = [pq.read_table(out / name) for name in shards(out)]
    assert len({one.schema.to_string() for one in found}) == 1
    both = pa.concat_tables(found)
    assert both.column("n").to_pylist() == [row["n"] for row in rows]
    assert both.column("s").to_pylist() == [row["s"] for row in rows]
    assert json.loads((out / "job.json").read_text())["keep"] == ["n: int64", "s: string"]
    before, stub = shards(out), Stub()
    job([path], out, stub, keep=["n", "s"])
    assert (stub.seen, shards(out)) == ([], before)


def test_another_keep_is_another_run(put, tmp_path):
    """Refused with both; also without any, and where only the order or a type is another."""
    path, out = put("in.jsonl", ROWS), tmp_path / "out"
    job([path], out, keep=["year", "lang"])
    for names, now in (
        ([], "None"),
        (["year"], "['year: int64']"),
        (["lang", "year"], "['lang: string', 'year: int64']"),
    ):
        with pytest.raises(InputError) as caught:
            job([path], out, keep=names)
        said = f"keep ['year: int64', 'lang: string'], now {now}; give the same options to go on"
        assert said in str(caught.value)


@pytest.mark.parametrize("before", [[], ["lang"]])
def test_overwrite_with_another_keep_embeds_nothing_again(put, tmp_path, before):
    """Vectors of equal texts are taken over, and no old shard stands for a new one."""
    path, out = put("in.jsonl", ROWS), tmp_path / "out"
    job([path], out, keep=before)
    stub = Stub()
    job([path], out, stub, keep=["year"], overwrite=True)
    job([path], tmp_path / "new", keep=["year"])
    assert stub.seen == []
    assert shards(out) == shards(tmp_path / "new")
    other = put("in.jsonl", [{**row, "also": row.get("year")} for row in ROWS])
    job([other], out, keep=["also"], overwrite=True)
    assert "also" in pq.read_schema(next(out.glob("rows-*"))).names, "equal values, another name"


def test_a_changed_value_is_changed_input(put, tmp_path):
    """The hash of a slice covers what is kept, and nothing else of a row."""
    path, out = put("in.jsonl", ROWS), tmp_path / "out"
    job([path], out, keep=["lang"])
    put("in.jsonl", [{**row, "year": 1} for row in ROWS])
    job([path], out, keep=["lang"])
    put("in.jsonl", [{**row, "lang": "xx"} for row in ROWS])
    with pytest.raises(InputError, match="the input has changed"):
        job([path], out, keep=["lang"])


def test_equal_texts_keep_their_own_values(put, tmp_path):
    """A vector is taken over from an earlier shard, what is kept is the row's."""
    rows = [{"text": f"t{n % 3}", "n": n} for n in range(12)]
    path, out = put("in.jsonl", [*rows[:5], {"text": "!", "n": 99}, *rows[5:]]), tmp_path / "out"
    job([path], out, keep=["n"])
    found = [pq.read_table(out / name) for name in shards(out)]
    assert pa.concat_tables(found).column("n").to_pylist() == list(range(12))
    assert [text for _, text, _ in table(out)] == [row["text"] for row in rows]


def test_rows_that_do_not_fit_are_rejected_and_listed(put, tmp_path, monkeypatch):
    """More rows at the end move no type: a job goes on, and names what does not fit."""
    monkeypatch.setattr(look, "HEAD_ROWS", 4)
    rows = [{"text": f"t{n}", "n": n} for n in range(4)]
    out = tmp_path / "out"
    job([put("in.jsonl", rows)], out, keep=["n"])
    rows += [{"text": "t4", "n": "four"}, {"text": "t5", "n": 5}]
    done = job([put("in.jsonl", rows)], out, keep=["n"])
    assert (done.rows, done.rejected) == (5, 1)
    said = json.loads((out / "rejected.jsonl").read_text())
    assert said["reason"] == 'the field "n" is "four", and is kept as int64'


def test_kept_texts_count_where_memory_is_bounded(monkeypatch):
    """A slice ends where texts and what is kept reach the limit together."""
    monkeypatch.setattr(slices, "SLICE_CHARACTERS", 100)
    rows = [Row(str(n), "x", "f", ("y" * 49, 7, None)) for n in range(5)]
    assert [piece.stop for piece in cut(rows, 1000)] == [2, 4, 5]


@LINUX
def test_kill_9_and_go_on_with_what_is_kept(put, tmp_path):
    """Killed twice in the middle: in the end the bytes are those of an unbroken run."""
    rows = [{"text": f"text {n}", "n": n, "lang": "en"} for n in range(40)]
    path, out = put("in.jsonl", rows), tmp_path / "out"
    work = partial(job, [path], out, Stub(seconds_a_row=0.03), keep=["n", "lang"])
    for shard in (1, 3):
        with Forked(work) as process:
            while len(manifest.read(out / "manifest.jsonl")[0]) < shard:
                assert process.process.is_alive(), "it was to be killed, and came to an end"
                time.sleep(0.002)
            process.send(signal.SIGKILL)
            process.ended()
    assert len(manifest.read(out / "manifest.jsonl")[0]) < 10
    job([path], out, keep=["n", "lang"])
    job([path], tmp_path / "unbroken", keep=["n", "lang"])
    assert shards(out) == shards(tmp_path / "unbroken")


# --- to the end: search ---


@pytest.mark.parametrize("out", ["out.parquet", "out.jsonl", "out.npy", "out/"])
def test_an_exact_index_shows_what_was_kept(put, embed, out):
    """Fields of every hit; a filter is for lance, which the message says."""
    put("in.jsonl", ROWS)
    embed("in.jsonl", "-o", out, "--keep", "year,lang")
    index = Index.build(out, "index", embedder=Letters())
    (hit,) = index.search("a cat on a mat", 1)
    assert hit.id == "a"
    assert {name: hit.fields[name] for name in ("year", "lang")} == {"year": 2019, "lang": "en"}
    with pytest.raises(InputError, match="--backend lance"):
        index.search("a cat", filter="year > 2020")


@pytest.mark.skipif(find_spec("lancedb") is None, reason="the extra search")
@pytest.mark.parametrize("out", ["out.parquet", "out.jsonl", "out.npy", "out/"])
def test_the_filter_of_the_help_works_from_embed_on(put, embed, out):
    """`--filter "year > 2020"`: no join by hand in between, whatever the output."""
    put("in.jsonl", ROWS)
    embed("in.jsonl", "-o", out, "--keep", "year,lang")
    done = CliRunner().invoke(app, ["index", out, "-o", "index", "--backend", "lance"])
    assert done.exit_code == 0, done.output
    words = ["search", "index", "mat", "--by", "words", "--json"]
    done = CliRunner().invoke(app, [*words, "--filter", "year > 2020"])
    hits = [json.loads(line) for line in done.stdout.splitlines()]
    assert {hit["id"]: (hit["year"], hit["lang"]) for hit in hits} == {
        "b": (2022, "de"),
        "e": (2024, "en"),
    }
    index = Index.open("index", embedder=Letters())
    hits = index.search("a cat on a mat", filter="year >= 2020 AND lang = 'en'")
    assert [hit.id for hit in hits] == ["e"]


@pytest.mark.skipif(find_spec("lancedb") is None, reason="the extra search")
def test_filters_by_times_and_by_numbers_of_csv(put, embed):
    """As docs/search.md has them; and a field that was not kept names the option."""
    put("in.parquet", {"id": ["a", "b", "c"], **TYPED})
    put("in.csv", "id,text,year\nd,x,2019\ne,y,2024\nf,z,\n")
    embed("in.parquet", "-o", "times/", "--keep", "day")
    embed("in.parquet", "-o", "times.jsonl", "--keep", "day")
    embed("in.csv", "-o", "csv.parquet", "--keep", "year")
    for vectors, condition, ids in (
        ("times/", "day > date '2024-05-01'", ["c"]),
        ("times.jsonl", "day > '2024-05-01'", ["c"]),
        ("csv.parquet", "try_cast(year as int) > 2020", ["e"]),
    ):
        index = Index.build(vectors, f"i-{vectors}", backend="lance", embedder=Letters())
        assert [hit.id for hit in index.search("x", filter=condition)] == ids
    with pytest.raises(InputError, match=r"fields are id, text, year \(echovec embed --keep"):
        index.search("x", filter="lang = 'en'")
