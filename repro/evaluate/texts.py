"""Which texts are measured in bits per byte: out-of-corpus passages of the items, held-out documents of the
corpus.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from repro.corpus.documents import file_name
from repro.evaluate import bits_per_byte
from repro.items import out_of_corpus_text
from repro.store import atomic, parquet
from repro.tracking import progress

# tokens of a window at most: longer ones would need their logits, window x vocabulary, in memory at once
WINDOW = 4096
CHARACTERS = 3  # a token, until some are read
SCHEMA = {
    "kind": pl.String,  # out_of_corpus | heldout
    "source": pl.String,  # the task the passage comes from, or the domain
    "doc_id": pl.String,
    "bits": pl.Float64,
    "n_bytes": pl.Int64,
    "n_tokens": pl.Int64,
}


@dataclass
class Source:
    """Texts of one kind and source, as (id, text)."""

    kind: str
    name: str
    texts: list[tuple[str, str]]


def gather(items: Path, text_tasks: list[str], corpus: Path | None, max_bytes: int) -> list[Source]:
    """At most ``max_bytes`` of each text task's passages and, with a corpus, of each domain's held-out
    documents.

    A text task that the items do not have is left out, for the caller to report; all of them missing is an
    error.
    """
    passages = out_of_corpus_text(items, text_tasks, max_bytes) if text_tasks else {}
    found = [
        Source("out_of_corpus", task, [(str(number), text) for number, text in enumerate(texts)])
        for task, texts in passages.items()
    ]
    if corpus is not None:
        found += [
            Source("heldout", domain, documents) for domain, documents in heldout(corpus, max_bytes).items()
        ]
    return found


def heldout(corpus: Path, max_bytes: int) -> dict[str, list[tuple[str, str]]]:
    """(doc_id, text) of held-out documents by domain, at most ``max_bytes`` of each, in an order fixed by
    their ids.

    The document that passes the limit is cut there.
    """
    found: dict[str, list[tuple[str, str]]] = {}
    for path in sorted((corpus / "heldout").glob("*.parquet")):
        for doc_id, domain, text in parquet.read(path, columns=["doc_id", "domain", "text"]).iter_rows():
            found.setdefault(domain, []).append((doc_id, text))
    for domain, documents in found.items():
        documents.sort(key=lambda document: hashlib.sha256(document[0].encode()).digest())
        left, kept = max_bytes, []
        for doc_id, text in documents:
            head = text.encode()[:left].decode(errors="ignore")
            left -= len(text.encode())
            if head:
                kept.append((doc_id, head))
            if left <= 0:
                break
        found[domain] = kept
    return dict(sorted(found.items()))


def measure(lm: Any, sources: list[Source], parts: Path) -> pl.DataFrame:
    """Bits and bytes of every text (columns of ``SCHEMA``); each finished source is kept in ``parts`` and
    found again.
    """
    files = [parts / f"text-{source.kind}-{file_name(source.name)}.parquet" for source in sources]
    left = [
        (source, path, sum(len(text) for _, text in source.texts))
        for source, path in zip(sources, files, strict=True)
        if not path.is_file()
    ]
    read, characters = 0, sum(length for _, _, length in left)
    with progress(characters / CHARACTERS, "tokens", "bits per byte") as bar:
        for source, path, length in left:
            with atomic(path) as temporary:
                _measure(lm, source, bar).write_parquet(temporary)
            read += length
            bar.total = bar.n * characters / max(read, 1)  # as many characters a token as so far
    return pl.concat([pl.DataFrame(schema=SCHEMA), *(parquet.read(path) for path in files)])


def _measure(lm: Any, source: Source, bar: Any) -> pl.DataFrame:
    found = bits_per_byte.measure(
        lm.model,
        lm.encoder.one,
        lm.prefix_token_id,
        min(lm.max_length, WINDOW),
        [text for _, text in source.texts],
        progress=bar,
    )
    columns = {
        "kind": [source.kind] * len(found),
        "source": [source.name] * len(found),
        "doc_id": [doc_id for doc_id, _ in source.texts],
        "bits": [text.bits for text in found],
        "n_bytes": [text.n_bytes for text in found],
        "n_tokens": [text.n_tokens for text in found],
    }
    return pl.DataFrame(columns, schema=SCHEMA)
