"""A disk, or a quota, that runs full at every stage of a whole job: one clear line, nothing half in the
store, and with more room the same command goes on to the outcome of a job that had room from the start.

    python -m benchmarks.full_disk [--seed 0] [--minutes M] [--folder DIR]
        [--out results/benchmarks/full_disk.md]

Two ways. *quota*: no file may grow beyond so many bytes (RLIMIT_FSIZE), whichever library writes it. *disk*:
the store is a small file system of its own in memory (root only). The room begins at nothing and is raised by
a random step after each failure, so that failures fall into every stage. The store lies on a path with
spaces, an apostrophe and letters of other scripts. Compared is as in benchmarks/kills.py.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.kills import JOB, ROOT, at_work, command, differences
from benchmarks.machine import cpu_name
from repro.store import atomic, read_json, sha256_file

NAME = "a store's work – Ünï 日本 [x] 100%"
JOB = (*JOB, "exp.only=[attention_influence,random]")
GROWTH = {"quota": (1.8, 4), "disk": (1.2, 1.8)}  # of the room after a failure
PLENTY = 8 << 30  # bytes
FIRST = {"quota": 2 << 10, "disk": 256 << 10}  # bytes


def attempt(work: Path, way: str, room: int, job: tuple[str, ...] = JOB) -> subprocess.CompletedProcess[str]:
    """The job with so much room. A disk shrinks once stages run: before them the job looks how much there
    is.
    """

    def narrow() -> None:
        if way == "quota":
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

    if way == "disk":
        resize(work.parent, PLENTY)
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(
            command(work, job), cwd=ROOT, stdout=out, stderr=err, text=True, preexec_fn=narrow
        )
        started = time.monotonic()
        while way == "disk" and process.poll() is None and b"running" not in os.pread(out.fileno(), 2**16, 0):
            time.sleep(0.05)
        if way == "disk":
            resize(work.parent, room)
        process.wait(900 - (time.monotonic() - started))
        said = []
        for stream in (out, err):
            stream.seek(0)
            said.append(stream.read())
    return subprocess.CompletedProcess(process.args, process.returncode, *said)


def resize(place: Path, room: int) -> None:
    """Another size of a file system in memory; never below what it holds."""
    held = shutil.disk_usage(place).used
    subprocess.run(["mount", "-o", f"remount,size={max(room, held + 4096)}", str(place)], check=True)


def half_made(work: Path) -> list[str]:
    """Files of published artifacts that are not what their manifest says, and manifests that are none."""
    found = []
    for folder in sorted(p for p in work.glob("artifacts/*/*") if p.is_dir() and p.suffix != ".partial"):
        try:
            files = read_json(folder / "manifest.json")["files"]
        except (OSError, ValueError):
            found.append(f"{folder.name}/manifest.json")
            continue
        found += [f"{folder.name}/{f}" for f, sha in files.items() if sha256_file(folder / f) != sha]
    return found


def faults_of(done: subprocess.CompletedProcess[str], work: Path) -> list[str]:
    """What is wrong with an attempt that had too little room."""
    said = [line for line in done.stderr.split("\n") if line.strip()]
    errors = [line for line in said if line.startswith("error: ")]
    found = [] if done.returncode == 2 else [f"exit {done.returncode}"]
    told = len(errors) == 1 and any(words in errors[0] for words in ("no space left", "GB are free"))
    if "Traceback" in done.stderr or not told:
        found.append(f"said {said[-3:]}")
    return found + [f"half made: {name}" for name in half_made(work)]


def trial(
    way: str,
    seed: int,
    place: Path,
    undisturbed: Path,
    minutes: float = 60,
    growth: tuple[float, float] | None = None,
) -> list[dict[str, Any]]:
    """Attempts with more and more room as rows: the stage that was running, and the faults; the last one
    ends.
    """
    generator, room, rows = random.Random(f"{way}-{seed}"), float(FIRST[way]), []
    work, started = place / NAME, time.monotonic()
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    if way == "disk":
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={int(room)}", "tmpfs", str(place)], check=True)
    try:
        while True:
            enough = time.monotonic() - started > 60 * minutes
            done = attempt(work, way, PLENTY if enough else int(room))
            if done.returncode == 0:
                faults = differences(work, undisturbed)
                return [*rows, {"way": way, "stage": "ended", "room": int(room), "faults": faults}]
            stage = at_work(done.stdout.splitlines(True))
            rows.append({"way": way, "stage": stage, "room": int(room), "faults": faults_of(done, work)})
            print(rows[-1], flush=True)
            if enough:
                return rows
            room *= generator.uniform(*(growth or GROWTH[way]))
    finally:
        if way == "disk":
            subprocess.run(["umount", str(place)], check=True)


def report(rows: list[dict[str, Any]]) -> str:
    """The log as Markdown."""
    full = [row for row in rows if row["stage"] != "ended"]
    ended = [row for row in rows if row["stage"] == "ended"]
    wrong = [row for row in rows if row["faults"]]
    good, equal = (sum(not row["faults"] for row in kind) for kind in (full, ended))
    lines = [
        "**A full disk** (`python -m benchmarks.full_disk`)",
        "",
        f"{cpu_name()}, {os.cpu_count()} cores, Python {platform.python_version()}.",
        "",
        f"{len(full)} attempts of `{' '.join(JOB)}` with too little room, {good} of them ended in one line"
        f" with nothing half made in the store; {equal} of {len(ended)} jobs ended, in the same store with"
        " room at last, equal to the one that had room.",
        "",
        "| running when the room ended | quota | disk |",
        "|---|---:|---:|",
    ]
    counts = Counter((row["stage"], row["way"]) for row in full)
    for stage in dict.fromkeys(row["stage"] for row in full):
        lines.append(f"| {stage} | {counts[stage, 'quota']} | {counts[stage, 'disk']} |")
    lines += [
        "",
        *(f"{row['way']}, {row['room']} bytes, {row['stage']}: {row['faults'][:3]}" for row in wrong),
    ]
    return "\n".join(lines).rstrip() + "\n"


def main() -> int:
    """Exit 1 where an attempt or an outcome was not as it should be."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=60, help="of a way, then there is room")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "repro-full-disk")
    parser.add_argument("--ways", nargs="+", choices=list(FIRST), default=list(FIRST))
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "benchmarks" / "full_disk.md")
    asked = parser.parse_args()
    undisturbed, rows = asked.folder / "undisturbed", []
    if not list(undisturbed.glob("runs/*/report.html")):
        shutil.rmtree(undisturbed, ignore_errors=True)
        subprocess.run(command(undisturbed, JOB), cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    for way in asked.ways:
        rows += trial(way, asked.seed, asked.folder / way, undisturbed, minutes=asked.minutes)
        print(f"{way}: {[(row['stage'], row['faults']) for row in rows if row['way'] == way]}", flush=True)
        with atomic(asked.out) as temporary:
            temporary.write_text(report(rows))
    return 1 if any(row["faults"] for row in rows) or rows[-1]["stage"] != "ended" else 0


if __name__ == "__main__":
    sys.exit(main())
