"""What intervals cover, as ``benchmarks/coverage.py`` simulated it: said beside them."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from repro.plain import Json

RECORD = Path(__file__).with_name("coverage.json")


@cache
def record() -> Json:
    """{design: {seeds: share of intervals that hold the truth}} and the number of ``runs``."""
    return json.loads(RECORD.read_text(encoding="utf-8"))


def sentence(seeds: int) -> str | None:
    """Coverage at the next smaller number of seeds that was simulated; ``None`` below the smallest."""
    found = record()
    there = [n for n in map(int, found["normal"]) if n <= seeds]
    if not there:
        return None
    n = str(max(there))
    return (
        f"Simulated, 95 % intervals of {n} differences cover {_percent(found['normal'][n])} where these are"
        f" normal, {_percent(found['exponential'][n])} where they are as skewed as exponential ones, and"
        f" {_percent(found['outliers'][n])} where one in ten is an outlier: look at the points. See"
        " docs/statistics.md."
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
