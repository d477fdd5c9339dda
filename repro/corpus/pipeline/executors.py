"""Phases of a corpus as jobs of datatrove: on this machine, through Slurm, or on Ray.

A phase is a list of datatrove's steps, or of functions of (data, rank, tasks), run for every rank. What
is finished is not run again. On this machine the ranks run in processes of this project's own, because
datatrove's pool waits for ever when a worker of it is killed.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repro.errors import SettingError, one_of, require
from repro.execution.processes import leave_with_parent
from repro.execution.slurm import WITHOUT_A_JOB
from repro.plain import Json
from repro.settings.execution import Run
from repro.store import read_json, write_json
from repro.tracking import progress

KINDS = ("local", "slurm", "ray")
DEATHS = 3  # of workers that were killed (by the system, for memory), or jobs lost, before a phase gives up
PRELOADED = ["duckdb", "datatrove.executor.local", "repro.corpus.pipeline.tasks", "repro.corpus.signatures"]
SECONDS = 0.2  # between looks at what is finished


@dataclass(frozen=True)
class Executor:
    """``kind``, number of ranks, and how many run at once; ``own`` is passed on to datatrove's executor."""

    kind: str
    tasks: int
    workers: int
    own: Json

    def run(self, steps: Sequence[Any], logs: Path, what: str, tasks: int | None = None) -> None:
        """Run a phase and wait for all its ranks (``tasks``: another number of them).

        Raises :class:`SettingError` where a rank failed by a user's mistake, and :class:`RuntimeError` where
        it failed otherwise.
        """
        tasks = self.tasks if tasks is None else tasks
        (logs / "failed").mkdir(parents=True, exist_ok=True)
        for old in (logs / "failed").iterdir():
            old.unlink()
        guarded = [_Guarded(step, str(logs / "failed")) for step in steps]
        with progress(tasks, "tasks", what) as bar:
            bar.update(len(_done(logs)))
            _START[self.kind](self, guarded, logs, tasks, bar)
        missing = set(range(tasks)) - _done(logs)
        if missing:
            raise RuntimeError(f"{what}: {len(missing)} of {tasks} tasks did not finish; see {logs}")


def of(run: Run, minhash: str, near_duplicates: str) -> Executor:
    """What ``run.executor`` and ``run.cluster`` ask for; raises :class:`SettingError` where it cannot be."""
    own = dict(run.cluster)
    kind = one_of("run.executor", str(run.executor), KINDS) or str(run.executor)
    if importlib.util.find_spec("datatrove") is None:
        raise SettingError("run.executor needs datatrove: pip install 'attention-influence-repro[cluster]'")
    require(
        minhash == "datatrove" or near_duplicates == "off",
        f"run.executor={kind} finds near-duplicates on disk: set corpus.minhash=datatrove, or"
        " corpus.near_duplicates=off",
    )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = own.pop("workers", cores if kind == "local" else -1)
    tasks = own.pop("tasks", cores if kind == "local" else 100)
    for name, value in (("tasks", tasks), ("workers", workers)):
        good = isinstance(value, int) and (value > 0 or (name, value) == ("workers", -1) and kind != "local")
        require(good, f"run.cluster.{name}={value!r} must be a whole number above 0")
    if kind == "slurm":
        absent = [name for name in ("partition", "time") if name not in own]
        require(not absent, f"run.executor=slurm needs run.cluster.{' and run.cluster.'.join(absent)}")
        require(_there("sbatch"), "run.executor=slurm: there is no sbatch on this machine's PATH")
    elif kind == "ray":
        require(importlib.util.find_spec("ray") is not None, "run.executor=ray needs Ray: pip install ray")
    else:
        require(not own, f"run.executor=local knows tasks and workers, not {', '.join(own)}")
    return Executor(kind, tasks, workers, own)


def _there(program: str) -> bool:
    import shutil

    return shutil.which(program) is not None


def _done(logs: Path) -> set[int]:
    folder = logs / "completions"
    return {int(name) for name in os.listdir(folder)} if folder.is_dir() else set()


