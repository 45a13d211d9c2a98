"""corpus/job.py and `echovec embed` as a stranger meets it, with a small fake in place of a model.

The command is run through `main`, which turns errors into exit codes, in this process; and, where
a signal or a limit of the system is at work, in one of its own.
"""

import inspect
import io
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from echovec.cli import app, embed, main
from echovec.corpus import job
from echovec.corpus.job import Report, embed_files
from echovec.corpus.source import Problem, Row
from echovec.embedder import Embedder
from echovec.errors import InputError, ModelError, NonFiniteError, RecipeError
from embed_stub import FakeEmbedder
from forked import Forked

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="POSIX signals and limits")


class ListSink:
    """A sink in memory."""

    def __init__(self):
        self.chunks = []

    def write(self, chunk):
        """Keep it."""
        self.chunks.append(chunk)

    @property
    def texts(self):
        """All texts, in order."""
        return [row.text for chunk in self.chunks for row in chunk.rows]


def rows_of(*texts):
    """Rows for texts, and a Problem for each None."""
    return [
        Problem(f"f:{n}", "is bad") if text is None else Row(str(n), text, f"f:{n}")
        for n, text in enumerate(texts)
    ]


# --- the job ---


def test_chunks_keep_order_and_bounds_and_progress_counts_rows(monkeypatch):
    """No chunk holds more rows or more characters than it may, and none is lost."""
    monkeypatch.setattr(job, "CHUNK_CHARACTERS", 30)
    embedder, sink, steps = FakeEmbedder(), ListSink(), []
    texts = ["a", "b", "c", "d" * 29, "e", "f" * 40, "g"]
    report = embed_files(embedder, rows_of(*texts), sink, chunk_rows=3, progress=steps.append)
    assert [len(chunk.rows) for chunk in sink.chunks] == steps == [3, 2, 1, 1]
    assert sink.texts == texts
    assert (report.rows, report.skipped, report.truncated) == (7, 0, 2)
    assert np.array_equal(sink.chunks[0].vectors_ND[:, 1], [ord(c) for c in "abc"])


def test_rows_are_taken_only_as_they_are_needed():
    """An endless input is embedded chunk by chunk: nothing reads ahead of the chunk at hand."""
    taken, sink = [], ListSink()

    def endless():
        for n in range(10**9):
            taken.append(n)
            yield Row(str(n), "text", "f")
            if n == 10:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed_files(FakeEmbedder(), endless(), sink, chunk_rows=4)
    assert (len(sink.texts), len(taken)) == (8, 11)


def test_skip_counts_bad_rows_and_texts_without_tokens_and_keeps_the_rest():
    """Both kinds are called back with their place; several in one chunk cost no good row."""
    sink, problems = ListSink(), []
    rows = rows_of("a", None, "!", "b", "!!", "c", "!")
    report = embed_files(
        FakeEmbedder(), rows, sink, on_error="skip", chunk_rows=4, on_problem=problems.append
    )
    assert sink.texts == ["a", "b", "c"]
    assert (report.rows, report.skipped) == (3, 4)
    assert [problem.where for problem in problems] == ["f:1", "f:2", "f:4", "f:6"]
    assert problems[1].reason == "the text has no tokens ('!; !')"


@pytest.mark.parametrize(("text", "reason"), [(None, "is bad"), ("!", "the text has no tokens")])
def test_fail_stops_at_the_first_bad_row_with_its_place(text, reason):
    """The message has place, reason and the next step; nothing is written."""
    sink = ListSink()
    with pytest.raises(InputError, match=rf"^f:1: {reason}.*--on-error skip$"):
        embed_files(FakeEmbedder(), rows_of("a", text, "b"), sink)
    assert sink.chunks == []


def test_skip_forgives_no_wrong_option():
    """An InputError that is about no single text ends the job in both modes."""
    with pytest.raises(InputError, match="takes no instruction"):
        embed_files(FakeEmbedder(), rows_of("a"), ListSink(), on_error="skip", instruction="none")


