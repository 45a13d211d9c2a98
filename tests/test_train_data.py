"""Training data: every layout that people have, and what a batch may hold."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from echovec.errors import InputError, TrainingError
from echovec.train.cloze import cloze, sentences
from echovec.train.data import Example, Source, TrainingSet, example_of, hold_out, read
from echovec.train.runs import RUNS
from echovec.train.schedule import Step, schedule

LAYOUTS = {
    "sentence-transformers": {"anchor": "a", "positive": "p", "negative_1": "n", "negative_2": "m"},
    "echo-data": {"query": "a", "positive": "p", "negative": "n"},
    "FlagEmbedding": {"query": "a", "pos": ["p", "q"], "neg": ["n", "m"], "prompt": "x"},
    "tevatron": {
        "query": "a",
        "positive_passages": [{"title": "t", "text": "p"}],
        "negative_passages": [{"text": "n"}],
    },
    "SimCSE": {"sent0": "a", "sent1": "p", "hard_neg": "n"},
    "text": {"text": "a"},
}
EXPECTED = {
    "sentence-transformers": Example("a", "p", ("n", "m")),
    "echo-data": Example("a", "p", ("n",)),
    "FlagEmbedding": Example("a", "p", ("n", "m"), others=("q",)),
    "tevatron": Example("a", "t p", ("n",)),
    "SimCSE": Example("a", "p", ("n",)),
    "text": Example("a", "a"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_row_of_every_layout_is_read(layout):
    """Columns by name, in any order."""
    assert example_of(LAYOUTS[layout]) == EXPECTED[layout]


@pytest.mark.parametrize("row", [{"anchor": "a"}, {"anchor": "", "positive": "p"}, {"x": 1}, {}])
def test_a_row_that_cannot_be_used_is_an_error(row):
    """It names what is missing."""
    with pytest.raises(InputError):
        example_of(row)


def written(folder: Path, name: str) -> Path:
    """Two rows, in the file's format."""
    rows = [{"anchor": "a1", "positive": "p1"}, {"anchor": "a2", "positive": "p2"}]
    path = folder / name
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(lines.encode()))
    elif name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif name.endswith(".csv"):
        path.write_text("anchor,positive\na1,p1\na2,p2\n")
    elif name.endswith(".tsv"):
        path.write_text("anchor\tpositive\na1\tp1\na2\tp2\n")
    else:
        path.write_text(lines)
    return path


@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz", "x.parquet", "x.csv", "x.tsv"])
def test_every_format_is_read(tmp_path, name):
    """The same rows come out of each."""
    one = read(Source(path=name), written(tmp_path, name).parent)
    assert one.examples == (Example("a1", "p1"), Example("a2", "p2"))


def test_a_saved_data_set_is_read(tmp_path):
    """What `datasets` writes with save_to_disk."""
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict({"anchor": ["a"], "positive": ["p"]}).save_to_disk(tmp_path / "d")
    assert read(Source(path=str(tmp_path / "d"))).examples == (Example("a", "p"),)


def test_broken_rows_are_named(tmp_path):
    """Counted with their place, and the rest is used."""
    (tmp_path / "x.jsonl").write_text(
        '{"anchor": "a", "positive": "p"}\n{broken\n{"anchor": "a"}\n'
    )
    one = read(Source(path="x.jsonl"), tmp_path)
    assert len(one) == 1
    assert [line.split(": ")[0] for line in one.skipped] == ["x.jsonl:2", "x.jsonl:3"]


