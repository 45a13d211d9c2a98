"""A device without float64, as Apple's GPUs are, played on the CPU.

What is on the host is marked: what `.cpu()` gives, and what is made of such tensors alone or of
float64, which can be nowhere else. The rest is taken to be on the device, where float64 is refused.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only


class Host(Tensor):
    """A tensor that is known to be on the host."""


class NoFloat64(TorchFunctionMode):
    """Within it, float64 on the device raises TypeError, as MPS does."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        out = func(*args, **kwargs)
        if func is Tensor.to and _moves(args, kwargs):
            host = False
        else:
            host = func is Tensor.cpu or (bool(given) and all(_on_host(x) for x in given))
        for made in tree_leaves(out):
            if isinstance(made, Tensor) and made.dtype == torch.float64 and not host:
                raise TypeError(f"{func.__name__}: float64 on a device that has none")
        kind = Host if host else Tensor
        return tree_map_only(Tensor, lambda x: x.as_subclass(kind), out)


def _on_host(tensor: Tensor) -> bool:
    return isinstance(tensor, Host) or tensor.dtype == torch.float64


def _moves(args: Any, kwargs: Any) -> bool:
    named = [*args[1:], *kwargs.values()]
    return any(isinstance(x, str | torch.device) for x in named) or any(
        isinstance(x, Tensor) for x in named
    )
