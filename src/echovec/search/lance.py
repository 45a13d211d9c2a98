"""LanceDB: a graph of neighbours over unit vectors, with filters, full text and updates.

    vectors, rows --> table --HNSW, 8 bits a number--> candidates --refined with float32--> hits
    texts ----------> inverted index --BM25--> hits; both lists merged by rank: hybrid

What was measured to go wrong with it is avoided here: the metric is cosine and vectors are of unit
length; ten candidates a hit are compared again in float32; after a build the recall is measured,
and where it is below 0.95 the search looks further, in the end at every row (docs/search.md).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np

from echovec.errors import InputError
from echovec.files.parquet import Vectors, to_numpy
from echovec.files.vectors import Block
from echovec.search.backend import Ask, Built, Hit, Source, hit
from echovec.search.gather import padded
from echovec.search.lance_table import (
    TABLE,
    check_installed,
    connect,
    files_of,
    flush,
    open_table,
    writing,
)
from echovec.search.layout import Facts
from echovec.search.rows import rows_of

VECTOR, ROW = "echovec_vector", "echovec_row"
_ITS_OWN = frozenset({"_score", "_distance", "_rowid", "_rowaddr", "_rowoffset"}) | {
    "_row_created_at_version",
    "_row_last_updated_at_version",
}
"""Columns that LanceDB adds to its rows or to its answers."""

LOOKS = (200, 400, 800)
"""How far a search looks in the graph: candidates kept at a time. Tried in turn until the recall
suffices; after the last every row is compared."""

LEAST_ROWS = 5000
"""Below this the graph is not worth its while: every row is compared."""

_REFINED = 10
_RANK_CONSTANT = 60  # of reciprocal rank fusion, as its authors have it
_MERGED_AT_ONCE = 65_536
_PARTITION_ROWS = 1_000_000

_UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
"""Scripts whose words stand without blanks: texts of them are cut by ICU's dictionaries, and what
has blanks is cut beside them as ever."""


def check(options: dict[str, Any]) -> None:
    """See `Module`.

    Raises:
        InputError: options of the exact backend.
        DependencyError: lancedb is not installed.
    """
    if options["dtype"] != "float32" or options["codes"] or options["oversample"]:
        raise InputError("dtype, codes and oversample are for exact indexes; lance has its own")
    check_installed()


def build(folder: Path, token: str, source: Source, options: dict[str, Any]) -> Built:
    """See `Module`.

    Raises:
        InputError: a field has a name that LanceDB does not take.
    """
    for name in source.schema.names:
        if "." in name or name in (VECTOR, ROW) or name in _ITS_OWN:
            raise InputError(
                f'LanceDB takes no field of the name "{name}"; rename it before the rows are '
                "embedded, leave it out of --keep, or use --backend exact"
            )
    place = folder / f"lance-{token}"
    database = connect(place)
    with writing(place):
        batches = _batches(source, first=0)
        table = database.create_table(TABLE, batches, schema=_schema(source))
        looks: tuple[int | None, ...] = (None,)
        if source.num_rows >= LEAST_ROWS:
            _make_graph(table, source.num_rows)
            looks = (*LOOKS, None)
        if "text" in source.schema.names:
            _make_words(table)
    flush(place)
    tries = tuple({"look": look} for look in looks)
    return Built({"folder": place.name}, {}, exact=looks == (None,), tries=tries)


def _make_graph(table: Any, rows: int) -> None:
    from lancedb.index import HnswSq

    partitions = max(1, rows // _PARTITION_ROWS)
    config = HnswSq(distance_type="cosine", num_partitions=partitions)
    table.create_index(VECTOR, config=config)


def _make_words(table: Any) -> None:
    from lancedb.index import FTS

    # As they are written but for case and accents: stems and stop words are those of one language.
    config = FTS(stem=False, remove_stop_words=False)
    unspaced = table.search().where(f"regexp_like(text, '{_UNSPACED}')").select(["id"]).limit(1)
    if unspaced.to_arrow().num_rows:
        try:
            table.create_index("text", config=replace(config, base_tokenizer="icu/split"))
            return
        except (RuntimeError, ValueError, OSError) as error:
            warnings.warn(
                "this LanceDB cuts texts without blanks into no words, so a search by words finds "
                f"whole runs of them only ({str(error).splitlines()[0][:100]}); update lancedb and "
                "build the index again",
                stacklevel=2,
            )
    table.create_index("text", config=config)


def _schema(source: Source) -> Any:
    import pyarrow as pa

    vector = pa.list_(pa.float32(), source.dimension)
    fields = [*source.schema, pa.field(ROW, pa.int64()), pa.field(VECTOR, vector)]
    return pa.schema(fields)


def _batches(source: Source, first: int) -> Iterator[Any]:
    import pyarrow as pa

    schema = _schema(source)
    for block in source.blocks():
        stop = first + len(block.vectors_ND)
        flat = pa.array(np.ascontiguousarray(block.vectors_ND, dtype=np.float32).ravel())
        vectors = pa.FixedSizeListArray.from_arrays(flat, source.dimension)
        rows = pa.array(np.arange(first, stop, dtype=np.int64))
        columns = [*block.rows.combine_chunks().columns, rows, vectors]
        yield from pa.Table.from_arrays(columns, schema=schema).to_batches()
        first = stop


@dataclass(frozen=True)
class _Fitted:
    """A source with the fields of a table: those that it lacks are null."""

    source: Source
    schema: Any

    @property
    def num_rows(self) -> int:
        return self.source.num_rows

    @property
    def dimension(self) -> int:
        return self.source.dimension

    def blocks(self) -> Iterator[Block]:
        import pyarrow as pa

        for block in self.source.blocks():
            try:
                yield Block(padded(block.rows, self.schema), block.vectors_ND)
            except pa.ArrowException as error:
                raise InputError(
                    f"a field of these rows is of another kind than in the index ({error}); "
                    "correct it, or build the index again"
                ) from error


class Opened:
    """A LanceDB index, opened: a Backend."""

    updatable = True

    def __init__(self, folder: Path, facts: Facts) -> None:
        self._place = folder / facts.options["folder"]
        self._look: int | None = facts.options["look"]
        self._table = open_table(self._place)
        self._shown = [name for name in self._table.schema.names if name not in (VECTOR, ROW)]

    def __len__(self) -> int:
        return int(self._table.count_rows())

    def nearest(self, queries_QD: Vectors, ask: Ask) -> list[list[Hit]]:
        """See `Backend`.

        Raises:
            InputError: a filter that is no condition on this index's fields.
        """
        found = []
        for query_D, words in zip(queries_QD, ask.words or repeat(None), strict=False):
            depth = ask.k if words is None else max(5 * ask.k, 50)
            hits = self._near(query_D, depth, ask.filter)
            if words is not None:
                hits = _merged([hits, self._holding(words, depth, ask.filter)], ask.k)
            found.append(hits)
        return found

    def matching(self, ask: Ask) -> list[list[Hit]]:
        """See `Backend`."""
        return [self._holding(words, ask.k, ask.filter) for words in ask.words or ()]

    def blocks(self) -> Iterator[Block]:
        """See `Backend`."""
        import pyarrow as pa

        scan = self._table.search().select([*self._shown, VECTOR]).to_batches(4096)
        for batch in scan:
            rows = pa.Table.from_batches([batch.select(self._shown)])
            yield Block(rows, to_numpy(batch.column(VECTOR)))

    def upsert(self, source: Source) -> None:
        """Add rows; those whose id is there replace the old ones. Flushed when it returns.

        Raises:
            InputError: a field that the index does not have, or of another kind; or a row that
                cannot be used. Nothing is changed then.
            StorageError: the disk fails; what was added before stays, and again does no harm.
        """
        import pyarrow as pa

        source = self._fitted(source)
        for _ in source.blocks():
            pass  # every row is looked at before the first is written
        self._table.checkout_latest()
        before = files_of(self._place)
        first = int(self._table.count_rows()) + 1
        if (top := self._table.search().select([ROW]).to_arrow()).num_rows:
            first = int(np.max(top.column(ROW).to_numpy())) + 1
        with writing(self._place):
            for batches in _portions(_batches(source, first), _MERGED_AT_ONCE):
                table = pa.Table.from_batches(batches)
                merge = self._table.merge_insert("id").when_matched_update_all()
                merge.when_not_matched_insert_all().execute(table)
            self._table.optimize()
        flush(self._place, before)

    def delete(self, ids: Sequence[str]) -> int:
        """Delete rows by id; how many there were. Flushed when it returns."""
        if not ids:
            return 0
        self._table.checkout_latest()
        before, rows = files_of(self._place), len(self)
        quoted = ", ".join("'" + key.replace("'", "''") + "'" for key in ids)
        with writing(self._place):
            self._table.delete(f"id IN ({quoted})")
        flush(self._place, before)
        return rows - len(self)

    def _fitted(self, source: Source) -> Source:
        import pyarrow as pa

        fields = pa.schema([self._table.schema.field(name) for name in self._shown])
        if unknown := [name for name in source.schema.names if name not in self._shown]:
            raise InputError(
                f'the field "{unknown[0]}" is not in the index, which has '
                f"{', '.join(sorted(self._shown))}; leave it out, or build the index again"
            )
        return _Fitted(source, fields)

    def _near(self, query_D: Vectors, k: int, where: str | None) -> list[Hit]:
        rows = self._search(query_D, k, where, self._look)
        if self._look is not None and len(rows) < min(k, len(self)):
            rows = self._search(query_D, k, where, None)  # a filter may leave the graph too thin
        vectors_KD = to_numpy(rows.column(VECTOR)).astype(np.float64)
        scores = (vectors_KD * query_D.astype(np.float64)).sum(axis=1)
        order = np.lexsort((rows.column(ROW).to_numpy(), -scores))
        fields = rows_of(rows.select(self._shown))
        places = enumerate(order.tolist(), 1)
        return [hit(rank, float(scores[row]), fields[row]) for rank, row in places]

    def _search(self, query_D: Vectors, k: int, where: str | None, look: int | None) -> Any:
        search = self._table.search(query_D, vector_column_name=VECTOR).distance_type("cosine")
        search = search.bypass_vector_index() if look is None else search.ef(max(look, 2 * k))
        if look is not None:
            search = search.nprobes(64).refine_factor(_REFINED)
        search = search.select([*self._shown, ROW, VECTOR, "_distance"]).limit(k)
        return self._answer(search, where)

    def _holding(self, words: str, k: int, where: str | None) -> list[Hit]:
        if "text" not in self._shown:
            raise InputError("the rows have no texts to look for words in; embed without --no-text")
        from lancedb.query import MatchQuery

        search = self._table.search(MatchQuery(words, "text"), query_type="fts")
        rows = self._answer(search.select([*self._shown, ROW, "_score"]).limit(k), where)
        scores, order = rows.column("_score").to_numpy(), rows.column(ROW).to_numpy()
        fields = rows_of(rows.select(self._shown))
        best = enumerate(np.lexsort((order, -scores)).tolist(), 1)
        return [hit(rank, float(scores[row]), fields[row]) for rank, row in best]

    def _answer(self, search: Any, where: str | None) -> Any:
        if where is not None:
            search = search.where(where, prefilter=True)
        try:
            return search.to_arrow()
        except (RuntimeError, ValueError, OSError) as error:
            if where is None:
                raise
            # What follows lists all columns, of which two are ours.
            said = str(error).splitlines()[0].partition(" Valid fields are ")[0]
            raise InputError(
                f"the filter {where!r} cannot be answered ({said[:200]}); "
                f"fields are {', '.join(sorted(self._shown))} (echovec embed --keep takes more "
                "along), and texts stand in single quotes"
            ) from error


def _merged(lists: Iterable[list[Hit]], k: int) -> list[Hit]:
    """Reciprocal rank fusion: a hit's score is the sum of 1 / (60 + rank) over the lists."""
    scores: dict[str, float] = {}
    hits: dict[str, Hit] = {}
    for found in lists:
        for one in found:
            scores[one.id] = scores.get(one.id, 0.0) + 1 / (_RANK_CONSTANT + one.rank)
            hits.setdefault(one.id, one)
    best = sorted(hits, key=lambda key: (-scores[key], hits[key].rank, key))[:k]
    return [
        Hit(rank, scores[key], key, hits[key].text, hits[key].fields)
        for rank, key in enumerate(best, 1)
    ]


def _portions(batches: Iterable[Any], rows: int) -> Iterator[list[Any]]:
    portion: list[Any] = []
    for batch in batches:
        portion.append(batch)
        if sum(part.num_rows for part in portion) >= rows:
            yield portion
            portion = []
    if portion:
        yield portion
