"""Conversion and the cache: whole or not at all, verified, one writer at a time."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from echovec.errors import InputError, ModelError, StorageError
from echovec.model import cache, convert
from tiny_gguf import write_tiny_gguf

SRC = Path(convert.__file__).parents[2]

# What a driver script does in place of transformers' reading and writing: small, and as slow as
# it is told to be.
DRIVER = """
import logging, sys, time
from pathlib import Path
from echovec.model import convert

logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
path, seconds, started = Path(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3])

def rewrite(source, folder, dtype, path):
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    started.touch()
    time.sleep(seconds)
    (folder / "model.safetensors").write_bytes(b"weights")
    return dtype

convert._rewrite = rewrite
print(convert.convert_gguf(path))
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty cache of the test's own."""
    monkeypatch.setenv("ECHOVEC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def tiny(tmp_path):
    """A tiny model as a GGUF file."""
    return write_tiny_gguf(tmp_path / "tiny model.gguf")


@pytest.fixture
def fake_rewrite(monkeypatch):
    """Conversion without torch: two small files."""

    def rewrite(source, folder, dtype, path):
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(source.read_bytes())
        return dtype

    monkeypatch.setattr(convert, "_rewrite", rewrite)


def _start(tiny: Path, home: Path, seconds: float, started: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(tiny), str(seconds), str(started)],
        env={**os.environ, "ECHOVEC_CACHE": str(home), "PYTHONPATH": str(SRC)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline, f"{path} did not come"
        time.sleep(0.02)


def _leftovers(home: Path) -> list[Path]:
    return list(home.rglob(f"{cache.PART}*"))


def test_converted_copy_is_the_model(home, tiny):
    """Plain transformers loads the copy, and its weights are the file's, rounded to float16."""
    import torch
    from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

    folder = convert.convert_gguf(tiny)
    want = AutoModelForCausalLM.from_pretrained(
        tiny.parent, gguf_file=tiny.name, dtype=torch.float32
    ).state_dict()
    got = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    assert folder.parent == home / "models"
    assert folder.name == f"tiny_model-{cache.sha256_of(tiny)[:12]}"
    assert want.keys() == got.keys()
    for name, weight in want.items():
        assert got[name].dtype == torch.float16
        assert torch.equal(got[name], weight.half()), name
    assert AutoModel.from_pretrained(folder).config.hidden_size == 16
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.convert_ids_to_tokens(tokenizer("the")["input_ids"]) == ["the"]


def test_conversion_prints_one_line(home, tiny, capfd, caplog):
    """Progress bars and warnings of transformers stay off the terminal; one line is logged."""
    convert.convert_gguf(tiny)
    assert capfd.readouterr() == ("", "")
    said = [record.getMessage() for record in caplog.records if record.name.startswith("echovec")]
    assert len(said) == 1
    assert said[0].startswith("converting tiny model.gguf (0 MB) into")


def test_manifest_tells_source_files_and_versions(home, tiny, fake_rewrite):
    """The manifest holds the source's hash, each file's hash and size, and the versions."""
    folder = convert.convert_gguf(tiny)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["source"]["sha256"] == cache.sha256_of(tiny)
    assert manifest["files"].keys() == {"config.json", "model.safetensors"}
    assert manifest["files"]["config.json"]["bytes"] == 2
    assert manifest["versions"].keys() == {"transformers", "torch", "gguf", "echovec"}
    assert manifest["finished"].endswith("+00:00")


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX")
def test_files_follow_the_umask(home, tiny):
    """Others may read the copy where the umask says so, the weights too."""
    before = os.umask(0o027)
    try:
        folder = convert.convert_gguf(tiny)
    finally:
        os.umask(before)
    assert {oct(path.stat().st_mode & 0o777) for path in folder.iterdir()} == {"0o640"}


def test_second_call_converts_nothing(home, tiny, fake_rewrite, monkeypatch):
    """A finished copy is used as it is, from a cache that cannot be written too."""
    folder = convert.convert_gguf(tiny)
    monkeypatch.delattr(convert, "_rewrite")
    monkeypatch.delattr(cache, "workspace")
    assert convert.convert_gguf(tiny) == folder


def test_another_file_under_the_same_name_is_another_copy(home, tiny, fake_rewrite):
    """Copies go by content: a changed file is converted anew, and both copies stand."""
    first = convert.convert_gguf(tiny)
    second = convert.convert_gguf(write_tiny_gguf(tiny, seed=1))
    assert first != second
    assert not cache.verify(first)
    assert not cache.verify(second)


def test_unusual_dtype_is_in_the_name_and_an_unknown_one_refused(home, tiny, fake_rewrite):
    """A float32 copy stands beside the float16 one; a dtype that is no such thing is an error."""
    assert convert.convert_gguf(tiny, dtype="float32").name.endswith("-float32")
    with pytest.raises(InputError, match="'int8' is unknown; use one of float16"):
        convert.convert_gguf(tiny, dtype="int8")


def test_every_flipped_bit_is_found_and_healed(home, tiny, fake_rewrite, caplog):
    """One bit flipped in any file of the copy is named by verify, and the copy is made anew."""
    folder = convert.convert_gguf(tiny)
    for name in ("config.json", "model.safetensors"):
        good = (folder / name).read_bytes()
        (folder / name).write_bytes(bytes([good[0] ^ 1]) + good[1:])
        assert cache.verify(folder) == [name]
        caplog.clear()
        assert convert.convert_gguf(tiny) == folder
        assert (folder / name).read_bytes() == good
        assert f"is damaged ({name}): removed" in caplog.text
    assert not _leftovers(home)


def test_missing_cut_added_and_unlisted_files_are_found(home, tiny, fake_rewrite):
    """A copy with a file missing, cut, beyond the manifest, or without a manifest is not sound."""
    folder = convert.convert_gguf(tiny)
    (folder / "adapter_config.json").write_text("{}")
    (folder / ".hidden").write_text("a file manager's own")
    assert cache.verify(folder) == ["adapter_config.json"]
    (folder / "adapter_config.json").unlink()
    (folder / "config.json").unlink()
    os.truncate(folder / "model.safetensors", 5)
    assert cache.verify(folder) == ["config.json", "model.safetensors"]
    for text in ("", "{}", "[]", '{"files": {"a": 1}, "source": {"sha256": "0"}}'):
        (folder / "manifest.json").write_text(text)
        assert cache.verify(folder) == ["manifest.json"]
    assert cache.verify(folder / "nowhere") == ["manifest.json"]


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        pytest.param(0, "is not a GGUF file: it begins with b''", id="empty"),
        pytest.param(5, "cannot be read as a language model: error: unpack_from", id="magic-only"),
        pytest.param(100, "cannot be read as a language model", id="in-the-header"),
        pytest.param(-3000, r"\(\d+ bytes\) .* ValueError: cannot reshape", id="in-the-weights"),
    ],
)
def test_file_cut_short_is_a_clear_error(home, tiny, keep, message):
    """A GGUF file cut anywhere is a ModelError with path, fault and next step; nothing is left."""
    tiny.write_bytes(tiny.read_bytes()[:keep])
    with pytest.raises(ModelError, match=message) as caught:
        convert.convert_gguf(tiny)
    assert str(tiny) in str(caught.value)
    assert "compare its size" in str(caught.value) or "Fetch it again" in str(caught.value)
    assert not list(home.glob("models/*"))
    assert not _leftovers(home)