def test_a_text_without_a_finite_vector_is_named_by_its_place():
    """The error says where in the file, not where in some chunk."""
    with pytest.raises(NonFiniteError, match=r"^f:1: NaN for the text, in float32 too$"):
        embed_files(FakeEmbedder(), rows_of("a", "?"), ListSink(), on_error="skip")


def test_skipping_every_row_is_an_input_error():
    """An empty result is no result."""
    with pytest.raises(InputError, match="all 2 were skipped"):
        embed_files(FakeEmbedder(), rows_of(None, "!"), ListSink(), on_error="skip")


def test_role_instruction_and_dimension_reach_the_embedder():
    """Options are handed on as they are, for every chunk."""
    embedder = FakeEmbedder()
    report = embed_files(
        embedder,
        rows_of("a", "b"),
        ListSink(),
        role="query",
        instruction="find",
        truncate_dim=2,
        chunk_rows=1,
    )
    expected = {
        "role": "query",
        "instruction": "find",
        "truncate_dim": 2,
        "show_progress_bar": False,
    }
    assert [options for _, options in embedder.calls] == [expected, expected]
    assert isinstance(report, Report)
    assert report.seconds >= 0


# --- the command ---


@pytest.fixture
def cli(monkeypatch, capsys, tmp_path):
    """`echovec embed ARGUMENTS` in `tmp_path`: (exit code, stderr); `cli.loaded` notes loads."""
    import echovec.cli

    def load(*options):
        run.loaded.append(options)
        return FakeEmbedder()

    def run(*arguments, stdin=None):
        monkeypatch.setattr(sys, "argv", ["echovec", "embed", *map(str, arguments)])
        if stdin is not None:
            stream = io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8")
            monkeypatch.setattr(sys, "stdin", stream)
        with pytest.raises(SystemExit) as caught:
            echovec.cli.main()
        output = capsys.readouterr()
        assert output.out == "", "standard output stays free"
        return caught.value.code or 0, re.sub(r"\s+", " ", re.sub("[│╭╮╰╯─]", " ", output.err))

    run.loaded = []
    monkeypatch.setattr("echovec.cli.embed._load", load)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # main replaces it
    monkeypatch.chdir(tmp_path)
    return run


@pytest.fixture
def texts(tmp_path):
    """A file of 3 texts, one of them long."""
    path = tmp_path / "texts.txt"
    path.write_text("one\ntwo\nthree, and a good deal more\n")
    return path


def left(folder):
    """The names in a folder, hidden ones too."""
    return sorted(path.name for path in folder.iterdir())


def test_a_text_file_becomes_parquet_and_the_last_line_sums_up(cli, texts, tmp_path):
    """Texts in order, numbers as ids, the recipe inside, a warning about what was cut."""
    code, said = cli(texts, "-o", "out.parquet")
    assert code == 0
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column("id").to_pylist() == ["0", "1", "2"]
    assert table.column("text").to_pylist() == ["one", "two", "three, and a good deal more"]
    assert table.column("embedding").to_pylist()[0] == [3, ord("o"), 1, -1]
    assert table.schema.metadata[b"echovec.fingerprint"] == b"0123456789abcdef"
    asked = json.loads(table.schema.metadata[b"echovec.run"])
    assert asked == {"role": None, "instruction": None, "truncate_dim": None}
    assert "warning: 1 of 3 texts were cut to 512 tokens" in said
    assert "--max-tokens" in said
    assert "--long-text windows" in said
    assert re.search(
        r"3 texts -> out.parquet \(4 dimensions, recipe echo, 1 truncated\) in \d+\.\d s", said
    )


def test_options_shape_the_file(cli, texts, tmp_path):
    """Without texts, with flags, with fewer numbers, over a file; the recipe says how."""
    (tmp_path / "out.jsonl").write_text("old")
    options = ["--no-text", "--flag-truncated", "--truncate-dim", 2, "--overwrite"]
    options += ["--role", "query", "--instruction", "find"]
    code, said = cli(texts, "-o", "out.jsonl", *options)
    assert code == 0, said
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert rows[0] == {"id": "0", "truncated": False, "embedding": [3, ord("o")]}
    assert [row["truncated"] for row in rows] == [False, False, True]
    assert json.loads((tmp_path / "out.jsonl.recipe.json").read_text()) == {
        "name": "echo",
        "run": {"role": "query", "instruction": "find", "truncate_dim": 2},
    }
    assert "2 dimensions" in said


