"""The demo: what it collects, what it saves and reads back, what it shows; no real model here."""

import dataclasses
import hashlib
import io
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from typer.testing import CliRunner

import echovec
from echovec.cli import app
from echovec.demo import (
    FOUND_DEPTH,
    QUESTIONS,
    Answer,
    Docstring,
    Hit,
    Question,
    Voice,
    answer_table,
    ask,
    collect,
    found,
    own_question,
    run,
    store,
)
from echovec.demo.docstrings import first_paragraph
from echovec.errors import EchovecError, InputError, StorageError
from echovec.text.check import text_problem

DOCS = [
    Docstring("one.add", "function", "Add two numbers together."),
    Docstring("one.split", "function", "Split a text into its words."),
    Docstring("two.Box", "class", "A box that holds things [of any kind]."),
]


@dataclasses.dataclass(frozen=True)
class FakeRecipe:
    """What the demo asks of a recipe."""

    name: str
    fingerprint: str

    def to_json(self):
        """Any text will do."""
        return f'{{"name": "{self.name}"}}'


class FakeEmbedder:
    """Unit vectors drawn from a hash of recipe and text; counts what it embedded."""

    def __init__(self, name="classical", model="m", log=None):
        self.recipe = FakeRecipe(name, f"{model}-{name}")
        self.model = model
        self.log = [] if log is None else log

    @classmethod
    def load(cls, model=None, recipe="echo", *, precision=None):
        """What the command line asks for."""
        assert precision == "fast"
        return cls(recipe, model or "m")

    def with_recipe(self, name):
        """Another recipe, the same log."""
        return FakeEmbedder(name, self.model, self.log)

    def encode_document(self, texts):
        """Embed, and note how many."""
        self.log.append((self.recipe.name, len(texts)))
        return np.stack([self._vector(text) for text in texts])

    def encode_query(self, texts):
        """Embed without a note."""
        return np.stack([self._vector(text) for text in texts])

    def similarity(self, a, b):
        """Cosines of unit vectors."""
        return a @ b.T

    def _vector(self, text):
        digest = hashlib.sha256(f"{self.recipe.name} {text}".encode()).digest()
        vector = np.frombuffer(digest, np.uint8).astype(np.float32) - 128
        return vector / np.linalg.norm(vector)


@pytest.fixture(scope="module")
def docs():
    """The real docstrings, collected once."""
    return collect()


@pytest.fixture
def few(monkeypatch):
    """A standard library of three docstrings."""
    monkeypatch.setattr(ask, "collect", lambda: DOCS)


def ask_all(folder, embedder=None, questions=QUESTIONS, recipes=("classical", "echo")):
    """Run the demo; answers, saved files, what was embedded, what was said."""
    embedder = embedder or FakeEmbedder()
    said = []
    voice = Voice(say=said.append, phase=lambda work: nullcontext(said.append(work)))
    answers, saved = run(
        embedder, questions, recipes=recipes, folder=folder, depth=FOUND_DEPTH, voice=voice
    )
    return answers, saved, embedder.log, said


def shown(answer, width, num_rows=3):
    """The table as a pipe gets it."""
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(answer_table(answer, num_rows=num_rows, width=width))
    return console.file.getvalue()


def test_collect_finds_thousands_and_well_known_names(docs):
    """More than 3,000 texts; functions, methods, classes, C modules under their public names."""
    by_name = {doc.name: doc for doc in docs}
    assert len(docs) > 3000
    kinds = {
        "subprocess": "module",
        "subprocess.run": "function",
        "pathlib.Path.glob": "method",
        "collections.Counter": "class",
        "datetime.datetime.strptime": "method",
        "os.mkdir": "function",
        "struct.pack": "function",
        "math.sqrt": "function",
        "zlib.compress": "function",
        "itertools.chain": "class",
    }
    assert {name: by_name[name].kind for name in kinds} == kinds


def test_collect_keeps_one_embeddable_line_of_three_words_per_name(docs):
    """Names are unique and sorted; each text is one line of at least three words."""
    names = [doc.name for doc in docs]
    assert names == sorted(set(names))
    for doc in docs:
        assert text_problem(doc.text) is None, doc
        assert len(doc.text.split()) >= 3, doc
        assert doc.text == " ".join(doc.text.split()), doc


def test_collect_leaves_out_private_parts_and_tests(docs):
    """No name has a part with an underscore in front, and no test package is among them."""
    for doc in docs:
        parts = doc.name.split(".")
        assert not any(part.startswith("_") for part in parts), doc.name
        assert parts[0] not in {"idlelib", "lib2to3", "encodings", "this", "antigravity", "posix"}
        assert "tests" not in parts, doc.name


