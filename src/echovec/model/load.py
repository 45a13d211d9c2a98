"""Load: a model by name, folder or GGUF file, on a device, in a dtype.

Rules at this door: `trust_remote_code` is False unless the caller says otherwise (left unset,
transformers asks on the terminal), and weights are read from safetensors and GGUF only, since
pickled weights can run code.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import Any, Literal

import torch

from echovec.errors import EchovecError, InputError, ModelError, PrecisionWarning
from echovec.model import start, store
from echovec.model.adapter import adapted_hash, adapter_hash, merge
from echovec.model.backbone import is_out_of_memory
from echovec.model.families import why_not
from echovec.model.hashed import hash_of
from echovec.model.heap import limit_memory
from echovec.model.hub import commit_of, look_for
from echovec.model.packed import PackedBackbone
from echovec.model.plain import PlainBackbone
from echovec.model.precision import multiplies_bfloat16
from echovec.model.quantized import SENTENCES, largest_inputs
from echovec.model.threads import heed_fork
from echovec.text.tokenizer import HFTokenizer

Engine = Literal["auto", "plain", "packed"]
ENGINES = ("auto", "plain", "packed")


def load_model(
    model: str | Path | None,
    *,
    device: str,
    dtype: str,
    engine: Engine = "auto",
    insist: bool = True,
    revision: str | None = None,
    trust_remote_code: bool = False,
    adapter: Path | None = None,
    tokenizer_at: Path | None = None,
    hashed: bool = False,
) -> tuple[PlainBackbone | PackedBackbone, HFTokenizer, Path | str]:
    """Load a backbone and its tokenizer; without transformers where that is known to do (start.py).

    Args:
        model: None (the default model), a hub name, a local folder, or a .gguf file.
        device: a torch device.
        dtype: a floating dtype of torch, by name; or "int8", see quantized.py.
        engine: "packed" (fast, some families), "plain" (any model), or "auto": packed where the
            family allows it, else plain, which is said once.
        insist: whether it is an error that the engine has no 8 bits for this model. If not, it is
            computed in 16 bits where the device multiplies them, with a warning.
        revision: a branch, tag or commit of a hub name.
        trust_remote_code: whether Python code that comes with the model may be run.
        adapter: the folder of an adapter to merge into the model.
        tokenizer_at: the folder of its tokenizer, if not the model's.
        hashed: whether the weights are to be hashed now, for who will ask for it: as they lie here
            that takes a fifth of the time that it takes once they are repacked.

    Returns:
        The backbone, the tokenizer, and what plain `from_pretrained` loads both from.

    Raises:
        ModelError: not found, not to be fetched, not in safetensors or GGUF, damaged, without some
            of its weights, or of a family that the engine asked for cannot run.
        InputError: no such engine, or none that computes in this dtype.
    """
    heed_fork()
    rounds = dtype == "int8"
    engine, dtype = _computing(engine, dtype, device, insist=insist)
    if device == "cpu":
        limit_memory()
    source = resolve(model)
    how: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    if not isinstance(source, Path):
        how |= {"revision": revision, "local_files_only": store.is_offline()}
    files = _Files(source, getattr(torch, dtype), device, how, adapter, tokenizer_at, hashed)
    loaded, tokenizer = files.read(quick=engine != "plain" and not rounds)
    if rounds and insist and (reason := why_not(loaded.base_model, repack=True)):
        raise ModelError(f"this model cannot be had in 8 bits: {reason}; use precision='fast'")
    if not _packs(loaded, engine):
        _say_not_rounded(rounds)
        return files.plain(loaded, files.known_hash), tokenizer, source
    known_hash, largest = files.known_hash, None
    if rounds:
        known_hash = known_hash or hash_of(loaded)  # of the weights as they were
        largest = largest_inputs(loaded, tokenizer.inner(list(SENTENCES))["input_ids"])

    def read_again() -> PlainBackbone:
        return files.plain(files.model(), known_hash)

    packed = PackedBackbone(
        loaded, prepack=True, plain=read_again, known_hash=known_hash, largest=largest
    )
    return packed, tokenizer, source


@dataclass(eq=False)
class _Files:
    """A model's files, and how they become a model."""

    source: Path | str
    dtype: torch.dtype
    device: str
    how: dict[str, Any]
    """What transformers is told each time."""

    adapter: Path | None
    tokenizer_at: Path | None
    hashed: bool
    known_hash: str | None = None
    """The hash of the model, adapter included, once it is known."""

    _base_hash: str | None = None

    def read(self, *, quick: bool) -> tuple[Any, HFTokenizer]:
        """The model without its head and the tokenizer.

        Args:
            quick: whether the model may be one without a forward pass, read without transformers.
        """
        usual = self.tokenizer_at is None and not self.how["trust_remote_code"]
        copy = start.copy_of(self.source) if usual else None
        if quick and copy and (started := start.read(copy, self.dtype, self.tokenizer)):
            return self._finished(started.model), started.tokenizer
        with _reading(self.source):
            look_for(self.source, self.how.get("revision"))
            tokenizer = HFTokenizer(self.tokenizer())
            loaded = self.model()
        if copy is not None:
            start.keep(copy, loaded, tokenizer)
        if not isinstance(self.source, Path):  # a branch may move before it is read again
            self.how["revision"] = commit_of(self.source, self.how["revision"])
        return loaded, tokenizer

    def model(self) -> Any:
        """The model without its head, by transformers."""
        with _reading(self.source):
            return self._finished(_without_head(self.source, self.dtype, self.how))

    def tokenizer(self) -> Any:
        """The tokenizer, by transformers."""
        from transformers import AutoTokenizer

        with _reading(self.source):
            return AutoTokenizer.from_pretrained(str(self.tokenizer_at or self.source), **self.how)

    def plain(self, loaded: Any, known_hash: str | None) -> PlainBackbone:
        """The plain backbone of a model that was read here; `known_hash` stands for it."""
        read_hash = known_hash if self.adapter is None else hash_of(loaded)
        return PlainBackbone(loaded, known_hash=known_hash, read_hash=read_hash)

    def _finished(self, loaded: Any) -> Any:
        """With the adapter merged, on its device."""
        if (self.hashed or self.adapter is not None) and self._base_hash is None:
            self._base_hash = hash_of(loaded)
        if self.adapter is None:
            self.known_hash = self._base_hash
        else:
            assert self._base_hash is not None
            merge(loaded, self.adapter)
            self.known_hash = adapted_hash(self._base_hash, adapter_hash(self.adapter))
        return loaded.to(self.device).eval()


