"""Where every arm stands: a row an arm, for runs of more arms than a page has room for as columns."""

from __future__ import annotations

from statistics import mean

from repro.outcomes.compare import evaluated, interval, lower_is_better
from repro.outcomes.outcome import Arm, Outcome
from repro.outcomes.verdict import of_arm
from repro.report.cells import CHANCE, Cell, Interval, Number
from repro.report.curve import default_metrics, training_tokens
from repro.report.run_tables import CHANCE_NOTE, arm_values
from repro.report.table import Table


def table(summary: Outcome) -> Table | None:
    """Share kept, tokens read and the metrics of the curve with their intervals; ``None`` where no arm was
    evaluated.
    """
    metrics = [m for m in default_metrics(summary) if any(arm_values(summary, a, m) for a in summary["arms"])]
    if not metrics:
        return None
    rows: list[list[Cell]] = []
    for name, arm in summary["arms"].items():
        cells = [_cell(summary, name, arm, metric) for metric in metrics]
        share, tokens = f"{100 * arm['share']:g} %", int(training_tokens(summary, name))
        rows.append([name, share, tokens, *cells, len(evaluated(arm))])
    arrows = [f"{metric} {'↓' if lower_is_better(summary, metric) else '↑'}" for metric in metrics]
    columns = ["arm", "share kept", "training tokens", *arrows, "seeds"]
    marked = any(getattr(cell, "mark", "") for row in rows for cell in row)
    notes = [
        (
            f"Means over an arm's {of_arm(summary)}; 95 % intervals over seeds, and over items where these"
            " have a standard error; below three seeds over items alone. Arms are compared by the contrasts"
            " above, which pair them by seed: intervals of levels may overlap where those of differences do"
            " not reach zero."
        ),
        *([CHANCE_NOTE] if marked else []),
    ]
    return Table("levels", "Where every arm stands", columns, rows, notes)


def _cell(summary: Outcome, name: str, arm: Arm, metric: str) -> Cell:
    """The mean of a metric with the interval that there is."""
    from repro.outcomes.statistics import FEWEST, limits

    values = arm_values(summary, name, metric)
    if not values:
        return "not run"
    mark, digits = CHANCE if metric in arm.get("at_chance", []) else "", 3
    if found := interval(arm, metric):
        return Interval(*found, digits, signed=False, mark=mark)
    if len(values) < FEWEST:
        return Number(mean(values), digits, mark)
    low, high = limits(values)
    return Interval(mean(values), float(low), float(high), digits, signed=False, mark=mark)
