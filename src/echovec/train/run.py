"""Run: everything that decides a training run, as one small table; TOML in and out.

Defaults are the paper's where it states them (section 4 and version 2's appendix: LoRA r = 16,
alpha = 16, learning rate 8e-4, temperature 1/50, one data set per batch); where it is silent, what
the default model learns best with on development data (docs/train.md).
"""

from __future__ import annotations

import dataclasses
import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from echovec.errors import InputError
from echovec.presets import as_recipe, preset
from echovec.recipe import ROLES, Recipe
from echovec.train.data import Source

Arm = Literal["echo", "classical", "bidirectional"]
Objective = Literal["contrastive", "simcse", "mntp"]
Prompt = Literal["plain", "instruct"]

_BOUNDS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(
        ("steps", "batch_size", "rank", "max_tokens", "eval_every", "save_every"),
        (lambda value: value >= 1, "at least 1"),
    ),
    **dict.fromkeys(
        ("learning_rate", "temperature", "alpha"),
        (lambda value: 0 < value < math.inf, "a number above 0"),
    ),
    **dict.fromkeys(
        (
            "mini_batch_tokens",
            "kept_tokens",
            "warmup_steps",
            "weight_decay",
            "max_grad_norm",
            "held_out",
        ),
        (lambda value: value >= 0, "0 or more"),
    ),
    **dict.fromkeys(
        ("lora_dropout", "input_dropout"), (lambda value: 0 <= value < 1, "0 to below 1")
    ),
    "mask_share": (lambda value: 0 < value <= 1, "a number above 0, at most 1"),
    "matryoshka": (lambda value: all(width >= 1 for width in value), "widths of at least 1"),
    "seed": (lambda value: 0 <= value < 1 << 32, "0 to 4294967295"),
}
"""What a field's value has to be, where its kind does not say it."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training run.

    Raises:
        InputError: a field has a value that cannot be used; the message names it.
    """

    name: str = "run"
    model: str | None = None
    """What `Embedder.load` takes: None for the default model."""

    arm: Arm = "echo"
    """"echo" repeats the text; "classical" does not; "bidirectional" does not either and lets every
    token see all tokens (on the plain engine)."""

    prompt: Prompt = "plain"
    """"plain": the zero-shot prompt, mean pooled. "instruct": the authors' format with a task
    instruction and an end token, whose state is the vector and whose embedding is trained."""

    base_recipe: str | None = None
    """Train these readings of the model instead of the prompt's own mean: the name or folder of a
    recipe that runs the model once, such as "one-pass". Its calibrations stay as they are, so
    training begins where the training-free recipe ends."""

    objective: Objective = "contrastive"
    """"contrastive": InfoNCE on pairs. "simcse": each text against itself under another dropout.
    "mntp": masked next-token prediction with the mask switched to bidirectional (LLM2Vec)."""

    init: str | None = None
    """A folder with an adapter to merge before training starts, e.g. that of an "mntp" run."""

    sources: tuple[Source, ...] = ()
    steps: int | None = None
    """Steps of the optimizer; None for one epoch."""

    batch_size: int = 64
    """Rows a step, all processes together."""

    mini_batch_tokens: int = 4096
    """GradCache (arXiv 2101.06983): the batch goes through the model twice, at most so many tokens
    at a time, so memory does not grow with the batch. 0: once, all at a time."""

    kept_tokens: int | None = None
    """How many tokens of a batch go through the model once, as memory allows: what the first pass
    computed is kept for them. None: as many as `mini_batch_tokens`, which costs no memory more."""

    learning_rate: float = 8e-4
    warmup_steps: int = 10
    scheduler: Literal["linear", "cosine", "constant_with_warmup"] = "linear"
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    temperature: float = 0.02
    """The paper's 1/50."""

    symmetric_loss: bool = False
    """Also ask each positive for its anchor."""

    across_devices: bool = True
    """Take the other processes' rows as negatives too."""

    matryoshka: tuple[int, ...] = ()
    """Widths whose leading numbers are trained to work alone (arXiv 2205.13147)."""

    rank: int = 16
    alpha: float = 16
    lora_dropout: float = 0.0
    input_dropout: float = 0.0
    """On the token embeddings; "simcse" needs it."""

    max_tokens: int = 128
    """Budget for each copy of a text."""

    text_share: float = 1.0
    """0.5 halves every text: echo at classical's cost (the paper's compute-matched arm)."""

    mask_share: float = 0.2
    """"mntp": which part of the tokens is masked (LLM2Vec's choice for most models)."""

    precision: Literal["exact", "fast"] = "exact"
    gradient_checkpointing: bool = False
    """Plain engine only: keep the blocks' inputs and compute the rest again."""

    engine: Literal["auto", "plain", "packed"] = "auto"
    held_out: int = 128
    """Rows of each set kept out of training to watch the run by, at most a tenth of it."""

    eval_every: int = 50
    save_every: int = 50
    seed: int = 42

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(type(self)).items():
            allowed = get_args(kind)
            literal = allowed and all(isinstance(value, str) for value in allowed)
            if literal and getattr(self, name) not in allowed:
                raise InputError(f"{name}={getattr(self, name)!r}; there are {', '.join(allowed)}")
        for name, (holds, what) in _BOUNDS.items():
            value = getattr(self, name)
            if value is not None and not holds(value):
                raise InputError(f"{name}={value}; give {what}")
        if self.objective == "simcse" and not (self.input_dropout or self.lora_dropout):
            raise InputError(
                "objective='simcse' compares a text with itself under another dropout, and this "
                "run has none: set input_dropout=0.1"
            )
        if self.base_recipe is not None and (self.arm, self.prompt) != ("echo", "plain"):
            raise InputError("base_recipe brings its own prompt; leave arm and prompt out")
        if self.arm == "bidirectional" and self.engine == "packed":
            raise InputError("arm='bidirectional' runs on the plain engine; leave engine out")

    @property
    def recipe(self) -> Recipe:
        """How the trained model embeds."""
        base = "classical" if self.arm == "bidirectional" else self.arm
        if self.base_recipe is not None:
            # Fitted to the weights as they were; what is trained are other weights. Windows are
            # for embedding: a row of training is one run of the model.
            chosen = dataclasses.replace(
                as_recipe(self.base_recipe),
                model=None,
                dtype=None,
                versions={},
                long_text="cut",
            )
        else:
            chosen = preset(base if self.prompt == "plain" else f"{base}-instruct")
        views = chosen.views
        if self.arm == "bidirectional":
            views = {
                role: tuple(dataclasses.replace(v, mask="bidirectional") for v in views[role])
                for role in ROLES
            }
        return dataclasses.replace(
            chosen,
            name=self.name,
            views=views,
            max_tokens=self.max_tokens,
            text_share=self.text_share,
        )

    def to_toml(self) -> str:
        """The run as TOML text; fields that have their default are left out."""
        lines = []
        for one in dataclasses.fields(self):
            value = getattr(self, one.name)
            if one.name != "sources" and value != one.default and value is not None:
                lines.append(f"{one.name} = {_toml(value)}")
        for source in self.sources:
            lines += ["", "[[sources]]"]
            for one in dataclasses.fields(source):
                value = getattr(source, one.name)
                if value != one.default and value is not None:
                    lines.append(f"{one.name} = {_toml(value)}")
        return "\n".join(lines) + "\n"

    def changed(self, settings: Sequence[str]) -> Run:
        """The run with `key=value` settings applied, values in TOML.

        Raises:
            InputError: no such field, or a value that cannot be read.
        """
        changes: dict[str, Any] = {}
        for setting in settings:
            key, sign, value = setting.partition("=")
            if not sign:
                raise InputError(f"--set {setting!r}; give key=value")
            try:
                changes[key] = tomllib.loads(f"value = {value}")["value"]
            except tomllib.TOMLDecodeError:
                changes[key] = value  # a bare word is a string
        return _made(dataclasses.replace, self, changes)


