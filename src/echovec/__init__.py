"""echovec: any language model, as the best text embedder it can be.

The public names, loaded lazily: importing this package loads no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from echovec.version import __version__

if TYPE_CHECKING:
    from echovec.embedder import Embedder
    from echovec.errors import (
        DependencyError,
        EchovecError,
        InputError,
        ModelError,
        NonFiniteError,
        NotAvailableError,
        PrecisionWarning,
        RecipeError,
        StorageError,
        TemplateError,
        TruncationWarning,
    )
    from echovec.recipe import Recipe
    from echovec.search.index import Index
    from echovec.text.template import Template
    from echovec.vector.view import View

_HOME = {
    "DependencyError": "echovec.errors",
    "EchovecError": "echovec.errors",
    "Embedder": "echovec.embedder",
    "Index": "echovec.search.index",
    "InputError": "echovec.errors",
    "ModelError": "echovec.errors",
    "NonFiniteError": "echovec.errors",
    "NotAvailableError": "echovec.errors",
    "PrecisionWarning": "echovec.errors",
    "Recipe": "echovec.recipe",
    "RecipeError": "echovec.errors",
    "StorageError": "echovec.errors",
    "Template": "echovec.text.template",
    "TemplateError": "echovec.errors",
    "TruncationWarning": "echovec.errors",
    "View": "echovec.vector.view",
}

__all__ = [
    "DependencyError",
    "EchovecError",
    "Embedder",
    "Index",
    "InputError",
    "ModelError",
    "NonFiniteError",
    "NotAvailableError",
    "PrecisionWarning",
    "Recipe",
    "RecipeError",
    "StorageError",
    "Template",
    "TemplateError",
    "TruncationWarning",
    "View",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'echovec' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
