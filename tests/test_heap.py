"""The C library's heaps: limited where it can be done, left alone where the user decided."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest

from echovec.model import heap, load
from families import causal_model, family_tokenizer


class Library:
    """A C library that notes what it is told."""

    def __init__(self, number):
        self.told = []
        if number is not None:
            self.mallopt = lambda what, value: self.told.append((what, value)) or number


def test_heaps_are_limited_by_glibcs_own_setting(monkeypatch):
    """M_ARENA_MAX (-8) is set to two, and the answer says whether it was."""
    monkeypatch.delenv("MALLOC_ARENA_MAX", raising=False)
    for number in (1, 0):
        library = Library(number)
        monkeypatch.setattr(ctypes, "CDLL", lambda name, library=library: library)
        assert heap.limit_heaps() is bool(number)
        assert library.told == [(-8, 2)]


def test_other_libraries_and_users_choices_are_left_alone(monkeypatch):
    """No mallopt, or the user's own MALLOC_ARENA_MAX: nothing is set, nothing fails."""
    monkeypatch.delenv("MALLOC_ARENA_MAX", raising=False)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Library(None))
    assert not heap.limit_heaps()
    library = Library(1)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    monkeypatch.setenv("MALLOC_ARENA_MAX", "4")
    assert not heap.limit_heaps()
    assert not library.told


def test_some_of_what_is_freed_is_kept(monkeypatch):
    """M_MMAP_THRESHOLD (-3) and M_TRIM_THRESHOLD (-1), unless the user set one of them."""
    for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"):
        monkeypatch.delenv(name, raising=False)
    library = Library(1)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    assert heap.keep_freed()
    assert library.told == [(-3, 32 << 20), (-1, 64 << 20)]
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Library(None))
    assert not heap.keep_freed()
    for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"):
        monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
        with monkeypatch.context() as choice:
            choice.setenv(name, "1000")
            assert not heap.keep_freed()
    assert len(library.told) == 2


def test_what_was_freed_is_given_back(monkeypatch):
    """By glibc's malloc_trim; other libraries have none, and nothing fails."""
    for answer in (1, 0):
        library = Library(None)
        library.malloc_trim = lambda pad, answer=answer: answer
        monkeypatch.setattr(ctypes, "CDLL", lambda name, library=library: library)
        assert heap.give_back() is bool(answer)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Library(None))
    assert not heap.give_back()


def test_onednn_keeps_few_programs_unless_the_user_said_otherwise(monkeypatch):
    """Both caches are limited, and a number that is set already stays."""
    monkeypatch.setenv("LRU_CACHE_CAPACITY", "7")
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "1")  # so that it is put back
    monkeypatch.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY")
    heap.limit_programs()
    assert os.environ["LRU_CACHE_CAPACITY"] == "7"
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "256"


@pytest.mark.parametrize(("chosen", "pool"), [(None, "system"), ("mimalloc", "mimalloc")])
def test_arrow_gives_back_what_it_frees(monkeypatch, chosen, pool):
    """In a program that asks for it before pyarrow is there; the user's own choice goes first."""
    monkeypatch.delenv("ARROW_DEFAULT_MEMORY_POOL", raising=False)
    if chosen:
        monkeypatch.setenv("ARROW_DEFAULT_MEMORY_POOL", chosen)
    lines = [
        "from echovec.files.parquet import give_memory_back",
        "give_memory_back()",
        "import pyarrow",
        "print(pyarrow.default_memory_pool().backend_name)",
    ]
    said = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], check=True, capture_output=True, text=True
    )
    assert said.stdout.strip() == pool


def test_loading_a_model_minds_the_memory(monkeypatch, tmp_path):
    """Heaps are limited before it is read; what repacking freed is given back, and some kept."""
    done = []
    monkeypatch.setattr(load, "limit_memory", lambda: done.append("limited"))
    monkeypatch.setattr(heap, "give_back", lambda: done.append("given back"))
    monkeypatch.setattr(heap, "keep_freed", lambda: done.append("kept"))
    causal_model("llama").save_pretrained(tmp_path)
    family_tokenizer("llama").save_pretrained(tmp_path)
    load.load_model(tmp_path, device="cpu", dtype="float32")
    assert done == ["limited", "given back", "kept"]
