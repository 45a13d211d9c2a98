"""Index: vectors that answer questions. Built from what `echovec embed` wrote, kept in a folder.

    VECTORS --gather--> blocks --backend.build--> INDEX/
    query --embed as the rows were--> vector --backend.nearest--> [Hit, Hit, ...]

An index knows the fingerprint of its vectors and refuses vectors and queries of another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack, get_args, overload

import numpy as np

from echovec.errors import InputError
from echovec.files.parquet import Vectors
from echovec.files.vectors import Block
from echovec.search import backend as backends
from echovec.search import reduce as reducing
from echovec.search.backend import Ask, Hit
from echovec.search.build import Source, build_index, remove_rows, update_index
from echovec.search.layout import Facts, read_facts
from echovec.search.points import Points, points_of
from echovec.search.query import as_vectors, embed, load_embedder

if TYPE_CHECKING:
    from echovec.embedder import Embedder
    from echovec.recipe import Role


By = Literal["meaning", "words", "both"]


class Asking(TypedDict, total=False):
    """What `search` takes beside query and k; its docstring explains each."""

    by: By
    filter: str | None
    role: Role | None
    instruction: str | None


class Index:
    """An opened index; see `build` and `open`.

    Args:
        folder: where it is.
        facts: what its index.json says.
        embedder: for queries in words; loaded by the index's recipe when first needed.
    """

    def __init__(self, folder: Path, facts: Facts, embedder: Embedder | None = None) -> None:
        self.folder, self.facts = folder, facts
        self._backend = backends.backend(facts.backend).Opened(folder, facts)
        self._short = reducing.load(folder, facts.options["dim"], facts.files)
        self._embedder = embedder

    # -- where indexes come from --------------------------------------------------------------

    @classmethod
    def build(
        cls,
        vectors: Source | Sequence[Source],
        out: str | Path,
        *,
        backend: str | None = None,
        dtype: str = "float32",
        dim: int | None = None,
        reduce: str = "first",
        codes: str | None = None,
        oversample: int | None = None,
        overwrite: bool = False,
        embedder: Embedder | None = None,
    ) -> Index:
        """Make an index of files of vectors; it is whole in `out`, or what was there before.

        Args:
            vectors: one or several outputs of `echovec embed`: .parquet, .npy or .jsonl files or
                folders of shards; or `VectorFile`s. All made with one recipe.
            out: a folder, made if need be.
            backend: "exact", "lance" (filters, full text, updates; needs the extra search), or
                None: exact up to 100,000 rows, above them lance where it is installed.
            dtype: how vectors are stored: "float32", "float16" (half the bytes) or "int8".
            dim: keep so many numbers of each vector, chosen by `reduce`.
            reduce: "first" (the first numbers) or "pca" (the directions that hold most).
            codes: "int8" or "binary": short stand-ins are searched, and the vectors decide among
                the candidates that these give.
            oversample: candidates for each hit; by default the code's own.
            overwrite: replace an index that is there.
            embedder: for queries; as for `open`.

        Where the answers may differ from those of exact float32 search, `facts.recall` says how
        many of the ten nearest of 100 rows are found.

        Raises:
            InputError: files of different recipes (both shown), an id twice, no rows, an unknown
                option; or `out` holds something.
            NonFiniteError: a vector is not finite; names the row.
            StorageError: a file is damaged, the disk is full, or another build is at work there.
        """
        facts = build_index(
            vectors,
            Path(out),
            name=backend,
            dim=dim,
            reduce=reduce,
            options={"dtype": dtype, "codes": codes, "oversample": oversample},
            overwrite=overwrite,
        )
        return cls(Path(out), facts, embedder)

    @classmethod
    def open(
        cls, folder: str | Path, *, embedder: Embedder | None = None, verify: bool = False
    ) -> Index:
        """Open an index; nothing but its index.json is read before it is asked.

        Args:
            folder: what `build` or `echovec index` made.
            embedder: what embeds queries; by default the index's recipe and model are loaded when
                a query in words first comes.
            verify: check every file by its sha256, not only by its size.

        Raises:
            InputError: it is no index, or `embedder` has another fingerprint (both shown).
            StorageError: it is damaged; says which file.
        """
        return cls(Path(folder), read_facts(Path(folder), by_hash=verify), embedder)

    # -- what it is ---------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._backend)

    def __repr__(self) -> str:
        shown = f"{len(self):,} x {self.dimension}, {self.facts.backend}"
        return f"<Index {str(self.folder)!r}, {shown}, fingerprint {self.fingerprint}>"

    @property
    def dimension(self) -> int:
        """Numbers in a query's vector."""
        return self.facts.dimension

    @property
    def fingerprint(self) -> str:
        """Of the recipe that made the vectors."""
        return self.facts.made.fingerprint

    @property
    def embedder(self) -> Embedder:
        """What embeds queries; loaded when first asked for.

        Raises:
            ModelError: the model cannot be found, fetched or read.
            RecipeError: another model than the index was made with.
        """
        if self._embedder is None:
            self._embedder = load_embedder(self.folder, self.facts.made)
        return self._embedder

    # -- the public verbs ---------------------------------------------------------------------

    @overload
    def search(self, query: str, k: int = ..., **options: Unpack[Asking]) -> list[Hit]: ...
    @overload
    def search(self, query: Any, k: int = ..., **options: Unpack[Asking]) -> Any: ...
    def search(
        self,
        query: str | Sequence[str] | Vectors,
        k: int = 10,
        *,
        by: By = "meaning",
        filter: str | None = None,
        role: Role | None = None,
        instruction: str | None = None,
    ) -> Any:
        """The k best rows.

        Args:
            query: a text, a list of texts, a vector [d], or vectors [q, d]. Vectors are as the
                embedder of `fingerprint` gives them, and are scaled to unit length.
            k: how many; fewer if the index, or what a filter leaves of it, has fewer.
            by: "meaning" (nearness of vectors); of a lance index also "words" (full text, BM25; no
                model is needed) or "both" (the two lists merged by rank).
            filter: a condition on fields as in SQL's WHERE; lance indexes only.
            role: how to embed texts; by default "query" where the rows are "document", else as
                the rows were.
            instruction: for recipes that take one.

        Returns:
            `list[Hit]`, best first, equal scores in the order of rows; for several queries a list
            of such lists.

        Raises:
            InputError: a query of another recipe or width (both shown), a bad `k`, or something
                that this index cannot answer.
        """
        if k < 1:
            raise InputError(f"k={k}; ask for at least 1")
        if by not in get_args(By):
            raise InputError(f"by={by!r}; there are {', '.join(get_args(By))}")
        if not isinstance(query, str) and not len(query):
            return []
        texts = _texts(query)
        single = isinstance(query, str) or (texts is None and np.ndim(query) == 1)
        if texts is None and by != "meaning":
            raise InputError(f"by={by!r} needs words, not vectors")
        ask = Ask(k, filter, None if by == "meaning" else texts)
        if by == "words":
            hits = self._backend.matching(ask)
        else:
            if texts is not None:
                query = embed(self.embedder, texts, self.facts.made, role, instruction)
            vectors_QD = as_vectors(query, self.dimension)
            vectors_QD = self._short(vectors_QD) if self._short else vectors_QD
            hits = self._backend.nearest(vectors_QD, ask)
        return hits[0] if single else hits

    def update(self, vectors: Source | Sequence[Source]) -> None:
        """Add rows to a lance index; those whose id is there replace the old ones.

        A field that the new rows lack is null in them. Everything is on the disk when it returns.
        Stopped in the middle, some rows may be there; the same call again does no harm.

        Raises:
            InputError: vectors made otherwise than the index's (both shown), a field that it does
                not have, or an exact index.
            NonFiniteError: a vector is not finite; names the row. Nothing is changed then.
            StorageError: the disk fails, another process writes to the index, or it was built
                again since it was opened.
        """
        self.facts = update_index(vectors, self.folder, self.facts, self._backend)

    def remove(self, ids: str | Sequence[str]) -> int:
        """Delete rows of a lance index by id, or by a list of ids; returns how many there were.

        Raises:
            InputError: an exact index.
            StorageError: the disk fails, another process writes to the index, or it was built
                again since it was opened.
        """
        ids = [ids] if isinstance(ids, str) else list(ids)
        self.facts, removed = remove_rows(ids, self.folder, self.facts, self._backend)
        return removed

    def points(self, limit: int | None = None) -> Points:
        """Every row as a point of the plane that shows most: the first two principal axes.

        Args:
            limit: at most so many rows, evenly spread over the index; by default all.

        Returns:
            `Points`: ids, texts and fields in order, and `xy_N2`.

        Raises:
            InputError: a limit below 1, or no rows.
        """
        return points_of(self.blocks(), len(self), limit)

    def blocks(self) -> Iterator[Block]:
        """All rows with their unit vectors, a few thousand at a time."""
        return self._backend.blocks()


def _texts(query: str | Sequence[str] | Vectors) -> list[str] | None:
    """The query's texts; None if it is made of numbers."""
    if isinstance(query, str):
        return [query]
    if not isinstance(query[0], str):
        return None
    for place, text in enumerate(query):
        if not isinstance(text, str):
            raise InputError(f"query {place} is {text!r}, and the first is a text", index=place)
    return [str(text) for text in query]