def read_model(
    model: str | Path | None, *, device: str, dtype: torch.dtype
) -> tuple[Any, Any, Path | str]:
    """A model without its head, its tokenizer and where they are from; for training.

    Raises:
        ModelError: not found, not to be fetched, not in safetensors or GGUF, damaged, or without
            some of its weights.
    """
    from transformers import AutoTokenizer

    if device == "cpu":
        limit_memory()
    source = resolve(model)
    common = {} if isinstance(source, Path) else {"local_files_only": store.is_offline()}
    with _reading(source):
        look_for(source)
        tokenizer = AutoTokenizer.from_pretrained(str(source), **common)
        loaded = _without_head(source, dtype, common)
    return loaded.to(device), tokenizer, source


def _without_head(source: Path | str, dtype: torch.dtype, common: dict[str, Any]) -> Any:
    """A model without its head; ModelError where its files lack weights.

    transformers fills those with random numbers, others at each load, under a mere warning.
    """
    from transformers import AutoModel

    loaded, report = AutoModel.from_pretrained(
        str(source),
        dtype=dtype,
        use_safetensors=True,
        ignore_mismatched_sizes=True,  # looked at below, where they can be named
        output_loading_info=True,
        # With peft installed it looks for an adapter too, which has settings of its own.
        adapter_kwargs={"local_files_only": common.get("local_files_only", False)},
        **common,
    )
    if lacking := sorted(report["missing_keys"]):
        raise ModelError(
            f"{str(source)!r} lacks {len(lacking)} of the model's weights ({lacking[0]}, ...): its "
            "files are incomplete or of another model; fetch or save it again"
        )
    if report["mismatched_keys"]:
        name, found, wanted = min(report["mismatched_keys"])
        raise ModelError(
            f"{str(source)!r}: {name} is {tuple(found)} in its files and {tuple(wanted)} by its "
            "config.json: one of them is of another model; fetch or save it again"
        )
    return loaded


