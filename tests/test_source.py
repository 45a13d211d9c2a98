"""corpus/source.py: rows out of files, and a place and a reason for each that cannot be used."""

import csv
import io
import json
import os
import sys
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from echovec.corpus.source import Problem, Row, near_name, read_rows
from echovec.errors import InputError

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)


@pytest.fixture
def put(tmp_path):
    """Write a file (bytes, text, or a table for Parquet) and give back its path."""

    def write(name, content):
        path = tmp_path / name
        if isinstance(content, dict):
            pq.write_table(pa.table(content), path)
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def texts_of(*inputs, **options):
    """The texts of rows that are all good."""
    rows = list(read_rows(inputs, **options))
    assert all(isinstance(row, Row) for row in rows), rows
    return [row.text for row in rows]


def only_problem(path, **options):
    """Where and why the only bad row of a file is bad."""
    problems = [row for row in read_rows([path], **options) if isinstance(row, Problem)]
    assert len(problems) == 1, problems
    return problems[0].where.removeprefix(str(path)), problems[0].reason


def refused(*inputs, **options):
    """The message of the InputError that reading the inputs ends with."""
    with pytest.raises(InputError) as caught:
        list(read_rows(inputs, **options))
    return str(caught.value)


# --- texts survive ---


def test_only_a_line_feed_ends_a_line_of_txt(put):
    """U+2028, form feed, NEL, a lone carriage return and NUL are part of the text."""
    odd = "a\u2028b\x0cc\x85d\x1ce\rf\0g"
    path = put("a.txt", f"\ufeffone\r\n{odd}\n  two  \nlast\r")
    assert texts_of(path) == ["one", odd, "  two  ", "last\r"]


@pytest.mark.parametrize("ending", ["txt", "jsonl", "csv"])
def test_a_byte_order_mark_is_no_text(put, ending):
    """A BOM at the start is dropped, one further on is kept."""
    content = {"txt": "\ufeffx", "jsonl": '{"text": "\ufeffx"}', "csv": "text\n\ufeffx"}[ending]
    assert texts_of(put(f"a.{ending}", "\ufeff" + content)) == ["\ufeffx"]


@given(st.lists(TEXT, min_size=1, max_size=5))
def test_jsonl_csv_and_parquet_give_back_every_text(tmp_path_factory, texts):
    """Whatever Unicode a text holds, the reader gives back what a plain writer wrote."""
    folder = tmp_path_factory.mktemp("all")
    with (folder / "a.jsonl").open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in texts)
    with (folder / "a.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([["text"], *([t] for t in texts)])
    pq.write_table(pa.table({"text": texts}), folder / "a.parquet")
    for name in ("a.jsonl", "a.csv", "a.parquet"):
        assert texts_of(folder / name) == texts, name


@pytest.mark.parametrize(
    "kind",
    [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())],
    ids=str,
)
def test_every_kind_of_parquet_text_column_is_read(put, kind):
    """Text columns may be plain, large, views or dictionaries; ids may be whole numbers."""
    texts = pa.array(["one", "zwei", "one"])
    texts = texts.dictionary_encode() if pa.types.is_dictionary(kind) else texts.cast(kind)
    path = put("a.parquet", {"text": texts, "id": [7, 8, 9], "other": [{"x": 1}] * 3})
    rows = list(read_rows([path]))
    assert [(row.id, row.text) for row in rows] == [("7", "one"), ("8", "zwei"), ("9", "one")]
    assert rows[2].where == f"{path} row 3"


def test_a_long_csv_cell_is_read(put):
    """A megabyte in a cell is more than the csv module reads unasked."""
    text = "long " * 210_000
    assert texts_of(put("a.csv", f'text\n"{text}"\n')) == [text]


def test_quoted_line_ends_keep_the_places_right(put):
    """A cell over three lines stays one text, and the row after it knows its own line."""
    path = put("a.csv", 'id,text\r\n1,"a\r\nb\nc"\r\n2,d\r\n')
    rows = list(read_rows([path]))
    assert [(row.id, row.text) for row in rows] == [("1", "a\r\nb\nc"), ("2", "d")]
    assert [row.where for row in rows] == [f"{path}:2", f"{path}:5"]


# --- ids ---


