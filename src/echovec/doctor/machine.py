"""Machine: devices, precision, threads, memory, settings."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from echovec.doctor.finding import Finding

_SETTINGS = (
    "ECHOVEC_CACHE",
    "ECHOVEC_CUDA_GRAPHS",
    "ECHOVEC_DATA",
    "ECHOVEC_MODEL_DIR",
    "ECHOVEC_OFFLINE",
    "HF_HUB_OFFLINE",
    "OMP_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES",
)


def machine() -> Iterator[Finding]:
    """What computes, in which precision, with how many threads, in how much memory."""
    import torch

    from echovec.model import kernels, loops
    from echovec.model.precision import multiplies_bfloat16, pick_device
    from echovec.model.quantized import why_not_int8

    device = pick_device(None)
    yield Finding("device", "ok", f"{device} ({_device_name(device)})")
    if device == "cpu" and shutil.which("nvidia-smi"):
        yield Finding(
            "graphics card",
            "note",
            f"there seems to be an NVIDIA card, but torch {torch.__version__} does not see it",
            "install a torch with CUDA, as pytorch.org says, or check the driver with nvidia-smi",
        )
    native = multiplies_bfloat16(device)
    yield Finding(
        "precision",
        "ok" if native else "note",
        "exact is float32; fast is bfloat16" if native else "no native bfloat16",
        "" if native else "precision='fast' computes in float32 here, with a warning",
    )
    if device == "cpu":
        compiled = loops.ready()
        yield Finding(
            "compiled loops",
            "ok" if compiled else "note",
            "numba compiles them" if compiled else "numba is not installed, or cannot compile here",
            "" if compiled else "pip install 'echovec[fast]' makes the packed engine faster",
        )
        reason = why_not_int8()
        yield Finding("8 bits", "ok", "dtype='int8' can be had" if reason is None else reason)
    if device.startswith("cuda"):
        yield kernels_work(kernels.ready(torch.device(device)))
    threads, cores = torch.get_num_threads(), _processors()
    yield Finding(
        "threads",
        "ok" if 1 < threads <= cores or threads == cores else "note",
        f"torch uses {threads} of {cores} processors",
        ""
        if 1 < threads <= cores or threads == cores
        else "OMP_NUM_THREADS and torch.set_num_threads decide; as many as there are is right",
    )
    yield Finding("memory", "ok", _memory())
    # Values of settings may be paths with names in them: said is only which are there.
    chosen = [name for name in _SETTINGS if os.environ.get(name)]
    yield Finding("settings", "ok", ", ".join(chosen) or "none of ours in the environment")


def _processors() -> int:
    """How many this process may use: a container or `taskset` may give fewer than there are."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


def kernels_work(ready: bool) -> Finding:
    """Whether a card runs the packed engine's own kernels."""
    return Finding(
        "kernels",
        "ok" if ready else "note",
        "Triton compiles them, and they do what torch's steps do"
        if ready
        else "Triton is not installed, or cannot compile here",
        "" if ready else "pip install triton, and a C compiler (apt install gcc): faster",
    )


def _device_name(device: str) -> str:
    import platform

    import torch

    if device.startswith("cuda"):
        return str(torch.cuda.get_device_name(device))
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return (
                    f"{line.partition(':')[2].strip()}, {torch.backends.cpu.get_cpu_capability()}"
                )
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory() -> str:
    try:
        pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return "unknown"
    return f"{pages * size / 1e9:.0f} GB"