def test_collect_is_deterministic_fast_and_imports_nothing_heavy(docs):
    """A fresh interpreter finds the same texts in under 10 s and loads neither torch nor numpy."""
    code = (
        "import sys\n"
        "from echovec.demo.docstrings import collect\n"
        "from echovec.demo.store import texts_hash\n"
        "print(texts_hash(collect()))\n"
        "print([m for m in ('torch', 'transformers', 'numpy', 'pyarrow', 'tkinter', 'idlelib')\n"
        "       if m in sys.modules])\n"
    )
    start = time.monotonic()
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert time.monotonic() - start < 10
    assert result.stdout.splitlines() == [store.texts_hash(docs), "[]"]
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("doc", "text"),
    [
        ("sum(a[, b]) -> value\n\nAdd the\nnumbers up.", "Add the numbers up."),
        ("poll(timeout)\nWait for an event.", "Wait for an event."),
        ("D.keys() -> a set-like object of keys", "a set-like object of keys"),
        ("clear(): Release all parsing objects", "Release all parsing objects"),
        ("L.remove(value) -- remove first occurrence", "remove first occurrence"),
        ("chain(*them) --> chain object\n\nOne after another.", "One after another."),
        ("Call f(x) for each x.\n\nMore.", "Call f(x) for each x."),
        ("close()", ""),
        ("", ""),
        (None, ""),
    ],
)
def test_first_paragraph_drops_signatures(doc, text):
    """A signature line is no text; words behind its arrow are."""
    assert first_paragraph(doc) == text


def test_every_question_has_its_answers_among_the_docstrings(docs):
    """Each name accepted as an answer exists, so no question is lost beforehand."""
    names = {doc.name for doc in docs}
    assert len(QUESTIONS) == 10
    for question in QUESTIONS:
        assert question.expected
        assert set(question.expected) <= names, question


def test_own_question_must_be_a_text():
    """An empty question is refused with an example; a good one expects nothing."""
    assert own_question("sort a list") == Question("sort a list")
    with pytest.raises(InputError, match="the question is empty; ask something like"):
        own_question("")


@pytest.mark.usefixtures("few")
def test_files_hold_texts_unit_vectors_and_their_recipe(tmp_path):
    """Columns id, text, embedding as fixed-size float32 lists; recipe and hashes in metadata."""
    _, saved, log, _ = ask_all(tmp_path / "new" / "folder")
    assert log == [("classical", 3), ("echo", 3)]
    assert [s.path.name for s in saved] == ["stdlib.classical.parquet", "stdlib.echo.parquet"]
    assert sorted(p.name for p in saved[0].path.parent.iterdir()) == sorted(
        s.path.name for s in saved
    )
    table = pq.read_table(saved[1].path)
    assert table.column_names == ["id", "text", "embedding"]
    assert table.schema.field("embedding").type == pa.list_(pa.float32(), 32)
    assert table["id"].to_pylist() == [doc.name for doc in DOCS]
    assert table["text"].to_pylist() == [doc.text for doc in DOCS]
    vectors = np.array(table["embedding"].to_pylist(), np.float32)
    assert np.array_equal(vectors, FakeEmbedder("echo").encode_document([d.text for d in DOCS]))
    assert table.schema.metadata[b"echovec.fingerprint"] == b"m-echo"
    assert table.schema.metadata[b"echovec.recipe"] == b'{"name": "echo"}'
    assert table.schema.metadata[b"echovec.texts"] == store.texts_hash(DOCS).encode()
    assert (saved[1].num_vectors, saved[1].dimension) == (3, 32)


@pytest.mark.usefixtures("few")
def test_second_run_reuses_the_files_and_answers_alike(tmp_path):
    """Nothing is embedded twice, the user is told so, and the answers are the same."""
    first = ask_all(tmp_path)
    again = ask_all(tmp_path)
    assert again[2] == []
    assert sum("reusing 3 vectors" in line for line in again[3]) == 2
    assert again[0] == first[0]


def _truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def _foreign(path):
    path.write_text("not a Parquet file at all")


def _empty(path):
    path.write_bytes(b"")


def _rewrite(path, vectors=None, **metadata):
    table = pq.read_table(path)
    if vectors is not None:
        column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
        table = table.slice(0, len(vectors)).set_column(2, "embedding", column)
    old = pq.read_schema(path).metadata
    new = {f"echovec.{key}".encode(): value for key, value in metadata.items()}
    pq.write_table(table.replace_schema_metadata({**old, **new}), path)