def test_ids_come_from_the_field_id_or_are_running_numbers(put):
    """The first row decides for all inputs; numbers count on, over unusable rows too."""
    with_ids = put("a.jsonl", '{"text": "x", "id": "k"}\n{"text": "y", "id": 7}\n')
    assert [row.id for row in read_rows([with_ids])] == ["k", "7"]
    assert [row.id for row in read_rows([with_ids], id_field="")] == ["0", "1"]
    assert [row.id for row in read_rows([with_ids], id_field="text")] == ["x", "y"]
    plain = [put("b.txt", "x\n\ny\n"), put("c.txt", "z\n")]
    rows = list(read_rows(plain))
    assert [row.id for row in rows if isinstance(row, Row)] == ["0", "2", "3"]


def test_a_repeated_id_names_both_places(put):
    """Across files too; the first of the two is kept."""
    first = put("a.jsonl", '{"text": "x", "id": 1}\n{"text": "y", "id": 2}\n')
    second = put("b.csv", "id,text\n3,u\n2,v\n")
    *rows, last = read_rows([first, second])
    assert [row.id for row in rows] == ["1", "2", "3"]
    assert last == Problem(f"{second}:3", f'the id "2" is used before, at {first}:2')


# --- one bad row ---

BAD_ROWS = {
    "empty-line": ("a.txt", "one\n\ntwo\n", ":2", "the text is empty"),
    "not-utf8": ("a.txt", b"one\ncaf\xe9\n", ":2", "is not valid UTF-8: it holds the byte 0xE9"),
    "broken-json": (
        "a.jsonl",
        '{"text": "x"}\n{"text": "y"\n',
        ":2",
        "is not valid JSON: Expecting ',' delimiter at character 12",
    ),
    "not-an-object": (
        "a.jsonl",
        '{"text": "x"}\n["y"]\n',
        ":2",
        """is not a JSON object such as {"text": "a text"} but '["y"]'""",
    ),
    "blank-json": ("a.jsonl", '{"text": "x"}\n \n', ":2", "is an empty line, not a JSON object"),
    "nan": ("a.jsonl", '{"text": NaN}\n', ":1", "is not valid JSON: NaN is not a JSON value"),
    "twice": (
        "a.jsonl",
        '{"text": "x", "text": "y"}\n',
        ":1",
        'is a JSON object with the field "text" twice',
    ),
    "deep": ("a.jsonl", "[" * 200_000, ":1", "is JSON that is nested too deeply"),
    "huge-number": ("a.jsonl", '{"text": ' + "1" * 5000 + "}", ":1", "is JSON that cannot be read"),
    "json-surrogate": (
        "a.jsonl",
        '{"text": "a\\ud800"}\n',
        ":1",
        "the text is not valid Unicode: a lone surrogate U+D800 at character 1",
    ),
    "missing": (
        "a.jsonl",
        '{"text": "x"}\n{"Text": "y", "n": 1}\n',
        ":2",
        'has no field "text"; there are: "Text", "n"; did you mean "Text"?',
    ),
    "null": ("a.jsonl", '{"text": null}\n', ":1", 'the field "text" is null'),
    "wrong-type": ("a.jsonl", '{"text": 3}\n', ":1", "the text is int (3), not a text"),
    "id-type": (
        "a.jsonl",
        '{"text": "x", "id": true}\n',
        ":1",
        "the id is bool (True), neither a text nor a whole number",
    ),
    "id-empty": ("a.csv", "id,text\n,x\n", ":2", "the id is empty"),
    "few-cells": ("a.csv", "id,text\n1,x\n2\n", ":3", "has 1 cells, and the header has 2"),
    "many-cells": ("a.csv", "id,text\n1,x,y\n", ":2", "has 3 cells, and the header has 2"),
    "empty-cell": ("a.csv", "id,text\n1,\n", ":2", "the text is empty"),
    "csv-not-utf8": (
        "a.csv",
        b"id,text\n1,\xff\n2,x\n",
        ":2",
        "is not valid UTF-8: it holds the byte 0xFF",
    ),
    "csv-quote": (
        "a.csv",
        'id,text\n1,"a"b\n2,x\n',
        ":2",
        "is not valid CSV: ',' expected after '\"'",
    ),
    "open-quote": (
        "a.csv",
        'id,text\n1,x\n2,"a\nb\n',
        ":3",
        "is not valid CSV: unexpected end of data",
    ),
    "parquet-null": ("a.parquet", {"text": ["x", None]}, " row 2", 'the field "text" is null'),
    "parquet-not-utf8": (
        "a.parquet",
        {"text": pa.Array.from_buffers(pa.string(), 2, pa.array([b"x", b"\xff"]).buffers())},
        " row 2",
        "is not valid UTF-8: it holds the byte 0xFF",
    ),
}