def test_standard_input_and_several_files_go_into_one(cli, texts, tmp_path):
    """Inputs are read in the order given, "-" among them."""
    code, said = cli("-", "a.log", "--format", "txt", "-o", "out.npy", stdin=b"x\n")
    assert (code, "a.log does not exist" in said) == (2, True)
    code, _ = cli("-", texts, "-o", "out.npy", stdin=b"from a pipe\n")
    assert code == 0
    assert np.load(tmp_path / "out.npy").shape == (4, 4)
    lines = (tmp_path / "out.npy.ids.jsonl").read_text().splitlines()
    assert json.loads(lines[0]) == {"id": "0", "text": "from a pipe"}
    code, _ = cli("-", "-o", "b.npy", "--format", "csv", stdin=b"key,text\nk,x\n")
    assert code == 0


def test_every_option_of_the_model_reaches_the_loader(cli, texts):
    """Names, limits and precision are handed on as given."""
    options = "--model m --recipe r --device cpu --dtype float32 --precision fast --max-tokens 9"
    options += " --long-text windows --engine plain"
    assert cli(texts, "-o", "out.npy", *options.split())[0] == 0
    assert cli.loaded == [("m", "r", "cpu", "float32", "fast", "plain", 9, "windows")]


def test_skip_shows_the_first_ten_and_counts_all(cli, tmp_path):
    """Twelve bad rows of twenty: ten lines, one count, and the good ones in the file."""
    rows = ["good", ""] * 8 + ["!"] * 4
    (tmp_path / "a.txt").write_text("\n".join(rows) + "\n")
    code, said = cli("a.txt", "-o", "out.npy", "--on-error", "skip")
    assert code == 0
    assert said.count("echovec: skipped a.txt:") == 10
    assert "echovec: skipped a.txt:2: the text is empty" in said
    assert "skipped 12 of 20 rows; the first 10 are shown" in said
    assert "8 texts -> out.npy (4 dimensions, recipe echo, 12 skipped)" in said
    lines = (tmp_path / "out.npy.ids.jsonl").read_text().splitlines()
    ids = [json.loads(line)["id"] for line in lines]
    assert ids == [str(n) for n in range(0, 16, 2)]


BAD_COMMANDS = {
    "unknown-ending-out": ("texts.txt -o out.csv", "is not known; name the output with one of"),
    "unknown-ending-in": ("a.docx -o out.npy", 'the ending ".docx" is not known'),
    "missing-file": ("text.txt -o out.npy", "text.txt does not exist; did you mean texts.txt?"),
    "missing-folder": ("texts.txt -o new/out.npy", "make it with: mkdir -p new"),
    "glob-without-files": ("*.md -o out.npy", "fits no file"),
    "empty-file": ("empty.txt -o out.npy", "empty.txt is empty; leave it out"),
    "out-exists": ("texts.txt -o there.npy", "there.npy exists; replace it with --overwrite"),
    "out-is-input": ("a.jsonl -o a.jsonl --overwrite", "a.jsonl is also an input"),
    "broken-first-row": ("broken.jsonl -o out.npy", "broken.jsonl:1: is not valid JSON"),
    "no-column": ("a.jsonl -o out.npy --text-field x", 'a.jsonl:1: has no field "x"'),
    "text-field-of-txt": ("texts.txt -o out.npy --text-field x", "a txt input has no fields"),
    "no-parquet": ("texts.txt --format parquet -o out.npy", "is not a Parquet file"),
    "bad-role": ("texts.txt -o out.npy --role both", "'both' is not one of 'query', 'document'"),
    "bad-on-error": ("texts.txt -o out.npy --on-error x", "'x' is not one of 'fail', 'skip'"),
    "bad-precision": ("texts.txt -o out.npy --precision x", "is not one of 'exact', 'fast'"),
    "bad-format": ("texts.txt -o out.npy --format xml", "'xml' is not one of 'txt', 'jsonl'"),
    "bad-limit": ("texts.txt -o out.npy --max-tokens 0", "Invalid value for '--max-tokens'"),
    "bad-dim": ("texts.txt -o out.npy --truncate-dim 0", "Invalid value for '--truncate-dim'"),
    "unknown-option": ("texts.txt -o out.npy --rolle query", "No such option"),
    "workers-here": ("texts.txt -o out/ --workers 2", "--workers is for --runner ray"),
    "gpus-here": ("texts.txt -o out.npy --gpus-per-worker 0", "--gpus-per-worker is for --runner"),
    "address-here": ("texts.txt -o out/ --ray-address auto", "--ray-address is for --runner ray"),
    "out-in-input": ("sub -o sub/in.jsonl --overwrite", "in.jsonl is also an input (sub)"),
    "out-in-glob": ("*.jsonl -o a.jsonl --overwrite", "a.jsonl is also an input (*.jsonl)"),
    "beside-in-input": ("sub -o sub/v.npy --overwrite", "v.npy.ids.jsonl is also an input (sub)"),
    "glob-takes-in-out": ("**/*.jsonl -o job/", "**/*.jsonl takes in files of job itself"),
    "no-out": ("texts.txt", "Missing option '--out' / '-o'"),
    "no-input": ("-o out.npy", "Missing argument 'INPUT"),
}


