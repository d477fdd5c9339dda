"""Processes that a run starts: they end with it, however it ends, and Ctrl-C reaches the run alone."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import connection, parent_process
from typing import Any

WATCH_SECONDS = 1.0  # between two looks at a process that this one must not outlive
GRACE_SECONDS = 30.0  # between asking processes to end and ending them: a training writes a checkpoint


class Terminated(KeyboardInterrupt):
    """SIGTERM, as a batch system sends it: to be answered as Ctrl-C is."""


_terminated = False  # SIGTERM has come, whatever became of what it raised


def hidden_interrupt(error: Exception) -> KeyboardInterrupt | None:
    """The interrupt behind an error of DuckDB: a query that a signal ends raises this in its place."""
    if not (isinstance(error, RuntimeError) and str(error) == "Query interrupted"):
        return None
    return Terminated() if _terminated else KeyboardInterrupt()


class StageFailed(Exception):
    """A stage that the run cannot do without failed in a process of its own, and not by a user's mistake."""


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM raises :class:`Terminated` in the block, so that what was started is ended in order."""
    global _terminated

    def stop(*_: Any) -> None:
        global _terminated
        _terminated = True
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        _terminated = False
        signal.signal(signal.SIGTERM, before)


@contextmanager
def termination_noted() -> Iterator[Callable[[], bool]]:
    """SIGTERM waits in the block for a good moment: call what is yielded to ask whether to end. A second one
    does not wait.
    """
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return

    def note(*_: Any) -> None:
        if asked:
            raise Terminated
        asked.append(1)

    before = signal.signal(signal.SIGTERM, note)
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Ctrl-C waits until the block is left, and never reaches processes that are started in it."""
    held: list[int] = []
    main = threading.current_thread() is threading.main_thread()
    # A thread of a library may get the signal in this one's stead: Python then answers it here all the same.
    handler = signal.signal(signal.SIGINT, lambda number, _: held.append(number)) if main else None
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        if main:
            signal.signal(signal.SIGINT, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if held:
            signal.raise_signal(signal.SIGINT)


def leave_with_launcher(run: str | None) -> None:
    """In a thread of its own: end this process, which a launcher started, when that is gone, or the process
    ``run`` (its number) that started the launcher.

    torchrun gives its ranks sessions of their own, so that no signal to a group reaches them.
    """
    launcher = os.getppid()

    def watch() -> None:
        while os.getppid() == launcher and (run is None or _lives(int(run))):
            time.sleep(WATCH_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def leave_with_parent(group: bool = False) -> None:
    """In a thread of its own: end this process when its parent is gone, with ``group`` every process of its
    group, too.
    """

    def watch() -> None:
        parent = parent_process()
        if parent is not None:
            connection.wait([parent.sentinel])
            if group:
                os.killpg(0, signal.SIGKILL)
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def end(launcher: subprocess.Popen[bytes]) -> None:
    """End a launcher that leads a group of its own: ask first, so that it can end its ranks."""
    try:
        launcher.terminate()
        launcher.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        pass
    finally:
        end_group(launcher.pid, at_once=True)
        launcher.wait()


def end_group(group: int, at_once: bool = False) -> None:
    """End every process of a group: ask first, so that a launcher can end its ranks, and do not wait for
    ever.
    """
    until = time.monotonic() + GRACE_SECONDS
    try:
        if not at_once:
            os.killpg(group, signal.SIGTERM)
        while not at_once and time.monotonic() < until:
            time.sleep(0.05)
            os.killpg(group, 0)
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass
