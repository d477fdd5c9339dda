"""Where a result comes from: the code's commit and tag, the packages, the machine, the command."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TypedDict

from repro.secrecy import hidden

COPY = "CODE.json"  # in the root of code that was copied: where from, and the sha256 of every file
OUTCOMES = ("results", "paper_tables")  # what runs leave and no stage reads: they make the code no other


class Code(TypedDict):
    """Which code: ``None`` outside git."""

    commit: str | None
    dirty: bool | None
    tag: str | None  # on that very commit


class Copy(Code):
    """Which code was copied, and the sha256 of its files."""

    files: dict[str, str]


class Provenance(Code):
    """Which code ran, with what, and where."""

    python: str
    packages: dict[str, str | None]  # name -> version
    machine: str
    omp_num_threads: str | None
    command: list[str]


def code(folder: Path) -> Code:
    """``commit``, ``dirty`` and ``tag`` (on that very commit) of the checkout that holds ``folder``; ``None``
    outside git.

    Code that was copied from a clean checkout to a machine without git (:func:`copied`) is that commit while
    no file of it differs.
    """

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # no git, or another project's, which a package was installed in
    if git("ls-files", "--error-unmatch", ".") is None:
        return (
            _of_copy(folder.parent)
            if (folder.parent / COPY).is_file()
            else {"commit": None, "dirty": None, "tag": None}
        )
    status = git("status", "--porcelain", "--", ":/", *(f":(top,exclude){name}" for name in OUTCOMES))
    return {
        "commit": git("rev-parse", "HEAD"),
        "dirty": None if status is None else bool(status),
        "tag": git("describe", "--tags", "--exact-match"),
    }


def copied(files: Iterable[str], root: Path) -> Copy:
    """What :data:`COPY` says of a copy of ``files`` (paths within the checkout ``root``); the copy is written
    elsewhere.
    """
    return {**code(root / "repro"), "files": {name: _sha256(root / name) for name in sorted(files)}}


def _of_copy(root: Path) -> Code:
    said: Copy = json.loads((root / COPY).read_text())
    changed = any(not (root / n).is_file() or _sha256(root / n) != sha for n, sha in said["files"].items())
    return {"commit": said["commit"], "dirty": changed or said["dirty"], "tag": said["tag"]}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@cache  # read from files, and asked for by every stage
def _packages() -> dict[str, str | None]:
    from importlib.metadata import PackageNotFoundError, version

    packages: dict[str, str | None] = {}
    for name in ("torch", "transformers", "lm-eval", "datasets", "deepspeed", "wandb", "omegaconf", "numpy"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = None
    return packages


def provenance() -> Provenance:
    """Git commit, dirty flag and the tag on that very commit, package versions, Python and machine kind."""
    return {
        **code(Path(__file__).parents[1]),
        "python": platform.python_version(),
        "packages": dict(_packages()),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),  # sums, and so last bits, depend on it
        "command": [hidden(word) for word in (Path(sys.argv[0]).name, *sys.argv[1:])],
    }
