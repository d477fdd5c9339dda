"""A user's own files: JSON lines (plain, .gz, .zst), parquet, and folders of text.

One bad document is dropped and counted; a file that cannot be read as a whole stops the run and is named
(:mod:`repro.corpus.rows`).
"""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from repro import schema
from repro.corpus.documents import Document, Drop, id_of
from repro.corpus.rows import lines, parquet_rows, readable
from repro.corpus.settings import Corpus
from repro.errors import SettingError, require
from repro.fetch import remote
from repro.fetch.remote import Remote
from repro.plain import Json, Row
from repro.store import cached, parquet

LINES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".ndjson", ".ndjson.gz", ".ndjson.zst", ".json.gz", ".json.zst")
TEXT = (
    ".txt",
    ".md",
    ".rst",
    ".tex",
    ".html",
    ".py",
    ".c",
    ".cpp",
    ".h",
    ".java",
    ".js",
    ".ts",
    ".go",
    ".rs",
)
SHARD = re.compile(r"(?:.*/)?([^/]+)-\d{5}\.[^/]+")
KNOWN = (*LINES, ".parquet", *TEXT)


def identity(settings: Corpus) -> Json:
    """Digests of the files' content and the settings that read them; neither folder nor order of files
    counts.
    """
    found = files(settings)
    digests = _digests([path for path, _ in found])
    if settings.checksums:
        _check(settings, {name: digest for (_, name), digest in zip(found, digests, strict=True)})
    # A name matters only where the text lies bare (it becomes the id) or where the folder is the domain.
    named = [
        (name if _kind(path) == "text" or settings.domain_from == "folder" else "", digest)
        for (path, name), digest in zip(found, digests, strict=True)
    ]
    return {"files": sorted(named), **schema.identity(settings, "files")}


def _digests(paths: list[Path | Remote]) -> list[str]:
    """sha256 of each file; of one in a bucket what the bucket knows its content by."""
    known = iter(cached.content_digests([path for path in paths if isinstance(path, Path)]))
    return [next(known) if isinstance(path, Path) else path.digest() for path in paths]


def _check(settings: Corpus, found: dict[str, str]) -> None:
    """Refuse a folder that is not, file by file, what ``corpus.checksums`` says."""
    wanted = settings.checksums
    missing, foreign = sorted(wanted.keys() - found), sorted(found.keys() - wanted)
    damaged = sorted(name for name in wanted.keys() & found if wanted[name] != found[name])
    for names, fault, mend in (
        (missing, "is missing", "copy it there"),
        (foreign, "does not belong there", "move it elsewhere, or read the folder with corpus=files"),
        (
            damaged,
            "has another sha256 than corpus.checksums says",
            "it is damaged or of another version: copy it anew",
        ),
    ):
        more = f" (and so for {len(names) - 1} more)" if len(names) > 1 else ""
        require(
            not names, f"corpus.folder={settings.folder}: {names[0] if names else ''} {fault}; {mend}{more}"
        )


def expected_tokens(settings: Corpus) -> tuple[float, int]:
    """(tokens in all, domains): files hold four bytes a token, packed ones four times as many; shards name
    their domain.
    """
    packed, found = (".gz", ".zst", ".parquet"), files(settings)
    n_bytes = sum(path.stat().st_size * (4 if path.name.endswith(packed) else 1) for path, _ in found)
    named = {shard[1] for _, name in found if (shard := SHARD.fullmatch(name))}
    return n_bytes / 4, len(settings.domains or named) or 4


def files(settings: Corpus) -> list[tuple[Path | Remote, str]]:
    """(path, name) of every readable file, in the order of names.

    A name is the path below the folder that is given, or below what stands before the first sign of a
    pattern; where several places are given, behind the last folder of each, but of one that holds all others.
    Raises :class:`SettingError` for a path that is missing, of an unknown kind, a folder that holds nothing
    readable, and two files of text with one name: it is their id.
    """
    return _look(settings)[0]


