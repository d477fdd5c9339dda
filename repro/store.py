"""Artifacts on disk: what a stage produced, under a name that says exactly what went in.

A :class:`Stage` is a step's identity (settings that change the result, and the stages it reads), apart from how it is
run. Its fingerprint names the folder ``<work>/artifacts/<stage>/<label>-<hash8>/``. Work happens in a sibling ending in
``.partial``, which survives a kill so that the stage can resume inside; publishing writes the manifest and renames, so
an artifact is whole or absent.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from repro.config import SettingError


def canonical(value: Any) -> str:
    """JSON with sorted keys; raises ``TypeError`` or ``ValueError`` on what has no stable form (sets, objects, NaN)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: Any) -> str:
    """sha256 of the canonical JSON of a value."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def sha256_file(path: Path) -> str:
    """sha256 of a file's bytes."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling to write to; rename it to ``path`` once it is whole and on disk."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
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


@dataclass(frozen=True)
class Cost:
    """What a stage is expected to take, for ``--plan``. Tokens may be read, scored or trained on."""

    tokens: float = 0.0
    flops: float = 0.0
    disk_bytes: float = 0.0
    seconds: float = 0.0  # work that is not matrix arithmetic (reading, cleaning, plotting)


@dataclass
class Context:
    """What a running stage is given: where to write, where its inputs are, and a place for facts about the run."""

    out: Path
    inputs: dict[str, Path]
    device: str
    facts: dict[str, Any] = field(default_factory=dict)  # goes into the manifest: documents in, kept, dropped, ...
    tracker: Any = None  # repro.tracking.Tracker factory; None = no logging


@dataclass(frozen=True)
class Stage:
    """A step of an experiment. ``settings`` hold what changes the result and nothing else.

    ``version`` is the contract of the stage's code: raise it when the same settings give another result.
    """

    name: str
    label: str
    settings: dict[str, Any]
    run: Callable[[Context], None]
    inputs: dict[str, Stage] = field(default_factory=dict)
    version: int = 1
    cost: Cost = Cost()

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over name, version, settings and the fingerprints of the inputs."""
        inputs = {key: stage.fingerprint for key, stage in self.inputs.items()}
        return digest({"stage": self.name, "version": self.version, "settings": self.settings, "inputs": inputs})

    @property
    def folder(self) -> str:
        """Folder of the artifact, relative to the store."""
        return f"{self.name}/{self.label}-{self.fingerprint[:8]}"

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
        self.root = work / "artifacts"

    def path(self, stage: Stage) -> Path:
        """Where the published artifact of ``stage`` is or will be."""
        return self.root / stage.folder

    def has(self, stage: Stage) -> bool:
        """Whether the artifact is there, whole."""
        return (self.path(stage) / "manifest.json").is_file()

    def ensure(self, stage: Stage, device: str = "cpu", tracker: Any = None) -> Path:
        """The artifact's folder; runs the stage if it is absent. Inputs must be there already.

        A second process waits for the lock and then finds the artifact. Raises :class:`SettingError` when the disk is full.
        """
        from filelock import FileLock

        final = self.path(stage)
        if self.has(stage):
            return final
        partial = final.with_name(final.name + ".partial")
        partial.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(str(final) + ".lock"):
            if self.has(stage):
                return final
            partial.mkdir(exist_ok=True)
            inputs = {key: self.path(child) for key, child in stage.inputs.items()}
            context = Context(partial, inputs, device, tracker=tracker)
            started = time.time()
            try:
                stage.run(context)
                _sweep(partial)
                write_json(partial / "manifest.json", self._manifest(stage, context, started))
            except OSError as error:
                if error.errno == 28:
                    raise SettingError(
                        f"no space left on the disk of {self.root}; free some, or move the work folder with "
                        "work=DIR, and run the same command again: finished work is kept"
                    ) from error
                raise
            os.replace(partial, final)
        return final

    def _manifest(self, stage: Stage, context: Context, started: float) -> dict[str, Any]:
        files = sorted(p for p in context.out.rglob("*") if p.is_file() and p.name != "manifest.json")
        return {
            "stage": stage.name,
            "label": stage.label,
            "version": stage.version,
            "fingerprint": stage.fingerprint,
            "settings": stage.settings,
            "inputs": {key: {"folder": child.folder, "fingerprint": child.fingerprint} for key, child in stage.inputs.items()},
            "facts": context.facts,
            "device": context.device,
            "seconds_last_attempt": round(time.time() - started, 3),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "provenance": provenance(),
            "files": {str(p.relative_to(context.out)): sha256_file(p) for p in files},
        }

    def verify(self, stage: Stage) -> list[str]:
        """Names of files that are missing or differ from the manifest."""
        folder = self.path(stage)
        listed = read_json(folder / "manifest.json")["files"]
        return [name for name, sha in listed.items() if not (folder / name).is_file() or sha256_file(folder / name) != sha]

    def discard_partial(self, stage: Stage) -> None:
        """Forget unfinished work of a stage."""
        shutil.rmtree(self.path(stage).with_name(self.path(stage).name + ".partial"), ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Remove what processes killed inside :func:`atomic` left behind: it is no part of the artifact."""
    for leftover in folder.rglob(".*.tmp"):
        if leftover.is_file():
            leftover.unlink()


def provenance() -> dict[str, Any]:
    """Git commit and dirty flag, package versions, Python and machine kind."""
    from importlib.metadata import PackageNotFoundError, version

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    packages = {}
    for name in ("torch", "transformers", "lm-eval", "datasets", "deepspeed", "wandb", "omegaconf", "numpy"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = None
    status = git("status", "--porcelain")
    return {
        "commit": git("rev-parse", "HEAD"),
        "dirty": None if status is None else bool(status),
        "python": platform.python_version(),
        "packages": packages,
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def finite(value: float) -> float | None:
    """The value, or ``None`` where JSON has no word for it."""
    return value if math.isfinite(value) else None
