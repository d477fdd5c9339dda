"""One rank of a training that a launcher started: ``python -m repro.pretrain.worker JOB.json``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from repro.errors import SettingError
from repro.execution.processes import leave_with_launcher
from repro.pretrain.job import Job
from repro.pretrain.loop import train
from repro.store import write_json

LAUNCHED_BY = "REPRO_LAUNCHED_BY"  # number of the process that launched, where it is on this machine
ANSWER = "worker.json"  # what rank 0 has to say to the process that launched it: facts, or an error


def main(arguments: list[str]) -> int:
    """Train the job of a JSON file; the last argument, because launchers put theirs before it."""
    leave_with_launcher(os.environ.get(LAUNCHED_BY))
    job = Job.from_json(Path(arguments[-1]).read_text())
    try:
        answer = {"facts": train(job)}
    except SettingError as error:
        answer = {"error": str(error)}
    if "error" in answer or os.environ.get("RANK", "0") == "0":
        write_json(Path(job.out) / ANSWER, answer)
    return int("error" in answer)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
