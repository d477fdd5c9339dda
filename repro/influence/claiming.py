"""A worker at a job of claimed shards (:mod:`repro.influence.claims`): it claims, says that it
lives, and publishes.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import secrets
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from repro.influence.claims import Board, Closed, Identity, Told, place
from repro.secrecy import hidden
from repro.store.disk import is_full

STUCK = 15  # leases without progress, after which a worker that lives is taken for lost
RATE_SECONDS = 120.0  # over which a worker's speed is measured


@dataclass(frozen=True)
class Claim:
    """One try at one shard."""

    shard: str
    number: int


class Worker:
    """One process that scores shards of a job. Used in ``with``; a thread tells the others that it lives."""

    def __init__(self, partial: Path, device: str = "cpu") -> None:
        self.board = Board(partial)
        host = platform.node().replace(" ", "-") or "host"
        self.id = f"{host}-{os.getpid()}-{secrets.token_hex(4)}"
        self.path = self.board.folder / f"worker-{self.id}.json"
        self.told: Identity = {
            "id": self.id,
            "host": platform.node(),
            "pid": os.getpid(),
            "place": place(),
            "device": device,
        }
        self.tokens = 0  # fed to the model, in all
        self.shards = 0  # finished
        self.at: dict[Claim, int] = {}  # tokens of what is begun
        self._listed: deque[tuple[str, int]] = deque()
        self._moved = time.monotonic()
        self._rate: deque[tuple[float, int]] = deque([(self._moved, 0)])
        self._stop = threading.Event()

    def __enter__(self) -> Worker:
        self._beat()
        self._thread = threading.Thread(target=self._beats, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        for claim in self.at:  # given back in order: nobody was lost at it
            with contextlib.suppress(OSError):
                (self.board.folder / f"{claim.shard}.{claim.number}.over").touch()
        self.path.unlink(missing_ok=True)  # what it had begun is free from now on

    def claim(self) -> Claim | None:
        """A shard that nobody else is at; ``None`` if there is none at present. Raises :class:`Closed`."""
        for looked in (False, True):
            if looked:
                self._listed = deque(self.board.look().free.items())
            while self._listed:
                # the number is of the look that found the shard free: where another was faster, it is taken
                shard, number = self._listed.popleft()
                # what was begun before an earlier look may be held, or finished, by now
                if (looked or number == 1) and self._begin(shard, number):
                    claim = Claim(shard, number)
                    self.at[claim] = 0
                    return claim
        return None

    def _begin(self, shard: str, number: int) -> bool:
        try:
            handle = os.open(
                self.board.folder / f"{shard}.{number}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666
            )
        except FileExistsError:
            return False
        except FileNotFoundError:
            raise Closed from None
        with os.fdopen(handle, "w") as file:
            file.write(self.id)
        self.moved()
        return True

    def moved(self, claim: Claim | None = None, tokens: int = 0) -> None:
        """Something was done: ``tokens`` of the shard of ``claim``, perhaps. Without this for long, the
        worker is stuck.
        """
        self._moved = time.monotonic()
        self.tokens += tokens
        if claim is not None and claim in self.at:
            self.at[claim] += tokens

    def publish(self, claim: Claim, result: bytes, others: Sequence[tuple[Path, bytes]] = ()) -> bool:
        """Put the result of a try in place, and say whether it was wanted.

        Another worker may have begun the shard anew, or finished it. ``others`` are files that go with it;
        they are there before it is.
        """
        target = self.board.scores / claim.shard
        temporary = self.board.folder / f"result-{self.id}-{claim.shard}"
        later = self.board.folder / f"{claim.shard}.{claim.number + 1}"
        placed = False
        try:
            wanted = not target.exists() and not later.exists()
            for path, content in [*others, (target, result)] if wanted else ():
                temporary.unlink(missing_ok=True)  # it may be the last one's file by another name
                with open(temporary, "wb") as handle:
                    handle.write(content)
                    handle.flush()
                    os.fsync(handle.fileno())
                placed = _put(temporary, path)
        except FileNotFoundError:
            raise Closed from None
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        self.at.pop(claim, None)
        self.shards += 1
        self.moved()
        return placed

    def failed(self, claim: Claim, error: BaseException) -> None:
        """Leave word that a try raised. What is wrong with the disk and not with the shard is raised
        again.
        """
        if (
            is_full(error)
            or isinstance(error, OSError)
            and error.errno in (errno.EROFS, errno.EACCES, errno.ESTALE, errno.EIO)
        ):
            raise error
        reason = " ".join(hidden(f"{type(error).__name__}: {error}").split())[:500]
        try:
            (self.board.folder / f"{claim.shard}.{claim.number}.error").write_text(reason)
        except FileNotFoundError:
            raise Closed from None
        self.at.pop(claim, None)
        self.moved()

    def _beats(self) -> None:
        lease = self.board.job["lease_seconds"]
        while not self._stop.wait(lease / 10):
            if time.monotonic() - self._moved < STUCK * lease:
                # the next one may go through; none for long, and the lease is over
                with contextlib.suppress(OSError):
                    self._beat()

    def _beat(self) -> None:
        now = time.monotonic()
        self._rate.append((now, self.tokens))
        while len(self._rate) > 2 and now - self._rate[0][0] > RATE_SECONDS:
            self._rate.popleft()
        seconds, tokens = now - self._rate[0][0], self.tokens - self._rate[0][1]
        rate = tokens / seconds if seconds > 0 else 0.0
        told: Told = {
            **self.told,
            "shards": self.shards,
            "tokens": self.tokens,
            "tokens_per_second": rate,
            "at": {claim.shard: tokens for claim, tokens in dict(self.at).items()},  # it may change meanwhile
        }
        temporary = self.board.folder / f"beat-{self.id}"
        temporary.write_text(json.dumps(told))
        os.replace(temporary, self.path)


def _put(temporary: Path, target: Path) -> bool:
    """Give a file its name unless that is taken; where the file system has no links, the last of two equal
    ones stays.
    """
    try:
        os.link(temporary, target)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK):
            raise
        os.replace(temporary, target)
    return True
