"""How a run is made again: the line that the page, W&B, the README and a published card show."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

from repro.outcomes.outcome import Outcome

DOORS = ("run", "score", "sweep")  # that make runs
NOWHERE = ("work",)  # settings that say where, and nothing about what


def command(summary: Outcome, word: Callable[[str], str] = str) -> str:
    """The command that was typed, each ``word`` of it as that says; of a run that no door made, one of its
    experiment and scale.

    With the number of threads where one was set, since last bits depend on it.
    """
    program, *given = summary["provenance"]["command"]
    door = Path(program).stem
    if door not in DOORS:
        door, given = "run", [f"exp={summary['experiment']}", f"scale={summary['scale']}"]
    threads = summary["provenance"].get("omp_num_threads")
    said = [word(one) for one in given if one.partition("=")[0] not in NOWHERE]
    python = f"python -m repro.{door} {shlex.join(said)}".strip()
    return f"OMP_NUM_THREADS={threads} {python}" if threads else python
