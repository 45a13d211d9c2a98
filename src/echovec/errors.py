"""Every error that echovec raises on purpose, and the exit code the command line gives it.

    EchovecError                    1   something went wrong that is no fault of the input
    |-- InputError (ValueError)     2   a text, file, row or option is bad; says which
    |   |-- TemplateError           2   a template cannot be parsed or lacks what it needs
    |   `-- RecipeError             2   a recipe is unknown, broken, or names another model
    |-- NotAvailableError           3   a model or an extra is not here
    |   |-- ModelError              3   the model cannot be found, fetched, verified or read
    |   `-- DependencyError         3   an extra is not installed; names the command
    |-- StorageError (OSError)      4   the disk is full, read-only or broken
    |-- TrainingError               1   a training run cannot go on; says where its state is
    |-- ExportError                 1   an export differs from the embedder, and was removed
    `-- NonFiniteError              1   NaN or infinity, in float32 too; names the row

A message says what is wrong, the value received, and the next step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class EchovecError(Exception):
    """The root of the tree: catch this to catch everything echovec raises on purpose."""

    exit_code = 1


class InputError(EchovecError, ValueError):
    """A text, file, row or option that cannot be used.

    `index` is the place of the text in the list that was given, where there is one.
    """

    exit_code = 2

    def __init__(self, message: str, *, index: int | None = None) -> None:
        super().__init__(message)
        self.index = index


class TemplateError(InputError):
    """A template that cannot be parsed, or that lacks a slot it needs."""


class RecipeError(InputError):
    """A recipe that is unknown, broken, or made for another model."""


class NotAvailableError(EchovecError):
    """Something that has to be installed or fetched first."""

    exit_code = 3


class ModelError(NotAvailableError):
    """A model that cannot be found, fetched, verified or read."""


class DependencyError(NotAvailableError, ImportError):
    """An optional dependency that is not installed."""


class StorageError(EchovecError, OSError):
    """A disk that is full, read-only or broken."""

    exit_code = 4


class TrainingError(EchovecError):
    """A training run cannot go on: its loss is no number, its views are alike, its files differ."""


class ExportError(EchovecError):
    """An export whose vectors are not the embedder's; it was removed.

    `parity` is the comparison (`echovec.export.parity.Parity`).
    """

    def __init__(self, message: str, *, parity: Any = None) -> None:
        super().__init__(message)
        self.parity = parity


class NonFiniteError(EchovecError):
    """NaN or infinity in a vector, in float32 too; `row` is the text's place in the list."""

    def __init__(self, message: str, *, row: int) -> None:
        super().__init__(message)
        self.row = row

    def __reduce__(self) -> tuple[Any, ...]:  # between processes
        return _non_finite, (str(self), self.row)


def _non_finite(message: str, row: int) -> NonFiniteError:
    return NonFiniteError(message, row=row)


class TruncationWarning(UserWarning):
    """Texts were cut to the token budget; the message says how many."""

    @classmethod
    def of(
        cls,
        cut: Sequence[bool],
        max_tokens: int,
        max_positions: int | None,
        step: str = "raise max_tokens, or take them whole with long_text='windows'",
    ) -> TruncationWarning:
        """The warning for texts of which some were cut; `step` is what one can do about it."""
        limit = f", or to the model's limit of {max_positions} for the prompt"
        return cls(
            f"{sum(cut):,} of {len(cut):,} texts were cut to the budget of {max_tokens} tokens per "
            f"copy{'' if max_positions is None else limit}; {step}"
        )


class PrecisionWarning(UserWarning):
    """A vector was recomputed in float32, or the precision asked for is not to be had here."""
