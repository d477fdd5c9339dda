"""A work folder in a bucket: finished artifacts are kept there, work itself is done on this machine's disk.

    work=s3://bucket/prefix

Files of an artifact go to a place of their own, and its manifest is written last, once and by one machine:
who reads the manifest finds whole files, and nothing is ever listed, which buckets may do late. Two machines
that make the same artifact at the same time leave the one whose manifest came first.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repro.errors import SettingError
from repro.fetch.remote import PACKAGES, filesystem, is_remote, said
from repro.fetch.retries import patiently
from repro.store import cached, replace_folder, write_json
from repro.store.manifest import Manifest

RECORD = "bucket.json"  # in the work folder: which bucket it stands for
LAST = "summary.json"  # of a run's folder


@dataclass(frozen=True)
class Bucket:
    """What is kept below a URL."""

    url: str

    def get(self, name: str) -> bytes | None:
        """An object, ``None`` where there is none."""
        files, path = self._at(name)
        with said(f"{self.url}/{name}"):
            try:
                return patiently(lambda: files.cat_file(path))
            except FileNotFoundError:
                return None

    def create(self, name: str, content: bytes) -> bool:
        """Write an object that is not there; whether this was the first to do so."""
        files, path = self._at(name)
        with said(f"{self.url}/{name}"):
            try:
                patiently(lambda: files.pipe_file(path, content, mode="create"))
                return True
            except FileExistsError:
                # of an earlier try whose answer was lost, too
                return files.cat_file(path) == content

    def put(self, name: str, source: Path) -> None:
        """Write a file."""
        files, path = self._at(name)
        with said(f"{self.url}/{name}"):
            patiently(lambda: files.put_file(str(source), path))

    def fetch(self, name: str, target: Path) -> None:
        """Read a file."""
        files, path = self._at(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        with said(f"{self.url}/{name}"):
            patiently(lambda: files.get_file(path, str(target)))

    def push(self, folder: str, source: Path) -> bool:
        """Keep a finished artifact; ``False`` where another one of that name is there already."""
        own = (source / "manifest.json").read_bytes()
        there = self.get(f"artifacts/{folder}/manifest.json")
        if there is None:
            manifest: Manifest = json.loads(own)
            for name in manifest["files"]:
                if name not in manifest.get("left_out", {}):
                    self.put(_place(folder, manifest, name), source / name)
            if self.create(f"artifacts/{folder}/manifest.json", own):
                return True
            there = self.get(f"artifacts/{folder}/manifest.json")
        return json.loads(there or b"{}").get("files") == json.loads(own)["files"]

    def pull(self, folder: str, target: Path) -> bool:
        """Write a kept artifact to ``target``, every file held against its sha256; ``False`` where there is
        none.
        """
        from repro.store import atomic, sha256_file

        found = self.get(f"artifacts/{folder}/manifest.json")
        if found is None:
            return False
        manifest = json.loads(found)
        for name, sha in manifest["files"].items():
            path = target / name
            if name in manifest.get("left_out", {}) or path.is_file() and sha256_file(path) == sha:
                continue  # of a reading that was stopped
            with atomic(path) as temporary:
                self.fetch(_place(folder, manifest, name), temporary)
                if sha256_file(temporary) != sha:
                    raise SettingError(
                        f"{self.url}/{_place(folder, manifest, name)} is damaged: it has another sha256 than"
                        f" its manifest says; remove artifacts/{folder}/manifest.json there to make it anew"
                    )
        with atomic(target / "manifest.json") as temporary:
            temporary.write_bytes(found)
        return True

    def push_run(self, folder: Path) -> None:
        """Keep a run's folder, its summary last."""
        names = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
        for name in sorted(names, key=lambda name: (name == LAST, name)):
            self.put(f"runs/{folder.name}/{name}", folder / name)

    def _at(self, name: str) -> tuple[Any, str]:
        return _filesystem(f"{self.url}/{name}", os.getpid())


@functools.lru_cache(maxsize=64)
def _filesystem(url: str, process: int) -> tuple[Any, str]:
    return filesystem(url)


def _place(folder: str, manifest: Manifest, name: str) -> str:
    return f"artifacts/{folder}/{manifest.get('seal', '')[:16]}/{name}"


def at_home(work: str) -> str:
    """The folder of this machine that stands for a ``work`` in a bucket; another folder as it is."""
    if not is_remote(work):
        return work
    url = work.rstrip("/")
    folder = cached.cache() / "buckets" / hashlib.sha256(url.encode()).hexdigest()[:16]
    with said(url):
        files, path = filesystem(url)
        patiently(lambda: files.exists(path), 3)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / RECORD, {"url": url})
    return str(folder)


def must_be_folder(work: Path) -> None:
    """Refuse what is no folder but a URL that became a path: ``s3:/bucket``."""
    first = work.parts[0] if work.parts else ""
    if first.removesuffix(":") in {*PACKAGES, "memory", "hf"} and first.endswith(":"):
        raise SettingError(
            f"work={first}//{'/'.join(work.parts[1:])}: this command needs a folder; only repro run and repro"
            " score work in buckets"
        )


def of(work: Path) -> Bucket | None:
    """The bucket that a work folder stands for."""
    path = work / RECORD
    return Bucket(json.loads(path.read_text())["url"]) if path.is_file() else None


def kept(bucket: Bucket, folder: str, final: Path) -> None:
    """Bring a finished artifact into the bucket; where another machine was first, its own comes here."""
    if bucket.push(folder, final):
        return
    print(
        f"warning: another machine finished {folder} first, with other bytes; its artifact is used",
        file=sys.stderr,
        flush=True,
    )
    first = final.with_name(final.name + ".first")
    shutil.rmtree(first, ignore_errors=True)
    bucket.pull(folder, first)
    replace_folder(first, final)