ONE = '{"anchor": "a", "positive": "p"}\n'


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("x.jsonl", ONE + "{broken\n", "is not valid JSON"),
        ("x.jsonl", ONE + "[1]\n", "is not a JSON object"),
        ("x.jsonl", ONE + "[" * 100_000 + "\n", "is not valid JSON"),
        (
            "x.jsonl",
            ONE + '{"anchor": "\\ud800", "positive": "p"}\n',
            "anchor is not valid Unicode",
        ),
        ("x.jsonl", ONE + '{"anchor": "a", "positive": "p", "negative": 5}\n', "negative is 5"),
        ("x.jsonl", ONE.encode() + b'{"anchor": "\xe9"}\n', "it holds the byte 0xE9"),
        ("x.csv", "anchor,positive\na,p\nb,q,r\n", "has 3 cells, and the header has 2"),
        ("x.csv", 'anchor,positive\na,p\n"b"x,q\n', "is not valid CSV"),
        ("x.csv", b"anchor,positive\na,p\n\xe9,q\n", "it holds the byte 0xE9"),
        ("x.tsv", "anchor\tpositive\na\tp\nb\tq\tr\n", "has 3 cells, and the header has 2"),
        ("x.tsv", b"anchor\tpositive\na\tp\n\xe9\tq\n", "it holds the byte 0xE9"),
        ("x.txt", b"a\n\xff\n", "it holds the byte 0xFF"),
    ],
)
def test_a_broken_row_says_why_and_the_rest_is_used(tmp_path, name, content, reason):
    """In every format; a text that no model takes is found here, not in the middle of a run."""
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    one = read(Source(path=name), tmp_path)
    assert [example.anchor for example in one.examples] == ["a"]
    (line,) = one.skipped
    assert line.startswith(f"{name}:2: ")
    assert reason in line


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.jsonl.gz", gzip.compress(ONE.encode() * 500)[:-9], "cannot be read"),
        ("x.jsonl.gz", ONE.encode(), "cannot be read"),
        ("x.parquet", b"nonsense", "cannot be read"),
        ("x.csv", b'anchor,positive\na,p\nb,"q\nc,r\n', "line 3 .* a quote that is never closed"),
        ("x.tsv", b'anchor\tpositive\na\tp\nb\t"q\n\nr"\n', "line 3 begins a quoted cell"),
        ("x.tsv", b'anchor\tpositive\na\tp\n"b\nc"\tq\n', "line 3 begins a quoted cell"),
    ],
)
def test_a_damaged_file_is_an_error_that_names_it(tmp_path, name, content, said):
    """Rather than half of its rows, or a message of the library below."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name}.*{said}"):
        read(Source(path=name), tmp_path)


def test_quotes_in_tsv_are_part_of_the_text(tmp_path):
    """As the field's sets have them, unquoted; a cell that is whole in quotes loses them."""
    lines = [
        "anchor\tpositive",
        '"b" said\tq',
        'a\the "c',
        '"open\tclosed"',
        'z\t"open',
        '"x, y"\t"with ""these"" in"',
        '"\t""',
    ]
    (tmp_path / "x.tsv").write_text("\r\n".join(lines), newline="")
    one = read(Source(path="x.tsv"), tmp_path)
    assert one.examples == (
        Example('"b" said', "q"),
        Example("a", 'he "c'),
        Example('"open', 'closed"'),
        Example("z", '"open'),
        Example("x, y", 'with "these" in'),
    )
    assert [line.split(": ")[0] for line in one.skipped] == ["x.tsv:6"]


def test_files_as_other_programs_write_them(tmp_path):
    """A byte order mark, capitals in the ending, long cells, rows that leave out the last cells."""
    mark = b"\xef\xbb\xbf"
    (tmp_path / "x.jsonl").write_bytes(mark + ONE.encode())
    (tmp_path / "Y.JSONL.GZ").write_bytes(gzip.compress(ONE.encode()))
    (tmp_path / "z.csv").write_bytes(mark + b"anchor,positive,negative\na,p\n\nb," + b"q" * 200_000)
    pq.write_table(pa.Table.from_pylist([{"anchor": "a", "positive": "p"}]), tmp_path / "x.parquet")
    packed = gzip.compress((tmp_path / "x.parquet").read_bytes())
    (tmp_path / "x.parquet.gz").write_bytes(packed)
    for name in ("x.jsonl", "Y.JSONL.GZ", "x.parquet", "x.parquet.gz"):
        assert read(Source(path=name), tmp_path).examples == (Example("a", "p"),)
    expected = (Example("a", "p"), Example("b", "q" * 200_000))
    assert read(Source(path="z.csv"), tmp_path).examples == expected


