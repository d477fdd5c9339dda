"""One shard of documents -> one deterministic parquet file. The unit of work, here and on a cluster."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from repro import parquet
from repro.influence import statistics
from repro.influence.scorer import Scorer
from repro.plain import Row
from repro.store import atomic, sha256_file

if TYPE_CHECKING:
    from repro.pretrained import Encoder

NOT_DRAWN = "not in the sample"  # the reason of documents that score.sample left out

SCHEMA = pa.schema(
    [
        ("doc_id", pa.string()),
        ("domain", pa.string()),
        ("group", pa.string()),
        ("n_tokens_doc", pa.int64()),  # the whole document, in proxy tokens
        ("n_bytes", pa.int64()),
        ("n_tokens", pa.int64()),  # fed to the model: one more than are predicted, in each window
        ("loss_base", pa.float64()),
        ("loss_ref", pa.float64()),
        ("loss_difference", pa.float64()),
        ("score", pa.float64()),
        ("score_error", pa.float64()),
        ("compressibility", pa.float64()),
        ("repetition", pa.float64()),
        ("reason", pa.string()),  # why there is no score
    ]
)


def score_shard(
    scorer: Scorer, source: Path, advance: Callable[[int], None] | None = None, sample: float = 1.0
) -> pa.Table:
    """The scores of the documents of ``source``: same rows, same order. Of a ``sample`` below 1 only that
    share of them is scored.

    The sha256 of the shard stands in the metadata of the result, so that a changed shard is noticed.
    """
    shard_sha256 = sha256_file(source)
    documents, texts = _documents(source)
    encoded = scorer.proxy.encode(texts)
    drawn = [in_sample(row["doc_id"], sample) for row in documents]
    losses = iter(scorer.losses([ids for ids, here in zip(encoded, drawn, strict=True) if here], advance))
    rows = []
    for row, text, ids, here in zip(documents, texts, encoded, drawn, strict=True):
        found = next(losses) if here else []
        scored = statistics.score(found) | ({} if here else {"reason": NOT_DRAWN})
        rows.append(
            row | _measured(text, ids) | {"n_tokens": sum(len(base) + 1 for base, _ in found)} | scored
        )
    return _table(rows, shard_sha256)


def in_sample(doc_id: str, share: float) -> bool:
    """Whether a document belongs to a sample of ``share`` of all: by a hash of its id, so that every machine
    draws alike and a larger sample holds the smaller one.
    """
    digest = hashlib.blake2b(doc_id.encode("utf-8", "surrogatepass"), digest_size=8, person=b"score.sample")
    return int.from_bytes(digest.digest()) < share * 2**64


def measure_shard(encoder: Encoder, source: Path, target: Path) -> tuple[int, int]:
    """What is known without losses of the documents of ``source`` into ``target``; returns (documents,
    tokens).
    """
    shard_sha256 = sha256_file(source)
    documents, texts = _documents(source)
    rows = [
        row | _measured(*pair)
        for row, pair in zip(documents, zip(texts, encoder(texts), strict=True), strict=True)
    ]
    with atomic(target) as temporary:
        write(_table(rows, shard_sha256), temporary)
    return len(rows), sum(row["n_tokens_doc"] for row in rows)


def _documents(source: Path) -> tuple[list[Row], list[str]]:
    documents = parquet.read(source, columns=["doc_id", "domain", "group", "n_bytes", "text"])
    return documents.drop("text").to_dicts(), documents["text"].to_list()


def _measured(text: str, ids: list[int]) -> Row:
    measures = {"compressibility": statistics.compressibility(text), "repetition": statistics.repetition(ids)}
    return {"n_tokens_doc": len(ids)} | measures


def _table(rows: list[Row], shard_sha256: str) -> pa.Table:
    schema = SCHEMA.with_metadata({"shard_sha256": shard_sha256, "rows": str(len(rows))})
    return pa.Table.from_pylist(rows, schema=schema)


def write(table: pa.Table, path: Path) -> None:
    """A table as a file, the same bytes whoever writes it."""
    pq.write_table(table, path, compression="zstd")


def finished(target: Path, shard_sha256: str) -> bool:
    """Whether ``target`` holds the whole result of the shard with this digest.

    Raises ``ValueError`` if it was made from a shard with other content, and on a file that cannot be read.
    """
    if not target.is_file():
        return False
    metadata = parquet.metadata(target)
    stored = metadata.metadata or {}
    if stored.get(b"shard_sha256", b"").decode() != shard_sha256 or stored.get(b"rows", b"").decode() != str(
        metadata.num_rows
    ):
        raise ValueError(f"{target.name} was made from another content of its shard")
    return True
