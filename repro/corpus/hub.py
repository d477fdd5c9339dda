"""Data sets of the hub in streaming mode, at recorded commits; texts that lie elsewhere are fetched blob by
blob.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from repro import assets, schema
from repro.corpus.documents import Document, Drop, id_of
from repro.corpus.settings import Corpus, HubData
from repro.errors import SettingError, one_of
from repro.store import is_full

SHUFFLE_ROWS = 10_000  # of the buffer; the order of the data set's files is shuffled as well
ENOUGH = 1.2  # times the size asked for: what cleaning may take away


def identity(settings: Corpus) -> dict[str, Any]:
    """The data sets asked for with their commits. A data set in a local folder counts by the content of its
    files.
    """
    found = []
    for data in _wanted(settings):
        if Path(data.repo).is_dir():
            files = sorted(p for p in Path(data.repo).rglob("*") if p.is_file())
            own = {"repo": "local", "revision": assets.content_digests(files)}
        else:
            own = {"repo": data.repo, "revision": assets.hub_revision(data.repo, data.revision)}
        found.append(schema.identity(data) | own)
    return {"hub": found}


def expected_tokens(settings: Corpus) -> tuple[float, int]:
    """(tokens in all, domains): without a limit, the 241 billion of the paper's corpus."""
    return 241e9, len(_wanted(settings))


def _wanted(settings: Corpus) -> list[HubData]:
    for domain in settings.domains:
        one_of("corpus.domains", domain, tuple(data.domain for data in settings.hub))
    return [data for data in settings.hub if not settings.domains or data.domain in settings.domains]


def stream(settings: Corpus) -> Iterator[Document | Drop]:
    """Documents of each data set in turn.

    Under ``max_documents_per_domain`` or ``max_tokens_per_domain`` files and rows come in an order shuffled
    by ``corpus.seed``, and reading ends a fifth above that size. Raises :class:`SettingError` when the hub or
    the blobs are away.
    """
    limited = settings.max_documents_per_domain is not None or settings.max_tokens_per_domain is not None
    for data in _wanted(settings):
        documents, n_bytes = 0, 0
        rows = _rows(data, settings.seed if limited else None)
        for found in (
            _with_blobs(rows, data, settings) if data.blobs else (_document(row, data) for row in rows)
        ):
            yield found
            if isinstance(found, Document) and len(found.text) >= settings.min_characters:
                documents, n_bytes = documents + 1, n_bytes + len(found.text)
            if _reached(documents, settings.max_documents_per_domain) or _reached(
                n_bytes / 4, settings.max_tokens_per_domain
            ):
                break


def _reached(have: float, wanted: int | None) -> bool:
    return wanted is not None and have >= ENOUGH * wanted


def _rows(data: HubData, seed: int | None) -> Iterator[dict[str, Any]]:
    import datasets

    revision = {} if Path(data.repo).is_dir() else {"revision": assets.hub_commit(data.repo, data.revision)}
    try:
        rows = datasets.load_dataset(data.repo, data.name, split=data.split, streaming=True, **revision)
        yield from rows if seed is None else rows.shuffle(seed=seed, buffer_size=SHUFFLE_ROWS)
    except Exception as error:  # the hub fails in a dozen types; all mean the same to the user
        if is_full(error):
            raise
        reason = (str(error).strip().splitlines() or [""])[0][:120]
        raise SettingError(
            f"cannot read {data.repo} {data.name or ''} from the hub ({type(error).__name__}: {reason});"
            " check the network and corpus.hub, or use corpus=installed or corpus=files"
        ) from None


def _field(row: dict[str, Any], path: str | None) -> Any:
    value: Any = row
    for key in path.split(".") if path else ():
        value = value.get(key) if isinstance(value, dict) else None
    return value if path else None


def _document(row: dict[str, Any], data: HubData) -> Document | Drop:
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


def _with_blobs(rows: Iterator[dict[str, Any]], data: HubData, settings: Corpus) -> Iterator[Document | Drop]:
    """Fetch the texts of many rows at once; the order stays that of the rows."""
    from repro.corpus.blobs import Blobs

    with Blobs(settings.blob_url) as blobs:
        while batch := list(islice(rows, 64)):
            yield from _join(batch, blobs.texts([str(_field(row, data.text_field)) for row in batch]), data)


def _join(
    batch: list[dict[str, Any]], texts: Iterable[str | Drop], data: HubData
) -> Iterator[Document | Drop]:
    for row, text in zip(batch, texts, strict=True):
        if isinstance(text, Drop):
            yield Drop(text.reason, text.where, data.domain)
        else:
            ident = _field(row, data.id_field) or _field(row, data.text_field)
            found = _document({**row, data.text_field: text}, data)
            if isinstance(found, Document):
                found.id = str(ident)
            yield found
