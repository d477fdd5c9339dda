"""Data sets of the hub in streaming mode, at recorded commits; texts that lie elsewhere are fetched blob by
blob.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from repro import schema
from repro.corpus.documents import Document, Drop, id_of
from repro.corpus.settings import Corpus, HubData
from repro.errors import SettingError, one_of
from repro.fetch import hub_access, hub_commits
from repro.plain import Json, Row
from repro.store import cached
from repro.store.disk import is_full

if TYPE_CHECKING:
    from repro.corpus.row_groups import Part, Table

RESUMES = True  # the stream goes on from a position without reading what lies before
DRAW = 2  # of the way that a sample is drawn: raised when the same settings give other documents
INSTEAD = "use corpus=installed or corpus=files"
ENOUGH = 1.2  # times the size asked for: what cleaning may take away


def identity(settings: Corpus) -> Json:
    """The data sets asked for with their commits. A data set in a local folder counts by its name, which is
    the source of its documents, and by the content of its files.
    """
    found = []
    for data in _wanted(settings):
        if Path(data.repo).is_dir():
            files = sorted(p for p in Path(data.repo).rglob("*") if p.is_file())
            own = {"repo": "local", "folder": _called(data), "revision": cached.content_digests(files)}
        else:
            own = {"repo": data.repo, "revision": hub_commits.hub_revision(data.repo, data.revision)}
        found.append(schema.identity(data) | own)
    return {"hub": found, "draw": DRAW}


def check(identity: list[Json]) -> None:
    """Ask the hub, before anything is run, for all that ``identity`` names; ``local`` folders are left out.

    Raises :class:`SettingError` with the hub's own words where a data set is gated, private or away, or its
    commit is not known.
    """
    wanted = [data for data in identity if data["repo"] != "local"]
    for repo in sorted({data["repo"] for data in wanted}):
        hub_access.ask(repo, "dataset", "corpus.hub", INSTEAD)
    for data in wanted:
        hub_commits.must_be_commit(data["repo"], data["revision"])


def expected_tokens(settings: Corpus) -> tuple[float, int]:
    """(tokens in all, domains): without a limit, the 241 billion of the paper's corpus."""
    return 241e9, len(_wanted(settings))


def _wanted(settings: Corpus) -> list[HubData]:
    for domain in settings.domains:
        one_of("corpus.domains", domain, tuple(data.domain for data in settings.hub))
    return [data for data in settings.hub if not settings.domains or data.domain in settings.domains]


def stream(settings: Corpus, position: Json | None = None) -> Iterator[Document | Drop]:
    """Documents of each data set in turn.

    Under ``max_documents_per_domain`` or ``max_tokens_per_domain`` rows are drawn by ``corpus.seed`` over all
    files (:func:`repro.corpus.row_groups.sample`), and reading ends a fifth above that size. ``position``
    says how far the stream is, after each document; given again, the stream goes on from there without
    fetching anew what lies before. Raises :class:`SettingError` when the hub or the blobs are away.
    """
    position = {} if position is None else position
    for number, data in enumerate(_wanted(settings)):
        if number < position.setdefault("data", 0):
            continue
        if number > position["data"] or "rows" not in position:
            position |= {"data": number, "rows": 0, "documents": 0, "characters": 0}
        if not _enough(position, settings):
            yield from _of(data, settings, position)


def share(settings: Corpus, rank: int, tasks: int) -> Iterator[Document | Drop]:
    """Documents of one of ``tasks`` shares of the row groups of each data set; of a sample, whose size is
    known only as it is read, the first share is all.
    """
    if settings.max_documents_per_domain is not None or settings.max_tokens_per_domain is not None:
        yield from stream(settings) if rank == 0 else ()
        return
    for data in _wanted(settings):
        yield from _found(_rows(data, settings, 0, (rank, tasks)), data, settings)


def _called(data: HubData) -> str:
    """What the source of its documents is called; of a local folder not where it lies, for that is published
    and differs between machines.
    """
    return Path(data.repo).resolve().name if Path(data.repo).is_dir() else data.repo


def _found(rows: Iterator[Row], data: HubData, settings: Corpus) -> Iterator[Document | Drop]:
    data = replace(data, repo=_called(data))
    return _with_blobs(rows, data, settings) if data.blobs else (_document(row, data) for row in rows)


