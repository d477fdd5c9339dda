"""Finished artifacts are what their manifests say, or they are made anew: looked at before a run reads any of
them.

A disk that flips a bit, a copy that was cut, a file that was edited by hand: each would become a result. What
does not fit its manifest is moved aside, named, and its stage runs again; nothing is deleted.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from repro.store import Stage, Store, atomic, read_json, seal_of, sha256_file
from repro.store.manifest import Manifest
from repro.tracking import progress

# bytes: larger files are read once, and again when size, times or place of the file have changed
REMEMBERED = 64 << 20
SAID = 3  # files named


def make_sound(store: Store, stages: Iterable[Stage]) -> list[Stage]:
    """Move aside what is damaged of the finished ``stages``, and say so; returns the stages that must run for
    it.
    """
    done = [stage for stage in stages if store.has(stage)]
    memory = Memory(store.root / ".verified.json")
    sizes = [sum(p.stat().st_size for p in store.path(stage).rglob("*") if p.is_file()) for stage in done]
    found = []
    with progress(sum(sizes), "B", "checking the store") as bar:
        for stage, size in zip(done, sizes, strict=True):
            if names := damage(store, stage, memory):
                _aside(store, stage, names)
                found.append(stage)
            bar.update(size)
    memory.keep()
    return found


def damage(store: Store, stage: Stage, memory: Memory | None = None) -> list[str]:
    """What is :func:`amiss` with a finished stage."""
    return amiss(store.path(stage), stage.fingerprint, memory)


def amiss(folder: Path, fingerprint: str, memory: Memory | None = None) -> list[str]:
    """Files of a finished artifact that are missing, or are not what its manifest says; the manifest by its
    own seal.

    W&B's own files are no part of what is read: ``wandb sync`` may do with them what it likes.
    """
    try:
        manifest: Manifest = read_json(folder / "manifest.json")
        files = manifest["files"]
        if manifest["fingerprint"] != fingerprint or manifest.get("seal", seal_of(manifest)) != seal_of(
            manifest
        ):
            return ["manifest.json"]
    except (ValueError, KeyError, TypeError):
        return ["manifest.json"]
    memory = memory or Memory()
    read = {name: sha for name, sha in files.items() if "wandb" not in Path(name).parts[:-1]}
    return [name for name, sha in read.items() if memory.sha256(folder / name) != sha]


def aside_of(store: Store, stage: Stage) -> Path:
    """Where a damaged artifact is kept: beside the store, where nothing looks for artifacts."""
    return store.root.parent / "damaged" / stage.folder


def _aside(store: Store, stage: Stage, names: list[str]) -> None:
    aside = aside_of(store, stage)
    shutil.rmtree(aside, ignore_errors=True)
    aside.parent.mkdir(parents=True, exist_ok=True)
    os.replace(store.path(stage), aside)
    more = f" and {len(names) - SAID} more" if len(names) > SAID else ""
    print(
        f"warning: {stage.folder} is damaged: {', '.join(names[:SAID])}{more} not what the manifest says; it"
        f" is made anew, and what was there is kept in {aside}",
        file=sys.stderr,
        flush=True,
    )


class Memory:
    """The sha256 of large files that were read before and not touched since: any change of a file changes its
    ctime.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path, self.changed = path, False
        try:
            self.known: dict[str, Any] = read_json(path) if path else {}
        except (OSError, ValueError):  # absent or damaged: it is only a memory
            self.known = {}

    def sha256(self, path: Path) -> str | None:
        """Of a file's bytes; ``None`` where it is missing or cannot be read."""
        try:
            about = path.stat()
            if about.st_size < REMEMBERED:
                return sha256_file(path)
            key = f"{path}|{about.st_size}|{about.st_mtime_ns}|{about.st_ctime_ns}|{about.st_ino}"
            if key not in self.known:
                self.known[key], self.changed = sha256_file(path), True
            return self.known[key]
        except OSError:
            return None

    def keep(self) -> None:
        """Write it down; in a store that is read-only it costs time, nothing else."""
        if self.path and self.changed:
            try:
                with atomic(self.path) as temporary:
                    temporary.write_text(json.dumps(self.known, indent=1))
            except OSError:
                pass
