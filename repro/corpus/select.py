"""Reading a source once, and drawing the sample: which documents enter, and why the others do not."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from repro import parquet
from repro.corpus import sources
from repro.corpus.clean import text_digest
from repro.corpus.documents import SCHEMA, Document, Drop, row, sampling_key, write, write_shards
from repro.corpus.settings import Corpus
from repro.errors import SettingError, nearest
from repro.store import atomic, read_json, write_json
from repro.tracking import progress

ROWS_AT_ONCE = 4096
EXAMPLES = 5  # places kept for each reason
SPOOL_BYTES = 64 << 20
BYTES_PER_TOKEN = 4  # the estimate behind corpus.max_tokens_per_domain


@dataclass
class Tally:
    """Every document that came in, under the reason for which it left."""

    seen: int = 0
    dropped: Counter[tuple[str, str]] = field(default_factory=Counter)  # (domain, reason)
    examples: dict[str, list[str]] = field(default_factory=dict)
    in_clusters: Counter[str] = field(default_factory=Counter)
    kept: int = 0

    def drop(self, reason: str, domain: str, where: str) -> None:
        """Count one document."""
        self.dropped[domain, reason] += 1
        examples = self.examples.setdefault(reason, [])
        if len(examples) < EXAMPLES:
            examples.append(where)

    def clustered(self, domains: Iterable[str]) -> None:
        """Count documents that have near-duplicates."""
        self.in_clusters.update(domains)

    def dump(self) -> dict[str, Any]:
        """For a later attempt to :meth:`restore`."""
        dropped = [[domain, reason, n] for (domain, reason), n in self.dropped.items()]
        return {"seen": self.seen, "dropped": dropped, "examples": self.examples}

    def restore(self, values: dict[str, Any]) -> None:
        """What a killed attempt had counted."""
        self.seen, self.examples = values["seen"], values["examples"]
        self.dropped = Counter({(domain, reason): n for domain, reason, n in values["dropped"]})

    def check(self, kept: int) -> None:
        """In = kept + dropped, or the stage is wrong."""
        self.kept = kept
        if self.seen != kept + self.dropped.total():
            raise AssertionError(f"documents in {self.seen} != kept {kept} + dropped {self.dropped.total()}")

    def by_domain(self, domain: str) -> dict[str, int]:
        """Drops of one domain by reason."""
        return {reason: n for (d, reason), n in sorted(self.dropped.items()) if d == domain}

    def by_reason(self) -> dict[str, int]:
        """Drops of all domains by reason."""
        total: Counter[str] = Counter()
        for (_, reason), n in self.dropped.items():
            total[reason] += n
        return dict(sorted(total.items()))

    def summary(self) -> str:
        """One line for an error message."""
        return ", ".join(f"{n} {reason}" for reason, n in self.by_reason().items()) or "the source is empty"

    def counts(self) -> dict[str, Any]:
        """For ``counts.json``."""
        return {"in": self.seen, "kept": self.kept, "dropped": self.by_reason(), "examples": self.examples}


@dataclass(slots=True)
class Candidate:
    """A usable document in the spool: where it is and what the draw looks at."""

    file: int
    row: int
    id: str
    domain: str
    group: str
    digest: str
    n_bytes: int


def spool(settings: Corpus, folder: Path, tally: Tally) -> list[Candidate]:
    """Read the source once, write the usable documents to ``folder`` as parquet, and return what is needed to
    choose.

    The source may be of any size: the memory holds 64 MB of text and some hundred bytes a document. A spool
    that a killed attempt finished is used again.
    """
    if (folder / "done.json").is_file():
        tally.restore(read_json(folder / "done.json"))
        return [Candidate(**values) for values in parquet.table(folder / "candidates.parquet").to_pylist()]
    shutil.rmtree(folder, ignore_errors=True)
    candidates: list[Candidate] = []
    batch: list[dict[str, Any]] = []
    size, file = 0, 0
    skipped: set[str] = set()
    with progress(None, "documents", "reading") as bar:  # type: ignore[arg-type]
        for found in sources.stream(settings):
            tally.seen += 1
            bar.update(1)
            if isinstance(found, Document) and (reason := _unusable(found, settings)):
                found = Drop(reason, _printable(found.id), _printable(found.domain))
            if isinstance(found, Drop):
                tally.drop(found.reason, found.domain, found.where)
                if found.reason == "other_domain":
                    skipped.add(found.domain)
                continue
            values = row(found, 0)
            digest = text_digest(found.text)
            candidates.append(
                Candidate(file, len(batch), found.id, found.domain, found.group, digest, values["n_bytes"])
            )
            batch.append(values)
            size += values["n_bytes"]
            if size > SPOOL_BYTES:
                write(folder / f"{file:05d}.parquet", batch)
                batch, size, file = [], 0, file + 1
    write(folder / f"{file:05d}.parquet", batch)
    for wanted in set(settings.domains) - {c.domain for c in candidates}:
        if known := skipped | {c.domain for c in candidates}:
            raise SettingError(
                f"corpus.domains names {wanted!r}, which the source has not; did you mean"
                f" {nearest(wanted, known)}?"
            )
    with atomic(folder / "candidates.parquet") as temporary:
        columns = {f.name: [getattr(c, f.name) for c in candidates] for f in fields(Candidate)}
        pq.write_table(pa.table(columns), temporary)
    write_json(folder / "done.json", tally.dump())
    return candidates


def _unusable(found: Document, settings: Corpus) -> str:
    """Why a document cannot be used, or nothing."""
    if settings.domains and found.domain not in settings.domains:
        return "other_domain"
    try:
        "".join((found.id, found.domain, found.group, found.source, found.license, found.text)).encode()
    except UnicodeEncodeError:  # half of a surrogate pair, escaped in JSON
        return "invalid_unicode"
    bare = found.text.strip()
    if not bare:
        return "empty"
    if len(bare) < max(settings.min_characters, 2) or len(bare.split()) < 2 and bare.isascii():
        return "too_short"  # one token has no loss
    return "too_long" if len(found.text.encode()) > settings.max_bytes else ""


def _printable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def unique(candidates: list[Candidate], tally: Tally) -> list[Candidate]:
    """What is no copy, in the order of the spool; no order of files matters.

    Of documents with the same text the smallest id stays, of those with one id the smallest digest.
    """
    digests: set[str] = set()
    ids: set[str] = set()
    taken = []
    twins = 0
    for found in sorted(candidates, key=lambda c: (c.id, c.digest, c.domain)):
        if found.digest in digests:
            tally.drop("exact_duplicate", found.domain, found.id)
        elif found.id in ids:
            tally.drop("duplicate_id", found.domain, found.id)
            twins += 1
        else:
            digests.add(found.digest)
            ids.add(found.id)
            taken.append(found)
    if twins > max(50, len(candidates) // 10):
        raise SettingError(
            f"corpus: {twins} of {len(candidates)} documents share their id with another text (such as"
            f" {tally.examples['duplicate_id'][0]!r}); set corpus.id_field=NAME; with a field that does not"
            " exist ids are made from the text"
        )
    return sorted(taken, key=lambda c: (c.file, c.row))


def sample(settings: Corpus, candidates: list[Candidate], tally: Tally) -> list[Candidate]:
    """What is not beyond the size asked for, in the order of the spool.

    Documents are taken in the order of hash(seed, id) while they fit ``max_tokens_per_domain`` and
    ``max_documents_per_domain``.
    """
    taken = []
    documents: Counter[str] = Counter()
    n_bytes: Counter[str] = Counter()
    most_documents = settings.max_documents_per_domain or len(candidates)
    most_bytes = (
        settings.max_tokens_per_domain * BYTES_PER_TOKEN if settings.max_tokens_per_domain else float("inf")
    )
    for found in sorted(candidates, key=lambda c: sampling_key(settings.seed, c.id)):
        domain = found.domain
        if documents[domain] >= most_documents or n_bytes[domain] + found.n_bytes > most_bytes:
            tally.drop("beyond_the_size_asked_for", domain, found.id)
            continue
        documents[domain] += 1
        n_bytes[domain] += found.n_bytes
        taken.append(found)
    return sorted(taken, key=lambda c: (c.file, c.row))


def texts(folder: Path, wanted: Iterable[Candidate]) -> Iterator[str]:
    """Texts of candidates (in the order of the spool) from the spool, one file in memory at a time."""
    for file, inside in groupby(wanted, key=lambda c: c.file):
        table = parquet.table(folder / f"{file:05d}.parquet", columns=["text"])
        for text in table.take([c.row for c in inside])["text"]:
            yield text.as_py()


def publish(settings: Corpus, spool: Path, out: Path, placed: list[tuple[Candidate, str, int, str]]) -> None:
    """Write the shards: ``placed`` gives each document its split, cluster and group.

    Rows of a domain stand in the order of hash(seed, id). DuckDB sorts, on disk where the memory does not
    hold the text.
    """
    import duckdb

    order = sorted(placed, key=lambda p: sampling_key(settings.seed, p[0].id))
    plan = pa.table(
        {
            "file": [c.file for c, *_ in order],
            "position": [c.row for c, *_ in order],
            "split": [split for _, split, *_ in order],
            "cluster": pa.array([cluster for _, _, cluster, _ in order], pa.int64()),
            "own_group": [group for *_, group in order],
            "rank": list(range(len(order))),
        }
    )
    columns = ", ".join(
        {"group": 'own_group AS "group"', "cluster": "p.cluster"}.get(c, f"d.{c}") for c in SCHEMA.names
    )
    read = parquet.sql(sorted(spool.glob("[0-9]*.parquet")), filename=True, file_row_number=True)
    query = f"""
        SELECT {columns} FROM {read} d
        JOIN plan p ON p.file = CAST(parse_filename(d.filename, true) AS INTEGER)
        AND p.position = d.file_row_number
        WHERE p.split = $split AND d.domain = $domain ORDER BY p.rank"""
    with duckdb.connect(
        config={"temp_directory": str(spool / "sorting"), "memory_limit": "4GB"}
    ) as connection:
        connection.register("plan", plan)
        for split, domain in sorted({(split, c.domain) for c, split, *_ in placed}):
            found = connection.sql(query, params={"split": split, "domain": domain})
            write_shards(out, split, domain, found.to_arrow_reader(ROWS_AT_ONCE), settings.shard_documents)
