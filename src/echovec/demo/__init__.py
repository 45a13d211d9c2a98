"""The demo: find a function of Python's standard library from a question in plain English.

Real input that lies on every machine: about 6,700 docstrings, ten questions, three recipes.
"""

from __future__ import annotations

from echovec.demo.ask import FOUND_DEPTH, Answer, Hit, Saved, Voice, found, run
from echovec.demo.docstrings import Docstring, collect
from echovec.demo.questions import QUESTIONS, Question, own_question
from echovec.demo.table import answer_table

__all__ = [
    "FOUND_DEPTH",
    "QUESTIONS",
    "Answer",
    "Docstring",
    "Hit",
    "Question",
    "Saved",
    "Voice",
    "answer_table",
    "collect",
    "found",
    "own_question",
    "run",
]
