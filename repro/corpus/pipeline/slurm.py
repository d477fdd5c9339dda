"""A phase as an array of Slurm jobs: submitted by datatrove, watched and taken back here."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datatrove.executor.slurm import SlurmPipelineExecutor
from loguru import logger

from repro.errors import SettingError
from repro.execution.slurm import PATIENCE, QUEUE_SECONDS
from repro.execution.slurm import queued as queue

if TYPE_CHECKING:
    from repro.corpus.pipeline.executors import Executor


@dataclass
class Jobs:
    """The ids of what was submitted, and why Slurm lets it wait, as far as that was told."""

    ids: list[str] = field(default_factory=list)
    told: set[str] = field(default_factory=set)
    asked: float = float("-inf")
    there: bool = True

    def queued(self) -> bool:
        """Whether Slurm still has something of them; what cannot be asked counts as yes. Says once for each
        reason what they wait for.
        """
        if time.monotonic() - self.asked < QUEUE_SECONDS:
            return self.there
        found, self.asked = queue(), time.monotonic()
        if found is None:
            self.there = True
            return True
        rows = {row for job in self.ids for row in found.get(job, ())}
        if rows and all(row.startswith("PENDING") for row in rows):
            reasons = {row.partition(" ")[2] for row in rows} - {"None", "JobArrayTaskLimit", "Dependency"}
            for reason in sorted(reasons - self.told):
                print(f"    Slurm job {self.ids[-1]} waits: {reason}", flush=True)
            self.told |= reasons
        self.there = bool(rows)
        return self.there


class _Array(SlurmPipelineExecutor):
    """datatrove's, which knows all the jobs it submitted (it may be several), without the last one: that
    waits for ever where a task was lost.
    """

    def launch_merge_stats(self) -> None:
        """Nothing reads those statistics."""

    @property
    def job_id(self) -> Any:
        """Of the latest."""
        return self.ids[-1] if self.ids else None

    @job_id.setter
    def job_id(self, value: Any) -> None:
        self.ids: list[Any] = [*getattr(self, "ids", []), value] if value else []


@contextmanager
def submitted(steps: list[Any], executor: Executor, tasks: int, logs: Path) -> Iterator[Jobs]:
    """Submit what is not finished; on leaving, whatever the reason, cancel what still is in the queue:
    nothing goes on writing when the run has ended.

    Raises :class:`SettingError` where ``sbatch`` refuses.
    """
    jobs = Jobs()
    logger.disable("datatrove")  # each phase would print the path of its script
    array = _Array(
        steps,
        tasks=tasks,
        workers=executor.workers,
        logging_dir=str(logs),
        **{"job_name": "repro-corpus", "qos": "", **executor.own},
    )
    try:
        try:
            array.run()
        except subprocess.CalledProcessError as error:
            raise SettingError(
                f"run.executor=slurm: sbatch refused, see the line above (exit {error.returncode}); the"
                f" job is {logs / 'launch_script.slurm'}, its settings are run.cluster"
            ) from None
        finally:
            jobs.ids = [str(job) for job in array.ids if job != -1]
        yield jobs
    finally:
        if jobs.ids:
            try:
                subprocess.run(["scancel", *jobs.ids], capture_output=True, timeout=PATIENCE)
            except (OSError, subprocess.TimeoutExpired):
                print(f"    not cancelled, Slurm does not answer: {' '.join(jobs.ids)}", flush=True)
