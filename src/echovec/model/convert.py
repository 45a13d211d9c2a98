"""From a GGUF file to a folder that plain transformers loads, once per file.

transformers dequantises a GGUF file anew at every load (14 to 19 s for the default model); a
float16 safetensors copy loads in about 2 s. float16 keeps the vectors within 2.4e-7 (one minus
cosine) of float32 weights, where bfloat16 gives 2.5e-6.

Two traps are closed here. Weights that a file lacks would be filled with random numbers under a
mere warning: that is an error. And transformers looks at other files beside the one it is given,
in its folder and in the current one: it is shown a link to the file, alone in a folder.
"""

from __future__ import annotations

import io
import logging
import math
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from importlib.metadata import version
from pathlib import Path
from typing import Any

from echovec.errors import DependencyError, InputError, ModelError
from echovec.model import cache
from echovec.version import __version__

log = logging.getLogger(__name__)

DTYPES = ("float16", "bfloat16", "float32")


def convert_gguf(path: Path, *, dtype: str = "float16") -> Path:
    """The folder with the converted copy of a GGUF file, made if it is not in the cache.

    The copy is known by the sha256 of the file, which is read each time (0.6 s per GB), and
    every file of the copy is verified; a damaged copy is removed and made anew. Two processes
    may ask at once: the second waits. Weights beyond the range of `dtype` are kept as float32.

    Raises:
        ModelError: the file cannot be read, is damaged, or is of an unsupported kind.
        StorageError: the cache cannot be written.
    """
    if dtype not in DTYPES:
        raise InputError(f"dtype {dtype!r} is unknown; use one of {', '.join(DTYPES)}.")
    path = path.expanduser().absolute()
    _check_magic(path)
    sha256 = cache.sha256_of(path)
    target = cache.copies_dir() / copy_name(path, sha256, dtype)
    if cache.ready(target):
        return target
    with cache.locked():
        if not cache.verify(target):
            return target  # Another process has made it meanwhile.
        cache.discard(target)
        megabytes = path.stat().st_size // 10**6
        log.warning(
            "converting %s (%d MB) into %s; this happens once (about 20 s for 100 MB)",
            *(path.name, megabytes, target),
        )
        with cache.workspace(target.parent, target.name) as part:
            kept = _rewrite(_alone(path, part / "in", sha256), part / "out", dtype, path)
            if kept != dtype:
                log.warning("%s has weights beyond the range of %s: kept %s", path, dtype, kept)
            cache.seal(part / "out", _about(path, sha256, kept))
            cache.publish(part / "out", target)
    return target


def copy_name(path: Path, sha256: str, dtype: str = "float16") -> str:
    """The name of the copy of a GGUF file: its stem, 12 digits of its sha256, an unusual dtype."""
    stem = re.sub(r"[^\w.-]+", "_", path.stem, flags=re.ASCII).strip(".-")[:80] or "model"
    return f"{stem}-{sha256[:12]}" + ("" if dtype == "float16" else f"-{dtype}")


def _about(path: Path, sha256: str, dtype: str) -> dict[str, Any]:
    libraries = {name: version(name) for name in ("transformers", "torch", "gguf")}
    return {
        "source": {"name": path.name, "sha256": sha256, "bytes": path.stat().st_size},
        "dtype": dtype,
        "versions": {**libraries, "echovec": __version__},
    }


def _check_magic(path: Path) -> None:
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise ModelError(
            f"cannot read the model file {path}: {error.strerror}. Check the path."
        ) from error
    if magic != b"GGUF":
        raise ModelError(
            f"{path} is not a GGUF file: it begins with {magic!r}, not b'GGUF' (its size is "
            f"{path.stat().st_size} bytes). Fetch it again; a few lines of text are often a Git "
            f"LFS pointer in place of the file (`git lfs pull`)."
        )


def _alone(path: Path, folder: Path, sha256: str) -> Path:
    """A link to the file with a name that no other file has, alone in a new folder."""
    folder.mkdir()
    link = folder / f"{sha256}.gguf"
    try:
        link.symlink_to(path)
    except OSError:  # A system without symbolic links: the file itself, with its neighbours.
        return path
    return link


def _rewrite(source: Path, folder: Path, dtype: str, path: Path) -> str:
    """Write the model and tokenizer of `source` to `folder`; returns the dtype that was kept."""
    import torch
    from safetensors import SafetensorError

    with _quiet():
        tokenizer, model = _read(source, path)
        # One pass over the weights: the extremes of a tensor with a NaN in it are NaN.
        extremes = [float(end) for weight in model.parameters() for end in weight.aminmax()]
        if not all(map(math.isfinite, extremes)):
            raise ModelError(f"{path} holds weights that are NaN or infinite. {_REFETCH}")
        if max(map(abs, extremes)) > torch.finfo(getattr(torch, dtype)).max:
            dtype = "float32"
        # transformers refuses to cast or save a model that it read from GGUF, although its
        # weights are plain tensors by now: take the mark of quantisation off.
        model.hf_quantizer = None
        model.is_quantized = False
        model.quantization_method = None
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.to(getattr(torch, dtype))
        try:
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        except SafetensorError as error:  # It wraps what the disk said.
            raise OSError(str(error)) from error
    return dtype


def _read(source: Path, path: Path) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    # Nothing is fetched, and no code that comes with a model is run.
    given = {
        "gguf_file": source.name,
        "local_files_only": True,
        "trust_remote_code": False,
    }
    try:
        tokenizer = AutoTokenizer.from_pretrained(source.parent, **given)
        model, report = AutoModelForCausalLM.from_pretrained(
            source.parent, dtype=torch.float32, output_loading_info=True, **given
        )
    except ImportError as error:
        raise DependencyError(
            f"reading GGUF files needs a library that is not here: {error}. "
            f"Install echovec again with its dependencies."
        ) from error
    except Exception as error:  # ValueError, struct.error, KeyError, ...: the file decides which.
        raise ModelError(
            f"{path} ({path.stat().st_size} bytes) cannot be read as a language model: "
            f"{type(error).__name__}: {error}. {_REFETCH}"
        ) from error
    lacking = sorted({*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])})
    if lacking:
        raise ModelError(
            f"{path} lacks {len(lacking)} of the model's weights ({lacking[0]}, ...). {_REFETCH}"
        )
    return tokenizer, model


_REFETCH = (
    "The file may be cut short, damaged, one part of several, or of a kind that transformers "
    "does not read: compare its size and sha256 with those where it came from."
)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' progress bars and warnings off the terminal: one line was logged."""
    from transformers.utils import logging as chatter

    before = chatter.get_verbosity()
    chatter.set_verbosity_error()
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        chatter.set_verbosity(before)
