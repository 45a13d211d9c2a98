"""The demo's questions, with the names that count as found.

Questions and accepted names were written down before any result was seen, so that the count at the
end of the demo says something. A change here needs the same care.
"""

from __future__ import annotations

from dataclasses import dataclass

from echovec.errors import InputError
from echovec.text.check import text_problem


@dataclass(frozen=True)
class Question:
    """A wish in plain English."""

    text: str
    expected: tuple[str, ...] = ()
    """Any of these names is a right answer; empty for a user's own question."""


QUESTIONS = (
    Question(
        "run a command and stop it after a time limit",
        ("subprocess.run", "subprocess.call", "subprocess.check_call", "subprocess.check_output"),
    ),
    Question(
        "parse a date and time from a text",
        (
            "datetime.datetime.strptime",
            "datetime.datetime.fromisoformat",
            "datetime.date.fromisoformat",
            "time.strptime",
            "email.utils.parsedate",
            "email.utils.parsedate_tz",
        ),
    ),
    Question(
        "find all files whose names match a pattern",
        (
            "glob.glob",
            "glob.iglob",
            "pathlib.Path.glob",
            "pathlib.Path.rglob",
            "fnmatch.filter",
        ),
    ),
    Question("pick several random items from a list without repeats", ("random.Random.sample",)),
    Question(
        "compress data to make it smaller",
        ("zlib.compress", "gzip.compress", "bz2.compress", "lzma.compress"),
    ),
    Question("count how often each item occurs", ("collections.Counter",)),
    Question(
        "wait until several threads have reached the same point",
        ("threading.Barrier", "threading.Barrier.wait"),
    ),
    Question("a temporary folder that is deleted afterwards", ("tempfile.TemporaryDirectory",)),
    Question(
        "compare two texts line by line",
        (
            "difflib.Differ",
            "difflib.Differ.compare",
            "difflib.ndiff",
            "difflib.unified_diff",
            "difflib.context_diff",
        ),
    ),
    Question("split a shell command into words", ("shlex.split",)),
)


def own_question(text: str) -> Question:
    """A question typed by a user.

    Raises:
        InputError: The text cannot be embedded.
    """
    problem = text_problem(text)
    if problem:
        example = QUESTIONS[0].text
        raise InputError(f'the question {problem}; ask something like "{example}"')
    return Question(text)