def _no_vectors(path):
    schema = pq.read_schema(path)
    table = pq.read_table(path).drop_columns(["embedding"])
    pq.write_table(table.replace_schema_metadata(schema.metadata), path)


def _lists(path):
    table = pq.read_table(path)
    column = pa.array(table["embedding"].to_pylist(), pa.list_(pa.float32()))
    pq.write_table(table.set_column(2, "embedding", column), path)


SPOILT = {
    "truncated": (_truncate, "cannot be read"),
    "foreign": (_foreign, "cannot be read"),
    "empty": (_empty, "cannot be read"),
    "no-vectors": (_no_vectors, "cannot be read"),
    "variable-lists": (_lists, "cannot be read: column embedding is list"),
    "other-recipe": (lambda p: _rewrite(p, fingerprint=b"x"), "made with another recipe"),
    "other-texts": (lambda p: _rewrite(p, texts=b"x"), "holds other texts"),
    "too-few": (lambda p: _rewrite(p, np.eye(2, 8, dtype=np.float32)), "2 vectors for 3 texts"),
    "not-unit": (lambda p: _rewrite(p, 2 * np.eye(3, dtype=np.float32)), "length 2 in row 0"),
    "nan": (lambda p: _rewrite(p, np.full((3, 4), np.nan, np.float32)), "length nan in row 0"),
}


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(("spoil", "reason"), SPOILT.values(), ids=SPOILT)
def test_a_file_that_does_not_fit_is_named_and_made_anew(tmp_path, spoil, reason):
    """Only the spoilt file is embedded again, with its path and the reason; the rest is reused."""
    first = ask_all(tmp_path)
    path = store.vectors_path(tmp_path, "echo")
    spoil(path)
    again = ask_all(tmp_path)
    assert again[2] == [("echo", 3)]
    assert [line for line in again[3] if str(path) in line and reason in line]
    assert again[0] == first[0]
    assert ask_all(tmp_path)[2] == []


@pytest.mark.usefixtures("few")
def test_another_model_embeds_again(tmp_path):
    """Vectors of one model are never taken for another's."""
    ask_all(tmp_path)
    assert ask_all(tmp_path, FakeEmbedder(model="other"))[2] == [("classical", 3), ("echo", 3)]


