"""Which machine scores which shard: leases, as files in the unfinished stage's folder. Any machine may join
or leave.

``<stage>.partial/claims/`` holds ``job.json`` (what is scored, by what), one file for every worker and one
for every try:

- A shard's tries are ``<shard>.1``, ``<shard>.2``, ...; the highest one holds it. A try begins by creating
  its file, which one process alone can do. Nothing is ever renamed or removed, so no two can take the same
  try, and a worker that wakes up late sees that a later one has begun.
- A worker writes its own file every few seconds, as long as what it does moves. Whose file is older than
  ``lease_seconds`` holds nothing. Its age is the difference of two times of the file system, its own and that
  of a file written just now: no clock of a machine is read. A worker of this machine whose process is gone
  holds nothing at once.
- A try that raised leaves ``<shard>.<n>.error``, one that was given back in order ``<shard>.<n>.over``. After
  :data:`TRIES` of the first, or :data:`DEATHS` workers that were lost at it, the shard is given up and the
  others go on. A run that begins forgives them all.

A result is a function of its shard and is put in place whole, by a link that is refused where one stands: two
workers at one shard, which a slow file system can bring about, cost time and nothing else.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NotRequired, TypedDict

from repro.errors import SettingError
from repro.execution.lines import duration
from repro.plain import Json
from repro.store import read_json, write_json

TRIES = 3  # that raise
DEATHS = 10  # of workers that had begun a shard and were lost


class Closed(Exception):
    """The scoring is finished, or was given up by whoever removed its folder."""


@cache
def place() -> str | None:
    """This machine since its last start, as far as process numbers mean the same: ``None`` where that cannot
    be known.
    """
    try:
        return (
            f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}"
            f" {os.readlink('/proc/self/ns/pid')}"
        )
    except OSError:
        return None


class Posted(TypedDict):
    """``job.json``: what is scored, by what. Paths are relative to the unfinished stage's folder."""

    tokens: dict[str, int]  # shard -> estimate
    digests: dict[str, str]  # shard -> sha256
    corpus: str
    model: str
    means: str | None
    settings: Json
    heads: Sequence[Sequence[int]]  # (layer, head)
    version: int
    lease_seconds: float
    # further sets of heads, each behind the unfinished stage that its scores go to
    others: NotRequired[Sequence[tuple[str, Sequence[Sequence[int]]]]]


class Identity(TypedDict):
    """Who a worker is."""

    id: str
    host: str
    pid: int
    place: str | None  # :func:`place`
    device: str


class Told(Identity):
    """What a worker says of itself, every few seconds."""

    shards: int  # finished
    tokens: int  # fed to the model, in all
    tokens_per_second: float
    at: dict[str, int]  # shard -> tokens of it that are done


@dataclass(frozen=True)
class State:
    """One look at a job: its shards by what became of them."""

    finished: frozenset[str]
    failed: dict[str, str]  # given up, and why
    free: dict[str, int]  # to be begun, by this try; those that were begun before behind the others
    held: dict[str, str]  # and by whom


class Board:
    """The claims of one stage, read by anybody."""

    def __init__(self, partial: Path) -> None:
        self.partial, self.folder, self.scores = partial, partial / "claims", partial / "scores"
        try:
            self.job: Posted = read_json(self.folder / "job.json")
        except FileNotFoundError:
            raise Closed from None

    def look(self) -> State:
        """What became of the shards. Raises :class:`Closed`."""
        finished = frozenset(_names(self.scores))
        tries, errors, over = self._tries()
        lost = self._lost()
        failed: dict[str, str] = {}
        held: dict[str, str] = {}
        fresh: dict[str, int] = {}
        again: dict[str, int] = {}
        for shard in self.job["tokens"]:
            if shard in finished:
                continue
            last, raised = tries.get(shard, 0), errors.get(shard, [])
            if last in over.get(shard, ()) or last == 0:
                holder = None
            elif (holder := self._holder(shard, last)) and not lost(holder, self.folder / f"{shard}.{last}"):
                held[shard] = holder
                continue
            if len(raised) >= TRIES:
                reason = (self.folder / f"{shard}.{max(raised)}.error").read_text()
                failed[shard] = f"{len(raised)} tries, the last: {reason}"
            elif last - len(over.get(shard, ())) >= DEATHS:
                failed[shard] = f"{last - len(over.get(shard, ()))} workers were lost at it (out of memory?)"
            else:
                (again if last else fresh)[shard] = last + 1
        return State(finished, failed, fresh | again, held)

    def workers(self) -> list[Told]:
        """What the workers that live say of themselves."""
        lost = self._lost()
        return [told for path in self._worker_files() if (told := _told(path)) and not lost(told["id"], path)]

    def _tries(self) -> tuple[dict[str, int], dict[str, list[int]], dict[str, set[int]]]:
        """By shard: the highest try, those that raised, and those that are over: raised, given back or
        forgiven.
        """
        tries: dict[str, int] = {}
        errors: dict[str, list[int]] = {}
        over: dict[str, set[int]] = {}
        known = self.job["tokens"]
        for name in _names(self.folder, Closed):
            shard, _, number = name.removesuffix(".error").removesuffix(".over").rpartition(".")
            if shard not in known or not number.isdigit():
                continue
            tries[shard] = max(tries.get(shard, 0), int(number))
            if name.endswith((".error", ".over")):
                over.setdefault(shard, set()).add(int(number))
            if name.endswith(".error"):
                errors.setdefault(shard, []).append(int(number))
        return tries, errors, over

    def forgive(self) -> None:
        """Tries that no living worker holds are over: a shard is not given up for what an earlier run met."""
        lost = self._lost()
        for path in self.folder.glob("*.error"):
            path.rename(path.with_suffix(".over"))
        tries, _, over = self._tries()
        for shard, last in tries.items():
            for number in set(range(1, last + 1)) - over.get(shard, set()):
                path = self.folder / f"{shard}.{number}"
                if number < last or lost(self._holder(shard, number), path):
                    path.with_name(f"{path.name}.over").touch()

    def _holder(self, shard: str, number: int) -> str:
        try:
            return (self.folder / f"{shard}.{number}").read_text() or "a worker that has just begun"
        except FileNotFoundError:  # the folder was moved away
            raise Closed from None

    def _worker_files(self) -> list[Path]:
        return [self.folder / name for name in _names(self.folder, Closed) if name.startswith("worker-")]

    def _lost(self) -> Callable[[str, Path], bool]:
        """Whether a worker holds nothing any more, as of now."""
        now = self._now()
        known: dict[str, bool] = {}

        def lost(worker: str, lease: Path) -> bool:
            if worker not in known:
                path = self.folder / f"worker-{worker}.json"
                try:
                    told, age = _told(path), now - path.stat().st_mtime
                except FileNotFoundError:  # it left in order, or has not written its name yet
                    try:
                        return " " not in worker or now - lease.stat().st_mtime > self.job["lease_seconds"]
                    except FileNotFoundError:
                        raise Closed from None
                gone = told is not None and told["place"] == place() is not None and not _runs(told["pid"])
                known[worker] = gone or age > self.job["lease_seconds"]
            return known[worker]

        return lost

    def _now(self) -> float:
        """The file system's own time."""
        path = self.folder / f"clock-{os.getpid()}-{secrets.token_hex(4)}"
        try:
            path.write_text("")
            return path.stat().st_mtime
        except FileNotFoundError:
            raise Closed from None
        except OSError as error:
            if error.errno not in (errno.EROFS, errno.EACCES):
                raise
            return time.time()  # one who may only read, and asks how far it is
        finally:
            with contextlib.suppress(OSError):
                path.unlink()