def test_wrong_magic_names_the_likely_cause(home, tmp_path):
    """A Git LFS pointer in place of the file is named as the likely cause."""
    path = tmp_path / "pointer.gguf"
    path.write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ModelError, match=r"begins with b'vers'.*git lfs pull"):
        convert.convert_gguf(path)
    with pytest.raises(ModelError, match=r"cannot read the model file .*No such file"):
        convert.convert_gguf(tmp_path / "absent.gguf")


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        pytest.param({"lack": "blk.0.ffn_up.weight"}, "lacks 1 of the model's weights", id="lack"),
        pytest.param({"weight": float("nan")}, "weights that are NaN or infinite", id="nan"),
    ],
)
def test_weights_that_are_missing_or_nan_are_never_filled_in(home, tmp_path, fault, message):
    """A missing weight, which transformers fills with random numbers, is an error here."""
    with pytest.raises(ModelError, match=message):
        convert.convert_gguf(write_tiny_gguf(tmp_path / "bad.gguf", **fault))
    assert not list(home.glob("models/*"))


def test_weight_beyond_float16_is_kept_in_float32(home, tmp_path, caplog):
    """A weight of 1e6 would become infinite in float16: the copy is float32, and it is said."""
    folder = convert.convert_gguf(write_tiny_gguf(tmp_path / "big.gguf", weight=1e6))
    assert json.loads((folder / "manifest.json").read_text())["dtype"] == "float32"
    assert json.loads((folder / "config.json").read_text())["dtype"] == "float32"
    assert "beyond the range of float16: kept float32" in caplog.text


