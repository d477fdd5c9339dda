"""Models that are not there, because a stage of theirs failed or has not run yet: named, and in no mean."""

from __future__ import annotations

from repro.outcomes.outcome import Outcome
from repro.report.cells import Cell
from repro.report.table import Table

NOTE = "Models that failed are in no mean and no difference: comparisons are over the pairs that exist."
INTERIM = (
    "A report in between: comparisons are over the pairs that exist, and none is concluded from before all"
    " of its models are there."
)


def table(summary: Outcome) -> Table | None:
    """A row for each arm and seed that failed."""
    rows: list[list[Cell]] = [
        [row["arm"], row["seed"], f"failed: {row['reason']}", row["stage"]]
        for row in summary.get("failed", [])
    ]
    return Table("failed", "Failed", ["arm", "seed", "reason", "at"], rows, [NOTE]) if rows else None


def lines(summary: Outcome) -> list[str]:
    """The same by arm and reason, a sentence each, for the head of the page and the terminal; and what is not
    there yet, by arm.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for row in summary.get("failed", []):
        found.setdefault((row["arm"], row["reason"]), []).append(str(row["seed"]))
    said = [f"Failed: {arm}, seed {', '.join(seeds)}: {reason}" for (arm, reason), seeds in found.items()]
    absent: dict[str, list[str]] = {}
    for row in summary.get("absent", []):
        absent.setdefault(row["arm"], []).append(str(row["seed"]))
    yet = "; ".join(f"{arm} (seed {', '.join(seeds)})" for arm, seeds in absent.items())
    return said + [NOTE] * bool(said) + ([f"Not there yet: {yet}.", INTERIM] if yet else [])