def facts(settings: Corpus) -> Json:
    """For the manifest: how many files are read, and what else lies in the folders given, by kind and with a
    few names; and which domains are made of several folders of one name.
    """
    found, skipped = _look(settings)
    kinds = Counter(
        "broken link" if path.is_symlink() else path.suffix.lower() or "no suffix" for path in skipped
    )
    told: Json = {
        "read": len(found),
        "skipped": dict(kinds.most_common()),
        "examples": [p.name for p in skipped[:3]],
    }
    if settings.domain_from == "folder":
        folders: dict[str, set[str]] = {}
        for path, name in found:
            parent = (Path(name) if isinstance(path, Remote) else Path(os.path.abspath(path))).parent
            folders.setdefault(_folder(name), set()).add("/".join(parent.parts[-2:]))
        told["together"] = {domain: sorted(of) for domain, of in sorted(folders.items()) if len(of) > 1}
    return {"files": told}


def _look(settings: Corpus) -> tuple[list[tuple[Path | Remote, str]], list[Path | Remote]]:
    """What can be read, and what in the folders cannot: files of other kinds and links to nothing; hidden
    ones do not count.
    """
    found: dict[Path | Remote, str] = {}
    skipped: list[Path | Remote] = []
    places = [settings.folder] if settings.folder else settings.paths
    for given, (root, told) in zip(places, _roots(places), strict=True):
        if remote.is_remote(given):
            _look_away(given, told, found, skipped)
            continue
        paths = parquet.matches(given, recursive=True)
        if not paths and not glob.has_magic(given):
            paths = [Path(given).expanduser()]
        require(bool(paths), f"corpus.paths: no file matches {given!r}")
        for path in paths:
            require(path.exists(), f"corpus.paths: {path} does not exist")
            if path.is_file():
                require(
                    bool(_kind(path)), f"corpus.paths: {path} is of no known kind; known: {', '.join(KNOWN)}"
                )
                found[path] = told + _below(path, root)
                continue
            inside = sorted(_inside(path))
            below = [p for p in inside if p.is_file() and _kind(p)]
            skipped += [p for p in inside if not (p.is_file() and _kind(p))]
            require(
                bool(below),
                f"corpus.paths: the folder {path} holds no file of a known kind: {', '.join(KNOWN)}",
            )
            found |= {p: told + _below(p, root) for p in below}
    read = sorted(found.items(), key=lambda item: (item[1], str(item[0])))
    for (one, name), (other, same) in pairwise(read):
        require(
            name != same or "text" not in (_kind(one), _kind(other)),
            f"corpus.paths: {one} and {other} would both have the id {name}; give a folder that holds both",
        )
    return read, skipped


def _inside(folder: Path) -> Iterator[Path]:
    """The files below a folder, those of linked folders among them, each folder once; nothing hidden, and
    nothing of a work folder, where runs leave what they made of these files.
    """
    seen: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen or (Path(place) != folder and _of_runs(Path(place))):
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(place, name) for name in files if not name.startswith("."))


def _of_runs(folder: Path) -> bool:
    """Whether it is the work folder of runs."""
    return any((folder / "artifacts").glob("*/*/manifest.json"))


def _roots(places: list[str]) -> list[tuple[str, str]]:
    """Of each place the folder below which its files are named, and what their names begin with."""
    roots = [remote.root(given) if remote.is_remote(given) else _root(given) for given in places]
    split = [root.split("/") for root in roots]
    shared = os.path.commonprefix(split)  # of lists as of strings
    return [
        (root, "" if parts == shared else f"{parts[-1]}/") for root, parts in zip(roots, split, strict=True)
    ]


def _root(given: str) -> str:
    path = Path(os.path.abspath(Path(given).expanduser()))
    if path.is_file():
        return str(path.parent)
    return str(path if path.exists() else next(folder for folder in path.parents if folder.exists()))


def _below(path: Path, root: str) -> str:
    return Path(os.path.relpath(path, root)).as_posix()


def _look_away(given: str, told: str, found: dict[Path | Remote, str], skipped: list[Path | Remote]) -> None:
    """The same in a bucket."""
    there = remote.found(given)
    require(bool(there), f"corpus.paths: no file is at {given}, or matches it")
    for path, name in there:
        hidden = any(part.startswith(".") for part in name.split("/"))
        if _kind(path) and not hidden:
            found[path] = told + name
        elif not hidden:
            skipped.append(path)
    require(
        any(_kind(path) for path, _ in there),
        f"corpus.paths: {given} holds no file of a known kind: {', '.join(KNOWN)}",
    )


def _kind(path: Path | Remote) -> str:
    name = path.name.lower()
    if name.endswith(LINES):
        return "lines"
    return "parquet" if name.endswith(".parquet") else "text" if name.endswith(TEXT) else ""