def test_a_text_beside_a_pair_is_another_column():
    """Whatever the positive is called, the row is a pair, and no text that is its own answer."""
    assert example_of({"query": "a", "pos": ["p"], "text": "x"}) == Example("a", "p")
    assert example_of({"query": "a", "positive_passages": [{"title": 7, "text": "p"}]}) == Example(
        "a", "7 p"
    )


@pytest.mark.parametrize(("name", "text"), [("x.jsonl", "{}\n"), ("x.doc", "a"), ("gone", None)])
def test_nothing_usable_is_an_error(tmp_path, name, text):
    """An empty set would train on nothing in silence."""
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError):
        read(Source(path=name), tmp_path)


def made_set(name: str, examples: list[Example], **options: Any) -> TrainingSet:
    """A set in memory."""
    return TrainingSet(Source(path="", **options), name, tuple(examples))


def pairs(name: str, count: int) -> TrainingSet:
    """Distinct pairs."""
    return made_set(name, [Example(f"{name}a{i}", f"{name}p{i}") for i in range(count)])


def test_held_rows_are_never_trained_on():
    """Nor are rows that share a text with them."""
    examples = [Example(f"a{i}", f"p{i}") for i in range(20)]
    examples[0] = Example("a0", "p19")
    one = hold_out(made_set("x", examples), 5)
    assert len(one.held) == 2
    seen = {t for e in one.examples for t in (e.anchor, e.positive)}
    assert not seen & {t for e in one.held for t in (e.anchor, e.positive)}
    assert examples[0] not in one.examples
    assert one.skipped == ("x: rows that share a text with a held one: 1",)
    assert (len(one), one.left_out) == (17, 1)


def test_holding_out_may_leave_nothing():
    """Where few positives stand in all rows; the message says what to do."""
    examples = [Example(f"a{i}", "yes" if i % 2 else "no") for i in range(100)]
    with pytest.raises(InputError, match=r"x: all rows share a text .* held_out=0"):
        hold_out(made_set("x", examples), 10)


def test_a_batch_is_of_one_set_and_the_seed_decides():
    """The same seed gives the same batches, another one others."""
    sets = [pairs("x", 40), pairs("y", 24)]
    plan = schedule(sets, batch_size=8, steps=None, seed=1)
    assert len(plan) == 8
    assert sorted(step.of for step in plan) == [0] * 5 + [1] * 3
    assert plan == schedule(sets, batch_size=8, steps=None, seed=1)
    assert plan != schedule(sets, batch_size=8, steps=None, seed=2)


def test_an_epoch_shows_each_row_once_and_steps_go_round():
    """Without duplicates every row is in one batch; more steps begin again in another order."""
    one = pairs("x", 32)
    plan = schedule([one], batch_size=8, steps=8, seed=0)
    assert sorted(row for step in plan[:4] for row in step.rows) == list(range(32))
    assert plan[:4] != plan[4:]


def test_the_ratio_is_the_part_of_an_epoch():
    """The paper shows a tenth of ELI5."""
    one = made_set("x", list(pairs("x", 80).examples), ratio=0.25)
    assert len(schedule([one], batch_size=4, steps=None, seed=0)) == 5


def test_no_false_negative_is_in_a_batch():
    """Same anchor, same positive, a positive that is another's negative: never together."""
    examples = [Example(f"a{i % 80}", f"p{i % 120}", (f"p{(i + 1) % 120}",)) for i in range(240)]
    plan = schedule([made_set("x", examples)], batch_size=8, steps=40, seed=3)
    for step in plan:
        rows = [examples[row] for row in step.rows]
        assert len({e.anchor for e in rows}) == len({e.positive for e in rows}) == 8
        wanted = {t for e in rows for t in (e.anchor, e.positive)}
        assert not wanted & {t for e in rows for t in e.negatives}