@pytest.mark.usefixtures("few")
def test_an_interrupted_save_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    """Ctrl-C while writing leaves no half file."""
    ask_all(tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def interrupted(table, path):
        Path(path).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(pq, "write_table", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ask_all(tmp_path, FakeEmbedder(model="other"))
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


@pytest.mark.usefixtures("few")
def test_a_full_disk_is_a_storage_error(tmp_path, monkeypatch):
    """The message names the file and what to do."""

    def full(table, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(StorageError, match=r"stdlib.classical.parquet: No space left .* --out"):
        ask_all(tmp_path)


@pytest.mark.usefixtures("few")
def test_a_file_in_place_of_the_folder_is_bad_input(tmp_path):
    """It is refused before anything is embedded."""
    path = tmp_path / "file"
    path.write_text("x")
    embedder = FakeEmbedder()
    for folder in (path, path / "inner"):
        with pytest.raises(InputError, match="is not a folder"):
            ask_all(folder, embedder)
    assert embedder.log == []


@pytest.mark.usefixtures("few")
def test_recipes_that_share_a_name_are_refused(tmp_path):
    """They would share a file."""
    with pytest.raises(InputError, match="echo, echo: a name occurs twice"):
        ask_all(tmp_path, recipes=("echo", "echo"))


@pytest.mark.usefixtures("few")
def test_bad_vectors_of_a_model_are_never_saved(tmp_path, monkeypatch):
    """A vector that is not of unit length is an error that names the row."""
    zeros = np.zeros((3, 4), np.float32)
    monkeypatch.setattr(FakeEmbedder, "encode_document", lambda self, texts: zeros)
    with pytest.raises(EchovecError, match="length 0 in row 0"):
        ask_all(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("few")
def test_hits_are_the_nearest_in_order(tmp_path):
    """A question equal to a docstring finds it first, at cosine 1, the rest in falling order."""
    question = Question(DOCS[1].text, ("one.split",))
    (answer,), *_ = ask_all(tmp_path, questions=(question,))
    for hits in answer.hits.values():
        assert hits[0].name == "one.split"
        assert hits[0].right
        assert hits[0].score == pytest.approx(1)
        scores = [hit.score for hit in hits]
        assert scores == sorted(scores, reverse=True)
        assert len(hits) == 3


def test_found_counts_right_answers_near_the_top_only():
    """A right answer in place 11 does not count."""

    def answer(place):
        hits = tuple(Hit(f"n{i}", "text", 0.5, right=i == place) for i in range(1, 13))
        return Answer(Question("q", (f"n{place}",)), {"echo": hits})

    assert found([answer(1), answer(10), answer(11)], "echo") == 2


@pytest.mark.parametrize("width", [80, 120, 200])
def test_tables_fit_the_terminal(width):
    """No line is too wide, names are whole, brackets are kept, a pipe gets no colour codes."""
    long_name = "multiprocessing.managers.SharedMemoryManager.get_server_for_everyone"
    hits = (
        Hit("one.split", "Split [red]a[/] text into words.", 0.91234, right=True),
        Hit(long_name, "word " * 50, 0.5, right=False),
        Hit("日本.語", "日本語" * 30, -0.1, right=False),
        Hit("not.shown", "Beyond the rows asked for.", -0.2, right=False),
    )
    answer = Answer(Question("split [a] text"), {"classical": hits, "echo": hits})
    out = shown(answer, width)
    lines = out.splitlines()
    cells = Console(width=width, file=io.StringIO())
    assert max(cells.measure(line).maximum for line in lines) <= min(width, 120)
    assert "\x1b" not in out
    assert "split [a] text" in out
    assert "classical" in out
    assert "* one.split  0.912" in out
    assert "Split [red]a[/] text into words." in out
    assert "not.shown" not in out
    column = "".join(line.split("│")[2].strip() for line in lines if line.count("│") == 4)
    assert long_name in column.replace(" ", "")


def test_table_has_a_column_for_each_recipe():
    """Three recipes give three columns, fewer hits than rows asked for give fewer rows."""
    hits = (Hit("one.add", "Add two numbers.", 0.5, right=False),)
    answer = Answer(Question("add"), {"a": hits, "b": hits, "c": hits})
    assert shown(answer, 80, num_rows=5).count("one.add") == 3


@pytest.fixture
def verb(monkeypatch, tmp_path, few):
    """`echovec demo` in an empty folder with the fake embedder: arguments -> result."""
    monkeypatch.setitem(vars(echovec), "Embedder", FakeEmbedder)
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, ["demo", *arguments])


def test_verb_answers_all_questions_and_reports_files(verb):
    """Ten tables, an honest count, two checked files, no colours, one plain line per phase."""
    result = verb()
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert all(question.text in result.stdout for question in QUESTIONS)
    assert "* a right answer, chosen beforehand; in the top 10: classical 0/10, echo 0/10" in lines
    for name in ("classical", "echo"):
        assert any(line.startswith(f"embedding 3 docstrings with {name} ... ") for line in lines)
        file = Path("demo") / f"stdlib.{name}.parquet"
        assert file.is_file()
        assert any(
            line.startswith(f"{file}: 3 vectors of 32 numbers, all finite") for line in lines
        )
    assert "\x1b" not in result.output
    assert max(map(len, lines)) <= 100
    assert "reusing 3 vectors of echo from demo/stdlib.echo.parquet" in verb().stdout


def test_verb_answers_an_own_question(verb):
    """One table, with the recipes, rows and folder asked for, and no count of right answers."""
    arguments = ("split a text", "--recipe", "echo, prompt-eol", "--top", "1", "--out", "here")
    result = verb(*arguments)
    assert result.exit_code == 0, result.output
    assert "split a text" in result.stdout
    assert "right answer" not in result.stdout
    assert result.stdout.count("│ 1 │") == 1
    assert "│ 2 │" not in result.stdout
    assert sorted(path.name for path in Path("here").iterdir()) == [
        "stdlib.echo.parquet",
        "stdlib.prompt-eol.parquet",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([""], "the question is empty"),
        (["--recipe", " , "], "names no recipe"),
        (["--recipe", "echo,echo"], "occurs twice"),
    ],
)
def test_verb_refuses_bad_options_before_any_work(verb, tmp_path, arguments, message):
    """Bad input gets exit code 2 and leaves no file."""
    result = verb(*arguments)
    assert isinstance(result.exception, InputError)
    assert result.exception.exit_code == 2
    assert message in str(result.exception)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["--top", "0"], ["--precision", "best"], ["a", "b"]])
def test_verb_refuses_values_out_of_range(verb, arguments):
    """The parser itself answers with exit code 2."""
    assert verb(*arguments).exit_code == 2
