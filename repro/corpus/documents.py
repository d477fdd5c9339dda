"""What a document is, and how documents lie on disk: parquet shards by domain, ``documents/`` and
``heldout/``.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pyarrow as pa
import pyarrow.parquet as pq

from repro.plain import Json, Row
from repro.store import atomic, parquet

if TYPE_CHECKING:
    import polars


@dataclass(slots=True)
class Document:
    """One text. ``group`` names the repository, package or book it is part of; ``extra`` holds the fields
    passed through.
    """

    id: str
    domain: str
    group: str
    source: str
    license: str
    text: str
    extra: Json = field(default_factory=dict)


@dataclass(slots=True)
class Drop:
    """A document that cannot be used: the reason that is counted, and where it stood."""

    reason: str
    where: str
    domain: str = "?"
    fields: tuple[str, ...] = ()  # that a row has which lacks the one it was asked for


SCHEMA = pa.schema(
    [
        ("doc_id", pa.string()),
        ("domain", pa.string()),
        ("group", pa.string()),
        ("cluster", pa.int64()),
        ("source", pa.string()),
        ("license", pa.string()),
        ("n_bytes", pa.int64()),
        ("text", pa.string()),
        ("extra", pa.string()),
    ]
)
SPLITS = ("documents", "heldout")


def sampling_key(seed: int, ident: str) -> bytes:
    """Order in which documents are drawn: a hash of seed and id, so that no order of files matters."""
    return hashlib.blake2b(f"{seed}\x00{ident}".encode("utf-8", "surrogatepass"), digest_size=16).digest()


def id_of(text: str) -> str:
    """An id for a document that brings none: the same text has the same, wherever it stands."""
    return f"sha256:{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:24]}"


def row(document: Document, cluster: int) -> Row:
    """A document in the columns of :data:`SCHEMA`; ``n_bytes`` counts UTF-8 bytes of the text."""
    return {
        "doc_id": document.id,
        "domain": document.domain,
        "group": document.group,
        "cluster": cluster,
        "source": document.source,
        "license": document.license,
        "n_bytes": len(document.text.encode()),
        "text": document.text,
        # ASCII: it may hold half a surrogate pair
        "extra": json.dumps(document.extra, sort_keys=True, default=str),
    }


def write(path: Path, rows: list[Row]) -> None:
    """Write one parquet file atomically."""
    _write_table(path, pa.Table.from_pylist(rows, schema=SCHEMA))


def _write_table(path: Path, table: pa.Table) -> None:
    with atomic(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def write_shards(
    folder: Path, split: str, domain: str, batches: Iterable[pa.RecordBatch], per_shard: int, first: int = 0
) -> int:
    """Write ``<split>/<domain>-NNNNN.parquet`` of ``per_shard`` rows each (the last may have fewer), numbered
    from ``first``; returns the number behind the last one.
    """
    waiting, n = SCHEMA.empty_table(), first
    for batch in batches:
        waiting = pa.concat_tables([waiting, pa.Table.from_batches([batch]).cast(SCHEMA)])
        while len(waiting) >= per_shard:
            _write_table(folder / split / f"{file_name(domain)}-{n:05d}.parquet", waiting.slice(0, per_shard))
            waiting, n = waiting.slice(per_shard), n + 1
    if len(waiting):
        _write_table(folder / split / f"{file_name(domain)}-{n:05d}.parquet", waiting)
        n += 1
    return n


def file_name(domain: str) -> str:
    """A domain's name as part of a file name; names that had to change get a digest, so that no two become
    one. Files that begin with a dot or ``_`` are hidden ones to pyarrow, pandas and ``datasets``.
    """
    safe = re.sub(r"[^A-Za-z0-9_.-]", "_", domain)
    safe = f"domain{safe}" if safe.startswith((".", "_")) else safe
    return safe if safe == domain else f"{safe}-{hashlib.sha256(domain.encode()).hexdigest()[:8]}"


def shards(folder: Path, split: str = "documents") -> list[Path]:
    """The shards of a split, in order."""
    if split not in SPLITS:
        raise ValueError(f"split {split!r} is neither of {SPLITS}")
    return sorted((folder / split).glob("*.parquet"))


def read(folder: Path, split: str = "documents", columns: list[str] | None = None) -> polars.DataFrame:
    """All rows of a split as a polars frame, in the order of the shards; empty (with columns) if it has
    none.
    """
    import polars

    paths = shards(folder, split)
    if not paths:
        empty = cast(polars.DataFrame, polars.from_arrow(SCHEMA.empty_table()))
        return empty.select(columns) if columns else empty
    return parquet.read(paths, columns=columns)
