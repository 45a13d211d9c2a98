"""Precision: where a model computes, and in what."""

from __future__ import annotations

import warnings
from typing import Literal

import torch

from echovec.errors import InputError, PrecisionWarning
from echovec.model.quantized import why_not_int8

Precision = Literal["exact", "fast", "int8"]
PRECISIONS = ("exact", "fast", "int8")
DTYPES = ("float32", "bfloat16", "float16", "float64", "int8")


def pick_device(device: str | None) -> str:
    """The device asked for, else cuda, else mps, else cpu; InputError if it is not there."""
    if device is None:
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    kind = str(device).split(":")[0]
    if kind == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device={device!r}: this torch sees no CUDA device; use device='cpu'")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise InputError(f"device={device!r}: this torch sees no MPS device; use device='cpu'")
    try:
        found = torch.device(device)
    except RuntimeError:
        raise InputError(f"device={device!r} is no device; use cpu, cuda, cuda:1 or mps") from None
    if kind == "cuda" and (found.index or 0) >= (count := torch.cuda.device_count()):
        raise InputError(f"device={device!r}: this torch sees cuda:0 to cuda:{count - 1} only")
    return "cpu" if kind == "cpu" else str(found)  # of CPUs there is one, by whatever number


def multiplies_bfloat16(device: str) -> bool:
    """Whether the device has bfloat16 matrix instructions, so that it is faster there."""
    if device.startswith("cuda"):
        return bool(torch.cuda.get_device_capability(device)[0] >= 8)
    if device == "cpu":
        able = torch.cpu.get_capabilities()
        return bool(able.get("avx512_bf16") or able.get("amx_bf16") or able.get("bf16"))
    return device == "mps"


def pick_dtype(dtype: str | torch.dtype | None, precision: Precision | None, device: str) -> str:
    """The dtype to compute in, by name; InputError if the two options disagree or are unknown."""
    if precision not in (None, *PRECISIONS):
        raise InputError(f"precision={precision!r}; there are {', '.join(PRECISIONS)}")
    if dtype is not None:
        if precision is not None:
            raise InputError(
                f"dtype={dtype!r} and precision={precision!r} say the same thing twice; give one"
            )
        name = str(dtype).removeprefix("torch.")
        if name not in DTYPES:
            raise InputError(f"dtype={name!r}; there are {', '.join(DTYPES)}")
        if name == "int8" and (reason := _why_not_int8(device)):
            raise InputError(f"dtype='int8' cannot be had here: {reason}; or use precision='fast'")
        return name
    return _dtype_for(precision, device)


def _dtype_for(precision: Precision | None, device: str) -> str:
    """The dtype that a precision means here."""
    if precision == "int8":
        if (reason := _why_not_int8(device)) is None:
            return "int8"
        warnings.warn(
            f"{reason}, so 'int8' cannot be had: computing as with 'fast'",
            PrecisionWarning,
            stacklevel=4,
        )
    if precision == "exact" or (precision is None and device == "cpu"):
        return "float32"
    if multiplies_bfloat16(device):
        return "bfloat16"
    if precision in ("fast", "int8"):
        warnings.warn(
            f"{device} has no native bfloat16, so 'fast' would be slower: computing in float32",
            PrecisionWarning,
            stacklevel=4,
        )
    return "float32"


def _why_not_int8(device: str) -> str | None:
    return why_not_int8() if device == "cpu" else f"{device} is no CPU"