@pytest.mark.parametrize("listed", [False, True], ids=["in rows of its own", "in one row"])
def test_no_positive_of_an_anchor_is_in_a_batch_as_another_row_s(tmp_path, listed):
    """Each question has three answers, and each answer three questions: no other of them comes."""
    answers = {f"q{i}": [f"p{(i + j) % 40}" for j in (0, 1, 7)] for i in range(40)}
    rows = [{"query": q, "pos": found} for q, found in answers.items()]
    if not listed:
        rows = [{"query": q, "positive": p} for q, found in answers.items() for p in found]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    one = read(Source(path="x.jsonl"), tmp_path)
    plan = schedule([one], batch_size=4, steps=40, seed=3)
    for step in plan:
        batch = [one.examples[row] for row in step.rows]
        for example in batch:
            others = {e.positive for e in batch if e is not example}
            assert not others & set(answers[example.anchor])


def test_the_other_positives_of_an_anchor_are_no_negatives_of_another_row():
    """A mined negative of one question may be what another row names as the answer to the next."""
    examples = [
        *(Example(f"q{i}", f"{kind}{i}") for i in range(20) for kind in ("first", "second")),
        *(Example(f"x{i}", f"y{i}", (f"second{i}",)) for i in range(20)),
    ]
    for step in schedule([made_set("x", examples)], batch_size=8, steps=40, seed=3):
        rows = [examples[row] for row in step.rows]
        asked = {e.anchor.replace("q", "second") for e in rows if e.anchor.startswith("q")}
        assert not asked & {t for e in rows for t in e.negatives}


@pytest.mark.parametrize("symmetric", [False, True])
def test_pairs_that_are_alike_are_each_other_s_positives_both_ways(symmetric):
    """Of (a, b) and (c, a) c is an answer to a where both sides are alike, and only there."""
    examples = [
        *(Example(f"a{i}", f"b{i}") for i in range(20)),
        *(Example(f"c{i}", f"a{i}") for i in range(20)),
        *(Example(f"x{i}", f"c{i}") for i in range(20)),
    ]
    one = made_set("x", examples, symmetric=symmetric)
    met = False
    for step in schedule([one], batch_size=8, steps=60, seed=3):
        rows = [examples[row] for row in step.rows]
        asked = {e.anchor.replace("a", "c") for e in rows if e.anchor.startswith("a")}
        met |= bool(asked & {e.positive for e in rows})
    assert met is not symmetric


def test_a_negative_that_is_an_answer_is_taken_out_and_counted(tmp_path):
    """Whether its own row or another one of its anchor says so; the row stays, without it."""
    rows = [
        {"query": "a", "positive": "p", "negative_1": "p", "negative_2": "n"},
        {"query": "b", "positive": "q", "negative_1": "r", "negative_2": "b"},
        {"query": "b", "positive": "r", "negative_1": "p"},
    ]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    one = read(Source(path="x.jsonl"), tmp_path)
    assert [e.negatives for e in one.examples] == [("n",), (), ("p",)]
    assert one.skipped == ("x.jsonl: negatives that are their anchor or an answer to it: 3",)
    assert one.left_out == 0, "no row is missing"


def test_a_batch_larger_than_the_data_is_an_error():
    """The message says how many rows there are."""
    with pytest.raises(TrainingError, match="5 in x"):
        schedule([pairs("x", 5)], batch_size=8, steps=1, seed=0)


def test_parts_cover_a_step():
    """Processes share a batch; together they see what one would."""
    step = Step(0, tuple(range(12)))
    assert sum((step.part(rank, 3).rows for rank in range(3)), ()) == step.rows


def test_a_step_that_leaves_rows_over_is_an_error():
    """In every objective; rows would be lost in silence."""
    with pytest.raises(TrainingError, match="batch_size=12 is not a multiple of 5 processes"):
        Step(0, tuple(range(12))).part(0, 5)


def classes(tmp_path: Path, rows: int, labels: int) -> TrainingSet:
    """Texts of a few classes, read by their label."""
    lines = [json.dumps({"text": f"text {i}", "label": i % labels}) for i in range(rows)]
    (tmp_path / "classes.jsonl").write_text("\n".join(lines))
    return read(Source(path="classes.jsonl", label="label"), tmp_path)


def test_texts_of_a_label_are_each_others_positives(tmp_path):
    """Each is an anchor once and a positive once, always of its own class and never itself."""
    one = classes(tmp_path, 60, 4)
    number = {e.anchor: int(e.anchor.split()[1]) for e in one.examples}
    assert len(number) == len({e.positive for e in one.examples}) == len(one) == 60
    for example in one.examples:
        assert example.anchor != example.positive
        assert number[example.anchor] % 4 == number[example.positive] % 4 == int(example.label)
    assert one == classes(tmp_path, 60, 4), "the pairs are drawn once and for all"


