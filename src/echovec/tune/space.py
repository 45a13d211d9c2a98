"""Space: what is tried: prompts with their views, calibrations, and what a recipe may cost.

A prompt is one run of the model; all its views are read from that run, at every layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from echovec.errors import InputError
from echovec.text.presets import ECHO_EOL, PROMPT_EOL, TEMPLATES
from echovec.text.template import Template
from echovec.vector.view import View


@dataclass(frozen=True)
class Prompt:
    """A prompt and what is read from it."""

    name: str

    views: Mapping[str, View]
    """By what is read: "copy" (the last copy of the text), "word" (the end of the prompt)."""


def _echo_with_word(name: str, template: Template) -> Prompt:
    word = View(replace(template, pooled="end"), "lasttoken")
    return Prompt(name, {"copy": View(template), "word": word})


def _one_copy_with_word(name: str, template: Template) -> Prompt:
    # Of a single copy the later tokens have seen more: weighted by position.
    copy = View(replace(template, pooled=0), "weightedmean")
    return Prompt(name, {"word": View(template, "lasttoken"), "copy": copy})


_ECHO_SENTENCE_EOL = replace(
    TEMPLATES["echo-sentence"],
    prompt=TEMPLATES["echo-sentence"].prompt + '\nThis sentence means in one word:"',
)

PROMPTS: Mapping[str, Prompt] = {
    prompt.name: prompt
    for prompt in (
        _echo_with_word("echo-eol", ECHO_EOL),
        _one_copy_with_word("prompt-eol", PROMPT_EOL),
        Prompt(
            "classical",
            {
                "copy": View(TEMPLATES["classical"], "weightedmean"),
                "mean": View(TEMPLATES["classical"]),
            },
        ),
        _one_copy_with_word("short-eol", Template('"{text}" in one word:"', pooled="end")),
        _echo_with_word("echo-sentence-eol", _ECHO_SENTENCE_EOL),
        _one_copy_with_word("pretended-cot", TEMPLATES["pretended-cot"]),
        _one_copy_with_word("knowledge", TEMPLATES["knowledge"]),
        _one_copy_with_word(
            "topic-eol", Template('The text "{text}" is about the topic of "', pooled="end")
        ),
    )
}
"""Rows to choose from, the most useful first: where the budget is short, the last go first."""

DEFAULT_PROMPTS = tuple(PROMPTS)[:6]

NEEDED = ("echo-eol", "classical")
"""Prompts that are never left out: the recipes to beat are read from them."""


@dataclass(frozen=True)
class Method:
    """A calibration, perhaps after EmbedFilter."""

    name: str
    """A row of `echovec.vector.calibrate.FITS`, or "none"."""

    options: tuple[tuple[str, float], ...] = ()

    window: tuple[str, float] | None = None
    """EmbedFilter before it: "middle" or "top", and the part of the axes that is kept."""

    kinds: int = 0
    """How many axes are removed along which kinds of text differ: after scaling, and before
    whitening."""

    @property
    def steps(self) -> tuple[tuple[str, dict[str, Any]], ...]:
        """What is fitted, one after the other, as `echovec.calibrate.fitting` takes it."""
        if self.name == "none":
            return ()
        own: tuple[str, dict[str, Any]] = (self.name, dict(self.options))
        if not self.kinds:
            return (own,)
        removed: tuple[str, dict[str, Any]] = ("remove-kinds", {"count": self.kinds})
        if self.name == USUAL.name:
            return (own, removed)
        return ((USUAL.name, {}), removed, own)

    @property
    def shown(self) -> str:
        """In a few words, as tables have it."""
        inside = ", ".join(f"{key} {value:g}" for key, value in self.options)
        text = f"{self.name} ({inside})" if inside else self.name
        if self.kinds:
            text += f", {self.kinds} axes of kinds removed"
        if self.window is None:
            return text
        return f"EmbedFilter ({self.window[0]} {self.window[1]:g}), {text}"


NONE = Method("none")
USUAL = Method("center-scale")
"""What layers are compared with."""

METHODS: tuple[Method, ...] = (
    NONE,
    Method("center"),
    USUAL,
    *(Method("whiten", (("shrinkage", 0.1), ("strength", s))) for s in (0.25, 0.5, 0.75, 1.0)),
    Method("whiten", (("shrinkage", 0.3), ("strength", 0.75))),
    Method("remove-top", (("count", 1),)),
    Method("remove-top", (("count", 5),)),
)

OF_KINDS: tuple[Method, ...] = (
    *(Method("center-scale", kinds=count) for count in (1, 2)),
    Method("whiten", (("shrinkage", 0.1), ("strength", 0.75)), kinds=2),
)
"""Where the texts to calibrate on are of several kinds."""

FILTERS: tuple[Method, ...] = tuple(
    Method("center-scale", window=window)
    for window in (("middle", 0.5), ("top", 0.5), ("top", 0.75))
)
"""For the last layer only: the filter is made for states that meet the unembedding."""

WHOLE: tuple[Method, ...] = (
    NONE,
    Method("center"),
    *(Method("whiten", (("shrinkage", 0.1), ("strength", s))) for s in (0.25, 0.5)),
    Method("remove-top", (("count", 1),)),
)
"""What is tried on the sum of all views."""

WEIGHTS = (0.5, 1.0, 1.5)
"""Weights of a view beside the first one's, which is 1."""


@dataclass(frozen=True)
class Target:
    """A recipe to be found, and what it may cost."""

    name: str

    times: float
    """At most so many times the tokens of `than`."""

    than: str
    """The preset that it is compared with: "echo" or "classical"."""

    passes: int | None = None
    """At most so many runs of the model; None: any number."""

    most_views: int = 6


TARGETS: tuple[Target, ...] = (
    Target("best", 2.0, "echo"),
    Target("one-pass", 2.0, "echo", passes=1),
    Target("fast", 1.25, "classical", passes=1),
)


def prompts_of(names: tuple[str, ...] | None) -> tuple[Prompt, ...]:
    """The prompts of these names; the default ones for None.

    Raises:
        InputError: a name is unknown, or one that is needed is missing.
    """
    chosen = DEFAULT_PROMPTS if names is None else tuple(dict.fromkeys(names))
    if unknown := [name for name in chosen if name not in PROMPTS]:
        raise InputError(f"unknown prompts {unknown}; there are {', '.join(PROMPTS)}")
    if missing := [name for name in NEEDED if name not in chosen]:
        raise InputError(f"the prompts {missing} are needed: what is to be beaten is read there")
    return tuple(PROMPTS[name] for name in chosen)


def without_suffix(template: Template) -> Template:
    """The template up to its last copy of the text, if that is what it pools.

    What follows has no say in the states before it, in a causal model: it costs tokens only.
    """
    if template.pooled == "end" or template.eos != "absent":
        return template
    return replace(template, prompt=template.prompt[: template.prompt.rindex("{text}") + 6])
