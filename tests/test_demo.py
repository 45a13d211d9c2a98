"""The demo: what it collects, what it saves and reads back, what it shows; no real model here."""

import dataclasses
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import warnings
from contextlib import nullcontext
from pathlib import Path

import numpy as np
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
    share,
    store,
)
from echovec.demo.docstrings import first_paragraph
from echovec.errors import InputError, NonFiniteError, StorageError
from echovec.files import disk
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
        assert precision == "int8"
        return cls(recipe, model or "m")

    def with_recipe(self, name):
        """Another recipe, the same log."""
        return FakeEmbedder(name, self.model, self.log)

    def encode_document(self, texts, **options):
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


@pytest.fixture(scope="session")
def docs():
    """The real docstrings, collected once, also where workers share the tests of this file."""
    return collect()


@pytest.fixture
def few(monkeypatch):
    """A standard library of three docstrings."""
    monkeypatch.setattr(ask, "collect", lambda: DOCS)


def ask_all(folder, embedder=None, questions=QUESTIONS, recipes=("classical", "echo"), every=None):
    """Run the demo; answers, saved files, what was embedded, what was said."""
    embedder = embedder or FakeEmbedder()
    said = []
    voice = Voice(say=said.append, phase=lambda work: nullcontext(said.append(work)))
    answers, saved = run(
        embedder,
        questions,
        recipes=recipes,
        folder=folder,
        depth=FOUND_DEPTH,
        voice=voice,
        every=every,
    )
    return answers, saved, embedder.log, said