def test_any_column_may_be_the_label(tmp_path):
    """Questions that share their passage, from a set of questions and passages."""
    rows = [{"query": f"q{i}", "positive": f"p{i // 2}"} for i in range(4)]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    one = read(Source(path="x.jsonl", label="positive"), tmp_path)
    assert {frozenset((e.anchor, e.positive)) for e in one.examples} == {
        frozenset(("q0", "q1")),
        frozenset(("q2", "q3")),
    }


def test_a_label_of_one_text_is_named(tmp_path):
    """So is a row without a label; a column that is not there leaves nothing to train on."""
    rows: list[dict[str, Any]] = [{"text": f"t{i}", "label": "ab"[i % 2]} for i in range(3)]
    rows += [{"text": "t0", "label": "a"}, {"text": "x", "label": None}, {"text": "y", "label": ""}]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    one = read(Source(path="x.jsonl", label="label"), tmp_path)
    assert sorted(e.anchor for e in one.examples) == ["t0", "t2"]
    assert one.skipped[0].startswith("x.jsonl:5: label is None")
    assert one.skipped[1].startswith("x.jsonl:6: label is ''")
    assert one.skipped[2] == "x.jsonl: texts that came again with the same label: 1"
    assert one.skipped[3] == "x.jsonl: no other text of 'b'"
    assert len(one.skipped) == 4
    assert one.left_out == 4  # two without a label, one again, one alone
    with pytest.raises(InputError, match="there is no 'topic'"):
        read(Source(path="x.jsonl", label="topic"), tmp_path)


def test_no_label_is_twice_in_a_batch_or_among_the_held(tmp_path):
    """Two texts of a class would be pushed apart; without labels the control has them together."""
    one = hold_out(classes(tmp_path, 400, 12), 20)
    assert len(one.held) == len({e.label for e in one.held}) == 12
    plan = schedule([one], batch_size=8, steps=30, seed=0)
    for step in plan:
        assert len({one.examples[row].label for row in step.rows}) == 8
    bare = made_set("x", [Example(e.anchor, e.positive) for e in one.examples])
    labels = [e.label for e in one.examples]
    control = schedule([bare], batch_size=8, steps=30, seed=0)
    assert any(len({labels[row] for row in step.rows}) < 8 for step in control)


def beir(folder: Path, split: str) -> Path:
    """Two documents, three queries, judgements of two of them."""
    documents = [{"_id": "d1", "title": "T", "text": "one"}, {"_id": "d2", "text": "two"}]
    asked = [{"_id": f"q{i}", "text": f"query {i}"} for i in range(3)]
    judged = ["query-id\tcorpus-id\tscore", "q0\td1\t1", "q0\td2\t1", "q1\td2\t2", "q1\td1\t0"]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, documents)))
    (folder / f"queries_{split}.jsonl").write_text("\n".join(map(json.dumps, asked)))
    (folder / f"qrels_{split}.tsv").write_text("\n".join(judged) + "\n")
    return folder


def test_a_retrieval_set_gives_its_training_split(tmp_path):
    """A row for each relevant document, its title before its text; grade 0 is no answer."""
    one = read(Source(path=str(beir(tmp_path, "train"))))
    assert one.examples == (
        Example("query 0", "T one"),
        Example("query 0", "two"),
        Example("query 1", "two"),
    )


def test_another_split_is_never_trained_on(tmp_path):
    """What is for evaluation is refused."""
    with pytest.raises(InputError, match="no qrels_train"):
        read(Source(path=str(beir(tmp_path, "dev"))))


def test_the_sets_of_the_run_by_labels_are_read_whole(data):
    """Real data: classes, questions of one passage, claims and abstracts; every label has pairs."""
    run = RUNS["smollm2-echo-labels"]
    rows = {one.name: one for one in (read(source, data) for source in run.sources)}
    assert len(rows["scifact"]) == 919
    assert len({e.label for e in rows["clinc"].examples}) == 150
    assert len({e.label for e in rows["banking"].examples}) == 77
    assert all(len(one) > 900 for one in rows.values())


