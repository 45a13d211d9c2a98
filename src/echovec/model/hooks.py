"""Hooks on a Hugging Face model for one call: attention outputs, token weights, token prepending.

Nothing stays behind: each is a context manager. The blocks are the one list of modules that is as
long as the model is deep, the attention is found by name in each; that holds for every family of
tests/families.py, and another is a ModelError.
Shapes: S sequences, L padded length, H heads, P rows asked for, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from echovec.errors import ModelError

_ATTENTION_NAMES = ("self_attn", "attn", "attention", "self_attention")


def blocks_of(model: nn.Module, num_layers: int) -> nn.ModuleList:
    """The model's blocks, in order.

    Raises:
        ModelError: there is no list of `num_layers` modules, or more than one.
    """
    lists = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == num_layers]
    outer = [one for one in lists if any(hasattr(one[0], name) for name in _ATTENTION_NAMES)]
    if len(outer) != 1:
        raise ModelError(
            f"{type(model).__name__} has {len(outer)} lists of {num_layers} blocks with an "
            f"attention called {', '.join(_ATTENTION_NAMES)}; this family's parts are not known"
        )
    return outer[0]


def attention_of(block: nn.Module) -> nn.Module:
    """A block's attention, output projection included."""
    module: nn.Module = next(getattr(block, n) for n in _ATTENTION_NAMES if hasattr(block, n))
    return module


@contextmanager
def attention_outputs(blocks: nn.ModuleList, wanted: Sequence[int]) -> Iterator[dict[int, Tensor]]:
    """Collect what the attention of blocks (counted from 1) puts out, [S, L, D] by block."""
    found: dict[int, Tensor] = {}

    def keep(number: int) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            found[number] = output[0] if isinstance(output, tuple) else output

        return hook

    modules = {number: attention_of(blocks[number - 1]) for number in wanted}
    handles = [m.register_forward_hook(keep(number)) for number, m in modules.items()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def attention_rows(
    model: Any, blocks: nn.ModuleList, row_S: Tensor, column_S: Tensor, fold: Any
) -> Iterator[None]:
    """Show `fold` the attention of one query of each sequence, [S, H, L], block after block.

    Attention maps exist in the eager implementation only: the model runs in it for this call.
    """

    def hook(module: nn.Module, args: Any, output: Any) -> None:
        weights = output[1] if isinstance(output, tuple) and len(output) > 1 else None
        if weights is None:
            raise ModelError(
                f"{type(module).__name__} gives no attention map; poolings that look at attention "
                "cannot be used with this model"
            )
        fold(weights[row_S, :, column_S])

    before = model.config._attn_implementation
    handles = [attention_of(block).register_forward_hook(hook) for block in blocks]
    try:
        model.set_attn_implementation("eager")
        yield
    finally:
        model.set_attn_implementation(before)
        for handle in handles:
            handle.remove()


@contextmanager
def prepended(
    blocks: nn.ModuleList, first: int, last: int, rows_S: Tensor, from_S: Tensor, to_S: Tensor
) -> Iterator[None]:
    """Before blocks `first` to `last`, copy the state of columns `from_S` to columns `to_S`."""

    def hook(module: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
        given = args[0] if args else kwargs["hidden_states"]
        h_SLD = given.clone()
        h_SLD[rows_S, to_S] = given[rows_S, from_S]
        if args:
            return (h_SLD, *args[1:]), kwargs
        return args, kwargs | {"hidden_states": h_SLD}

    chosen = blocks[first - 1 : last]
    handles = [block.register_forward_pre_hook(hook, with_kwargs=True) for block in chosen]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
