"""Packs (:mod:`repro.store.pack`) into a store: every file checked before anything is put in its place,
nothing overwritten.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

import zstandard
from filelock import FileLock

from repro.errors import SettingError, require
from repro.store import digest, read_json, sha256_file
from repro.store.disk import make_folder
from repro.store.pack import CONTENT, FORMAT, LEFT_OUT, NOT_PACKED, WEIGHTS, WINDOW_LOG, Entry, matches

MAX_BYTES = 2_000_000_000  # of a pack's files together: what is more is no pack of a run
SHARDS = ("scores/*.parquet", "means.safetensors")  # of an unfinished scoring, which alone is packed
FOLDER = re.compile(r"[A-Za-z0-9_]+/[^/\\]+-[0-9a-f]{8}(\.partial)?")


def unpack(file: Path, work: Path) -> str:
    """Seed the store in ``work`` with a pack; returns in one line what was new, in parts, and there already.

    Raises :class:`SettingError` on a file that is damaged, no pack, or holds what a pack never does; the
    store stays as it was.
    """
    require(file.is_file(), f"{file} is not there; name a store.tar.zst")
    _check_sum(file)
    make_folder(work, "work=")
    root = work / "artifacts"
    root.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".unpack-", dir=root))
    try:
        entries = _extract(file, temporary)
        for entry in entries:
            _check(file, temporary, entry)
        placed = [
            _place(temporary / entry["folder"], root / entry["folder"], entry["state"]) for entry in entries
        ]
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    said = {kind: placed.count(kind) for kind in dict.fromkeys(placed)}
    return ", ".join(f"{n} {kind}" for kind, n in said.items())


def _check_sum(file: Path) -> None:
    """Where the checksum lies beside the pack, it must fit."""
    beside = file.with_name(file.name + ".sha256")
    if beside.is_file():
        expected = beside.read_text().split()
        require(
            expected[:1] == [sha256_file(file)],
            f"{file} is damaged: its sha256 is not that of {beside.name}; fetch it again",
        )


def _extract(file: Path, temporary: Path) -> list[Entry]:
    """Write the listed files below ``temporary``; returns the entries of the pack's content."""
    try:
        with open(file, "rb") as handle:
            reader = zstandard.ZstdDecompressor(max_window_size=2**WINDOW_LOG).stream_reader(handle)
            bounded = cast(IO[bytes], Bounded(reader, MAX_BYTES))  # a stream of a tar file is only read
            with tarfile.open(fileobj=bounded, mode="r|") as archive:
                members = _members(archive, temporary)
                name, data = next(members, ("", b""))
                require(name == CONTENT, f"{file} is no pack: it does not begin with {CONTENT}")
                content = json.loads(data)
                require(
                    content.get("format") == FORMAT,
                    f"{file} has format {content.get('format')}, this code reads {FORMAT}",
                )
                sums = {
                    f"{e['folder']}/{name}": sha
                    for e in content["artifacts"]
                    for name, sha in e["files"].items()
                }
                seen: dict[str, str] = {}
                for name, data in members:
                    path = temporary / name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(data)
                    seen[name] = hashlib.sha256(data).hexdigest()
    except (
        tarfile.TarError,
        zstandard.ZstdError,
        EOFError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
    ) as error:
        raise SettingError(
            f"{file} is damaged or no pack ({str(error) or type(error).__name__}); fetch it again"
        ) from None
    wrong = sorted(name for name in seen.keys() | sums.keys() if seen.get(name) != sums.get(name))
    if wrong:
        raise SettingError(
            f"{file} is damaged: {wrong[0]} is missing, not listed or not what its checksum says; fetch it"
            " again"
        )
    return content["artifacts"]


class Bounded:
    """A stream that ends with an error after so many bytes: a small archive can unpack to any size."""

    def __init__(self, stream: Any, limit: int) -> None:
        self.stream, self.left, self.limit = stream, limit, limit

    def read(self, size: int) -> bytes:
        """As of a file."""
        data = self.stream.read(size)
        self.left -= len(data)
        if self.left < 0:
            raise tarfile.TarError(f"more than {self.limit / 1e9:g} GB")
        return data


def _members(archive: tarfile.TarFile, temporary: Path) -> Iterator[tuple[str, bytes]]:
    """Plain files inside ``temporary`` by name; links, devices, absolute names, ``..`` and endless files are
    refused.
    """
    total = 0
    for member in archive:
        kept = tarfile.data_filter(member, str(temporary))  # raises tarfile.FilterError, a TarError
        total += member.size
        if (
            not member.isreg()
            or kept.name != member.name
            or member.name != str(Path(member.name))
            or ".." in Path(member.name).parts
        ):
            raise tarfile.TarError(f"{member.name!r} is no plain file of a pack")
        if total > MAX_BYTES:
            raise tarfile.TarError(f"more than {MAX_BYTES / 1e9:g} GB")
        handle = archive.extractfile(member)
        yield member.name, handle.read() if handle else b""


def _check(file: Path, temporary: Path, entry: Entry) -> None:
    """An entry must be what its name says: the fingerprint is that of the manifest's own stage, settings and
    inputs.
    """
    folder, state, fingerprint = entry["folder"], entry["state"], entry["fingerprint"]
    partial = state == "unfinished"
    stage = folder.partition("/")[0]
    # Weights and checkpoints would be loaded by the stages that follow, some of them as pickles: no pack
    # carries any.
    never = (*LEFT_OUT.get(stage, ()), *NOT_PACKED.get(stage, ()), *WEIGHTS)
    wrong = [
        name for name in entry["files"] if (not matches(name, SHARDS) if partial else matches(name, never))
    ]
    require(
        not wrong and (stage == "score" or not partial),
        f"{file}: {folder} holds {wrong[:1]}, which no pack does",
    )
    fits = FOLDER.fullmatch(folder) and folder.removesuffix(".partial").endswith(f"-{fingerprint[:8]}")
    require(
        bool(fits) and folder.endswith(".partial") == partial,
        f"{file}: {folder!r} is no artifact of this store",
    )
    require(partial or "manifest.json" in entry["files"], f"{file}: {folder} has no manifest")
    if partial:
        return
    manifest = read_json(temporary / folder / "manifest.json")
    inputs = {key: value["fingerprint"] for key, value in manifest["inputs"].items()}
    own = {
        "stage": manifest["stage"],
        "version": manifest["version"],
        "settings": manifest["settings"],
        "inputs": inputs,
    }
    require(
        digest(own) == manifest["fingerprint"] == fingerprint and folder.startswith(f"{manifest['stage']}/"),
        f"{file}: the manifest of {folder} does not fit its fingerprint; this is no pack of a run",
    )
    listed = {name: sha for name, sha in entry["files"].items() if name != "manifest.json"}
    require(
        listed == manifest["files"], f"{file}: the manifest of {folder} lists other files than the pack holds"
    )


def _place(new: Path, final: Path, state: str) -> str:
    """Rename one artifact to where it belongs, if nothing is there; shards of a scoring join those that are
    there.
    """
    done = final.with_name(final.name.removesuffix(".partial"))
    final.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(str(done) + ".lock"):  # as a stage that runs holds it
        if (done / "manifest.json").is_file():
            return "there already"
        if state == "finished":
            new.rename(final)
            return "finished"
        fresh = 0
        for source in sorted(p for p in new.rglob("*") if p.is_file()):
            target = final / source.relative_to(new)
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                source.rename(target)
                fresh += 1
        return "scoring in parts" if fresh else "there already"
