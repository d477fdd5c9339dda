"""What a user waits for: the help, a plan, a whole run from nothing, and the same command again; and the
memory it takes.

    python -m benchmarks.job [--scale laptop] [--install]

Each command is a process of its own with a new work folder (the download cache of the machine is used where
there is one). Memory is the sum over the job's processes of what each has for itself, looked at twice a
second. ``--install`` also times ``make install`` into a new virtual environment. Prints a Markdown table
beside the figures that were set for two CPU cores.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent
LIMITS = {  # seconds, by command and scale
    "--help": {"smoke": 2, "laptop": 2},
    "--plan": {"smoke": 5, "laptop": 5},
    "the job": {"smoke": 90, "laptop": 900},
    "again": {"smoke": 10, "laptop": 10},
}


def timed(command: list[str]) -> tuple[float, float, str]:
    """Seconds, peak memory in GB over all processes of the command, and what it printed; an error stops the
    benchmark.
    """
    started = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    peak = [0.0]
    watcher = threading.Thread(target=watch, args=(process.pid, peak), daemon=True)
    watcher.start()
    printed = process.communicate()[0]
    seconds = time.perf_counter() - started
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}")
    return seconds, peak[0] / 1e9, printed


def watch(pid: int, peak: list[float]) -> None:
    """Keep the largest sum of unshared memory of a process and its descendants in ``peak``."""
    while psutil.pid_exists(pid):
        total = 0
        try:
            top = psutil.Process(pid)
            for one in (top, *top.children(recursive=True)):
                total += one.memory_full_info().uss
        except psutil.Error:  # it ended meanwhile
            pass
        peak[0] = max(peak[0], total)
        time.sleep(0.5)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", choices=["smoke", "laptop"], default="laptop")
    parser.add_argument(
        "--install", action="store_true", help="time make install into a new environment as well"
    )
    given = parser.parse_args()
    print(f"**The job** (`python -m benchmarks.job --scale {given.scale}`)\n")
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python"
        f" {platform.python_version()}.\n"
    )
    print("| command | seconds | at most | peak GB |\n|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        if given.install:
            seconds, _, _ = timed(["make", "install", f"VENV={folder}/venv"])
            print(f"| `make install` | {seconds:.0f} | | |", flush=True)
        run = [sys.executable, "-m", "repro.run"]
        job = [*run, "exp=selection_30pct", f"scale={given.scale}", f"work={folder}/work"]
        commands = {"--help": [*run, "--help"], "--plan": [*job, "--plan"], "the job": job, "again": job}
        for name, command in commands.items():
            seconds, memory, _ = timed(command)
            print(f"| {name} | {seconds:.1f} | {LIMITS[name][given.scale]} | {memory:.1f} |", flush=True)
        plan = timed([*job, "budget.share=0.2", "--plan"])[2]
    kept = [line.split()[0] for line in plan.split("\n") if " cached " in line]
    print(f"\nAnother selected share finds in the store: {', '.join(dict.fromkeys(kept))}.")


if __name__ == "__main__":
    main()
