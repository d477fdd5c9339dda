"""Texts of public repositories at pinned commits: files of known formats, cut into passages.

The id of a passage is a hash of its text, so the same text has the same id whatever brought it.
"""

from __future__ import annotations

import heapq
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

from repro import schema
from repro.corpus import bare
from repro.corpus.documents import Document, Drop
from repro.corpus.extract import FORMATS, VERSION, Unreadable
from repro.corpus.passages import passage_id, passages
from repro.corpus.settings import Corpus, GitTexts
from repro.errors import one_of, require
from repro.plain import Json
from repro.tracking import progress

FILE_BYTES = 4_000_000  # larger files are data, not text
TOKENS_A_REPOSITORY = 5e5  # for plans: what those of corpus=open_texts hold on average


def identity(settings: Corpus) -> Json:
    """Repositories, commits and how they are read; not where the clones are."""
    return {"git": [schema.identity(texts) for texts in _wanted(settings)], "extract": VERSION}


def expected_tokens(settings: Corpus) -> tuple[float, int]:
    """(tokens in all, domains): half a million a repository."""
    wanted = _wanted(settings)
    return TOKENS_A_REPOSITORY * sum(len(texts.repositories) for texts in wanted), len(
        {texts.domain for texts in wanted}
    )


def _wanted(settings: Corpus) -> list[GitTexts]:
    for texts in settings.git:
        one_of("corpus.git format", texts.format, tuple(FORMATS))
    for domain in settings.domains:
        one_of("corpus.domains", domain, tuple(sorted({texts.domain for texts in settings.git})))
    return [texts for texts in settings.git if not settings.domains or texts.domain in settings.domains]


def stream(settings: Corpus) -> Iterator[Document | Drop]:
    """Passages of one repository after the other, in the order of their names.

    Every repository is found, or fetched, before the first is read. Raises :class:`SettingError` when one is
    gone.
    """
    wanted = [
        (name, commit, texts) for texts in _wanted(settings) for name, commit in texts.repositories.items()
    ]
    require(
        not settings.mirror or Path(settings.mirror).expanduser().is_dir(),
        f"corpus.mirror={settings.mirror} is no folder",
    )
    placed = []
    with progress(len(wanted), "repositories", "finding") as bar:
        for name, commit, texts in wanted:
            folder = bare.locate(name, commit, settings.mirror, settings.git_url, _chosen(texts))
            placed.append((name, commit, texts, folder))
            bar.update(1)
    for name, commit, texts, folder in sorted(placed, key=lambda found: found[:2]):
        found = read(folder, name, commit, texts)
        yield from found if texts.max_group_bytes is None else smallest_ids(found, texts.max_group_bytes)


def _chosen(texts: GitTexts) -> Callable[[str], bool]:
    """Which paths are read."""
    paths = [bare.glob(pattern) for pattern in texts.paths or [FORMATS[texts.format][1]]]
    skip = [bare.glob(pattern) for pattern in texts.skip]
    return lambda path: any(p.fullmatch(path) for p in paths) and not any(p.fullmatch(path) for p in skip)


def read(folder: Path, name: str, commit: str, texts: GitTexts) -> Iterator[Document | Drop]:
    """Passages of one repository, and a :class:`Drop` for each file or passage that is none."""
    extract, wanted = FORMATS[texts.format][0], _chosen(texts)
    chosen = [(path, blob) for path, blob in bare.files(folder, commit) if wanted(path)]
    characters = 0
    raws = bare.contents(folder, (blob for _, blob in chosen), FILE_BYTES)
    for (path, _), raw in zip(chosen, raws, strict=True):
        where = f"{name}@{commit[:12]}:{path}"
        if texts.max_characters is not None and characters > texts.max_characters:
            yield Drop("beyond_the_repository_limit", where, texts.domain)
            continue
        try:
            if isinstance(raw, str):
                raise Unreadable(raw)
            text = raw.decode("utf-8")
            license = _license(text, texts)
            blocks = extract(text)
        except (UnicodeDecodeError, RecursionError, Unreadable) as error:
            named = {UnicodeDecodeError: "invalid_utf8", RecursionError: "nested_too_deeply"}
            yield Drop(named.get(type(error)) or str(error), where, texts.domain)
            continue
        characters += sum(map(len, blocks))
        if texts.max_characters is not None and characters > texts.max_characters:
            yield Drop("beyond_the_repository_limit", where, texts.domain)
            continue
        part = re.search(texts.group_pattern, path) if texts.group_pattern else None
        group = f"{name}/{part[1]}" if part else name
        for i, passage in enumerate(passages(blocks, texts.shortest, texts.longest)):
            if len(passage) < texts.shortest:
                yield Drop("too_short", f"{where}:{i}", texts.domain)
            else:
                yield Document(passage_id(passage), texts.domain, group, f"{where}:{i}", license, passage)


def _license(text: str, texts: GitTexts) -> str:
    """The licence that a file states itself, where it must; the repository's otherwise."""
    if texts.license_pattern is None:
        return texts.license
    stated = re.search(texts.license_pattern, text)
    if not stated or stated[1].upper() not in {name.upper() for name in texts.licenses}:
        raise Unreadable("other_license")
    return stated[1]


def smallest_ids(found: Iterator[Document | Drop], most: int) -> Iterator[Document | Drop]:
    """At most ``most`` bytes of text a group: the passages of smallest id, a random sample as ids are hashes.

    They come at the end; the memory holds ``most`` bytes a group, however large the repository is.
    """
    kept: dict[str, list[tuple[int, int, Document]]] = defaultdict(list)  # a heap, the largest id on top
    size: dict[str, int] = defaultdict(int)
    closed: dict[str, int] = {}  # the smallest id that had no room: none above it has
    seen: set[tuple[str, str]] = set()
    for document in found:
        if isinstance(document, Drop):
            yield document
            continue
        group, number = document.group, int(document.id, 16)
        if (group, document.id) in seen:
            yield Drop("exact_duplicate", document.source, document.domain)
            continue
        seen.add((group, document.id))
        n_bytes = len(document.text.encode("utf-8", "surrogatepass"))
        heapq.heappush(kept[group], (-number, n_bytes, document))
        size[group] += n_bytes
        while kept[group] and (size[group] > most or -kept[group][0][0] >= closed.get(group, 1 << 64)):
            largest, n_bytes, document = heapq.heappop(kept[group])
            size[group] -= n_bytes
            closed[group] = min(closed.get(group, 1 << 64), -largest)
            yield Drop("beyond_the_group_limit", document.source, document.domain)
    for group in kept.values():
        yield from (document for *_, document in group)
