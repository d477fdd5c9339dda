"""Differences of arms after the tokens at which models were kept: a table and a picture."""

from __future__ import annotations

from repro.outcomes import measure
from repro.outcomes.compare import between, metrics, primary
from repro.outcomes.outcome import Arm, Difference, During, Gap, Outcome, bounds
from repro.report.cells import Cell
from repro.report.curve import CROWDED, axis_of
from repro.report.plots import Panel, Plot, Series
from repro.report.run_tables import interval
from repro.report.table import Table

NOTE = (
    "Pairs of models of one seed after as many tokens; 95 % intervals over seeds and items, neither tested"
    " nor corrected for their number. heldout_bits_per_byte is the mean over domains, which favours arms that"
    " draw from the whole corpus."
)


def table(summary: Outcome) -> Table | None:
    """Every contrast, metric and number of tokens; the ends stand in the table of contrasts."""
    found = summary.get("during", [])
    heads = list(dict.fromkeys((_name(row), row["metric"]) for row in found))
    rows: list[list[Cell]] = [
        [_name(row), row["metric"], row["tokens"], interval(row), row["seeds"]]
        for row in sorted(found, key=lambda row: heads.index((_name(row), row["metric"])))
    ]
    columns = ["contrast", "metric", "training tokens", "difference [95 %]", "seeds"]
    return Table("during", "Differences during training", columns, rows, [NOTE], by=2) if rows else None


def plot(summary: Outcome) -> Plot | None:
    """Against the tokens, the end last where it was compared: a panel a metric, a line a contrast. Of many
    contrasts those with the control of the primary one.
    """
    rows = [row for row in summary.get("during", []) if row["low"] is not None]
    first = primary(summary)
    if len({_name(row) for row in rows}) > CROWDED and first is not None:
        rows = [row for row in rows if row["control"] == first["control"]]
    panels = [panel(summary, metric, rows) for metric in dict.fromkeys(row["metric"] for row in rows)]
    if not panels:
        return None
    said = [
        f"{panel.title}: "
        + ", ".join(f"{s.name} {s.y[-1]:+.4f} ({s.low[-1]:+.4f} to {s.high[-1]:+.4f})" for s in panel.series)
        for panel in panels
    ]
    alt = (
        "Paired differences against training tokens with 95 % intervals. The last of each:"
        f" {'; '.join(said)}."
    )
    names = {series.name for panel in panels for series in panel.series}
    what = f"{names.pop()} during training" if len(names) == 1 else "Differences during training"
    return Plot("during", f"{what}, 95 % intervals", alt, panels)


def panel(summary: Outcome, metric: str, rows: list[During]) -> Panel:
    """One metric's differences among ``rows``, which have intervals: a line a contrast."""
    series = []
    for name in dict.fromkeys(_name(row) for row in rows):
        of_line = [row for row in rows if (_name(row), row["metric"]) == (name, metric)]
        if points := of_line and _points(summary, of_line):
            x, y, low, high = (list(column) for column in zip(*points, strict=True))
            series.append(Series(name, x, y, "line", low, high, marks=True))
    return Panel(
        axis_of(summary, metric), "training tokens", "difference", series, level=0.0, level_name="equal"
    )


def of_primary(summary: Outcome) -> list[During]:
    """The primary contrast on its endpoint, by tokens, where it has intervals."""
    first = primary(summary)
    return [
        row
        for row in summary.get("during", [])
        if first is not None
        and row["low"] is not None
        and (_name(row), row["metric"]) == (_name(first), summary["endpoint"])
    ]


def _points(summary: Outcome, rows: list[During]) -> list[tuple[int, float, float, float]]:
    """(tokens, difference, low, high) of one contrast and metric, in order of tokens, the end included."""
    found: list[tuple[int, During | Gap]] = [(row["tokens"], row) for row in rows]
    arms = [summary["arms"][arm] for arm in (rows[0]["treatment"], rows[0]["control"])]
    last = {tokens for arm in arms for tokens in ends(arm)}
    parts = [m for m in metrics(arms[0]) if measure.of(m).group == rows[0]["metric"]] or [rows[0]["metric"]]
    end = between(summary, rows[0]["treatment"], rows[0]["control"], parts)
    if end is not None and len(last) == 1:
        found.append((last.pop(), end))
    return [
        (tokens, *limits) for tokens, row in sorted(found, key=lambda at: at[0]) if (limits := bounds(row))
    ]


def ends(arm: Arm) -> set[int]:
    """After how many tokens the arm's trainings ended."""
    return {int(loss[-1][0]) for seed in arm["seeds"].values() if (loss := seed.get("loss"))}


def _name(row: During | Difference) -> str:
    return f"{row['treatment']} − {row['control']}"