class _Guarded:
    """A step that leaves its error where whoever waits for it finds it."""

    def __init__(self, step: Any, folder: str) -> None:
        self.step, self.folder = step, folder

    def __call__(self, data: Any, rank: int = 0, world_size: int = 1) -> Any:
        try:
            found = self.step(data, rank, world_size)
        except Exception as error:
            self._tell(error, rank)
            raise
        return None if found is None else self._followed(found, rank)

    def _followed(self, found: Any, rank: int) -> Iterator[Any]:
        try:
            yield from found
        except Exception as error:
            self._tell(error, rank)
            raise

    def _tell(self, error: Exception, rank: int) -> None:
        mistake = isinstance(error, SettingError)
        what = str(error) if mistake else f"{type(error).__name__}: {error}"
        write_json(Path(self.folder) / f"{rank:05d}.json", {"mistake": mistake, "what": what})


def _raise_failed(logs: Path) -> None:
    for path in sorted((logs / "failed").glob("*.json")):
        found = read_json(path)
        if found["mistake"]:
            raise SettingError(found["what"])
        raise RuntimeError(f"task {int(path.stem)}: {found['what']} (see {logs / 'logs'})")


def _local(executor: Executor, steps: list[Any], logs: Path, tasks: int, bar: Any) -> None:
    context = multiprocessing.get_context("forkserver")  # libraries are imported once, not by every worker
    context.set_forkserver_preload(PRELOADED)
    deaths, shown = 0, len(_done(logs))
    while missing := sorted(set(range(tasks)) - _done(logs)):
        workers = min(executor.workers, len(missing))
        running = [
            context.Process(
                target=_ranks,
                args=(steps, missing[i::workers], tasks, str(logs), i, dict(os.environ)),
                daemon=True,
            )
            for i in range(workers)
        ]
        for process in running:
            process.start()
        try:
            while any(process.is_alive() for process in running):
                time.sleep(SECONDS)
                now = len(_done(logs))
                bar.update(now - shown)
                shown = now
                if any(process.exitcode == 1 for process in running):
                    break
        finally:
            for process in running:
                process.terminate()
                process.join()
        bar.update(len(_done(logs)) - shown)
        shown = len(_done(logs))
        _raise_failed(logs)
        killed = [process.exitcode for process in running if process.exitcode not in (0, None)]
        deaths += len(killed)
        if deaths > DEATHS:
            raise RuntimeError(
                f"{deaths} workers were killed (exit {killed[0]}; -9 is what a system short of memory does);"
                f" lower run.cluster.workers; see {logs}"
            )


def _ranks(
    steps: list[Any], ranks: list[int], tasks: int, logs: str, worker: int, environment: dict[str, str]
) -> None:
    """A worker: its ranks one after the other."""
    from datatrove.executor.local import LocalPipelineExecutor

    leave_with_parent()
    os.environ.update(environment)  # as it is now, not as it was when the first worker started
    with open(Path(logs) / f"worker-{worker}.log", "ab", buffering=0) as log:  # datatrove's own chatter
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    for rank in ranks:
        LocalPipelineExecutor(steps, tasks=tasks, workers=1, logging_dir=logs)._run_for_rank(rank)


def _slurm(executor: Executor, steps: list[Any], logs: Path, tasks: int, bar: Any) -> None:
    from repro.corpus.pipeline import slurm

    shown = len(_done(logs))
    for _ in range(1 + DEATHS):  # what was cancelled, or lost with its node, is submitted again
        gone = None
        with slurm.submitted(steps, executor, tasks, logs) as jobs:
            while len(done := _done(logs)) < tasks:
                bar.update(len(done) - shown)
                shown = len(done)
                time.sleep(SECONDS)
                _raise_failed(logs)
                if jobs.queued():
                    gone = None
                    continue
                gone = gone or time.monotonic()
                if time.monotonic() - gone > WITHOUT_A_JOB:
                    break
            else:
                bar.update(tasks - shown)
                return


def _ray(executor: Executor, steps: list[Any], logs: Path, tasks: int, bar: Any) -> None:
    from datatrove.executor.ray import RayPipelineExecutor

    shown = len(_done(logs))
    job = RayPipelineExecutor(
        steps, tasks=tasks, workers=executor.workers, logging_dir=str(logs), **executor.own
    )
    try:
        job.run()
    finally:
        bar.update(len(_done(logs)) - shown)
        _raise_failed(logs)


_START: dict[str, Callable[..., None]] = {"local": _local, "slurm": _slurm, "ray": _ray}