@pytest.mark.parametrize(("name", "content", "place", "reason"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_a_bad_row_has_a_place_and_a_reason_and_costs_no_other_row(
    put, name, content, place, reason
):
    """Exactly one Problem comes out, in the bad row's place, with the line or row of the file."""
    where, why = only_problem(put(name, content))
    assert (where, why[: len(reason)]) == (place, reason)


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=6), st.sampled_from(["txt", "jsonl"]))
def test_any_bytes_give_one_row_or_problem_per_line(tmp_path_factory, lines, kind):
    """Nothing that stands in a file is an accident: every line comes out, in order."""
    content = b"\n".join(line.replace(b"\n", b"") for line in lines) + b"\n"
    path = tmp_path_factory.mktemp("any") / "file"
    path.write_bytes(b"x\n" + content)
    rows = list(read_rows([path], kind=kind))
    assert [row.where for row in rows] == [f"{path}:{i + 1}" for i in range(len(lines) + 1)]


@given(st.binary(max_size=200))
def test_any_bytes_as_csv_are_rows_problems_or_an_input_error(tmp_path_factory, content):
    """Behind a good header no bytes crash the reader, and places only ever grow."""
    path = tmp_path_factory.mktemp("any") / "a.csv"
    path.write_bytes(b"text\nfirst\n" + content)
    places = [int(row.where.rpartition(":")[2]) for row in read_rows([path])]
    assert all(earlier < later for earlier, later in pairwise(places))


# --- bad files and options ---

BAD_FILES = {
    "empty": ("a.txt", b"", "is empty; leave it out"),
    "only-a-mark": ("a.txt", b"\xef\xbb\xbf", "holds no rows"),
    "header-only": ("a.csv", b"id,text\n", "holds no rows"),
    "utf16": ("a.csv", "id,text\n1,x\n".encode("utf-16"), "is UTF-16; save it as UTF-8"),
    "ending": (
        "a.docx",
        b"x",
        'the ending ".docx" is not known (.txt, .jsonl, .csv, .parquet are)',
    ),
    "no-ending": ("README", b"x", 'the ending "" is not known'),
    "no-column": (
        "a.csv",
        b"id,body\n1,x\n",
        'has no column "text"; there are: "id", "body" (--text-field names it)',
    ),
    "two-columns": ("a.csv", b"text,text\nx,y\n", 'has two columns "text"; rename one'),
    "two-id-columns": ("a.csv", b"id,text,id\n1,x,y\n", 'has two columns "id"; rename one'),
    "bad-header": ("a.csv", b"\xff,text\n1,x\n", ":1: the header is not valid UTF-8"),
    "not-parquet": ("a.parquet", b"PAR1 but not really", "is not a Parquet file, or is damaged"),
    "parquet-no-column": ("a.parquet", {"txt": ["x"]}, 'has no column "text"; there are: "txt"'),
    "parquet-type": (
        "a.parquet",
        {"text": [1]},
        'the column "text" holds int64, and must hold texts',
    ),
    "parquet-id-type": ("a.parquet", {"text": ["x"], "id": [0.5]}, 'the column "id" holds double'),
    "parquet-empty": ("a.parquet", {"text": pa.array([], pa.string())}, "holds no rows"),
}


