"""Stages in the order of their inputs, several at once where several processes are there to run them.

A stage that fails takes with it what reads it, and nothing else. A process that is killed (out of memory,
most often) costs the stage it was at a second try, which goes on where the first one stood.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Protocol

from repro import environment
from repro.errors import NoRoom, SettingError
from repro.execution import processes
from repro.secrecy import hidden
from repro.store import Stage

LOOK_SECONDS = 1.0  # between two looks at what the processes are at
KILLED = (
    "its process was killed, and again when it was tried again: out of memory? lower run.parallel, or what"
    " the stage takes"
)


@dataclass(frozen=True)
class Failure:
    """Why a stage is not there. ``error`` is what was raised, where it was raised in this process."""

    reason: str  # in one line
    mistake: bool = False  # a user's mistake (SettingError): no traceback helps
    hopeless: bool = False  # no other stage would fare better
    stage: Stage | None = None
    error: Exception | None = None


# of a fingerprint: runs that stage; picklable, and so is what it returns
Call = Callable[[str], Failure | None]


class Place(Protocol):
    """Where a stage runs, one at a time."""

    def start(self, call: Call, fingerprint: str) -> Future[Failure | None]:
        """Begin with a stage."""
        ...

    def restart(self) -> None:
        """Its process was killed: another in its stead."""


class Told(Protocol):
    """Who hears of it. What any of these raises ends everything that runs."""

    def cached(self, stage: Stage) -> None:
        """It does not have to run."""

    def started(self, stage: Stage) -> None:
        """It runs from here on."""

    def again(self, stage: Stage) -> None:
        """Its process was killed, and it will be started once more."""

    def ended(self, stage: Stage) -> None:
        """Its artifact is there."""

    def failed(self, stage: Stage, failure: Failure) -> None:
        """It is not there; raise where that ends the run."""

    def skipped(self, stage: Stage, failure: Failure) -> None:
        """It cannot run for want of another that failed."""

    def look(self, running: Sequence[Stage]) -> None:
        """These are at work, about a second later."""


def finish(
    stages: Sequence[Stage],
    run_now: set[str],
    places: Sequence[Place],
    call: Call,
    failed: dict[str, Failure],
    told: Told,
) -> None:
    """Run those of ``stages`` (inputs first) that are in ``run_now``, earlier ones first, each once its
    inputs are there.

    ``failed`` holds {fingerprint: failure} of stages before, and grows: a stage that reads one that failed is
    not tried and has the same entry.
    """
    waiting, free = list(stages), list(places)
    running: dict[Future[Failure | None], tuple[Stage, Place]] = {}
    killed: set[str] = set()
    while waiting or running:
        absent = {stage.fingerprint for stage in waiting} | {
            stage.fingerprint for stage, _ in running.values()
        }
        for stage in list(waiting):
            if not free:
                break
            lost = next((f for child in stage.inputs.values() if (f := failed.get(child.fingerprint))), None)
            if stage.fingerprint not in run_now:
                told.cached(stage)
            elif lost:
                failed[stage.fingerprint] = lost
                told.skipped(stage, lost)
            elif any(child.fingerprint in absent for child in stage.inputs.values()):
                continue
            else:
                told.started(stage)
                place = free.pop(0)
                running[place.start(call, stage.fingerprint)] = stage, place
                waiting.remove(stage)
                continue
            waiting.remove(stage)
            absent.discard(stage.fingerprint)
        done = wait(running, LOOK_SECONDS, FIRST_COMPLETED).done
        for future in done:
            stage, place = running.pop(future)
            free.append(place)
            try:
                failure = future.result()
            except BrokenProcessPool:
                place.restart()
                if stage.fingerprint not in killed:
                    killed.add(stage.fingerprint)
                    waiting.insert(0, stage)
                    told.again(stage)
                    continue
                failure = Failure(KILLED)
            if failure is None:
                told.ended(stage)
            else:
                failed[stage.fingerprint] = replace(failure, stage=stage)
                told.failed(stage, failed[stage.fingerprint])
        if running and not done:
            told.look([stage for stage, _ in running.values()])


def attempt(run: Callable[[], object], log: Path) -> Failure | None:
    """Run a stage; where it fails, say why and leave the traceback in ``log``. An interrupt is no failure."""
    try:
        run()
    except Exception as error:
        if (stopped := processes.hidden_interrupt(error)) is not None:
            raise stopped from error
        with suppress(OSError):  # of a full disk
            log.parent.mkdir(parents=True, exist_ok=True)
            with open(log, "a") as handle:
                handle.write(hidden("".join(traceback.format_exception(error))))
        mistake = isinstance(error, SettingError)
        said = str(error) if mistake else f"{type(error).__name__}: {error}".rstrip(": ")
        return Failure(hidden(said).strip().split("\n")[0], mistake, isinstance(error, NoRoom), error=error)
    return None


class Here:
    """This very process, one stage at a time."""

    def start(self, call: Call, fingerprint: str) -> Future[Failure | None]:
        """Run the stage; the future is done."""
        future: Future[Failure | None] = Future()
        future.set_result(call(fingerprint))
        return future

    def restart(self) -> None:
        """Nothing broke: this process is still there."""


class Worker:
    """A process that runs stages one after another, in a group of its own, with ``variables`` in its
    environment.
    """

    def __init__(self, variables: dict[str, str]) -> None:
        self.variables = variables
        self._begin()

    def _begin(self) -> None:
        self.pool = ProcessPoolExecutor(1, get_context("spawn"), initializer=_begin_worker)
        try:
            with environment.variables(self.variables), processes.interrupts_held():
                self.group = self.pool.submit(os.getpid).result()
        except BrokenProcessPool:
            raise SettingError(
                "a process for stages did not start (out of memory?); lower run.parallel"
            ) from None

    def start(self, call: Call, fingerprint: str) -> Future[Failure | None]:
        """Begin with a stage."""
        return self.pool.submit(_call, call, fingerprint)

    def restart(self) -> None:
        """Another process in place of one that was killed; what that one had started is ended."""
        self.end(at_once=True)
        self._begin()

    def end(self, at_once: bool = False) -> None:
        """End the process and all it started, whatever it is at."""
        processes.end_group(self.group, at_once)
        self.pool.shutdown(cancel_futures=True)


@contextmanager
def workers(variables: Sequence[dict[str, str]]) -> Iterator[list[Worker]]:
    """A worker for each of ``variables``. Left by an exception, such as Ctrl-C, they are ended with what they
    are at.
    """
    found: list[Worker] = []
    try:
        for own in variables:
            found.append(Worker(own))
        yield found
    except BaseException:
        for worker in found:
            worker.end()
        raise
    for worker in found:
        worker.pool.shutdown()


def _begin_worker() -> None:
    os.setpgid(0, 0)
    processes.leave_with_parent(group=True)


def _call(call: Call, fingerprint: str) -> Failure | None:
    failure = call(fingerprint)
    return failure and replace(failure, error=None)  # not every exception can be sent
