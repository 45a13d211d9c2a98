"""The vector cache: on disk, bounded, never wrong."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from echovec.errors import StorageError
from echovec.model.tiny import TinyBackbone
from echovec.serve.cache import VectorCache
from serve_stub import Gated, service
from test_serve_openai import ask, client, vectors_of


class Live(TinyBackbone):
    """Its weights may be others at any time."""

    def has_changed(self):
        return True


def vector(number):
    """A made-up vector."""
    return np.full(4, number, np.float32)


def test_what_is_put_is_got(tmp_path):
    """Vectors and cut marks come back by key, also from a file opened again; others are absent."""
    path = tmp_path / "there" / "vectors.db"
    cache = VectorCache(path, 100)
    keys = [VectorCache.key("f", None, None, f"text {i}") for i in range(1200)]
    assert len(set(keys)) == 1200
    cache.put([(key, vector(i), i == 3) for i, key in enumerate(keys[:5])])
    cache.close()
    again = VectorCache(path, 100)
    found = again.get(keys[2:], 4)
    again.close()
    assert {place: (v[0], cut) for place, (v, cut) in found.items()} == {
        0: (2, False),
        1: (3, True),
        2: (4, False),
    }


def test_a_key_covers_all_that_decides_a_vector():
    """Another fingerprint, role, instruction or text is another key."""
    values = ["f", "query", "i", "text"]
    keys = {VectorCache.key(*values)}
    for place in range(4):
        keys.add(VectorCache.key(*values[:place], values[place] + "x", *values[place + 1 :]))
    keys.add(VectorCache.key("f", None, None, "text"))
    assert len(keys) == 6


def test_a_model_that_was_trained_is_not_answered_for_by_the_cache(tmp_path):
    """Its fingerprint is that of the weights as they are, while it is served."""
    live = Live()
    served = service(backbone=live, cache=tmp_path / "v")

    async def run():
        async with client(served) as http:
            first = vectors_of(await ask(http, input="a text"))
            live._mix_LDD.mul_(-1)
            return first, vectors_of(await ask(http, input="a text"))

    first, second = asyncio.run(run())
    served.close()
    assert not np.allclose(first, second)
    assert np.allclose(second[0], served.first.embedder.encode("a text"), atol=1e-6)


def test_the_oldest_go_first(tmp_path):
    """Beyond `max_rows` the vectors that were put first are gone."""
    cache = VectorCache(tmp_path / "v", 10)
    keys = [VectorCache.key("f", None, None, str(i)) for i in range(25)]
    for i, key in enumerate(keys):
        cache.put([(key, vector(i), False)])
    assert sorted(cache.get(keys, 4)) == list(range(15, 25))
    cache.close()


def test_a_changed_vector_is_not_served(tmp_path):
    """A flipped bit, or a vector of another width, counts as absent."""
    path = tmp_path / "v"
    cache = VectorCache(path, 10)
    key = VectorCache.key("f", None, None, "x")
    cache.put([(key, vector(1), False)])
    assert cache.get([key], 5) == {}
    cache.close()
    with sqlite3.connect(path) as file:
        file.execute("update vectors set vector = zeroblob(16)")
    file.close()
    cache = VectorCache(path, 10)
    assert cache.get([key], 4) == {}
    cache.close()


def test_a_damaged_file_is_put_aside(tmp_path, caplog):
    """A file that is no database is renamed and a new one begun; a folder is an error."""
    path = tmp_path / "v"
    path.write_bytes(b"no database at all, " * 100)
    cache = VectorCache(path, 10)
    cache.close()
    assert (tmp_path / "v.damaged").read_bytes().startswith(b"no database")
    assert "damaged" in caplog.text
    with pytest.raises(StorageError, match="cannot keep vectors"):
        VectorCache(tmp_path, 10)


def at_once(calls):
    """Run calls in threads that begin together; what each gave, or the error."""
    gate = threading.Barrier(len(calls))

    def run(call):
        gate.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return [one.result() for one in [pool.submit(run, call) for call in calls]]


def test_a_file_that_another_server_just_begins_is_waited_for(tmp_path):
    """Both want it in WAL mode, for which SQLite has no waiting of its own."""
    path = tmp_path / "v"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("begin immediate")  # it will write, which SQLite does not wait for here
    later = threading.Timer(0.3, other.execute, ["commit"])
    later.start()
    VectorCache(path, 10).close()
    later.join()
    other.close()


def test_servers_that_write_to_one_file_do_not_wait_long(tmp_path, caplog):
    """Two caches on a file: all rows are there, nothing failed, the file is in WAL mode."""
    path = tmp_path / "v"
    caches = [VectorCache(path, 100_000) for _ in range(2)]
    keys = [[VectorCache.key(str(n), None, None, str(i)) for i in range(1000)] for n in range(2)]

    def write(n):
        for start in range(0, 1000, 20):
            caches[n].put([(key, vector(n), False) for key in keys[n][start : start + 20]])
            caches[n].get(keys[1 - n], 4)

    at_once([lambda: write(0), lambda: write(1)])
    assert [len(caches[n].get(keys[1 - n], 4)) for n in range(2)] == [1000, 1000]
    assert caplog.text == ""
    for cache in caches:
        cache.close()
    with sqlite3.connect(path) as file:
        assert file.execute("pragma journal_mode").fetchone() == ("wal",)
    file.close()


async def test_a_server_computes_what_the_cache_lacks(tmp_path):
    """The second time nothing is computed; vectors are equal, cut and whole; one more is one more.

    Texts are not in the file.
    """
    backbone = Gated()
    texts = ["SECRET one", "SECRET two", "SECRET long" * 100]
    with_cache = {"backbone": backbone, "cache": tmp_path / "v"}
    async with client(service(**with_cache)) as http:
        first = await ask(http, input=texts)
        computed = sum(backbone.batches)
        again = await ask(http, input=[*texts[::-1], texts[0]])
        assert sum(backbone.batches) == computed == 3
        short = await ask(http, input=texts, dimensions=3)
        other = await ask(http, input=texts, model="classical")
    served = service(**with_cache)
    async with client(served) as http:
        more = await ask(http, input=[*texts, "new"])
    served.close()
    assert sum(backbone.batches) == 7  # three of classical and the new one
    rows = vectors_of(first)
    assert np.array_equal(vectors_of(again), rows[[2, 1, 0, 0]])
    assert again.headers["x-truncated"] == "1"
    assert again.headers["x-compute-tokens"] == "0"
    assert vectors_of(short).shape == (3, 3)
    assert np.array_equal(vectors_of(more)[:3], rows)
    assert np.abs(vectors_of(other) - rows).max() > 0.01
    for file in tmp_path.iterdir():
        assert b"SECRET" not in file.read_bytes()


async def test_what_decides_a_vector_decides_what_is_taken_from_the_cache(tmp_path):
    """Other roles, instructions and recipes of one text are never answered with each other's."""
    texts, asked = ["one text"], []
    for name in ("echo", "echo-instruct"):
        asked += [{"model": name, "input_type": role} for role in (None, "query", "document")]
    for words in ("find it", "sort it"):
        asked.append({"model": "echo-instruct", "input_type": "query", "instruction": words})
    recipes = ("echo", "echo-instruct")
    fresh, cached = service(recipes=recipes), service(recipes=recipes, cache=tmp_path / "v")
    async with client(fresh) as without, client(cached) as kept:
        for body in asked * 2:
            expected = vectors_of(await ask(without, input=texts, **body))
            assert np.array_equal(vectors_of(await ask(kept, input=texts, **body)), expected), body
    hits = cached.metrics.registry.get_sample_value("echovec_cached_texts_total")
    assert hits == len(asked), "the second time, and no other's the first time"
    cached.close()