@pytest.mark.parametrize(("line", "message"), BAD_COMMANDS.values(), ids=BAD_COMMANDS)
def test_a_slip_costs_no_model_and_leaves_nothing(cli, texts, tmp_path, line, message):
    """Exit code 2 and a message before any model is loaded, and no new file."""
    for name, content in {
        "a.docx": "x",
        "empty.txt": "",
        "there.npy": "old",
        "a.jsonl": '{"text": "x"}\n',
        "broken.jsonl": "{\n",
        "sub/in.jsonl": '{"text": "x"}\n',
        "sub/v.npy.ids.jsonl": '{"id": "x", "text": "x"}\n',
        "job/job.json": "{}",
        "job/manifest.jsonl": "{}\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    before = left(tmp_path)
    code, said = cli(*line.split())
    assert (code, cli.loaded) == (2, []), said
    assert message in said
    assert left(tmp_path) == before


def test_a_bad_row_further_on_fails_with_its_line_and_leaves_nothing(cli, tmp_path):
    """The rows before it were embedded already; OUT does not come to be."""
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n' * 5000 + "{\n")
    code, said = cli("a.jsonl", "-o", "out.parquet")
    assert code == 2
    assert "echovec: error: a.jsonl:5001: is not valid JSON" in said
    assert "--on-error skip" in said
    assert left(tmp_path) == ["a.jsonl"]


def test_a_model_that_is_not_there_exits_with_3(cli, texts, monkeypatch, tmp_path):
    """The loader's own message comes through."""

    def absent(*_):
        raise ModelError("model 'x' cannot be found; check the name")

    monkeypatch.setattr("echovec.cli.embed._load", absent)
    code, said = cli(texts, "-o", "out.npy")
    assert (code, "model 'x' cannot be found" in said) == (3, True)
    assert left(tmp_path) == ["texts.txt"]


@pytest.mark.parametrize("ending", ["parquet", "npy", "jsonl"])
@pytest.mark.parametrize("step", ["os.fsync", "pathlib.Path.replace"])
def test_a_full_disk_exits_with_4_and_leaves_nothing(
    cli, texts, monkeypatch, tmp_path, ending, step
):
    """Whether it shows at the flush or at the rename."""

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(step, full)
    code, said = cli(texts, "-o", f"out.{ending}")
    assert code == 4
    assert f"cannot write out.{ending}: No space left on device; free some space" in said
    assert left(tmp_path) == ["texts.txt"]


def test_the_loader_hands_everything_to_embedder_load(monkeypatch):
    """The seam of these tests itself: names and values arrive under the right names."""
    import echovec
    from echovec.cli.embed import _load

    fake = SimpleNamespace(load=lambda *names, **options: (names, options))
    monkeypatch.setitem(vars(echovec), "Embedder", fake)
    names, options = _load("m", "r", "cpu", "float32", "exact", "packed", 9, "cut")
    assert names == ("m", "r")
    assert options == {
        "device": "cpu",
        "dtype": "float32",
        "precision": "exact",
        "engine": "packed",
        "max_tokens": 9,
        "long_text": "cut",
    }


# --- in a process of its own ---


class Slow(FakeEmbedder):
    """Says so when it begins, and takes its time."""

    seconds = 0.3

    def encode(self, texts, **options):
        print("encoding", flush=True)
        time.sleep(self.seconds)
        return super().encode(texts, **options)


def embedding(folder, ending, loaded, *, limit=None):
    """`echovec embed many.txt -o out.ENDING`, perhaps with a limit on file sizes."""
    (folder / "many.txt").write_text("some text\n" * 9000)

    def run():
        os.chdir(folder)
        embed._load = lambda *_: loaded
        if limit:
            import resource  # there is none on Windows

            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        sys.argv = ["echovec", "embed", "many.txt", "-o", f"out.{ending}"]
        main()

    return Forked(run)


@LINUX
@pytest.mark.parametrize("ending", ["parquet", "npy", "jsonl"])
def test_ctrl_c_exits_with_130_and_leaves_nothing(tmp_path, ending):
    """SIGINT in the second chunk, when the temporary file holds the first."""
    with embedding(tmp_path, ending, Slow()) as process:
        for _ in range(2):
            assert process.stdout.readline() == "encoding\n"
        assert any(name.startswith(".echovec-") for name in left(tmp_path))
        time.sleep(0.05)
        process.send(signal.SIGINT)
        said = process.stderr.read()
        assert process.ended() == 130, said
    assert "Traceback" not in said
    assert left(tmp_path) == ["many.txt"]


@LINUX
@pytest.mark.parametrize("ending", ["parquet", "npy", "jsonl"])
def test_a_killed_run_leaves_no_output(cli, tmp_path, ending):
    """SIGKILL cannot be cleaned up after; what is left is named as what it is, and a run works."""
    with embedding(tmp_path, ending, Slow()) as process:
        for _ in range(2):
            assert process.stdout.readline() == "encoding\n"
        process.send(signal.SIGKILL)
        assert process.ended() == -signal.SIGKILL
    rest = [name for name in left(tmp_path) if not name.startswith(".echovec-")]
    assert rest == ["many.txt"]
    assert cli("many.txt", "-o", f"out.{ending}")[0] == 0


@LINUX
@pytest.mark.parametrize("ending", ["parquet", "npy", "jsonl"])
def test_a_limit_on_file_sizes_exits_with_4_and_leaves_nothing(tmp_path, ending):
    """A true refusal by the system in the middle of the work."""
    with embedding(tmp_path, ending, FakeEmbedder(), limit=2000) as process:
        said = process.stderr.read()
        assert process.ended() == 4, said
    assert f"cannot write out.{ending}: File too large; raise the limit" in said
    assert "Traceback" not in said
    assert left(tmp_path) == ["many.txt"]


def test_help_and_slips_load_no_heavy_library(tmp_path):
    """`echovec embed` refuses a missing file without importing torch, transformers or pyarrow."""
    program = """
        import sys
        sys.argv = ["echovec", "embed", "missing.txt", "-o", "out.parquet"]
        import echovec.cli
        try:
            echovec.cli.main()
        except SystemExit as stop:
            assert stop.code == 2
        heavy = {"torch", "transformers", "pyarrow", "pandas"} & set(sys.modules)
        assert not heavy, heavy
    """
    source = str(Path(__file__).parents[1] / "src")
    path = os.pathsep.join([source, os.environ.get("PYTHONPATH", "")])
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        check=True,
        timeout=60,
    )