@dataclass(frozen=True)
class Progress:
    """How far a scoring is, over all workers. Tokens are estimates from the documents' sizes."""

    shards: int
    finished: int
    failed: dict[str, str]
    tokens: int
    tokens_done: int
    tokens_per_second: float
    seconds_left: float | None  # None where nobody works, or nobody has shown its speed yet
    workers: list[Told] = field(default_factory=list)

    def line(self) -> str:
        """In one line for a terminal."""
        share = self.tokens_done / self.tokens if self.tokens else 1.0
        left = f"{duration(self.seconds_left)} left" if self.seconds_left is not None else "time left unknown"
        bad = f", {len(self.failed)} given up" if self.failed else ""
        return (
            f"{self.finished} of {self.shards} shards{bad}, {share:.0%} of about {self.tokens:,} tokens, "
            f"{len(self.workers)} workers at {self.tokens_per_second:,.0f} tokens/s, {left}"
        )


def progress(partial: Path) -> Progress | None:
    """How far the scoring in ``partial`` (the unfinished stage's folder) is; ``None`` where none is going
    on.
    """
    try:
        board = Board(partial)
        state, workers = board.look(), board.workers()
    except Closed:
        return None
    estimates = board.job["tokens"]
    open_shards = {
        shard: n
        for shard, n in estimates.items()
        if shard not in state.finished and shard not in state.failed
    }
    at = {shard: fed for worker in workers for shard, fed in worker["at"].items() if shard in open_shards}
    total = sum(estimates.values())
    left = sum(max(0, n - at.get(shard, 0)) for shard, n in open_shards.items())
    rate = sum(worker["tokens_per_second"] for worker in workers)
    done = sum(estimates[shard] for shard in state.finished if shard in estimates) + sum(
        min(fed, open_shards[shard]) for shard, fed in at.items()
    )
    seconds = left / rate if rate else 0.0 if not open_shards else None
    return Progress(len(estimates), len(state.finished), state.failed, total, done, rate, seconds, workers)


def waiting(root: Path) -> list[Path]:
    """Unfinished scorings in a store's folder of artifacts."""
    return sorted(path.parent.parent for path in root.glob("score/*.partial/claims/job.json"))


def open_job(partial: Path, job: Posted) -> Board:
    """Write ``job.json``, so that workers may join; what an earlier run's tries met is forgiven."""
    folder = partial / "claims"
    folder.mkdir(parents=True, exist_ok=True)
    (partial / "scores").mkdir(exist_ok=True)
    write_json(folder / "job.json", job)
    board = Board(partial)
    board.forgive()
    return board


def close_job(partial: Path) -> None:
    """Take the claims out of the folder, for it to be published; workers that are still there find it
    closed.
    """
    away = partial.with_name(f".{partial.name}.claims-{os.getpid()}-{secrets.token_hex(4)}")
    os.replace(partial / "claims", away)
    shutil.rmtree(away, ignore_errors=True)


def joined(partial: Path, settings: dict[str, str]) -> None:
    """Refuse to join where ``settings`` (key: value as text) are others than the scoring's."""
    board = Board(partial)
    for key, value in settings.items():
        has = board.job["settings"].get(key)
        if str(has).lower() != value.lower() and not (has is None and value in ("null", "None")):
            raise SettingError(
                f"score.{key}={value} is not what is being scored in {partial.name} (score.{key}={has});"
                " leave it out: what is scored stands in the store"
            )


def _names(folder: Path, absent: type[Exception] | None = None) -> Iterator[str]:
    try:
        yield from os.listdir(folder)
    except FileNotFoundError:
        if absent is not None:
            raise absent from None


def _told(path: Path) -> Told | None:
    try:
        return read_json(path)
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def _runs(pid: int) -> bool:
    """Whether a process of this machine lives; one that has ended and is not yet taken note of does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
