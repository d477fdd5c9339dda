"""Workers of a cleaning and of a scoring killed at random moments, over and over: every document must be
there once, in files equal to those of a job that nobody disturbed.

    python -m benchmarks.lost_workers [--kills 100] [--seed 0] [--folder DIR] [--out FILE]

Cleaning: a corpus of synthetic documents with ``run.executor=local``, two workers. Scoring:
``exp=score_corpus scale=smoke`` with two processes of its own and one that joined from outside. A trial kills
one worker after the other, of those that there are at the moment, with SIGKILL; a job that gives up is
started again, as a person would. One trial of each job begins with a machine that is switched off:
everything is killed at once. Half of the kills are of each job.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.corpus import write
from benchmarks.machine import cpu_name
from repro.store import atomic, sha256_file

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = 6000  # of the corpus that is cleaned
SCORED = (
    "exp=score_corpus scale=smoke tracking.wandb=disabled score.processes=2 corpus.shard_documents=8"
    " corpus.max_documents_per_domain=400 corpus.max_tokens_per_domain=50000"
).split()
BETWEEN = (0.3, 4.0)  # seconds from one kill to the next
FEWEST, MOST = 2, 5  # kills of one trial
LEAVE = ("resource_tracker", "forkserver import main")  # no workers: helpers of Python's own


@dataclass(frozen=True)
class Job:
    """A command on a folder, those that help it, and what comes out: {file: sha256}."""

    name: str
    command: Callable[[Path], list[str]]
    helper: Callable[[Path], list[str]] | None
    begin: Callable[[Path, Path], None]  # (trial's folder, undisturbed one)
    found: Callable[[Path], dict[str, str]]


def _digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): sha256_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "manifest.json"  # which holds times
    }


def _clean(folder: Path) -> list[str]:
    own = ["--worker", "--folder", str(folder), "--executor", "local", "--tasks", "6", "--workers", "2"]
    return [sys.executable, "-m", "benchmarks.corpus", *own]


def _begin_cleaning(folder: Path, undisturbed: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "in").symlink_to(undisturbed.parent / "in")


def _begin_scoring(folder: Path, undisturbed: Path) -> None:
    """What comes before the scores is there."""
    left = shutil.ignore_patterns("score", "selection", "runs", "logs", "*.lock")
    if undisturbed.is_dir():
        shutil.copytree(undisturbed, folder, ignore=left, symlinks=True)


JOBS = (
    Job("cleaning", _clean, None, _begin_cleaning, lambda folder: _digests(folder / "work/artifacts/corpus")),
    Job(
        "scoring",
        lambda folder: [sys.executable, "-m", "repro.run", *SCORED, f"work={folder}"],
        lambda folder: [sys.executable, "-m", "repro.influence", "--join", f"work={folder}", "device=cpu"],
        _begin_scoring,
        lambda folder: _digests(folder / "artifacts/score") | _digests(folder / "artifacts/selection"),
    ),
)


def start(command: list[str]) -> psutil.Popen:
    """A command in a process group of its own."""
    quiet = subprocess.DEVNULL
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return psutil.Popen(
        command, cwd=ROOT, stdout=quiet, stderr=quiet, start_new_session=True, env=environment
    )


def workers(processes: list[psutil.Popen]) -> list[psutil.Process]:
    """What works for these now: their descendants but Python's own helpers, and helpers from outside."""
    found = list(processes[1:])
    for process in processes:
        try:
            found += process.children(recursive=True)
        except psutil.NoSuchProcess:
            continue
    return [process for process in found if _works(process)]


def _works(process: psutil.Process) -> bool:
    try:
        words, up = " ".join(process.cmdline()), process.parent()
        forked = up is not None and LEAVE[1] in " ".join(up.cmdline())  # its workers have its command line
        helper = any(word in words for word in LEAVE) and not forked
        return process.status() != psutil.STATUS_ZOMBIE and bool(words) and not helper
    except psutil.NoSuchProcess:
        return False


