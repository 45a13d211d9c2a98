"""Hub: one look for a model by name, so that what is wrong is said once and at once.

transformers asks for a model several times, and the hub's client has rounds of retries for each:
without a network that is most of a minute of the same line. One question first tells at once.
"""

from __future__ import annotations

from pathlib import Path

from echovec.errors import ModelError
from echovec.model.fetch import is_offline


def commit_of(source: Path | str, revision: str | None = None) -> str | None:
    """The commit of a hub name that was just read at a revision, by the hub's cache; else None."""
    if isinstance(source, Path):
        return None
    found = _cached_config(source, revision)
    return Path(found).parent.name if found else revision


def look_for(name: Path | str, revision: str | None = None) -> None:
    """Ask the hub once whether it has a model that is not in its cache; a folder needs no look.

    A slow answer, or a hub in trouble, is left to the hub's client and its patience.

    Raises:
        ModelError: the hub cannot be reached, has no such model or revision, or does not show it.
    """
    if isinstance(name, Path) or is_offline() or _cached_config(name, revision):
        return
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        get_hf_file_metadata(hf_hub_url(name, "config.json", revision=revision))
    except GatedRepoError as error:
        raise ModelError(
            f"the model {name!r} is gated: accept its terms on its page at the hub, then give this "
            "machine your token: `hf auth login`, or HF_TOKEN"
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"there is no model {name!r} at the hub that you may read; check the name (an existing "
            "folder or .gguf file is taken as well), or `hf auth login` if it is private"
        ) from error
    except RevisionNotFoundError as error:
        raise ModelError(
            f"the model {name!r} has no revision {revision!r}: give a branch, tag or commit of it"
        ) from error
    except HfHubHTTPError:
        return
    except Exception as error:  # the hub's client changed its library of HTTP: known by name only
        if _NO_WAY.isdisjoint(kind.__name__ for kind in type(error).__mro__):
            return
        said = str(error) or type(error).__name__
        raise ModelError(
            f"cannot fetch the model {name!r}: the hub cannot be reached ({said}), and the model "
            "is not in its cache; check the connection, or give a local folder or .gguf file"
        ) from error


_NO_WAY = frozenset({"ConnectError", "ConnectTimeout", "ProxyError"})
"""No connection was made; one that is slow or breaks has another name."""


def _cached_config(name: str, revision: str | None) -> str | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, "config.json", revision=revision)
    return found if isinstance(found, str) else None
