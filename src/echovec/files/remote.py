"""Files at a URL (s3://, gs://, https://, memory://, ...): the door to fsspec.

What a protocol needs beside fsspec (s3fs for s3://) is the user's to install, and so are keys and
settings: they come from the places where these packages look for them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from echovec.errors import DependencyError, EchovecError, InputError

_URL = re.compile(r"[a-z][a-z0-9+.-]+(::|://)", re.IGNORECASE)


def is_url(name: object) -> bool:
    """Whether `name` begins with a protocol ("s3://"); "C:/" is none."""
    return isinstance(name, str) and _URL.match(name) is not None


def filesystem(url: str) -> tuple[Any, str]:
    """The fsspec file system of `url`, and the path in it.

    Raises:
        InputError: no such protocol, or the URL cannot be understood.
        DependencyError: the protocol's package is not installed.
    """
    import fsspec

    try:
        fs, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise DependencyError(f"{url} cannot be opened: {error}") from None
    except ValueError as error:
        raise InputError(f"{url} cannot be opened: {error}; check the URL") from None
    return fs, str(path)


@contextmanager
def remote_errors(kind: type[EchovecError], what: str, step: str) -> Iterator[None]:
    """Whatever a file system raises becomes `kind`: "WHAT: reason; STEP"."""
    try:
        yield
    except EchovecError:
        raise
    except Exception as error:  # each package has errors of its own
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise kind(f"{what}: {reason}; {step}") from error
