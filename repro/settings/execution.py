"""How the stages of a run are carried out."""

from __future__ import annotations

import os
from dataclasses import dataclass

from repro.errors import require
from repro.plain import Json
from repro.schema import ANY, COUNT, check, how


@dataclass
class Run:
    """How the stages of a run are carried out (docs/parallel.md); nothing of it enters a summary."""

    parallel: int = how(1, "stages at once, a process each; 0 = one a CPU core, or a GPU", within=ANY)
    threads: int | None = how(
        None, "CPU threads of a stage; null = OMP_NUM_THREADS, else a share", within=COUNT
    )
    notice: str | None = how(None, "at the end", choices="desktop | webhook (to $REPRO_WEBHOOK)")
    keep_going: bool = how(True, "an arm that fails is a row of the report, and the other arms go on")
    executor: str | None = how(
        None,
        "that makes a large corpus, and with run.sbatch arms and seeds (docs/cluster.md); null = in place",
        choices="local | slurm | ray",
    )
    cluster: Json = how({}, "the executor's tasks and workers, and Slurm's or Ray's own")
    sbatch: Json = how({}, "of a Slurm job an arm and seed: partition, time, gpus, ..., setup")

    @property
    def jobs(self) -> bool:
        """Whether arms and seeds are jobs of a batch system (:mod:`repro.execution.jobs`)."""
        return bool(self.sbatch)

    @property
    def of_corpus(self) -> str | None:
        """What makes the corpus: nothing of a batch system where only arms are to be its jobs."""
        return None if self.jobs and not self.cluster else self.executor

    def __post_init__(self) -> None:
        check("run", self)
        there = self.notice != "webhook" or bool(os.environ.get("REPRO_WEBHOOK"))
        require(there, "run.notice=webhook needs a URL in $REPRO_WEBHOOK")