def digest_of(docs):
    return hashlib.sha256(repr([(doc.name, doc.text) for doc in docs]).encode()).hexdigest()


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
    """A fresh interpreter finds the same texts, in 10 s of work, without torch or numpy."""
    code = (
        "import sys, time\n"
        "from echovec.demo import collect\n"
        "import hashlib\n"
        "pairs = [(doc.name, doc.text) for doc in collect()]\n"
        "print(hashlib.sha256(repr(pairs).encode()).hexdigest())\n"
        "print([m for m in ('torch', 'transformers', 'numpy', 'pyarrow', 'tkinter', 'idlelib')\n"
        "       if m in sys.modules])\n"
        "print(time.process_time() < 10)\n"  # others who work here take nothing from it
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout.splitlines() == [digest_of(docs), "[]", "True"]
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
def test_indexes_hold_texts_unit_vectors_and_their_recipe(tmp_path):
    """Each is an index like any other, of documents, under its recipe's fingerprint."""
    _, saved, log, _ = ask_all(tmp_path / "new" / "folder")
    assert log == [("classical", 3), ("echo", 3)]
    assert [s.path.name for s in saved] == ["stdlib.classical", "stdlib.echo"]
    assert {p.name for p in saved[0].path.parent.iterdir()} == {s.path.name for s in saved}
    index = echovec.Index.open(saved[1].path, verify=True)
    (block,) = index.blocks()
    assert block.ids == [doc.name for doc in DOCS]
    assert block.rows["text"].to_pylist() == [doc.text for doc in DOCS]
    vectors = FakeEmbedder("echo").encode_document([d.text for d in DOCS])
    assert np.allclose(block.vectors_ND, vectors, atol=1e-6)
    assert index.fingerprint == "m-echo"
    assert index.facts.made.role == "document"
    assert json.loads(index.facts.made.recipe_json) == {"name": "echo"}
    assert (saved[1].num_vectors, saved[1].dimension) == (3, 32)


@pytest.mark.usefixtures("few")
def test_second_run_reuses_the_files_and_answers_alike(tmp_path):
    """Nothing is embedded twice, the user is told so, and the answers are the same."""
    first = ask_all(tmp_path)
    again = ask_all(tmp_path)
    assert again[2] == []
    assert sum("reusing 3 vectors" in line for line in again[3]) == 2
    assert again[0] == first[0]


def _file(path, name):
    return next(path.glob(f"{name}*"))


def _truncate(path):
    vectors = _file(path, "vectors-")
    vectors.write_bytes(vectors.read_bytes()[:-10])


def _flip(path):
    vectors = _file(path, "vectors-")
    data = bytearray(vectors.read_bytes())
    data[-1] ^= 1
    vectors.write_bytes(data)


def _other_recipe(path):
    file = path / "index.json"
    file.write_text(file.read_text().replace("m-echo", "m-other"))


def _other_texts(path):
    vectors = np.eye(3, 8, dtype=np.float32)
    others = [dataclasses.replace(DOCS[0], text="Add three numbers together."), *DOCS[1:]]
    store.build(path, others, vectors, FakeRecipe("echo", "m-echo"))


def _too_few(path):
    store.build(path, DOCS[:2], np.eye(2, 8, dtype=np.float32), FakeRecipe("echo", "m-echo"))


SPOILT = {
    "truncated": (_truncate, "cannot be used: .* is damaged"),
    "flipped": (_flip, "cannot be used: .* is damaged"),
    "no-vectors": (lambda p: _file(p, "vectors-").unlink(), "cannot be used"),
    "no-texts": (lambda p: _file(p, "rows-").unlink(), "cannot be used"),
    "foreign": (lambda p: (p / "index.json").write_text("no JSON at all"), "is damaged"),
    "empty": (lambda p: (p / "index.json").write_bytes(b""), "is damaged"),
    "no-index": (lambda p: (p / "index.json").unlink(), "is no index"),
    "other-recipe": (_other_recipe, "made with another recipe"),
    "other-texts": (_other_texts, "holds other texts"),
    "too-few": (_too_few, "holds other texts"),
}


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(("spoil", "reason"), SPOILT.values(), ids=SPOILT)
def test_an_index_that_does_not_fit_is_named_and_made_anew(tmp_path, spoil, reason):
    """Only the spoilt one is embedded again, with its path and the reason; the rest is reused."""
    first = ask_all(tmp_path)
    path = store.index_path(tmp_path, "echo")
    spoil(path)
    again = ask_all(tmp_path)
    assert again[2] == [("echo", 3)]
    assert [line for line in again[3] if str(path) in line and re.search(reason, line)]
    assert again[0] == first[0]
    assert ask_all(tmp_path)[2] == []


@pytest.mark.usefixtures("few")
def test_another_model_embeds_again(tmp_path):
    """Vectors of one model are never taken for another's."""
    ask_all(tmp_path)
    assert ask_all(tmp_path, FakeEmbedder(model="other"))[2] == [("classical", 3), ("echo", 3)]


@pytest.fixture
def slow(monkeypatch, docs):
    """All docstrings, on a machine that would take three times as long as one waits."""
    seconds = 3 * share.PATIENCE_S / len(docs)
    monkeypatch.setattr(ask, "collect", lambda: docs)
    monkeypatch.setattr(share, "seconds_a_text", lambda embedders, docs: seconds)


@pytest.mark.usefixtures("slow")
def test_a_slow_machine_takes_a_share_and_says_so(tmp_path, docs):
    """One of four, with every right answer; the next run, and another recipe, take the same."""
    _, saved, log, said = ask_all(tmp_path)
    count = saved[0].num_vectors
    assert len(docs) / 4 <= count < len(docs) / 4 + 40
    assert log == [("classical", count), ("echo", count)]
    told = f"taking one of 4, and every right answer: {count:,} (all of them: --every 1)"
    assert told in said
    assert f"all of them would take about {3 * share.PATIENCE_S / 60:.0f} minutes here" in said
    assert ask_all(tmp_path)[2] == []
    assert ask_all(tmp_path, recipes=("echo", "best"))[2] == [("best", count)]


@pytest.mark.usefixtures("slow")
def test_the_share_may_be_said(tmp_path, docs):
    """What is asked for is taken, whatever the machine and what was kept."""
    for every in (8, 1):
        _, saved, log, said = ask_all(tmp_path, recipes=("echo",), every=every)
        count = len(share.thinned(docs, every))
        assert log == [("echo", count)]
        assert saved[0].num_vectors == count
        assert ("taking one of 8" in " ".join(said)) == (every == 8)
        assert "minutes" not in " ".join(said)


@pytest.mark.parametrize("every", share.STEPS)
def test_a_share_has_every_right_answer_and_the_order_of_all(docs, every):
    """Nothing that counts as found is left out; no two shares have one size."""
    taken = share.thinned(docs, every)
    right = {name for question in QUESTIONS for name in question.expected}
    names = {doc.name for doc in taken}
    assert [doc for doc in docs if doc.name in names] == taken
    assert right <= names
    assert len(taken) <= len(docs) / every + 1 + len(right)
    assert len({len(share.thinned(docs, step)) for step in share.STEPS}) == len(share.STEPS)


def test_the_step_is_the_smallest_that_is_done_in_time():
    """All where all are done in time, one of sixteen at worst."""
    budget = share.PATIENCE_S
    shares = [share.affordable(budget * times / 1000, 1000) for times in (0.5, 1, 1.01, 3, 15, 99)]
    assert shares == [1, 1, 2, 4, 16, 16]


def test_the_speed_is_that_of_all_recipes(docs, monkeypatch):
    """A clock that a text moves by a second with one recipe and two with the other: three."""
    now = [0.0]
    monkeypatch.setattr(share.time, "perf_counter", lambda: now[0])

    class Slow(FakeEmbedder):
        """Takes as long as its recipe says, for each text."""

        def encode_document(self, texts, **options):
            now[0] += len(texts) * {"echo": 2, "classical": 1}[self.recipe.name]

    made = [Slow("classical"), Slow("echo")]
    assert share.seconds_a_text(made, docs) == pytest.approx(3)


class _Interrupting:
    """The os module whose renames, from the nth on, do not happen."""

    def __init__(self, nth, error):
        self.left, self.error = nth, error

    def __getattr__(self, name):
        return getattr(os, name)

    def replace(self, *names):
        self.left -= 1
        if self.left < 0:
            raise self.error
        return os.replace(*names)  # noqa: PTH105 - it stands for os


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("nth", range(3))
def test_an_interrupted_save_leaves_the_old_index(tmp_path, monkeypatch, nth):
    """Ctrl-C while writing: the old index answers as before."""
    first = ask_all(tmp_path)
    monkeypatch.setattr(disk, "os", _Interrupting(nth, KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        ask_all(tmp_path, FakeEmbedder(model="other"))
    monkeypatch.undo()
    monkeypatch.setattr(ask, "collect", lambda: DOCS)
    again = ask_all(tmp_path)
    assert again[0] == first[0]
    assert again[2] == []


@pytest.mark.usefixtures("few")
def test_a_full_disk_is_a_storage_error(tmp_path, monkeypatch):
    """The message names the file and what to do."""
    full = OSError(28, "No space left on device")
    monkeypatch.setattr(disk, "os", _Interrupting(0, full))
    with pytest.raises(StorageError, match=r"stdlib.classical/.*: No space left .* free some"):
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
@pytest.mark.parametrize("bad", [0.0, np.nan])
def test_bad_vectors_of_a_model_are_never_saved(tmp_path, monkeypatch, bad):
    """A vector that is zero or not finite is an error that names the row; no index is left."""
    vectors = np.full((3, 4), bad, np.float32)
    monkeypatch.setattr(FakeEmbedder, "encode_document", lambda self, texts: vectors)
    with pytest.raises(NonFiniteError, match=r'the vector of "one\.add" is') as caught:
        ask_all(tmp_path)
    assert caught.value.row == 0
    assert not list(tmp_path.rglob("index.json"))


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
    counts = "classical 0/10, echo 0/10, best 0/10"
    assert f"* a right answer, chosen beforehand; in the top 10 of 3: {counts}" in lines
    for name in ("classical", "echo", "best"):
        assert any(line.startswith(f"embedding 3 docstrings with {name} ... ") for line in lines)
        index = Path("demo") / f"stdlib.{name}"
        assert (index / "index.json").is_file()
        said = f"{index}: 3 vectors of 32 numbers, all finite"
        assert any(line.startswith(said) for line in lines)
    assert "\x1b" not in result.output
    assert max(map(len, lines)) <= 100
    assert "reusing 3 vectors of echo from demo/stdlib.echo" in verb().stdout


def test_verb_does_not_warn_of_a_precision_that_nobody_asked_for(verb, monkeypatch):
    """Where "fast" means float32 the demo computes in it without a word."""
    load = FakeEmbedder.load

    def warns(*arguments, **options):
        warnings.warn("no native bfloat16", echovec.PrecisionWarning, stacklevel=2)
        return load(*arguments, **options)

    monkeypatch.setattr(FakeEmbedder, "load", warns)
    result = verb()
    assert result.exit_code == 0, result.exception
    assert "bfloat16" not in result.output


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
        "stdlib.echo",
        "stdlib.prompt-eol",
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
