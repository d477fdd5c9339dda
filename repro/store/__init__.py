"""Artifacts on disk: what a stage produced, under a name that says exactly what went in.

A :class:`Stage` is a step's identity (settings that change the result, and the stages it reads), apart from
how it is run. Its fingerprint names the folder ``<work>/artifacts/<stage>/<label>-<hash8>/``. Work happens in
a sibling ending in ``.partial``, which survives a kill so that the stage can resume inside; publishing writes
the manifest and renames, so an artifact is whole or absent.
"""

from __future__ import annotations

import glob
import hashlib
import json
import math
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from repro.errors import as_file_name
from repro.plain import Json
from repro.secrecy import hidden
from repro.store.cost import Cost, Known, nothing
from repro.store.disk import room_on
from repro.store.manifest import Manifest
from repro.store.origin import provenance


def canonical(value: Any) -> str:
    """JSON with sorted keys; raises ``TypeError`` or ``ValueError`` on what has no stable form (sets,
    objects, NaN).
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: Any) -> str:
    """sha256 of the canonical JSON of a value."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def sha256_file(path: Path) -> str:
    """sha256 of a file's bytes."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def seal_of(manifest: Manifest) -> str:
    """sha256 of all else that a manifest says."""
    return digest({key: value for key, value in manifest.items() if key != "seal"})


def sealed(manifest: Manifest) -> Manifest:
    """A manifest with its seal, by which a damaged one is known (:mod:`repro.store.soundness`)."""
    # of what will be read: tuples are lists then
    return {**manifest, "seal": seal_of(json.loads(json.dumps(manifest)))}


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling to write to; rename it to ``path`` once it is whole and on disk."""
    # threads of one process may write the same file, too
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield temporary
        with open(temporary, "rb") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically; NaN and infinity are refused."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text())


class RepeatedKey(ValueError):
    """A JSON object that has a key twice: Python would keep the last without a word."""


def unique(pairs: list[tuple[str, Any]]) -> Json:
    """``object_pairs_hook`` of ``json.loads`` that raises :class:`RepeatedKey`."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise RepeatedKey(f"the key {next(key for key in keys if keys.count(key) > 1)!r} stands twice")
    return found


@dataclass
class Context:
    """What a running stage is given: where to write, where its inputs are, and a place for facts about the
    run.
    """

    out: Path
    inputs: dict[str, Path]
    device: str
    # goes into the manifest: documents in, kept, dropped, ...
    facts: Json = field(default_factory=dict)
    # of absent stages that say the same :attr:`Stage.one_pass`: what is left there they find when they run
    others: list[Context] = field(default_factory=list)

    def warn(self, message: str) -> None:
        """Say it on the terminal and keep it with the facts: whoever finds the artifact in the store is told
        again.
        """
        message = hidden(message)
        self.facts.setdefault("warnings", []).append(message)
        print(f"warning: {message}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Stage:
    """A step of an experiment. ``settings`` hold what changes the result and nothing else.

    ``version`` is the contract of the stage's code: raise it when the same settings give another result.
    """

    name: str
    label: str
    settings: Json
    run: Callable[[Context], None]
    inputs: dict[str, Stage] = field(default_factory=dict)
    version: int = 1
    summary: Callable[[Json], str] | None = None  # of the facts, in one line for the terminal
    light: tuple[str, ...] = ()  # inputs of which it reads only what a pack keeps (no text, no weights)
    cost: Callable[[Known], Cost] = nothing  # for plans; never part of the fingerprint
    one_pass: str | None = None  # stages that say the same here can do some of their work in one pass

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over name, version, settings and the fingerprints of the inputs."""
        if '"dtype":"auto"' in canonical(self.settings):  # two machines would give one name to two results
            raise ValueError(f"stage {self.name}: a dtype of auto must be resolved first, see repro.device")
        inputs = {key: stage.fingerprint for key, stage in self.inputs.items()}
        return digest(
            {"stage": self.name, "version": self.version, "settings": self.settings, "inputs": inputs}
        )

    @property
    def folder(self) -> str:
        """Folder of the artifact, relative to the store."""
        return f"{self.name}/{as_file_name('an artifact', self.label)}-{self.fingerprint[:8]}"

    def ancestors(self) -> list[Stage]:
        """Every stage this one needs, inputs first, itself last, none twice."""
        order: dict[str, Stage] = {}

        def visit(stage: Stage) -> None:
            if stage.fingerprint not in order:
                for child in stage.inputs.values():
                    visit(child)
                order[stage.fingerprint] = stage

        visit(self)
        return list(order.values())


