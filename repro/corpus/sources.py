"""One streaming interface over all sources: an identity for the fingerprint, and documents one after the
other.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from repro.corpus import files, hub, installed, repositories
from repro.corpus.documents import Document, Drop
from repro.corpus.settings import Corpus
from repro.plain import Json

TOKENS_OF_DOCUMENT = 1000  # of a document or passage, for plans


def identity(settings: Corpus) -> Json:
    """What decides the content of the source: package versions, digests of files, commits. Cheap enough for a
    plan.
    """
    return _module(settings).identity(settings)


def stream(settings: Corpus, position: Json | None = None) -> Iterator[Document | Drop]:
    """Documents as they come, and a :class:`Drop` for everything that is none.

    ``position`` says, after each of them, how far the stream is; given again (it is JSON), the stream goes on
    from there. Raises :class:`SettingError` naming the file when one cannot be read as a whole.
    """
    position = {} if position is None else position
    module = _module(settings)
    if hasattr(module, "RESUMES"):
        yield from module.stream(settings, position)
        return
    had = position.setdefault("read", 0)
    for found in islice(module.stream(settings), had, None):
        position["read"] += 1
        yield found


def share(settings: Corpus, rank: int, tasks: int) -> Iterator[Document | Drop]:
    """One of ``tasks`` shares of the stream, in its order; of a source that cannot be divided the first share
    is all.
    """
    module = _module(settings)
    if hasattr(module, "share"):
        yield from module.share(settings, rank, tasks)
    elif rank == 0:
        yield from module.stream(settings)


def facts(settings: Corpus) -> Json:
    """What the manifest should say about the source, such as files that were not read."""
    module = _module(settings)
    return module.facts(settings) if hasattr(module, "facts") else {}


def expected_tokens(settings: Corpus) -> float:
    """A rough size for plans: the limits where there are any, else what the source is known to hold."""
    whole, domains = _module(settings).expected_tokens(settings)
    limits = [settings.max_tokens_per_domain or whole]
    if settings.max_documents_per_domain is not None:
        limits.append(settings.max_documents_per_domain * min(TOKENS_OF_DOCUMENT, settings.max_bytes / 4))
    return min(whole, *(domains * limit for limit in limits))


def expected_domains(settings: Corpus) -> int:
    """How many domains a source is expected to have."""
    return _module(settings).expected_tokens(settings)[1]


def _module(settings: Corpus) -> Any:
    if settings.kind == "installed":
        return installed
    if settings.kind == "files":
        return files
    if settings.kind == "git":
        return repositories

    return hub