@contextmanager
def _reading(source: Path | str) -> Iterator[None]:
    """Without chatter; what goes wrong with a model's files becomes a ModelError."""
    try:
        with quiet_transformers():
            yield
    except EchovecError:
        raise
    except Exception as error:  # OSError, KeyError, SafetensorError, ...: the files decide which
        if is_out_of_memory(error):
            raise
        raise _explain(error, source) from error


def _packs(model: Any, engine: Engine) -> bool:
    """Whether the packed engine is to run this model; says once why not, where nobody chose."""
    if engine == "plain":
        return False
    reason = why_not(model.base_model, repack=True)
    if reason is None or engine == "packed":  # packed refuses what it cannot do
        return True
    # "once" is this process: a notice per load would be noise, none would hide a slow engine.
    if reason not in _said:
        _said.add(reason)
        _log.warning("%s; the plain engine runs it: same vectors, slower", reason)
    return False


_log = logging.getLogger("echovec")
_said: set[str] = set()


def resolve(model: str | Path | None) -> Path | str:
    """A local folder for whatever names a model, or the hub name itself.

    Raises:
        ModelError: a path that does not exist, or a folder without safetensors.
    """
    if model is None:
        return store.default_model()
    path = Path(model).expanduser()
    if path.suffix.lower() == ".gguf":
        if not path.is_file():
            raise ModelError(f"no such file: {path}")
        return store.convert_gguf(path)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(f"{path} is no model folder: it has no config.json")
        if not any(path.glob("*.safetensors")):
            raise ModelError(
                f"{path} has no .safetensors file; only safetensors and GGUF are read, because "
                "pickled weights can run code. Save it again with safe_serialization=True"
            )
        return path
    name = str(model)
    looks_like_a_path = name.startswith((".", "/", "~")) or name.endswith("/") or "\\" in name
    if isinstance(model, Path) or looks_like_a_path or name.count("/") > 1:
        raise ModelError(f"no such model folder: {path}")
    return name


def _computing(engine: Engine, dtype: str, device: str, *, insist: bool) -> tuple[Engine, str]:
    """The engine to take, and the dtype that the model is read in."""
    if engine not in ENGINES:
        raise InputError(f"engine={engine!r}; there are {', '.join(ENGINES)}")
    if dtype != "int8":
        return engine, dtype
    if insist and engine == "plain":
        raise InputError("8 bits are the packed engine's; leave out engine='plain'")
    return "packed" if insist else engine, (
        "bfloat16" if multiplies_bfloat16(device) else "float32"
    )


def _say_not_rounded(asked: bool) -> None:
    if asked:
        warnings.warn(
            "the plain engine has no 8 bits: computing as with 'fast'",
            PrecisionWarning,
            stacklevel=4,
        )


def _explain(error: Exception, source: Path | str) -> ModelError:
    said = str(error).strip().splitlines()
    first = said[0] if said else type(error).__name__
    if first.endswith(":") and len(said) > 1:
        first += f" {said[1].strip()}"
    first = first.rstrip(".")  # a next step follows
    if "trust_remote_code" in str(error):
        hint = (
            "this model comes with Python code of its own, which is not run unless you ask: "
            "Embedder.load(..., trust_remote_code=True)"
        )
    elif isinstance(source, Path):
        hint = "check the folder, or fetch the model again"
    elif store.is_offline():
        hint = (
            "ECHOVEC_OFFLINE or HF_HUB_OFFLINE is set and the model is not in the hub's cache; "
            "fetch it once online, or give a local folder"
        )
    else:
        hint = "check the name and the connection, or give a local folder or .gguf file"
    return ModelError(f"cannot load the model {str(source)!r}: {first}; {hint}")


_one_at_a_time = RLock()


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bars and no advice from transformers while a model is read.

    One thread at a time: these settings, and the dtype that transformers makes torch's default
    while it reads, are the whole process's.
    """
    from transformers.utils import logging

    with _one_at_a_time:
        level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        try:
            yield
        finally:
            logging.set_verbosity(level)
            if bars:
                logging.enable_progress_bar()
