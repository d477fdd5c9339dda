"""What Slurm still has of a user's jobs."""

from __future__ import annotations

import getpass
import subprocess

PATIENCE = 60  # seconds for an answer
QUEUE_SECONDS = 15.0  # between two questions: they burden a controller that all users share
WITHOUT_A_JOB = 60.0  # seconds after a job has left the queue, for its files to be seen


def queued() -> dict[str, set[str]] | None:
    """State and reason of this user's jobs, by their numbers (an array has one): {"7":
    {"PENDING Resources"}}. ``None`` where Slurm cannot be asked, which says nothing about any job.
    """
    asked = ["squeue", "-h", "-o", "%F %T %r", "-u", getpass.getuser()]
    try:
        found = subprocess.run(asked, capture_output=True, text=True, timeout=PATIENCE)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if found.returncode != 0:
        return None
    jobs: dict[str, set[str]] = {}
    for line in found.stdout.splitlines():
        number, _, state = line.strip().partition(" ")
        jobs.setdefault(number, set()).add(state)
    return jobs