def test_neighbours_of_the_file_are_not_read(home, tiny):
    """A broken config or an adapter beside the GGUF file has no part in the conversion."""
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        (tiny.parent / name).write_text("no JSON")
    assert not cache.verify(convert.convert_gguf(tiny))


def test_file_of_the_same_name_in_the_current_folder_is_not_read(home, tiny, monkeypatch):
    """The path given counts, where transformers takes a namesake in the current folder first."""
    import torch
    from safetensors.torch import load_file

    want = load_file(convert.convert_gguf(tiny) / "model.safetensors")
    elsewhere = tiny.parent / "elsewhere"
    elsewhere.mkdir()
    write_tiny_gguf(elsewhere / tiny.name, seed=5)
    monkeypatch.chdir(elsewhere)
    cache.discard(convert.convert_gguf(tiny))
    got = load_file(convert.convert_gguf(tiny) / "model.safetensors")
    assert all(torch.equal(want[name], got[name]) for name in want)


def test_second_process_waits_and_uses_the_result(home, tiny, tmp_path):
    """Of two processes one converts; the other says that it waits, and gets the same folder."""
    begun = tmp_path / "begun"
    first = _start(tiny, home, 2.0, begun)
    _wait_for(begun, first)
    second = _start(tiny, home, 0.0, tmp_path / "never")
    told = [process.communicate(timeout=60) for process in (first, second)]
    assert [process.returncode for process in (first, second)] == [0, 0]
    assert told[0][0] == told[1][0] != ""
    assert "converting" in told[0][1]
    assert "waiting for it" in told[1][1]
    assert "converting" not in told[1][1]
    assert not (tmp_path / "never").exists()


@pytest.mark.skipif(os.name != "posix", reason="kill -9 is POSIX")
def test_killed_conversion_leaves_nothing_half_made(home, tiny, tmp_path, caplog, fake_rewrite):
    """After kill -9 no copy stands under its name; the next run succeeds and tidies up."""
    begun = tmp_path / "begun"
    process = _start(tiny, home, 60.0, begun)
    _wait_for(begun, process)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert [path.name for path in home.glob("models/[!.]*")] == []
    assert len(_leftovers(home)) == 1
    caplog.set_level(logging.INFO)
    folder = convert.convert_gguf(tiny)
    assert not cache.verify(folder)
    assert not _leftovers(home)
    assert "left behind by a process that was killed" in caplog.text


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_disk_that_cannot_be_written_is_a_storage_error(home, tiny, monkeypatch, code):
    """A full, read-only or forbidden disk: exit code 4, the folder and the way out are named."""

    def fail(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(convert, "_rewrite", fail)
    with pytest.raises(StorageError, match=os.strerror(code)) as caught:
        convert.convert_gguf(tiny)
    assert caught.value.exit_code == 4
    assert str(home) in str(caught.value)
    assert "ECHOVEC_CACHE" in str(caught.value)
    assert not list(home.glob("models/*"))
    assert not _leftovers(home)


@pytest.mark.skipif(sys.platform != "linux", reason="limits on file size are tried on Linux")
def test_real_write_that_fails_half_way_is_a_storage_error(home, tiny):
    """With a true limit of 10 kB a file, saving the weights ends in a StorageError, no copy."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(StorageError, match="File too large") as caught:
            convert.convert_gguf(tiny)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "ECHOVEC_CACHE" in str(caught.value)
    assert not list(home.glob("models/*"))
    assert not _leftovers(home)


def test_cache_that_is_a_file_is_a_storage_error(tmp_path, tiny, monkeypatch):
    """A cache that cannot even be created is a StorageError, not a traceback."""
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("ECHOVEC_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(StorageError, match="cannot write to the cache"):
        convert.convert_gguf(tiny)


@pytest.mark.parametrize(
    ("stem", "name"),
    [("a b/../c", "c"), ("..", "model"), ("é[x]", "x"), ("m" * 300, "m" * 80), ("-rf", "rf")],
)
def test_copy_name_is_a_plain_short_file_name(stem, name):
    """Whatever a file is called, its copy has a name without blanks, slashes or a leading dot."""
    got = convert.copy_name(Path(f"{stem}.gguf"), "0123456789abcdef")
    assert got.endswith("-0123456789ab")
    assert got.removesuffix("-0123456789ab").strip("_") == name