@pytest.mark.parametrize(("name", "content", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_is_an_input_error(put, name, content, message):
    """What is wrong with the whole file stops the run, names the file and says what to do."""
    path = put(name, content)
    said = refused(path)
    assert str(path) in said
    assert message in said


def test_a_damaged_parquet_page_is_an_input_error(put):
    """A file whose footer is right and whose pages are not names itself."""
    path = put("a.parquet", {"text": ["some text"] * 50})
    content = bytearray(path.read_bytes())
    content[4:30] = bytes(26)
    path.write_bytes(content)
    assert f"{path} is not a Parquet file, or is damaged" in refused(path)


def test_a_missing_file_names_its_neighbour(put, tmp_path):
    """A slip of one letter or of case is found among the files of the same folder."""
    put("notes.txt", "x")
    assert f"did you mean {tmp_path / 'notes.txt'}?" in refused(tmp_path / "note.txt")
    assert f"did you mean {tmp_path / 'notes.txt'}?" in refused(tmp_path / "NOTES.TXT")
    assert "does not exist; check the path" in refused(tmp_path / "zzzzzz.csv")
    assert f"nor does the folder {tmp_path / 'no'}" in refused(tmp_path / "no" / "a.txt")


def test_a_folder_without_inputs_is_refused(tmp_path):
    """A folder stands for its files, and one that has none of a known kind says so."""
    assert "holds no input (.txt, .jsonl, .csv, .parquet are known)" in refused(tmp_path)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="no /proc/self/mem here")
def test_a_file_that_cannot_be_read_says_why():
    """An I/O error names the file and the reason, for root too."""
    assert refused("/proc/self/mem", kind="txt").startswith("/proc/self/mem cannot be read: ")


def test_an_io_error_in_the_middle_names_the_file(put, monkeypatch):
    """A disk that fails after the first lines is an InputError, not a traceback."""

    class Failing(io.BytesIO):
        def __next__(self):
            if self.tell():
                raise OSError(5, "Input/output error")
            return super().__next__()

    path = put("a.txt", "one\ntwo\n")
    rows = read_rows([path])
    monkeypatch.setattr("pathlib.Path.open", lambda *_, **__: Failing(b"one\ntwo\n"))
    assert next(rows).text == "one"
    with pytest.raises(InputError, match="cannot be read: Input/output error; check the file"):
        next(rows)


def test_all_inputs_are_looked_at_before_the_first_row(put):
    """A bad second file is found at the call, before anything is read."""
    good, empty = put("a.txt", "x\n"), put("b.txt", "")
    with pytest.raises(InputError, match="is empty"):
        read_rows([good, empty])


def test_options_that_no_input_can_use_are_refused(put):
    """A txt file has no fields, so naming one is a slip."""
    txt, jsonl = put("a.txt", "x\n"), put("b.jsonl", '{"text": "x", "id": 1}\n')
    assert "has no fields, each line is a text" in refused(txt, text_field="body")
    assert 'has no field "key" for ids' in refused(txt, id_field="key")
    assert "--id-field '' numbers the rows of all inputs" in refused(jsonl, txt)
    assert texts_of(jsonl, txt, id_field="") == ["x", "x"]
    assert "no input" in refused()


# --- standard input and other streams ---


@pytest.fixture
def stdin(monkeypatch):
    """Give bytes to standard input."""
    return lambda content: monkeypatch.setattr(
        sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding="utf-8")
    )


def test_standard_input_is_txt_unless_said_otherwise(stdin):
    """A dash is a text a line, or what `kind` says, and is called stdin in messages."""
    stdin(b"one\ntwo\n")
    assert texts_of("-") == ["one", "two"]
    stdin(b'{"text": "x"}\n{}\n')
    assert list(read_rows(["-"], kind="jsonl"))[1].where == "stdin:2"
    stdin(b"")
    assert "stdin holds no rows" in refused("-")


def test_a_closed_standard_input_and_a_name_that_is_empty_are_said(monkeypatch):
    """`- <&-`, and `"$UNSET"`, which as a path would be the whole folder one is in."""
    monkeypatch.setattr(sys, "stdin", None)
    assert "standard input is closed" in refused("-")
    assert "the name of an input is empty" in refused("")
    assert "cannot be read from standard input" in refused("-", kind="parquet")
    assert "given twice" in refused("-", "-")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_not_opened_before_its_turn(tmp_path):
    """Looking at the inputs beforehand takes nothing out of a pipe; Parquet refuses one."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    rows = read_rows([pipe], kind="txt")
    end = os.open(pipe, os.O_RDWR)
    os.write(end, b"one\ntwo\n")
    assert next(rows).text == "one"
    os.close(end)
    rows.close()
    assert "is a pipe, and Parquet needs a file" in refused(pipe, kind="parquet")


def test_kind_overrides_the_ending(put):
    """A file of another ending is read as what it is said to be."""
    assert texts_of(put("a.log", "x\ny\n"), kind="txt") == ["x", "y"]


def test_near_name_ignores_case_and_gives_none_for_the_far():
    """The near one of several, or nothing."""
    assert near_name("text", ["id", "TEXT"]) == "TEXT"
    assert near_name("text", ["id", "n"]) is None
