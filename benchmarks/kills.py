"""SIGKILL at random moments of a whole job, over and over: what comes out in the end must equal the job
nobody disturbed.

    python -m benchmarks.kills [--kills 200] [--seed 0] [--minutes M] [--folder DIR] [--out
    results/benchmarks/kills.md]

A trial is ``exp=selection_30pct scale=smoke`` with one seed in a work folder of its own. It is killed with
all it started, started again, and so on, until it has met as many kills as were drawn for it (3 to 9); then
it may finish. Half of the moments are drawn by the clock over the whole time of the job, half by waiting for
a stage drawn at random to begin and killing soon after, so that short stages are met as well. Compared are
the sha256 of every file of every artifact, the run's summary, tables and figures, and what training recorded.
Clock times are left out, and the count of shards that a resumed scoring found done; whatever a dead process
left in the store counts as a fault. Every kill is a row of ``<folder>/kills.jsonl``; the same command goes on
from there.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.machine import cpu_name
from repro.store import atomic, read_json, sha256_file

ROOT = Path(__file__).resolve().parent.parent
JOB = ("exp=selection_30pct", "scale=smoke", "exp.seeds=[0]", "tracking.wandb=disabled")
STAGES = (
    "items",
    "corpus",
    "proxy",
    "detection",
    "heads",
    "score",
    "tokens",
    "selection",
    "pretrain",
    "evaluate",
    "report",
)
SECONDS = 28.0  # of an undisturbed job, roughly: the latest moment that is drawn by the clock
FEWEST, MOST = 3, 9  # kills of one trial
CLOCK = {"tokens_per_second", "mfu", "waiting_share", "memory_gb", "checkpoint_seconds", "seconds"}
# of lm-eval: holds the time and place of its run; the values stand in summary.json beside it
TIMED = ("results.json",)


def command(work: Path, job: tuple[str, ...] = JOB) -> list[str]:
    """The job in ``work``."""
    return [sys.executable, "-m", "repro.run", *job, f"work={work}"]


def killed(work: Path, generator: random.Random, job: tuple[str, ...] = JOB) -> dict[str, Any]:
    """Start the job, kill all of it at a drawn moment; says what was running. ``stage`` is "ended" where it
    was faster.
    """
    process = subprocess.Popen(
        command(work, job),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    started, lines, seen = time.monotonic(), [], threading.Condition()

    def read() -> None:
        for line in process.stdout or ():
            with seen:
                lines.append(line)
                seen.notify_all()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    wanted = generator.choice(STAGES) if generator.random() < 0.5 else None
    after = generator.uniform(0, 1.5) if wanted else generator.uniform(2.0, SECONDS)
    while process.poll() is None and time.monotonic() - started < (120 if wanted else after):
        with seen:
            if wanted and running(lines, wanted):
                break
            seen.wait(0.05)
    if wanted:
        time.sleep(after)
    ended = process.poll() is not None
    if not ended:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    reader.join(10)
    stage = "ended" if ended else at_work(lines)
    return {
        "stage": stage,
        "seconds": round(time.monotonic() - started, 2),
        "by": wanted or "clock",
        "exit": process.returncode,
    }


def running(lines: list[str], stage: str) -> bool:
    """Whether a stage of that name has begun; the report begins when the last of all stages is done."""
    if stage == "report":
        return any(
            "/" in l and l[1:].split("/")[0] == l.split("/")[1].split("]")[0] and " done in " in l
            for l in lines
            if l[0] == "["
        )
    return any(line.startswith("[") and line.partition("]")[2].split()[:1] == [stage] for line in lines)


def at_work(lines: list[str]) -> str:
    """The stage that was running when the output ended."""
    stages = [line for line in lines if line.startswith("[")]
    if not stages:
        return "start"
    last = stages[-1]
    if " done in " not in last:
        return last.partition("]")[2].split()[0]
    place, count = last[1:].partition("]")[0].split("/")
    return "report" if place.strip() == count else "between"


def differences(work: Path, undisturbed: Path) -> list[str]:
    """What of a finished job differs from the undisturbed one, by name; leftovers of dead processes are
    differences too.
    """
    found = []
    here, there = (
        sorted(str(p.relative_to(w).parent) for p in w.glob("artifacts/*/*/manifest.json"))
        for w in (work, undisturbed)
    )
    if here != there:
        found.append(f"artifacts: {sorted(set(here) ^ set(there))}")
    for name in set(here) & set(there):
        ours, theirs = (_files(w / name) for w in (work, undisturbed))
        found += [
            f"{name}/{file}"
            for file in sorted(ours.keys() | theirs.keys())
            if ours.get(file) != theirs.get(file)
        ]
        listed = read_json(work / name / "manifest.json")["files"]
        found += [
            f"{name}/{f}: not what its manifest says"
            for f, sha in listed.items()
            if sha256_file(work / name / f) != sha
        ]
    runs = [_run(w) for w in (work, undisturbed)]
    found += [
        f"runs/{file}"
        for file in sorted(runs[0].keys() | runs[1].keys())
        if runs[0].get(file) != runs[1].get(file)
    ]
    left = [p for p in work.rglob("*") if p.name.endswith((".partial", ".tmp", ".old", ".progress"))]
    return found + [f"left over: {p.relative_to(work)}" for p in left]


def _files(folder: Path) -> dict[str, str]:
    """{file: digest or content without clock times} of an artifact."""
    found = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if not path.is_file() or name == "manifest.json" or name.endswith(TIMED):
            continue
        found[name] = _figures(path) if name == "metrics.jsonl" else sha256_file(path)
    return found


def _figures(path: Path) -> str:
    """What a training recorded, clock times left out; a step that was done twice counts once."""
    rows: dict[Any, dict[str, Any]] = {}
    for line in path.read_text().splitlines():
        row = {key: value for key, value in json.loads(line).items() if key not in CLOCK}
        rows.setdefault(row.get("step"), {}).update(row)
    return json.dumps(list(rows.values()))


def _run(work: Path) -> dict[str, str]:
    """{file: digest} of the run's folder; the summary without its provenance, times and the seal over
    them.
    """
    (folder,) = (path for path in work.glob("runs/*") if path.is_dir())  # beside it lies its lock
    found = {str(p.relative_to(folder)): sha256_file(p) for p in folder.rglob("*") if p.is_file()}
    for name in [n for n in found if n == "report.html" or n == "config.yaml" or "cost." in n]:
        del found[name]  # they show the work folder and clock times
    found["summary.json"] = json.dumps(_timeless(read_json(folder / "summary.json")), sort_keys=True)
    return found


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        left = {
            "provenance",
            "checksum",
            "seconds_last_attempt",
            "finished",
            "work",
            "seconds",
            "resources",
            "shards_resumed",
            "probes_resumed",  # how much a killed attempt had done
            *CLOCK,
        }
        return {key: _timeless(inner) for key, inner in value.items() if key not in left}
    return [_timeless(inner) for inner in value] if isinstance(value, list) else value


def trial(
    number: int, seed: int, folder: Path, undisturbed: Path, job: tuple[str, ...] = JOB
) -> list[dict[str, Any]]:
    """The kills of one trial as rows, each with what differed in the end (``faults``, none where all is
    equal).
    """
    generator = random.Random(f"{seed}-{number}")
    work = folder / f"trial-{number:03}"
    shutil.rmtree(work, ignore_errors=True)
    rows = []
    for _ in range(generator.randint(FEWEST, MOST)):
        rows.append({"trial": number, **killed(work, generator, job)})
        if rows[-1]["stage"] == "ended":
            break
    done = subprocess.run(command(work, job), cwd=ROOT, capture_output=True, text=True, timeout=900)
    if done.returncode:
        faults = [f"exit {done.returncode}: {done.stderr.strip().splitlines()[-1:]}"]
    else:
        faults = differences(work, undisturbed)
    if not faults:
        shutil.rmtree(work)
    return [row | {"faults": faults} for row in rows]


def report(rows: list[dict[str, Any]], asked: int) -> str:
    """The log as Markdown."""
    kills = [row for row in rows if row["stage"] != "ended"]
    trials = {row["trial"]: row["faults"] for row in rows}
    wrong = {number: faults for number, faults in trials.items() if faults}
    bad = [row for row in kills if row["trial"] in wrong]
    hours = sum(row["seconds"] for row in rows) / 3600
    lines = [
        f"**Kills** (`python -m benchmarks.kills --kills {asked}`)",
        "",
        f"{cpu_name()}, {os.cpu_count()} cores, Python {platform.python_version()}.",
        "",
        (
            f"{len(kills)} SIGKILLs of the whole process group ({asked} asked for) in {len(trials)} trials of"
            f" `{' '.join(JOB)}`; {hours:.1f} hours until the kills. {len(trials) - len(wrong)} of"
            f" {len(trials)} trials, with {len(kills) - len(bad)} of {len(kills)} kills, ended equal to the"
            " undisturbed job."
        ),
        "",
        "| running when it was killed | kills | in trials that ended equal |",
        "|---|---:|---:|",
    ]
    counts, equal = (
        Counter(row["stage"] for row in kills),
        Counter(row["stage"] for row in kills if row["trial"] not in wrong),
    )
    order = ("start", *STAGES, "between")
    for stage in sorted(counts, key=lambda name: (order.index(name) if name in order else len(order), name)):
        lines.append(f"| {stage} | {counts[stage]} | {equal[stage]} |")
    lines += ["", *(f"Trial {number}: {'; '.join(faults[:5])}" for number, faults in wrong.items())]
    return "\n".join(lines).rstrip() + "\n"


def main() -> int:
    """Exit 1 where a trial ended otherwise than the undisturbed job."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, help="begin no further trial after so long")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "repro-kills")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "benchmarks" / "kills.md")
    asked = parser.parse_args()
    started, log = time.monotonic(), asked.folder / "kills.jsonl"
    undisturbed = asked.folder / "undisturbed"
    if not list(undisturbed.glob("runs/*/report.html")):
        shutil.rmtree(undisturbed, ignore_errors=True)
        subprocess.run(command(undisturbed), cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []
    number = max((row["trial"] for row in rows), default=-1) + 1
    while sum(row["stage"] != "ended" for row in rows) < asked.kills:
        if asked.minutes and time.monotonic() - started > 60 * asked.minutes:
            break
        new = trial(number, asked.seed, asked.folder, undisturbed)
        with open(log, "a") as handle:
            handle.writelines(json.dumps(row) + "\n" for row in new)
        rows, number = rows + new, number + 1
        print(
            f"trial {new[0]['trial']}: {[row['stage'] for row in new]} {new[0]['faults'] or 'equal'}",
            flush=True,
        )
        with atomic(asked.out) as temporary:
            temporary.write_text(report(rows, asked.kills))
    return 1 if any(row["faults"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
