"""Of a pilot: the noise of every metric as a table."""

from __future__ import annotations

from repro.outcomes.noise import SEEDS
from repro.outcomes.outcome import Outcome
from repro.report.cells import Cell, Number
from repro.report.table import Table


def table(summary: Outcome) -> Table | None:
    """The noise of every metric, the endpoint first."""
    found = summary.get("noise")
    if not found:
        return None
    rows: list[list[Cell]] = []
    for metric in sorted(found, key=lambda m: m != summary["endpoint"]):
        row = found[metric]
        numbers = [row[key] for key in ("paired", "paired_limit", "unpaired", "unpaired_limit")]
        numbers += [row["detectable"][str(n)] for n in SEEDS]
        rows.append([metric, *(Number(value, 4) for value in numbers), row["seeds"]])
    columns = [
        "metric",
        "paired SD",
        "limit",
        "unpaired SD",
        "its limit",
        *(f"seen with {n} pairs" for n in SEEDS),
        "seeds",
    ]
    notes = [
        (
            "Standard deviations of the difference of two models that differ only in the documents drawn;"
            " limits are upper 80 % limits. Seen: the smallest true difference that so many pairs see with 80"
            " % power at the limit of the paired one."
        ),
    ]
    return Table("noise", "Noise between two random draws", columns, rows, notes)