def _of(data: HubData, settings: Corpus, position: Json) -> Iterator[Document | Drop]:
    for found in _found(_rows(data, settings, position["rows"]), data, settings):
        position["rows"] += 1
        if isinstance(found, Document) and len(found.text) >= settings.min_characters:
            position["documents"] += 1
            position["characters"] += len(found.text)
        yield found
        if _enough(position, settings):
            return


def _enough(position: Json, settings: Corpus) -> bool:
    return _reached(position["documents"], settings.max_documents_per_domain) or _reached(
        position["characters"] / 4, settings.max_tokens_per_domain
    )


def _reached(have: float, wanted: int | None) -> bool:
    return wanted is not None and have >= ENOUGH * wanted


def _rows(data: HubData, settings: Corpus, skip: int, share: tuple[int, int] = (0, 1)) -> Iterator[Row]:
    from repro.corpus.row_groups import Table

    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    commit = None if Path(data.repo).is_dir() else hub_commits.hub_commit(data.repo, data.revision)
    try:
        table = Table(data, commit)
        yield from table.rows(_parts(table, settings, *share), skip)
    except SettingError:
        raise
    except Exception as error:  # the hub fails in a dozen types; all mean the same to the user
        if is_full(error):
            raise
        what = f"{data.repo} {data.name or ''}".strip()
        raise SettingError(hub_access.refusal(what, error, "corpus.hub", INSTEAD)) from None


def _parts(table: Table, settings: Corpus, rank: int, tasks: int) -> Iterator[Part]:
    from repro.corpus import row_groups

    documents, tokens = settings.max_documents_per_domain, settings.max_tokens_per_domain
    if documents is None and tokens is None:
        groups = table.groups()
        return row_groups.everything(groups[len(groups) * rank // tasks : len(groups) * (rank + 1) // tasks])
    wanted = [float("inf") if most is None else ENOUGH * most for most in (documents, tokens)]
    return row_groups.sample(table.groups(), settings.seed, wanted[0], 4 * wanted[1])


def _field(row: Row, path: str | None) -> Any:
    value: Any = row
    for key in path.split(".") if path else ():
        value = value.get(key) if isinstance(value, dict) else None
    return value if path else None


def _document(row: Row, data: HubData) -> Document | Drop:
    text = _field(row, data.text_field)
    ident = _field(row, data.id_field)
    where = f"{data.repo} {data.name or ''} {ident or ''}".strip()
    if not isinstance(text, str):
        if data.text_field.split(".")[0] not in row:
            raise SettingError(
                f"{data.repo} has no field {data.text_field!r}; it has {', '.join(row)}: set text_field in"
                " corpus.hub"
            )
        return Drop("missing_text", where, data.domain)
    ident = id_of(text) if ident in (None, "") else str(ident)
    used = {data.text_field, data.id_field, data.group_field}
    extra = {key: value for key, value in row.items() if key not in used}
    source = f"{data.repo}/{data.name}" if data.name else data.repo
    return Document(
        ident, data.domain, _group(_field(row, data.group_field)), source, data.license, text, extra
    )


def _group(value: Any) -> str:
    """The host of a URL, any other value as it is."""
    text = "" if value is None else str(value)
    return (urlsplit(text).hostname or text) if text.startswith(("http://", "https://")) else text


def _with_blobs(rows: Iterator[Row], data: HubData, settings: Corpus) -> Iterator[Document | Drop]:
    """Fetch the texts of many rows at once; the order stays that of the rows."""
    from repro.corpus.blobs import Blobs

    with Blobs(settings.blob_url) as blobs:
        while batch := list(islice(rows, 64)):
            yield from _join(batch, blobs.texts([str(_field(row, data.text_field)) for row in batch]), data)


def _join(batch: list[Row], texts: Iterable[str | Drop], data: HubData) -> Iterator[Document | Drop]:
    for row, text in zip(batch, texts, strict=True):
        if isinstance(text, Drop):
            yield Drop(text.reason, text.where, data.domain)
        else:
            ident = _field(row, data.id_field) or _field(row, data.text_field)
            found = _document({**row, data.text_field: text}, data)
            if isinstance(found, Document):
                found.id = str(ident)
            yield found
