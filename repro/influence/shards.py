"""One shard of documents -> one deterministic parquet file. The unit of work, here and on a cluster."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from repro.influence import statistics
from repro.plain import Row
from repro.store import atomic, parquet, sha256_file

if TYPE_CHECKING:  # who only reads and tokenises needs no model
    from repro.influence.scorer import Losses, Scorer
    from repro.pretrained import Encoder

NOT_DRAWN = "not in the sample"  # the reason of documents that score.sample left out

SCHEMA = pa.schema(
    [
        ("doc_id", pa.string()),
        ("domain", pa.string()),
        ("group", pa.string()),
        ("n_tokens_doc", pa.int64()),  # the whole document, in proxy tokens
        ("n_bytes", pa.int64()),
        # fed to the model, a prefix of several as one: one more than are predicted, in each window
        ("n_tokens", pa.int64()),
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


@dataclass(frozen=True)
class Shard:
    """The documents of a file, read: what is known of them without losses, and the tokens to be scored."""

    sha256: str  # of the file
    rows: list[Row]
    drawn: list[bool]  # which documents are scored
    tokens: list[np.ndarray]  # of those, int32


def score_shard(
    scorer: Scorer, source: Path, advance: Callable[[int], None] | None = None, sample: float = 1.0
) -> pa.Table:
    """The scores of the documents of ``source``: same rows, same order. Of a ``sample`` below 1 only that
    share of them is scored.

    The sha256 of the shard stands in the metadata of the result, so that a changed shard is noticed.
    """
    rows, texts = documents(source)
    shard = collected(sha256_file(source), [measured(scorer.proxy.encode, rows, texts, sample)])
    return scored(shard, scorer.losses(shard.tokens, advance))


def measured(
    encode: Callable[[list[str]], list[list[int]]], rows: list[Row], texts: list[str], sample: float
) -> Shard:
    """Tokens and plain properties of some documents of a shard."""
    encoded = [np.array(ids, np.int32) for ids in encode(texts)]
    drawn = [in_sample(row["doc_id"], sample) for row in rows]
    known = [row | _measures(text, ids) for row, text, ids in zip(rows, texts, encoded, strict=True)]
    return Shard("", known, drawn, [ids for ids, here in zip(encoded, drawn, strict=True) if here])


def collected(sha256: str, parts: Iterable[Shard]) -> Shard:
    """The parts of one shard, in their order, as the whole."""
    whole = Shard(sha256, [], [], [])
    for part in parts:
        whole.rows.extend(part.rows)
        whole.drawn.extend(part.drawn)
        whole.tokens.extend(part.tokens)
    return whole


def scored(shard: Shard, losses: list[Losses]) -> pa.Table:
    """The file of scores of a shard from the losses of the documents that were drawn."""
    found, rows = iter(losses), []
    for row, here in zip(shard.rows, shard.drawn, strict=True):
        own = next(found) if here else []
        score = statistics.score(own) | ({} if here else {"reason": NOT_DRAWN})
        rows.append(row | {"n_tokens": sum(len(base) + 1 for base, _ in own)} | score)
    return _table(rows, shard.sha256)


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
    known, texts = documents(source)
    rows = measured(encoder, known, texts, 0.0).rows
    with atomic(target) as temporary:
        write(_table(rows, shard_sha256), temporary)
    return len(rows), sum(row["n_tokens_doc"] for row in rows)


def documents(source: Path) -> tuple[list[Row], list[str]]:
    """What a file of a corpus says of its documents, and their texts."""
    found = parquet.read(source, columns=["doc_id", "domain", "group", "n_bytes", "text"])
    return found.drop("text").to_dicts(), found["text"].to_list()


def _measures(text: str, ids: np.ndarray) -> Row:
    measures = {"compressibility": statistics.compressibility(text), "repetition": statistics.repetition(ids)}
    return {"n_tokens_doc": len(ids)} | measures


def _table(rows: list[Row], shard_sha256: str) -> pa.Table:
    schema = SCHEMA.with_metadata({"shard_sha256": shard_sha256, "rows": str(len(rows))})
    return pa.Table.from_pylist(rows, schema=schema)


def write(table: pa.Table, path: Path | pa.NativeFile) -> None:
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
