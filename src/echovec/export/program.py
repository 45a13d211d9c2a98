"""Program: a recipe bound to a tokenizer, taken apart until only ids, places and numbers are left.

    passes of each role:  pieces [ids | the text | the instruction], and what is read from them
    views of each pass:   a span of pieces, a pooling, layers, steps

It is what `echo_module.py` runs without this package, what the echo tokenizer is made from, and it
says which recipes other runtimes can hold at all.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from echovec.embedder import Embedder
from echovec.errors import RecipeError
from echovec.export.linear import Step, steps_of
from echovec.model.backbone import Backbone
from echovec.reader import layers_of
from echovec.recipe import ROLES, Recipe, Role
from echovec.text.render import Renderer
from echovec.text.template import Slot, Template
from echovec.text.wording import AS_GIVEN
from echovec.vector.combine import combined_dim
from echovec.vector.passes import passes_of
from echovec.vector.pooling import ATTENTION_POOLINGS
from echovec.vector.view import View

Kind = Literal["ids", "text", "instruction"]


@dataclass(frozen=True)
class Piece:
    """A run of fixed ids, or a slot."""

    kind: Kind
    ids: tuple[int, ...] = ()
    lead: str = ""
    """What is tokenised in front of the slot's text."""
    tail: str = ""
    """What is tokenised behind the slot's text."""
    default: str | None = None
    """The instruction where the caller gives none."""
    wording: str = AS_GIVEN
    """The form in which a text stands there."""


@dataclass(frozen=True, eq=False)
class ReadOff:
    """One view: which pieces are pooled, how, from which layers, and what follows."""

    place: int
    """Its place among the role's views."""
    span: tuple[int, int]
    """Half-open, in pieces."""
    pooling: str
    layers: tuple[int, ...]
    """0 the token embeddings, `num_layers` the last state after the final norm."""
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True, eq=False)
class PassProgram:
    """One prompt, and the views that are read from it."""

    pieces: tuple[Piece, ...]
    views: tuple[ReadOff, ...]

    @property
    def copies(self) -> int:
        """How often the text stands in the prompt."""
        return sum(piece.kind == "text" for piece in self.pieces)

    @property
    def fixed(self) -> int:
        """Tokens that are neither text nor instruction."""
        return sum(len(piece.ids) for piece in self.pieces)


@dataclass(frozen=True, eq=False)
class Program:
    """All that decides the vectors beside weights and tokenizer."""

    roles: dict[Role, tuple[PassProgram, ...]]
    combine: str
    max_tokens: int
    max_positions: int | None
    text_share: float
    num_layers: int
    dim: int
    """Numbers in each vector before `tail`."""
    special: dict[str, int] = field(default_factory=dict)
    """Spellings of special tokens, which no text may become, and their ids."""
    tail: tuple[Step, ...] = ()
    """What happens to the vector of all views, for all roles alike."""


def without_windows(embedder: Embedder) -> tuple[Embedder, tuple[str, ...]]:
    """The embedder whose vectors an export can hold, and what there is to say of it.

    Windows of a long text are several runs of the model, which no export makes of one text: where a
    recipe has them, what is exported is the same recipe with long texts cut.
    """
    recipe = embedder.definition
    if recipe.long_text == "cut":
        return embedder, ()
    note = (
        f"texts of more than {recipe.max_tokens:,} tokens are cut in this export; recipe "
        f"{recipe.name!r} itself has long_text={recipe.long_text!r}: split them before"
    )
    return embedder.with_recipe(replace(recipe, long_text="cut")), (note,)


