"""Space: what is tried: prompts with their views, calibrations, and what a recipe may cost.

A prompt is one run of the model; all its views are read from that run, at every layer. One is none:
of a text's words the token embeddings are read, for which no block runs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from echovec.errors import InputError
from echovec.text.presets import ECHO_EOL, PROMPT_EOL, TEMPLATES, WORDS
from echovec.text.template import Template
from echovec.vector.view import View


@dataclass(frozen=True)
class Prompt:
    """A prompt and what is read from it."""

    name: str

    views: Mapping[str, View]
    """By what is read: "copy" (the last copy of the text), "word" (the end of the prompt); of a
    prompt whose copies differ each by its wording."""

    embeddings: bool = False
    """Whether token embeddings are read, layer 0, in place of what the blocks make of them."""

    def layers(self, num_layers: int) -> range:
        """The layers that are read of a model of so many blocks."""
        return range(1) if self.embeddings else range(1, num_layers + 1)

    def reading(self, read: Collection[str]) -> dict[str, View]:
        """These views, with no more of the prompt than any of them needs."""
        views = {name: self.views[name] for name in read}
        templates = [view.template for view in views.values()]
        last = 0
        for template in templates:
            if template.pooled == "end" or template.eos != "absent":
                return views
            last = max(last, template.pooled % template.num_copies)
        cut = [replace(view, template=view.template.up_to_copy(last)) for view in views.values()]
        return dict(zip(views, cut, strict=True))


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

_WORDED = (
    "Rewrite the following sentence: {text}\n"
    "The rewritten sentence: {text:bare}\n"
    "The rewritten sentence: {text:sorted}\n"
    "The rewritten sentence: {text:reversed}\n"
    'This sentence means in one word:"'
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
        Prompt("words", {"rare": View(WORDS, "sif", layer=0)}, embeddings=True),
        Prompt(
            "echo-worded-eol",
            {
                "bare": View(Template(_WORDED, pooled=1)),
                "sorted": View(Template(_WORDED, pooled=2)),
                "word": View(Template(_WORDED, pooled="end"), "lasttoken"),
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

DEFAULT_PROMPTS = tuple(PROMPTS)[:7]

NEEDED = ("echo-eol", "classical")
"""Prompts that are never left out: the recipes to beat are read from them."""


Step = tuple[str, tuple[tuple[str, float], ...]]
"""A row of `echovec.vector.calibrate.FITS` and its options."""


def step(name: str, **options: float) -> Step:
    """A step of a method."""
    return name, tuple(options.items())


@dataclass(frozen=True)
class Method:
    """Calibrations one after the other, perhaps after EmbedFilter."""

    steps: tuple[Step, ...] = ()
    """What is fitted, each on what the one before it gives; none: states as they are."""

    window: tuple[str, float] | None = None
    """EmbedFilter before it: "middle" or "top", and the part of the axes that is kept."""

    @property
    def shown(self) -> str:
        """In a few words, as tables have it."""
        words = []
        if self.window is not None:
            words.append(f"EmbedFilter ({self.window[0]} {self.window[1]:g})")
        for name, options in self.steps:
            inside = ", ".join(f"{key} {value:g}" for key, value in options)
            words.append(f"{name} ({inside})" if inside else name)
        return ", ".join(words) or "none"


_SCALE = step("center-scale")

NONE = Method()
USUAL = Method((_SCALE,))
"""What layers are compared with."""

_MOST_AXES = 5

FEWEST_TEXTS = _MOST_AXES + 1
"""So many texts have as many principal axes as are removed."""

METHODS: tuple[Method, ...] = (
    NONE,
    Method((step("center"),)),
    USUAL,
    *(Method((step("whiten", shrinkage=0.1, strength=s),)) for s in (0.25, 0.5, 0.75, 1.0)),
    Method((step("whiten", shrinkage=0.3, strength=0.75),)),
    Method((step("remove-top", count=1),)),
    Method((step("remove-top", count=_MOST_AXES),)),
)

KIND_AXES = 2
"""Along how many axes at most what kinds of text differ by is taken out."""

OF_KINDS: tuple[Method, ...] = (
    *(Method((_SCALE, step("remove-kinds", count=n))) for n in range(1, KIND_AXES + 1)),
    Method(
        (
            _SCALE,
            step("remove-kinds", count=KIND_AXES),
            step("whiten", shrinkage=0.1, strength=0.75),
        )
    ),
)
"""Where the texts to calibrate on are of more kinds than `KIND_AXES`."""

FILTERS: tuple[Method, ...] = tuple(
    Method((_SCALE,), window=window) for window in (("middle", 0.5), ("top", 0.5), ("top", 0.75))
)
"""For the last layer only: the filter is made for states that meet the unembedding."""

WHOLE: tuple[Method, ...] = (
    NONE,
    Method((step("center"),)),
    *(Method((step("whiten", shrinkage=0.1, strength=s),)) for s in (0.25, 0.5)),
    Method((step("remove-top", count=1),)),
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
    """At most so many runs of the model; None: any number. Token embeddings are none."""

    most_views: int = 6


TARGETS: tuple[Target, ...] = (
    Target("best", 2.25, "echo"),
    Target("one-pass", 2.25, "echo", passes=1),
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