def run_of(text: str, *, name: str) -> Run:
    """Read a run from TOML text.

    Raises:
        InputError: not TOML, an unknown key, or a value of another type.
    """
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{name} is not TOML: {error}") from None
    content.setdefault("name", name)
    return _made(lambda _, **fields: Run(**fields), None, content)


def _made(make: Any, first: Any, content: Mapping[str, Any]) -> Run:
    fields = dict(content)
    if isinstance(fields.get("sources"), list | tuple):
        fields["sources"] = tuple(_source(one) for one in fields["sources"])
    made: Run = make(first, **_of_their_kinds(Run, fields, "setting"))
    return made


def _source(content: Any) -> Source:
    if not isinstance(content, Mapping):
        raise InputError(f'source {content!r}; give a table, such as {{path = "pairs.jsonl"}}')
    if "path" not in content:
        raise InputError(f"a source of the run has no path: {dict(content)}; give a file or folder")
    return Source(**_of_their_kinds(Source, content, "setting of a source"))


def _of_their_kinds(of: type, content: Mapping[str, Any], what: str) -> dict[str, Any]:
    """The fields of a dataclass as TOML has them, each of the kind that it has to be."""
    kinds = get_type_hints(of)
    if unknown := [key for key in content if key not in kinds]:
        raise InputError(f"unknown {what} {unknown[0]!r}; there are {', '.join(sorted(kinds))}")
    fields = {}
    for name, value in content.items():
        if wanted := _not_of(value, kinds[name]):
            raise InputError(f"{name}={value!r}; give {wanted}")
        if isinstance(value, list):
            value = tuple(value)
        elif kinds[name] is float:
            value = float(value)
        fields[name] = value
    return fields


def _not_of(value: Any, kind: Any) -> str | None:
    """What a value has to be, or None where it is of that kind."""
    if get_origin(kind) is Literal:
        return None  # Run itself says what there is
    if get_origin(kind) is tuple:
        inner = get_args(kind)[0]
        if isinstance(value, list | tuple):
            return next((f"a list: {no}" for one in value if (no := _not_of(one, inner))), None)
        return f"a list, such as {[value]!r}"
    kinds = get_args(kind) or (kind,)  # of "int | None" both
    kinds = (*kinds, int) if float in kinds else kinds
    fits = isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))
    return None if fits else _KINDS.get(kinds[0], f"a {kinds[0].__name__}")


_KINDS = {bool: "true or false", int: "a number", float: "a number", str: "a text in quotes"}


def read_run(named: str) -> Run:
    """A run from a TOML file, or one that ships, by name.

    Raises:
        InputError: neither; the message lists those that ship.
    """
    from echovec.train.runs import RUNS

    if named in RUNS:
        return RUNS[named]
    path = Path(named).expanduser()
    if path.suffix == ".toml" and path.is_file():
        return run_of(path.read_text("utf-8"), name=path.stem)
    raise InputError(f"no run {named!r}; give a .toml file, or one of {', '.join(RUNS)}")


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        import json

        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(one) for one in value) + "]"
    return repr(value)