def trial(job: Job, folder: Path, clean: Path, kills: int, everything: bool, draw: random.Random) -> dict:
    """Kill workers of the job ``kills`` times (``everything``: first all there is), let it end and compare
    it with the one in ``clean``.
    """
    shutil.rmtree(folder, ignore_errors=True)
    job.begin(folder, clean)
    running: list[psutil.Popen] = []
    killed, starts, until = 0, 0, time.monotonic() + 900

    def begin() -> None:
        nonlocal running
        running = [start(job.command(folder))] + ([start(job.helper(folder))] if job.helper else [])

    def end() -> None:
        for process in running:
            try:
                os.killpg(process.pid, 9)
            except ProcessLookupError:
                pass
            process.wait()

    while time.monotonic() < until:
        if not running or running[0].poll() is not None:
            if running and running[0].returncode == 0:
                break
            end()
            begin()
            starts += 1
        if job.helper and running[1].poll() is not None and killed < kills:
            running[1] = start(job.helper(folder))
        time.sleep(draw.uniform(*BETWEEN) if killed < kills else 0.2)
        there = workers(running)
        if killed < kills and there and running[0].poll() is None:
            killed += 1
            if everything and killed == 1:
                end()
            else:
                draw.choice(there).kill()
    end()
    found, wanted = job.found(folder), job.found(clean)
    wrong = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
    if not wrong:
        shutil.rmtree(folder)
    row = {"job": job.name, "kills": killed, "everything": everything}
    return row | {"starts": starts, "wrong": wrong}


def undisturbed(job: Job, folder: Path) -> Path:
    """The job that nobody disturbs, made once."""
    done = folder / job.name / "undisturbed"
    if not (done / "whole").is_file():
        shutil.rmtree(folder / job.name, ignore_errors=True)
        if job.name == "cleaning":
            write(folder / job.name / "in", DOCUMENTS)
        job.begin(done, done)
        subprocess.run(job.command(done), cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        (done / "whole").touch()
    return done


def report(rows: list[dict], asked: int) -> str:
    """The log as Markdown."""
    lines = [
        f"**Lost workers** (`python -m benchmarks.lost_workers --kills {asked}`)",
        "",
        f"{cpu_name()}, {os.cpu_count()} cores, Python {platform.python_version()}. SIGKILL at random"
        " moments.",
        "",
        "| job | kills of a worker | of everything at once | trials | started again | ended equal |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name in dict.fromkeys(row["job"] for row in rows):
        own = [row for row in rows if row["job"] == name]
        whole = sum(row["everything"] for row in own)
        kills, again = sum(row["kills"] for row in own), sum(row["starts"] - 1 for row in own)
        equal = sum(not row["wrong"] for row in own)
        lines.append(f"| {name} | {kills - whole} | {whole} | {len(own)} | {again} | {equal} |")
    wrong = [f"{row['job']}: {', '.join(row['wrong'][:5])}" for row in rows if row["wrong"]]
    return "\n".join([*lines, *([""] + wrong if wrong else [])]) + "\n"


def main() -> int:
    """Exit 1 where a trial ended otherwise than the undisturbed job."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "repro-lost-workers")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "benchmarks" / "lost_workers.md")
    asked = parser.parse_args()
    log = asked.folder / "trials.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []
    for job in JOBS:
        clean = undisturbed(job, asked.folder)
        while (done := sum(row["kills"] for row in rows if row["job"] == job.name)) < asked.kills / 2:
            number = sum(row["job"] == job.name for row in rows)
            draw = random.Random(f"{asked.seed}-{job.name}-{number}")
            kills = min(draw.randint(FEWEST, MOST), int(asked.kills / 2) - done)
            folder = asked.folder / job.name / f"trial-{number:03}"
            rows.append(trial(job, folder, clean, kills, number == 1, draw))
            with open(log, "a") as handle:
                handle.write(json.dumps(rows[-1]) + "\n")
            print(rows[-1], flush=True)
            with atomic(asked.out) as temporary:
                temporary.write_text(report(rows, asked.kills))
    return 1 if any(row["wrong"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
