"""The members of a sweep side by side: the primary contrast of each, as a table and a plot."""

from __future__ import annotations

from pathlib import Path
from statistics import mean

from repro.outcomes import summary
from repro.outcomes.compare import primary
from repro.outcomes.outcome import Outcome
from repro.outcomes.statistics import FEWEST, limits
from repro.report import plots
from repro.report.plots import Panel, Plot, Series
from repro.report.run_tables import POWER, arm_values
from repro.report.table import Cell, Interval, Number, Table


def _alone(member: Outcome) -> str:
    """What a member says that compares nothing: the endpoint of each arm, mean over seeds with its
    interval.
    """
    said = []
    for arm in member["arms"]:
        values = arm_values(member, arm, member["endpoint"])
        low, high = limits(values) if len(values) >= FEWEST else (None, None)
        said += (
            [f"{arm} {mean(values):.4f}" + (f" [{low:.4f}, {high:.4f}]" if low is not None else "")]
            if values
            else []
        )
    return "; ".join(said) or member["verdict"]["sentence"]


def _best(found: dict[str, Outcome]) -> list[str]:
    """Which member is best by the control arm alone (what is tuned must not look at the treatment), and
    whether the order of the two arms depends on the member. Nothing where members compare other arms or
    endpoints.
    """
    rows = {label: row for label, member in found.items() if (row := primary(member)) is not None}
    same = {(row["treatment"], row["control"], row["metric"]) for row in rows.values()}
    if len(rows) < max(2, len(found)) or len(same) > 1:
        return []
    first = next(iter(rows.values()))
    means = {label: mean(arm_values(found[label], first["control"], first["metric"])) for label in rows}
    best = (min if first["lower_is_better"] else max)(means, key=lambda label: means[label])
    order = (
        "is the same in every member"
        if len({r["difference"] > 0 for r in rows.values()}) == 1
        else "depends on the member"
    )
    return [
        f"By {first['control']} alone the best member is {best}; the order of the two arms {order}"
        " (differences of means)."
    ]


def collate(folder: Path, name: str, runs: dict[str, Path]) -> str:
    """``tables/sweep.*`` and ``figures/sweep.*`` in the sweep's folder; returns the table as text.

    A member without a primary contrast, or with one seed, has no interval and says so. ``runs`` is label ->
    run folder.
    """
    found = {label: summary.read(run) for label, run in runs.items()}
    rows: list[list[Cell]] = []
    series = Series("", [], [], "interval")
    for label, member in found.items():
        row = primary(member)
        if row is None:
            rows.append([label, "no primary contrast", *[None] * 5, _alone(member)])
            continue
        gap: Cell = f"{row['difference']:+.4f}, {row['verdict']}"
        if row["low"] is not None:
            gap = Interval(row["difference"], row["low"], row["high"], 4)
            for values, value in zip(
                (series.x, series.low, series.high), (gap.value, gap.low, gap.high), strict=True
            ):
                values.append(value)
            series.y.append(label)
        means = [
            Number(mean(arm_values(member, row[side], member["endpoint"])), 4)
            for side in ("treatment", "control")
        ]
        sees = None if row["detectable"] is None else Number(row["detectable"], 4)
        rows.append(
            [label, f"{row['treatment']} − {row['control']}", *means, gap, sees, row["seeds"], row["verdict"]]
        )
    columns = [
        "member",
        "primary contrast",
        "treatment",
        "control",
        "difference [95 %]",
        "could see",
        "seeds",
        "verdict",
    ]
    notes = [
        *_best(found),
        POWER,
        (
            "Each member's own primary contrast and endpoint; intervals are not corrected for the number of"
            " members."
        ),
    ]
    table = Table("sweep", f"Sweep {name}", columns, rows, notes)
    table.write(folder / "tables")
    if series.y:
        endpoint = next(iter(found.values()))["endpoint"].replace("_", " ")
        alt = "; ".join(
            f"{l}: {x:+.4f} ({a:+.4f} to {b:+.4f})"
            for l, x, a, b in zip(series.y, series.x, series.low, series.high, strict=True)
        )
        panel = Panel("", f"difference in {endpoint}", "", [series], zero_line=True)
        plots.write(
            Plot("sweep", f"Sweep {name}: primary contrast, 95 % intervals", alt, [panel]), folder / "figures"
        )
    return table.markdown()
