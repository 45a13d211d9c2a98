"""To sentence-transformers: a folder that `SentenceTransformer(folder)` loads, and its proof.

    route "plain"    Transformer with the echo tokenizer, Pooling(lasttoken), Dense..., Normalize
    route "module"   EchoModule (echo_module.py, in the folder), Dense..., Normalize

Configurations are written in the form that sentence-transformers 3 to 6 and text servers read. The
folder is made under another name, compared with the embedder, and only then gets its own.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from echovec.embedder import Embedder
from echovec.errors import DependencyError, ExportError, InputError, RecipeError, StorageError
from echovec.export.card import card
from echovec.export.echo_tokenizer import budget, echo_tokenizer, why_no_echo_tokenizer
from echovec.export.linear import Affine, Step
from echovec.export.parity import Parity, Vectors, compare
from echovec.export.program import Program, program_of, without_windows
from echovec.export.program_json import program_to_json
from echovec.model.load import quiet_transformers
from echovec.recipe import ROLES, Role
from echovec.saved import EXPORT_FOLDER, library_versions

Route = Literal["auto", "plain", "module"]
_TYPES = "sentence_transformers.models."


def export(embedder: Embedder, folder: Path, *, route: Route = "auto") -> Parity:
    """Write the folder; see `Embedder.save_sentence_transformers`."""
    if route not in ("auto", "plain", "module"):
        raise InputError(f"route={route!r}; there are auto, plain and module")
    if folder.exists():
        raise InputError(f"{folder} is there already; remove it or choose another folder")
    need_sentence_transformers()
    embedder, said = without_windows(embedder)
    program = program_of(embedder)
    notes = said
    reason = why_no_echo_tokenizer(embedder, program)
    if route == "plain" and reason:
        raise RecipeError(
            f"recipe {embedder.definition.name!r} cannot be exported as plain modules: {reason}; "
            "use route='module'"
        )
    if route != "module" and not reason:
        parity = _written(embedder, program, folder, "plain")
        if parity.holds:
            return replace(parity, notes=said)
        if route == "plain":
            raise _differs(parity)
        lost = f"plain modules lose parity (cosine {parity.lowest_cosine:.4f}): module instead"
        notes = (*said, lost)
    elif route == "auto":
        notes = (*said, f"no plain modules for this recipe: {reason}")
    parity = replace(_written(embedder, program, folder, "module"), notes=notes)
    if not parity.holds:
        raise _differs(parity)
    return parity


def need_sentence_transformers() -> None:
    """DependencyError where sentence-transformers is not installed."""
    try:
        import sentence_transformers  # noqa: F401
    except ImportError as error:
        raise DependencyError(
            "sentence-transformers is not installed: pip install 'echovec[export]'"
        ) from error


def encode_with(model: Any, *, batch_size: int = 8) -> Any:
    """A loaded SentenceTransformer as the other side of a parity check."""

    def encode(texts: Sequence[str], role: Role) -> Vectors:
        verb = {
            "symmetric": model.encode,
            "query": model.encode_query,
            "document": model.encode_document,
        }[role]
        options: dict[str, Any] = {"batch_size": batch_size, "show_progress_bar": False}
        return np.asarray(verb(list(texts), **options), dtype=np.float32)

    return encode


def _written(embedder: Embedder, program: Program, folder: Path, route: str) -> Parity:
    """Write under another name, load as a user would, compare; the name only if all is well."""
    from sentence_transformers import SentenceTransformer

    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        try:
            unfinished.mkdir(parents=True)
            with quiet_transformers():
                _write(embedder, program, unfinished, route)
        except OSError as error:
            raise StorageError(
                f"cannot write {unfinished}: {error.strerror or error}; free space or choose "
                "another folder"
            ) from error
        device = str(getattr(embedder.hugging_face[0], "device", "cpu"))
        with quiet_transformers():
            loaded = SentenceTransformer(
                str(unfinished),
                device=device,
                trust_remote_code=route == "module",
                local_files_only=True,
            )
        parity = compare(embedder, encode_with(loaded), route=route)
        if parity.holds:
            (unfinished / "README.md").write_text(card(embedder, program, parity), "utf-8")
            unfinished.replace(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return parity


def _write(embedder: Embedder, program: Program, folder: Path, route: str) -> None:
    model, tokenizer = embedder.hugging_face
    model.save_pretrained(folder)
    own = folder / EXPORT_FOLDER  # from which `Embedder.load` makes it again
    embedder.recipe.save(own)
    tokenizer.save_pretrained(own)
    modules: list[tuple[str, str]] = []
    if route == "plain":
        echo = echo_tokenizer(embedder, program)
        echo.save_pretrained(folder)
        length = {"max_seq_length": budget(embedder, program), "do_lower_case": False}
        _json(folder / "sentence_bert_config.json", length)
        modules += [("", _TYPES + "Transformer"), ("1_Pooling", _TYPES + "Pooling")]
        modes = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens")
        pooling: dict[str, Any] = {
            f"pooling_mode_{mode}": False for mode in (*modes, "weightedmean_tokens")
        }
        pooling |= {"pooling_mode_lasttoken": True, "include_prompt": True}
        pooling["word_embedding_dimension"] = embedder.backbone.dim
        _json(folder / "1_Pooling" / "config.json", pooling)
    else:
        tokenizer.save_pretrained(folder)
        content, arrays = program_to_json(program, embedder.recipe)
        _json(folder / "echo.json", content)
        if arrays:
            from safetensors.numpy import save_file

            save_file(arrays, folder / "echo.safetensors")
        source = Path(__file__).with_name("echo_module.py")
        (folder / source.name).write_bytes(source.read_bytes())
        modules.append(("", "echo_module.EchoModule"))
    for step in (*program.tail, None):
        modules.append(_tail_module(folder, len(modules), step))
    table = [
        {"idx": i, "name": str(i), "path": path, "type": kind}
        for i, (path, kind) in enumerate(modules)
    ]
    _json(folder / "modules.json", table)
    _json(folder / "config_sentence_transformers.json", _model_config(embedder, route))


def _tail_module(folder: Path, place: int, step: Step | None) -> tuple[str, str]:
    if not isinstance(step, Affine):
        (folder / f"{place}_Normalize").mkdir()
        return f"{place}_Normalize", _TYPES + "Normalize"
    from safetensors.torch import save_file

    path = folder / f"{place}_Dense"
    path.mkdir()
    dim_in, dim_out = step.matrix_DE.shape
    config = {
        "in_features": dim_in,
        "out_features": dim_out,
        "bias": True,
        "activation_function": "torch.nn.modules.linear.Identity",
    }
    _json(path / "config.json", config)
    weight = torch.from_numpy(np.ascontiguousarray(step.matrix_DE.T, dtype=np.float32))
    bias = torch.from_numpy(step.bias_E.astype(np.float32))
    save_file({"linear.weight": weight, "linear.bias": bias}, path / "model.safetensors")
    return path.name, _TYPES + "Dense"


def _model_config(embedder: Embedder, route: str) -> dict[str, Any]:
    prompts = {"query": "", "document": ""}
    if route == "module":  # a prompt there is an instruction: the template's own, as words
        for role in ROLES[1:]:
            templates = [view.template for view in embedder.definition.views[role]]
            taking = [t.instruction for t in templates if t.takes_instruction and t.instruction]
            prompts[role] = taking[0] if taking else ""
    return {
        "model_type": "SentenceTransformer",
        "__version__": library_versions(),
        "prompts": prompts,
        "default_prompt_name": None,
        "similarity_fn_name": "cosine",
    }


def _differs(parity: Parity) -> ExportError:
    table = "\n".join(parity.lines())
    return ExportError(
        f"the {parity.route} export computes other vectors and was removed:\n{table}\n"
        "please report this with the output of `echovec doctor`",
        parity=parity,
    )


def _json(file: Path, content: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