def test_engine_ray_is_the_runner_by_another_name(tmp_path):
    """`--engine ray` goes where `--runner ray` goes: both want a folder, and say so."""
    source = tmp_path / "in.txt"
    source.write_text("a text\n", "utf-8")
    for words in (["--runner", "ray"], ["--engine", "ray"]):
        done = CliRunner().invoke(
            app, ["embed", str(source), "-o", str(tmp_path / "x.npz"), *words]
        )
        assert isinstance(done.exception, InputError)
        assert "--runner ray is for a folder of shards" in str(done.exception)


def test_calibrate_knows_a_wrong_kind_before_it_loads_a_model(monkeypatch, tmp_path):
    """A typo in `--kind` is named at once."""
    monkeypatch.setattr(Embedder, "load", lambda *_, **__: pytest.fail("loaded"))
    done = CliRunner().invoke(app, ["calibrate", "-o", str(tmp_path / "r"), "--kind", "captoin"])
    assert isinstance(done.exception, InputError)
    assert "captoin" in str(done.exception)


@LINUX
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("out", ["/dev/full", "closed"])
def test_standard_output_that_takes_nothing_is_no_traceback(unbuffered, out):
    """A full disk behind `>` is a message and 4, a pipe whose reader has gone is 1 in silence."""
    reader, writer = os.pipe()
    os.close(reader)
    if out == "/dev/full":
        writer = os.open(out, os.O_WRONLY)
    done = subprocess.run(
        [sys.executable, "-m", "echovec", "--version"],
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writer)
    assert "Traceback" not in done.stderr
    assert "ignored" not in done.stderr
    full = out == "/dev/full"
    assert done.returncode == (4 if full else 1)
    assert ("No space left on device" in done.stderr) is full