def test_any_columns_may_be_read(tmp_path):
    """A title and its text, in a layout that is nobody's; the other columns are left alone."""
    rows = [{"title": f"t{i}", "text": f"body {i}", "negative": "no"} for i in range(3)]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, [*rows, {"title": "alone"}])))
    one = read(Source(path="x.jsonl", columns=("title", "text")), tmp_path)
    assert one.examples[0] == Example("t0", "body 0")
    assert one.skipped == ("x.jsonl:4: columns title: there is no 'text'",)
    with pytest.raises(InputError, match="give one, or an anchor's and a positive's"):
        Source(path="x.jsonl", columns=("a", "b", "c"))


def test_a_sentence_and_its_text_are_a_pair(tmp_path):
    """Each text once; the sentence is taken out of it nine times in ten."""
    texts = [f"Alpha {i} is one thing. Beta {i} is another thing. Gamma." for i in range(200)]
    (tmp_path / "x.jsonl").write_text(
        "\n".join(map(json.dumps, [{"body": text} for text in [*texts, texts[0], "One sentence."]]))
    )
    one = read(Source(path="x.jsonl", columns=("body",), cloze=True), tmp_path)
    assert one.skipped == ("x.jsonl: texts with no sentence to take out: 1",)
    assert (len(one), one.left_out) == (200, 2)  # and one that came again
    kept = 0
    for text, example in zip(texts, one.examples, strict=True):
        assert example.anchor in text
        assert example.anchor != "Gamma."  # too short to be asked for
        inside = example.anchor in example.positive
        kept += inside
        assert example.positive == text if inside else len(example.positive) < len(text)
    assert 5 <= kept <= 40
    again = read(Source(path="x.jsonl", columns=("body",), cloze=True), tmp_path)
    assert again.examples == one.examples
    for wrong in ({"cloze": True, "label": "a"}, {"label": "a", "columns": ("a", "b")}):
        with pytest.raises(InputError, match="choose one of them"):
            Source(path="x.jsonl", **wrong)


def test_scripts_without_spaces_have_sentences_too():
    """Their length is counted in letters; a control of few letters is passed over."""
    long, short = "今日はとても天気がよかった。", "はい。"
    pairs, passed = cloze([long + short, short + short])
    assert [anchor for anchor, _ in pairs] == [long]
    assert passed == 1


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("One. Two? Three!", 3),
        ("Of 3.5 metres, e.g. this one, nothing ends. The next does.", 2),
        ('He said "no." Then he left.', 2),
        ("一つ。二つ。", 2),
        ("Это первое. Вот второе. и ещё", 2),
        ("Ένα είναι αυτό. Δύο εκείνο.", 2),
        ('Une. État. "Île" deux.', 3),
        ("واحد. ١٢ اثنان.", 2),
        ("Of 3 μm. α-helix, _this_ and x. ² stay.", 1),
        ("no end", 1),
        ("", 0),
        ("Corre. ¿Dónde está? ¡Está en casa! ¡¿Qué?! Nadie.", 5),
        ("Il court. « Où est-il ? » Il est là. «Viens.» Elle vient.", 5),
        ("Il court. «\u202fOù est-il\u202f?\u202f» Il est là.", 3),
        ("Il dit « oui » et part.", 1),
        ("Er läuft. „Wo?“ Sie ruht. »Komm her.« Er geht. ‚Nein.‘ So ist es.", 7),
        ("A dog. “Where?” She left. ‘Here.’ He came. {So} it is. [It (is).] (“Yes.”) Good.", 9),
        ("彼は言った。「どこ？」と彼女は聞いた。", 2),
        ("他问：“在哪里？”她不知道。", 1),
        ("何！？次。", 2),
    ],
)
def test_sentences(text, count):
    """Cut after an end and before capitals; nothing of the text is lost."""
    pieces = sentences(text)
    assert len(pieces) == count
    assert "".join(pieces).replace(" ", "") == text.replace(" ", "")