def stream(settings: Corpus) -> Iterator[Document | Drop]:
    """Documents of all files. Raises :class:`SettingError` when not one of them has the text or the domain
    field.
    """
    usable, seen, example = 0, 0, None
    for path, name in files(settings):
        for found in _read(path, name, settings):
            seen += 1
            if isinstance(found, Document):
                usable += 1
            elif found.reason in ("missing_text", "missing_domain"):
                example = example or found
            yield found
    if example and not usable:
        key = example.reason.removeprefix("missing_")
        field = settings.text_field if key == "text" else settings.domain_field
        mend = "" if key == "text" else ", or corpus.domain_from=constant or folder"
        raise SettingError(
            f"{example.where}: no document has the field {field!r}, this one has"
            f" {', '.join(example.fields) or 'none'}; set corpus.{key}_field=NAME{mend}"
        )
    require(seen > 0, f"corpus.paths={settings.paths}: the files are empty")


def share(settings: Corpus, rank: int, tasks: int) -> Iterator[Document | Drop]:
    """Documents of one of ``tasks`` shares of the files."""
    found = files(settings)
    for path, name in found[len(found) * rank // tasks : len(found) * (rank + 1) // tasks]:
        yield from _read(path, name, settings)


def _read(path: Path | Remote, name: str, settings: Corpus) -> Iterator[Document | Drop]:
    kind = _kind(path)
    if kind == "text":
        yield _plain(path, name, settings)
        return
    rows = lines(path, settings.max_bytes) if kind == "lines" else parquet_rows(path, _asked(settings))
    for where, found in rows:
        yield found if isinstance(found, Drop) else _document(found, where, name, settings)


def _asked(settings: Corpus) -> set[str]:
    """The fields that are asked for; all others only pass through."""
    fields = (
        settings.text_field,
        settings.id_field,
        settings.group_field,
        settings.source_field,
        settings.license_field,
    )
    return {*fields, settings.domain_field} if settings.domain_from == "field" else set(fields)


def _plain(path: Path | Remote, name: str, settings: Corpus) -> Document | Drop:
    """A file that is one document: its id is its name, its group the folder it lies in."""
    folder = name.rpartition("/")[0]
    domain = (
        settings.domain
        if settings.domain_from == "constant"
        else name.split("/")[0]
        if folder
        else settings.domain
    )
    with readable(path):
        if path.stat().st_size > 4 * settings.max_bytes:
            return Drop("too_long", str(path), domain)
        raw = path.read_bytes()
    try:
        return Document(name, domain, folder, path.name, "not stated", raw.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return Drop("invalid_utf8", str(path), domain)


def _document(values: Row, where: str, name: str, settings: Corpus) -> Document | Drop:
    """A row as a document; its other fields pass through. Field names may be dotted (``doc.body``)."""
    names = tuple(values)
    values = dict(values)
    text = _take(values, settings.text_field)
    if settings.domain_from == "field":
        domain = _take(values, settings.domain_field)
    elif settings.domain_from == "folder":
        domain = _folder(name)
    else:
        domain = settings.domain
    if domain is None or not str(domain).strip():
        return Drop("missing_domain", where, fields=names)
    if isinstance(domain, dict | list):
        return Drop("domain_not_a_name", where)
    domain = str(domain)
    if text is None:
        return Drop("missing_text", where, domain, names)
    if not isinstance(text, str):
        return Drop("text_not_a_string", where, domain)
    ident = _take(values, settings.id_field)
    if isinstance(ident, dict | list):
        return Drop("id_not_a_name", where, domain)
    if ident is None or str(ident) == "":
        ident = id_of(text)
    about = [
        _take(values, key) for key in (settings.group_field, settings.source_field, settings.license_field)
    ]
    group, source, license = ("" if value is None else str(value) for value in about)
    return Document(str(ident), domain, group, source or "not stated", license or "not stated", text, values)


def _folder(name: str) -> str:
    """The folder that a file lies in; of one at the top its own name."""
    return Path(name).parent.name or Path(name).name.split(".")[0]


def _take(values: Row, path: str) -> Any:
    """Remove a field and return it, or ``None``, also of NaN; ``a.b`` is b inside a where no field has that
    very name.
    """
    *outer, last = [path] if path in values else path.split(".")
    for key in outer:
        inner = values.get(key)
        if not isinstance(inner, dict):
            return None
        values = inner
    found = values.pop(last, None)
    return None if found != found else found  # NaN, which pandas writes where a value is missing