@LINUX
@pytest.mark.parametrize("out", ["/dev/full", "closed"])
def test_an_error_keeps_its_code_where_standard_output_takes_nothing(out):
    """What a verb wrote before it failed cannot be written either: no grumble, and not code 120."""
    program = """
        import echovec.cli
        from echovec.errors import InputError

        def app():
            print("half a table")
            raise InputError("the other half")

        echovec.cli.app = app
        echovec.cli.main()
    """
    reader, writer = os.pipe()
    os.close(reader)
    if out == "/dev/full":
        writer = os.open(out, os.O_WRONLY)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={**os.environ, "PYTHONUNBUFFERED": ""},
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writer)
    assert done.returncode == InputError.exit_code
    assert done.stderr.startswith("echovec: error: the other half\n")
    assert "ignored" not in done.stderr
    assert ("No space left on device" in done.stderr) is (out == "/dev/full")


@LINUX
def test_without_a_standard_output_the_exit_code_is_that_of_the_work():
    """Closed by whoever started it (`>&-`), it is None in Python, and nothing is to be flushed."""
    for verb in ("--version", "models"):
        command = f'exec "$0" -m echovec {verb} >&-'
        done = subprocess.run(
            ["sh", "-c", command, sys.executable], stderr=subprocess.PIPE, text=True
        )
        assert "Traceback" not in done.stderr
        assert done.returncode == 0


def test_demo_knows_a_wrong_recipe_before_it_loads_a_model(monkeypatch, tmp_path):
    """A typo in the second recipe is named at once."""
    monkeypatch.setattr(Embedder, "load", lambda *_, **__: pytest.fail("loaded"))
    words = ["demo", "--recipe", "echo,ecko", "--out", str(tmp_path / "demo")]
    done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, RecipeError)
    assert "ecko" in str(done.exception)


def test_one_is_no_plural():
    """A count has its noun in one or many."""
    from echovec.cli.counts import counted

    assert [counted(n, "row") for n in (0, 1, 2, 1234)] == [
        "0 rows",
        "1 row",
        "2 rows",
        "1,234 rows",
    ]
    assert [counted(n, "pass") for n in (1, 2)] == ["1 pass", "2 passes"]


def test_help_breaks_no_sentence():
    """The terminal wraps a verb's help; typer keeps line ends behind its first paragraph."""
    for command in app.registered_commands:
        assert command.callback is not None
        paragraphs = inspect.cleandoc(command.callback.__doc__ or "").split("\n\n")
        assert not any("\n" in paragraph for paragraph in paragraphs[1:]), command.name
