"""The spool: what a source gives, read once and laid on disk, and where a killed attempt goes on."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from repro.corpus import sources
from repro.corpus.clean import text_digest
from repro.corpus.documents import Document, Drop, row, write
from repro.corpus.settings import Corpus
from repro.errors import SettingError, nearest
from repro.plain import Row
from repro.store import atomic, parquet, read_json, write_json
from repro.tracking import progress

if TYPE_CHECKING:
    from repro.corpus.select import Tally

SPOOL_BYTES = 64 << 20  # of text in a file
LONGEST_TOKEN = 32  # characters; the scorer says of the rare text that is a longer one that it has no loss


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

    The source may be of any size: the memory holds 64 MB of text and some hundred bytes a document. What a
    killed attempt wrote is used again, and the source is read on behind it.
    """
    state = folder / "state.json"
    if not state.is_file():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    found = (
        read_json(state) if state.is_file() else {"files": 0, "position": {}, "skipped": [], "done": False}
    )
    if "tally" in found:
        tally.restore(found["tally"])
    candidates = [c for file in range(found["files"]) for c in _candidates(folder, file)]
    if found["done"]:
        return candidates
    position, skipped = found["position"], set(found["skipped"])
    own: list[Candidate] = []
    batch: list[Row] = []
    size, file = 0, found["files"]

    def save(done: bool) -> None:
        """The documents first, then that they are there."""
        write(folder / f"{file:05d}.parquet", batch)
        with atomic(_about(folder, file)) as temporary:
            pq.write_table(
                pa.table({f.name: [getattr(c, f.name) for c in own] for f in fields(Candidate)}), temporary
            )
        now = {"files": file + 1, "position": position, "skipped": sorted(skipped), "done": done}
        write_json(state, now | {"tally": tally.dump()})
        candidates.extend(own)

    with progress(None, "documents", "reading") as bar:
        bar.update(tally.seen)
        for document in sources.stream(settings, position):
            tally.seen += 1
            bar.update(1)
            document = usable(document, settings)
            if isinstance(document, Drop):
                tally.drop(document.reason, document.domain, document.where)
                if document.reason == "other_domain":
                    skipped.add(document.domain)
                continue
            values = row(document, 0)
            n_bytes, digest = values["n_bytes"], text_digest(document.text)
            own.append(
                Candidate(file, len(batch), document.id, document.domain, document.group, digest, n_bytes)
            )
            batch.append(values)
            size += n_bytes
            if size > SPOOL_BYTES:
                save(False)
                batch, own, size, file = [], [], 0, file + 1
    must_have(settings, {c.domain for c in (*candidates, *own)}, skipped)
    save(True)
    return candidates


def must_have(settings: Corpus, there: set[str], skipped: set[str]) -> None:
    """Refuse a domain of ``corpus.domains`` that the source has not; ``skipped``: those that were not asked
    for.
    """
    for wanted in set(settings.domains) - there:
        if known := skipped | there:
            raise SettingError(
                f"corpus.domains names {wanted!r}, which the source has not; did you mean"
                f" {nearest(wanted, known)}?"
            )


def _about(folder: Path, file: int) -> Path:
    return folder / f"candidates-{file:05d}.parquet"


def _candidates(folder: Path, file: int) -> list[Candidate]:
    return [Candidate(**values) for values in parquet.table(_about(folder, file)).to_pylist()]


def usable(found: Document | Drop, settings: Corpus) -> Document | Drop:
    """The document itself, or why it cannot be used."""
    if isinstance(found, Document) and (reason := _unusable(found, settings)):
        return Drop(reason, _printable(found.id), _printable(found.domain))
    return found


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
    one = len(bare) < LONGEST_TOKEN and len(bare.split()) < 2 and bare.isascii()
    if len(bare) < max(settings.min_characters, 2) or one:
        return "too_short"  # one token has no loss
    return "too_long" if len(found.text.encode()) > settings.max_bytes else ""


def _printable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def texts(folder: Path, wanted: Iterable[Candidate]) -> Iterator[str]:
    """Texts of candidates (in the order of the spool) from the spool, one file in memory at a time."""
    for file, inside in groupby(wanted, key=lambda c: c.file):
        table = parquet.table(folder / f"{file:05d}.parquet", columns=["text"])
        for text in table.take([c.row for c in inside])["text"]:
            yield text.as_py()
