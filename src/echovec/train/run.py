"""Run: everything that decides a training run, as one small table; TOML in and out.

Defaults are the paper's where it states them (section 4 and version 2's appendix: LoRA r = 16,
alpha = 16, learning rate 8e-4, temperature 1/50, one data set per batch); where it is silent, what
the default model learns best with on development data (docs/train.md).
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from echovec.errors import InputError
from echovec.presets import as_recipe, preset
from echovec.recipe import ROLES, Recipe
from echovec.train.data import Source

Arm = Literal["echo", "classical", "bidirectional"]
Objective = Literal["contrastive", "simcse", "mntp"]
Prompt = Literal["plain", "instruct"]


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
    at a time, so memory does not grow with the batch. 0: once, all at a time, which is a third
    faster where memory allows it."""

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
        for name in ("batch_size", "rank", "max_tokens", "eval_every", "save_every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)}; give at least 1")
        for name in ("learning_rate", "temperature", "alpha"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name}={getattr(self, name)}; give a number above 0")
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
    known = {one.name for one in dataclasses.fields(Run)}
    if unknown := [key for key in fields if key not in known]:
        raise InputError(f"unknown setting {unknown[0]!r}; there are {', '.join(sorted(known))}")
    if "sources" in fields:
        fields["sources"] = tuple(_source(one) for one in fields["sources"])
    if "matryoshka" in fields:
        fields["matryoshka"] = tuple(fields["matryoshka"])
    for one in dataclasses.fields(Run):
        value = fields.get(one.name)
        if isinstance(one.default, float) and isinstance(value, int):
            fields[one.name] = float(value)
        expected = (int,) if isinstance(one.default, int) else (float, int)
        is_number = isinstance(one.default, int | float) and not isinstance(one.default, bool)
        if value is not None and is_number and not isinstance(value, expected):
            raise InputError(f"{one.name}={value!r}; give a number")
    made: Run = make(first, **fields)
    return made


def _source(content: Any) -> Source:
    try:
        fields = dict(content)
        for name in ("instructions", "columns"):
            if isinstance(fields.get(name), str):
                raise InputError(
                    f"{name}={fields[name]!r}; give a list, such as [{fields[name]!r}]"
                )
            if name in fields:
                fields[name] = tuple(fields[name])
        return Source(**fields)
    except TypeError as error:
        raise InputError(f"a source of the run cannot be read: {error}") from None


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
