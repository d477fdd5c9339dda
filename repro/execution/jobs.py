"""Stages as jobs of Slurm: one job an arm and seed, which trains and evaluates; the run waits for them and
needs no GPU.

    run.executor=slurm run.sbatch.partition=gpu run.sbatch.time=4:00:00 run.sbatch.gpus=1

What needs no accelerator (corpus, selection, token ids, ...) is done where the run is. A job does what the
run would do: ``python -m repro.execution.jobs FILE`` finds its stages again by their fingerprints and puts
the artifacts into the store, which every node sees. A job that fails is an arm that fails; a run that is
ended leaves its jobs in the queue, and the same command takes up what they have finished.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from repro.device import device_of
from repro.errors import SettingError, require
from repro.execution.schedule import Call, Failure, Here
from repro.execution.slurm import QUEUE_SECONDS, WITHOUT_A_JOB, queued
from repro.experiments import Experiment
from repro.settings import overrides
from repro.settings.root import Settings, to_yaml
from repro.store import Stage, Store, digest, read_json, write_json

# Stages without an accelerator, some of which ask a network that nodes may lack: done where the run is.
IN_PLACE = frozenset({"items", "corpus", "proxy", "measures", "selection", "tokens", "baselines"})
AT_ONCE = 1000  # jobs, where run.parallel says no number
LOOK_SECONDS = 1.0  # between looks at files
SETUP = "setup"  # lines of shell before the work
SOURCE = Path(__file__).resolve().parents[2]


def script(name: str, folder: Path, options: dict[str, object]) -> str:
    """The batch script: ``options`` are those of sbatch by their long names, true for one without a value;
    ``setup`` is shell.
    """
    lines = ["#!/bin/bash", f"#SBATCH --job-name={name}", f"#SBATCH --output={folder}/slurm-%j.log"]
    for key, value in options.items():
        require("\n" not in f"{key}{value}" or key == SETUP, f"run.sbatch.{key} holds a line break")
        if key != SETUP and value is not None and value is not False:
            lines.append(f"#SBATCH --{key.replace('_', '-')}" + ("" if value is True else f"={value}"))
    setup = options.get(SETUP, [])
    work = [sys.executable, "-m", "repro.execution.jobs", str(folder / "job.json")]
    return "\n".join(
        [
            *lines,
            *(setup if isinstance(setup, list) else [str(setup)]),
            f"cd {shlex.quote(os.getcwd())}",
            f'export PYTHONPATH={shlex.quote(str(SOURCE))}"${{PYTHONPATH:+:$PYTHONPATH}}"',
            f"exec {shlex.join(work)}\n",
        ]
    )


@dataclass
class _Waiting:
    """A stage that a job is to make."""

    future: Future[Failure | None]
    stage: Stage
    folder: Path
    job: str
    gone: float | None = None  # since when Slurm knows nothing of it


class Batch:
    """Jobs of one run. ``present`` gives the settings, the experiment and the fingerprints that must run:
    they may change on the way.
    """

    def __init__(self, present: Callable[[], tuple[Settings, Experiment, set[str]]], store: Store) -> None:
        self.present, self.store = present, store
        self.covered: dict[str, tuple[Path, str]] = {}  # fingerprint -> folder and number of its job
        self.waiting: list[_Waiting] = []
        self.lock = threading.Lock()
        self.over = threading.Event()
        self.queue: dict[str, set[str]] | None = None  # jobs of this user, None where Slurm did not say
        self.asked = float("-inf")

    def start(self, call: Call, fingerprint: str) -> Future[Failure | None]:
        """Here, where that is enough, else by the job that covers it, or a new one."""
        settings, experiment, run_now = self.present()
        order = {stage.fingerprint: stage for stage in experiment.order()}
        stage = order[fingerprint]
        if stage.name in IN_PLACE:
            return Here().start(call, fingerprint)
        try:
            if fingerprint not in self.covered:
                chain = self._chain(stage, experiment, run_now)
                place = self._submitted(settings, experiment.title(stage), chain)
                self.covered |= {one.fingerprint: place for one in chain}
        except (OSError, SettingError) as error:
            refused: Future[Failure | None] = Future()
            refused.set_result(Failure(str(error), mistake=True, hopeless=True))
            return refused
        folder, job = self.covered.pop(fingerprint)  # tried again: by another job
        future: Future[Failure | None] = Future()
        future.set_running_or_notify_cancel()
        with self.lock:
            self.waiting.append(_Waiting(future, stage, folder, job))
        return future

    def restart(self) -> None:
        """Nothing of this process breaks with a job."""

    def _chain(self, first: Stage, experiment: Experiment, run_now: set[str]) -> list[Stage]:
        """What one job does: the stage, and those of the same arms and seeds that need nothing else."""
        owners = {stage.fingerprint: set[tuple[str, int]]() for stage in experiment.order()}
        for arm, by_seed in experiment.arms.items():
            for seed, named in by_seed.items():
                for stage in named.values():
                    owners[stage.fingerprint].add((arm, seed))
        chain = [first]
        for stage in experiment.order():
            known = {one.fingerprint for one in chain}
            ready = all(i.fingerprint in known or i.fingerprint not in run_now or self.store.whole(i)
                        for i in stage.inputs.values())  # fmt: skip
            new = stage.fingerprint in run_now - known - self.covered.keys() and not self.store.whole(stage)
            same = owners[stage.fingerprint] == owners[first.fingerprint]
            if new and ready and same and stage.name not in IN_PLACE:
                chain.append(stage)
        return chain

    def _submitted(self, settings: Settings, title: str, chain: Sequence[Stage]) -> tuple[Path, str]:
        name = "".join(c if c.isalnum() or c in "-_" else "-" for c in f"{chain[0].name}-{title}")[:60]
        # by all that the job does: another run's may begin with the same stage
        key = digest([stage.fingerprint for stage in chain])[:8]
        folder = (self.store.root.parent / "jobs" / f"{name}-{key}").absolute()
        folder.mkdir(parents=True, exist_ok=True)
        record, job = folder / "submitted.json", {"stages": [stage.fingerprint for stage in chain]}
        if record.is_file() and read_json(record)["stages"] == job["stages"]:
            if (number := read_json(record)["job"]) in (queued() or {}):  # of a run that was ended
                print(f"    job {number} is in the queue still, in {folder}", flush=True)
                return folder, number
        for old in folder.glob("*.json"):
            old.unlink()
        (folder / "settings.yaml").write_text(to_yaml(settings))
        write_json(folder / "job.json", job)
        (folder / "job.sh").write_text(script(f"repro-{name}", folder, settings.run.sbatch))
        done = subprocess.run(
            ["sbatch", "--parsable", str(folder / "job.sh")], capture_output=True, text=True, timeout=120
        )
        said = (done.stderr.strip() or done.stdout.strip() or f"exit {done.returncode}").split("\n")[-1]
        require(done.returncode == 0, f"sbatch refused {folder / 'job.sh'}: {said}; mend run.sbatch")
        number = done.stdout.strip().split("\n")[-1].split(";")[0]
        write_json(record, {**job, "job": number})
        print(f"    job {number}: {', '.join(stage.name for stage in chain)}, in {folder}", flush=True)
        self.asked = float("-inf")
        return folder, number

    def _look(self) -> None:
        while not self.over.wait(LOOK_SECONDS):
            with self.lock:
                waiting = list(self.waiting)
            if waiting and time.monotonic() - self.asked > QUEUE_SECONDS:
                self.queue, self.asked = queued(), time.monotonic()
            for one in waiting:
                if (found := self._ended(one)) is not None:
                    with self.lock:
                        self.waiting.remove(one)
                    one.future.set_result(found[0])

    def _ended(self, one: _Waiting) -> tuple[Failure | None] | None:
        """What came of it, in a tuple, once something did."""
        answer = one.folder / f"{one.stage.fingerprint}.json"
        if answer.is_file():
            failure = read_json(answer)["failure"]
            return (Failure(**failure) if failure else None,)
        if self.queue is None or one.job in self.queue:
            one.gone = None
            return None
        one.gone = one.gone or time.monotonic()
        if time.monotonic() - one.gone < WITHOUT_A_JOB:
            return None
        log = one.folder / f"slurm-{one.job}.log"
        return (Failure(f"job {one.job} ended before it was done (time limit, memory?); see {log}"),)


@contextmanager
def batch(
    present: Callable[[], tuple[Settings, Experiment, set[str]]], store: Store, at_once: int
) -> Iterator[list[Batch]]:
    """As many places for stages as jobs may be at once. Jobs stay in the queue when the run is ended."""
    found = Batch(present, store)
    thread = threading.Thread(target=found._look, daemon=True)
    thread.start()
    try:
        yield [found] * at_once
    except BaseException:
        if left := sorted({one.job for one in found.waiting}):
            print(f"jobs {' '.join(left)} stay in the queue; scancel ends them", file=sys.stderr, flush=True)
        raise
    finally:
        found.over.set()
        thread.join()


def read_settings(path: Path) -> Settings:
    """The settings of a run as it resolved them."""
    from omegaconf import OmegaConf

    found = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Settings), OmegaConf.load(path)))
    assert isinstance(found, Settings)
    overrides.check(found.exp)  # what arms hold are schemas then
    return found


def main(arguments: list[str] | None = None) -> int:
    """The door of a job. Exit 1 when a stage failed; 143 when terminated, and then nothing is noted."""
    from repro import environment
    from repro.execution import processes, stages

    environment.prepare(restart=arguments is None)
    (path,) = map(Path, sys.argv[1:] if arguments is None else arguments)
    settings = read_settings(path.parent / "settings.yaml")
    device, failed = device_of(settings.device), False
    environment.quiet(device)
    try:
        with processes.terminable():
            for fingerprint in read_json(path)["stages"]:
                failure = stages.in_process(settings, device, fingerprint)
                told = failure and {key: getattr(failure, key) for key in ("reason", "mistake", "hopeless")}
                write_json(path.parent / f"{fingerprint}.json", {"failure": told})
                failed = failed or failure is not None
    except KeyboardInterrupt:
        return 143
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
