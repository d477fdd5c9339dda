"""What a run leaves in ``<work>/running`` for whoever looks from elsewhere: ``.json``, how it stands,
``.log``, its lines.

``repro status`` reads these. A lock that the run holds tells one that is at work from one that was killed.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NotRequired, TypedDict

from filelock import FileLock, Timeout

from repro.errors import first_line
from repro.store import Stage, write_json

FOLDER = "running"
KEPT = 50  # records of runs that ended, before the oldest goes


class Begun(TypedDict):
    """A stage that runs."""

    stage: str
    title: str
    folder: str
    since: float  # seconds of the epoch
    progress: NotRequired[str]  # as ``repro.status`` reads it


class Lost(TypedDict):
    """A stage that failed, and why."""

    stage: str
    title: str
    folder: str
    reason: str


class About(TypedDict):
    """Which run it is."""

    experiment: str
    scale: str
    command: list[str]


class Values(About):
    """What the record of a run says; times are seconds of the epoch."""

    host: str
    pid: int
    started: float
    state: str  # running | done | failed | stopped, and killed where it is gone without a word
    stages: int
    cached: int  # of them, found in the store
    done: int
    current: list[Begun]
    failed: list[Lost]
    run: str | None  # the run's folder, once there is one
    ended: NotRequired[float]
    reason: NotRequired[str]


class Record:
    """The record of one run, kept up to date by what it tells the terminal."""

    def __init__(self, work: Path, about: About) -> None:
        self.work = work
        name = re.sub(
            r"[^\w.-]",
            "_",
            f"{about['experiment']}-{about['scale']}-{time.strftime('%m%d-%H%M%S')}-{os.getpid()}",
        )
        self.path = work / FOLDER / f"{name}.json"
        self.values: Values = {
            **about,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": time.time(),
            "state": "running",
            "stages": 0,
            "cached": 0,
            "done": 0,
            "current": [],
            "failed": [],
            "run": None,
        }

    @property
    def log(self) -> Path:
        """What the run told the terminal."""
        return self.path.with_suffix(".log")

    def line(self, text: str) -> None:
        """Append to the log."""
        with open(self.log, "a", encoding="utf-8") as handle:
            handle.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {text}\n")

    def stages(self, number: int) -> None:
        """How many stages the run has, which may change on the way."""
        self.values["stages"] = number

    def cached(self) -> None:
        """One more was in the store."""
        self.values["cached"] += 1
        self._write()

    def started(self, stage: Stage, title: str) -> None:
        """A stage begins."""
        entry: Begun = {"stage": stage.name, "title": title, "folder": stage.folder, "since": time.time()}
        self.values["current"] = [*self._others(stage), entry]
        self._write()

    def ended(self, stage: Stage) -> None:
        """It is in the store."""
        self.values["current"] = self._others(stage)
        self.values["done"] += 1
        self._write()

    def failed(self, stage: Stage, title: str, reason: str) -> None:
        """It is not, and why."""
        self.values["current"] = self._others(stage)
        self.values["failed"].append(
            {"stage": stage.name, "title": title, "folder": stage.folder, "reason": reason}
        )
        self._write()

    def end(self, state: str, reason: str | None = None) -> None:
        """The run has ended so; whatever was still running is over."""
        self.values["state"], self.values["current"] = state, []
        if reason is not None:
            self.values["reason"] = reason
        self.values["ended"] = time.time()
        self._write()

    def _others(self, stage: Stage) -> list[Begun]:
        return [entry for entry in self.values["current"] if entry["folder"] != stage.folder]

    def _write(self) -> None:
        write_json(self.path, self.values)


@contextmanager
def recorded(work: Path, about: About) -> Iterator[Record]:
    """A record while the block runs; how it ended stays in it."""
    record = Record(work, about)
    record.path.parent.mkdir(parents=True, exist_ok=True)
    _forget(record.path.parent)
    with FileLock(str(record.path.with_suffix(".lock"))):
        record._write()
        try:
            yield record
            record.end("failed" if record.values["failed"] else "done")
        except BaseException as error:
            state = "stopped" if isinstance(error, KeyboardInterrupt) else "failed"
            reason = first_line(error)
            with suppress(OSError):  # of a full disk, which is what the error may say
                record.end(state, reason)
                record.line(f"{state}: {reason}")
            raise


def alive(record: Path) -> bool:
    """Whether the run of a record still holds its lock."""
    lock = record.with_suffix(".lock")
    if not lock.is_file():
        return False
    try:
        with FileLock(str(lock), timeout=0):
            return False
    except Timeout:
        return True


def _forget(folder: Path) -> None:
    """Remove the oldest records of runs that ended, and what runs killed inside a write left of theirs."""
    for path in sorted(folder.glob("*.json"), key=lambda p: p.stat().st_mtime)[:-KEPT]:
        if not alive(path):
            _remove(path)
    for temporary in folder.glob(".*.json.*.tmp"):
        path = folder / temporary.name.removeprefix(".").rsplit(".", 2)[0]
        if not alive(path):
            temporary.unlink(missing_ok=True)
            if not path.is_file():  # killed at its first write
                _remove(path)


def _remove(record: Path) -> None:
    for suffix in (".json", ".log", ".lock"):
        record.with_suffix(suffix).unlink(missing_ok=True)