class Store:
    """A folder of artifacts, safe for several processes."""

    def __init__(self, work: Path) -> None:
        from repro.store import bucket

        bucket.must_be_folder(work)
        self.root = work / "artifacts"
        self.bucket = bucket.of(work)  # where finished artifacts are kept as well

    def path(self, stage: Stage) -> Path:
        """Where the published artifact of ``stage`` is or will be."""
        return self.root / stage.folder

    def beside(self, stage: Stage, suffix: str) -> Path:
        """A file next to the artifact and no part of it: ``.log`` of a stage that failed, ``.progress`` of
        one that runs.
        """
        final = self.path(stage)
        return final.with_name(final.name + suffix)

    def _forget_progress(self, stage: Stage) -> None:
        """Remove what tells how far a stage is, also what processes killed while they wrote it left."""
        path = self.beside(stage, ".progress")
        for told in (path, *path.parent.glob(f".{glob.escape(path.name)}.*.tmp")):
            told.unlink(missing_ok=True)

    def has(self, stage: Stage) -> bool:
        """Whether the stage is done: its manifest and outcome are there. Text or weights may be
        :meth:`left_out`.
        """
        return (self.path(stage) / "manifest.json").is_file()

    def left_out(self, stage: Stage) -> dict[str, str]:
        """{file: sha256} of what a pack did not carry of a finished stage, and what reads it whole would
        miss.
        """
        return read_json(self.path(stage) / "manifest.json").get("left_out", {})

    def whole(self, stage: Stage) -> bool:
        """Whether the stage is done and everything that other stages may read of it is there."""
        return self.has(stage) and not self.left_out(stage)

    def demanded(self, stages: Iterable[Stage], read: Iterable[Stage] = ()) -> list[Stage]:
        """Which of ``stages`` (inputs first) must run: those absent, and those without text or weights that
        such a stage reads.

        ``read``: stages that something else, the report, reads whole. A finished training whose weights were
        left out of a pack is not among them until an evaluation is new.
        """
        needed, found = {stage.fingerprint for stage in read}, []
        for stage in reversed(list(stages)):
            if not self.has(stage) or stage.fingerprint in needed and not self.whole(stage):
                found.append(stage)
                needed |= {child.fingerprint for key, child in stage.inputs.items() if key not in stage.light}
        return found[::-1]

    def ensure(
        self, stage: Stage, device: str = "cpu", whole: bool = False, others: Sequence[Stage] = ()
    ) -> Path:
        """The artifact's folder; runs the stage if it is absent, or ``whole`` is asked for and something was
        left out of it.

        Inputs must be there already. A second process waits for the lock and then finds the artifact.
        ``others`` are stages of the same pass that will be asked for next: those that are absent, ready and
        free may be advanced on the way. Raises :class:`SettingError` when the disk is full.
        """
        from filelock import FileLock

        final, there = self.path(stage), self.whole if whole else self.has
        if there(stage):
            return self._kept(stage)
        partial = final.with_name(final.name + ".partial")
        partial.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(str(final) + ".lock"), ExitStack() as held:
            if there(stage):
                return self._kept(stage)
            if self.bucket and self._fetched(stage):
                return final
            context = self.context(stage, device)
            context.others = [self.context(other, device) for other in others if self._taken(other, held)]
            started = time.time()
            with room_on(self.root):
                stage.run(context)
                sweep(partial)
                made = self._manifest(stage, context, started)
                before = self.left_out(stage) if self.has(stage) else {}
                if changed := sorted(name for name, sha in before.items() if made["files"].get(name) != sha):
                    context.warn(
                        f"{stage.folder}: {len(changed)} of {len(before)} files that a pack left out came out"
                        f" otherwise here than where its results were made ({', '.join(changed[:3])}): other"
                        " libraries or another processor"
                    )
                write_json(partial / "manifest.json", sealed(made))
            self._forget_progress(stage)  # nobody will come back to a stage that is done
            replace_folder(partial, final)
            return self._kept(stage)

    def begun(self, stage: Stage) -> Path | None:
        """The unfinished folder of a stage that was stopped, where there is one."""
        partial = self.beside(stage, ".partial")
        return partial if partial.is_dir() and not self.has(stage) else None

    def context(self, stage: Stage, device: str) -> Context:
        """What a stage that runs is given; its unfinished folder is there."""
        partial = self.beside(stage, ".partial")
        partial.mkdir(parents=True, exist_ok=True)
        return Context(partial, {key: self.path(child) for key, child in stage.inputs.items()}, device)

    def _taken(self, stage: Stage, held: ExitStack) -> bool:
        """Whether a stage could run, is not there and nobody is at it: then its lock is ``held``."""
        from filelock import FileLock, Timeout

        if self.has(stage) or not all(map(self.has, stage.inputs.values())):
            return False
        try:
            held.enter_context(FileLock(f"{self.path(stage)}.lock", timeout=0))
        except Timeout:
            return False
        return not (self.has(stage) or self.bucket and self._fetched(stage))

    def _fetched(self, stage: Stage) -> bool:
        """Whether another machine has finished a stage: then its artifact is here now."""
        assert self.bucket is not None
        final = self.path(stage)
        coming = final.with_name(final.name + ".coming")
        if not self.bucket.pull(stage.folder, coming):
            return False
        replace_folder(coming, final)
        return True

    def _kept(self, stage: Stage) -> Path:
        """The artifact's folder, once the bucket has it too."""
        if self.bucket:
            from repro.store import bucket

            bucket.kept(self.bucket, stage.folder, self.path(stage))
        return self.path(stage)

    def facts(self, stage: Stage) -> Json:
        """What the manifest of a finished stage says about its run: documents in, kept and dropped, warnings,
        ...
        """
        return read_json(self.path(stage) / "manifest.json")["facts"]

    def _manifest(self, stage: Stage, context: Context, started: float) -> Manifest:
        files = sorted(p for p in context.out.rglob("*") if p.is_file() and p.name != "manifest.json")
        return {
            "stage": stage.name,
            "label": stage.label,
            "version": stage.version,
            "fingerprint": stage.fingerprint,
            "settings": stage.settings,
            "inputs": {
                key: {"folder": child.folder, "fingerprint": child.fingerprint}
                for key, child in stage.inputs.items()
            },
            "facts": context.facts,
            "device": context.device,
            "seconds_last_attempt": round(time.time() - started, 3),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "provenance": provenance(),
            "files": {str(p.relative_to(context.out)): sha256_file(p) for p in files},
        }


def replace_folder(new: Path, final: Path) -> None:
    """Rename ``new`` to ``final``; what stood there, a form without text or weights, goes once the new one
    stands.
    """
    old = final.with_name(f"{final.name}.{os.getpid()}.old")
    if final.exists():
        os.replace(final, old)
    os.replace(new, final)
    shutil.rmtree(old, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove what processes killed inside :func:`atomic` left behind: it is no part of an artifact or a
    run.
    """
    for leftover in folder.rglob(".*.tmp"):
        if leftover.is_file():
            leftover.unlink()


def discard(folder: Path, *vouching: str) -> None:
    """Remove a folder of finished work. What in it vouches for the rest (files or folders) goes first, in
    that order: a kill on the way must leave nothing that the next attempt takes for whole.
    """
    for name in vouching:
        if (folder / name).is_dir():
            shutil.rmtree(folder / name)
        else:
            (folder / name).unlink(missing_ok=True)
    if folder.exists():
        shutil.rmtree(folder)


def finite(value: float) -> float | None:
    """The value, or ``None`` where JSON has no word for it."""
    return value if math.isfinite(value) else None