def program_of(embedder: Embedder) -> Program:
    """Take an embedder's recipe apart, which cuts long texts (`without_windows`).

    Raises:
        RecipeError: a view asks for more than hidden states of the model as it is (another mask,
            attention, token prepending).
    """
    recipe, backbone = embedder.definition, embedder.backbone
    for view in (view for role in ROLES for view in recipe.views[role]):
        if reason := _beyond(view):
            raise RecipeError(
                f"recipe {recipe.name!r} {reason}, which no export holds; use Embedder.encode, "
                "or export another recipe"
            )
    alike = _same_ends(recipe)
    tokenizer = embedder.tokenizer
    roles = {
        role: tuple(
            PassProgram(
                pieces := _pieces(
                    Renderer(one.templates, tokenizer, max_positions=backbone.max_positions)
                ),
                tuple(
                    _read_off(recipe.views[role][place], place, pieces, backbone, steps=not alike)
                    for place in one.places
                ),
            )
            for one in passes_of(recipe.views[role])
        )
        for role in ROLES
    }
    views = recipe.views["symmetric"]
    bare = combined_dim(views, backbone.dim, recipe.combine, ()) if not alike else backbone.dim
    first = views[0]
    ends = (*first.transforms, *recipe.transforms) if alike else recipe.transforms
    tail = _weighted_ends(first, recipe, backbone.dim) if alike else steps_of(ends, bare)
    inner = getattr(tokenizer, "inner", None)
    spell = getattr(inner, "convert_ids_to_tokens", str)
    return Program(
        roles=roles,
        combine=recipe.combine,
        max_tokens=recipe.max_tokens,
        max_positions=backbone.max_positions,
        text_share=recipe.text_share,
        num_layers=backbone.num_layers,
        dim=bare,
        special={str(spell(i)): i for i in sorted(tokenizer.special_ids)},
        tail=tuple(tail),
    )


def _beyond(view: View) -> str | None:
    if view.mask != "causal":
        return f"has mask={view.mask!r}"
    if view.states != "hidden":
        return f"has states={view.states!r}"
    if view.prepend is not None:
        return f"prepends tokens (prepend={view.prepend})"
    if view.pooling in ATTENTION_POOLINGS:
        return f"pools by attention ({view.pooling!r})"
    return None


def _same_ends(recipe: Recipe) -> bool:
    """Whether all roles have one view with the same transforms: then they follow the module."""
    if any(len(recipe.views[role]) > 1 for role in ROLES):
        return False
    ends = [(recipe.views[role][0].transforms, recipe.views[role][0].weight) for role in ROLES]
    return ends.count(ends[0]) == len(ends)


def _weighted_ends(view: View, recipe: Recipe, dim: int) -> list[Step]:
    own = steps_of(view.transforms, dim, view.weight)
    width = combined_dim((view,), dim, recipe.combine, ())
    return [*own, *steps_of(recipe.transforms, width)]


def _read_off(
    view: View, place: int, pieces: tuple[Piece, ...], backbone: Backbone, *, steps: bool
) -> ReadOff:
    return ReadOff(
        place=place,
        span=_span(view.template, pieces),
        pooling=view.pooling,
        layers=layers_of(view, backbone.num_layers),
        steps=tuple(steps_of(view.transforms, backbone.dim, view.weight)) if steps else (),
    )


def _pieces(renderer: Renderer) -> tuple[Piece, ...]:
    template = renderer.template
    blank = not renderer.tokenizer.adds_blank
    pieces = [Piece("ids", (renderer.bos_id,))] if renderer.bos_id is not None else []
    for piece, ids in zip(template.pieces, renderer.fixed, strict=True):
        if not isinstance(piece, Slot):
            pieces.append(Piece("ids", tuple(ids)))
        elif piece.name == "placeholder":
            pieces.append(Piece("ids", (renderer.placeholder_id,)))
        elif piece.name == "text":
            lead = piece.lead if blank else ""
            pieces.append(Piece("text", lead=lead, wording=piece.wording))
        else:
            lead = piece.lead if blank else ""
            pieces.append(
                Piece("instruction", lead=lead, tail=piece.tail, default=template.instruction)
            )
    if renderer.eos_id is not None:
        pieces.append(Piece("ids", (renderer.eos_id,)))
    return tuple(pieces)


def _span(template: Template, pieces: tuple[Piece, ...]) -> tuple[int, int]:
    """What a template pools, in pieces."""
    copies = [place for place, piece in enumerate(pieces) if piece.kind == "text"]
    own = len(template.pieces)
    has_eos = template.eos != "absent"  # a tokenizer without EOS was refused by the renderer
    has_bos = len(pieces) - own - has_eos
    end = len(pieces) - has_eos
    if template.pooled == "end":
        start, stop = copies[-1] + 1, end
    else:
        start = copies[template.pooled]
        stop = start + 1
    if template.bos == "pooled" and has_bos:
        start = 0
    return start, len(pieces) if template.eos == "pooled" else stop
