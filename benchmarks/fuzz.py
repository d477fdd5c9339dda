"""Strangers' inputs, drawn at random: each is read, with counts that add up, or refused in one line.

    python -m benchmarks.fuzz [--inputs 20000] [--seed 0] [--only KIND] [--out results/benchmarks/fuzz.md]

Inputs and checks stand in benchmarks/fuzz_targets.py. hypothesis draws them, and where one fails makes it
small: what is printed is the smallest input that still fails. A traceback, a message of several lines, rows
that do not add up and a silent acceptance are all faults, and any fault is exit 1.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.machine import cpu_name
from repro.store import atomic

ROOT = Path(__file__).resolve().parent.parent
MEMORY = 16 << 30  # bytes of address space: what asks for more fails here, and not the machine


def fuzz(name: str, inputs: int, seed: int, folder: Path) -> tuple[Counter[str], str | None]:
    """({outcome: inputs}, the fault or nothing) of one kind of input."""
    import hypothesis

    from benchmarks import fuzz_targets

    strategy, check, _ = fuzz_targets.targets(folder)[name]
    counts: Counter[str] = Counter()

    def one(drawn: Any) -> None:
        here = Path(tempfile.mkdtemp(dir=folder))
        try:
            counts[check(here, drawn)] += 1
        finally:
            shutil.rmtree(here, ignore_errors=True)

    run = hypothesis.given(strategy)(one)
    run = hypothesis.seed(seed)(run)
    phases = [hypothesis.Phase.generate, hypothesis.Phase.shrink]
    options = {"max_examples": inputs, "deadline": None, "database": None, "phases": phases}
    run = hypothesis.settings(
        **options, suppress_health_check=list(hypothesis.HealthCheck), print_blob=False
    )(run)
    try:
        run()
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return counts, "".join(traceback.format_exception(error))
    return counts, None


def report(rows: dict[str, tuple[Counter[str], str | None, float]], asked: int, seed: int) -> str:
    """The log as Markdown."""
    total = sum(sum(counts.values()) for counts, _, _ in rows.values())
    faults = [name for name, (_, fault, _) in rows.items() if fault]
    lines = [
        f"**Fuzzing** (`python -m benchmarks.fuzz --inputs {asked} --seed {seed}`)",
        "",
        f"{cpu_name()}, {os.cpu_count()} cores, Python {platform.python_version()}.",
        "",
        f"{total:,} inputs of {len(rows)} kinds; faults (tracebacks, messages of several lines, rows that do"
        f" not add up, silent acceptance): {len(faults)}{' in ' + ', '.join(faults) if faults else ''}.",
        "",
        "| kind of input | inputs | read | refused in one line | fault | seconds |",
        "|---|---:|---:|---:|---|---:|",
    ]
    for name, (counts, fault, seconds) in rows.items():
        said = "one" if fault else "none"
        lines.append(
            f"| {name} | {sum(counts.values()):,} | {counts['read']:,} | {counts['refused']:,} | {said} |"
            f" {seconds:.0f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    """Exit 1 where an input is a fault."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="one kind of input, by a part of its name")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    from benchmarks import fuzz_targets

    rows: dict[str, tuple[Counter[str], str | None, float]] = {}
    with tempfile.TemporaryDirectory(prefix="repro-fuzz-") as temporary:
        os.environ["REPRO_CACHE"] = temporary
        for name, (_, _, share) in fuzz_targets.targets(Path(temporary)).items():
            if asked.only and asked.only.lower() not in name.lower():
                continue
            started = time.monotonic()
            counts, fault = fuzz(name, round(asked.inputs * share), asked.seed, Path(temporary))
            rows[name] = counts, fault, time.monotonic() - started
            print(f"{name}: {dict(counts)} in {rows[name][2]:.0f} s", flush=True)
            if fault:
                print(fault, file=sys.stderr, flush=True)
            if asked.out and not asked.only:
                with atomic(asked.out) as file:
                    file.write_text(report(rows, asked.inputs, asked.seed))
    return 1 if any(fault for _, fault, _ in rows.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
