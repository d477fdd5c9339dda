"""The members of a sweep side by side: the primary contrast of each, as a table and a plot."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev

from repro.outcomes import summary
from repro.outcomes.compare import primary
from repro.outcomes.outcome import Outcome, bounds
from repro.outcomes.statistics import FEWEST, limits
from repro.report import still
from repro.report.cells import Cell, Interval, Number
from repro.report.plots import Panel, Plot, Series
from repro.report.run_tables import arm_values, could_see
from repro.report.table import Table

DRAW = "corpus.seed="  # labels of members that are draws of the corpus


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
    whether the order of the two arms depends on the member. None is best in a tie: where members differ in
    their selection only, the control is one model. Nothing where members compare other arms or endpoints.
    """
    rows = {label: row for label, member in found.items() if (row := primary(member)) is not None}
    same = {(row["treatment"], row["control"], row["metric"]) for row in rows.values()}
    if len(rows) < max(2, len(found)) or len(same) > 1:
        return []
    first = next(iter(rows.values()))
    means = {label: mean(arm_values(found[label], first["control"], first["metric"])) for label in rows}
    top = (min if first["lower_is_better"] else max)(means.values())
    best = [label for label, value in means.items() if value == top]
    signs = {(r["difference"] or 0.0) > 0 for r in rows.values()}
    found_in = "is the same in every member" if len(signs) == 1 else "depends on the member"
    order = f"the order of the two arms {found_in} (differences of means)."
    if len(best) > 1:
        return [order.capitalize()]
    return [f"By {first['control']} alone the best member is {best[0]}; {order}"]


def _over_draws(found: dict[str, Outcome]) -> list[str]:
    """Of members that are draws of one corpus: the mean of their differences with its interval, one value a
    draw.
    """
    rows = [primary(member) for member in found.values()]
    compared = {(row["treatment"], row["control"], row["metric"]) if row else None for row in rows}
    if not all(label.startswith(DRAW) for label in found) or len(compared) != 1 or None in compared:
        return []
    values = [row["difference"] for row in rows if row is not None and row["difference"] is not None]
    said = f"Over {len(values)} draws of the corpus the mean difference is {mean(values):+.4f}"
    if len(values) < FEWEST:
        return [f"{said}; fewer than {FEWEST} have no interval."]
    low, high = limits(values)
    return [
        f"{said} [{low:+.4f}, {high:+.4f}], one value a draw, their standard deviation {stdev(values):.4f}."
        " This interval covers the draw of the corpus with its scores and selections, which the members' own"
        " do not; seeds are the same numbers in every draw."
    ]


def _made_by(name: str, overrides: list[str], found: dict[str, Outcome]) -> list[str]:
    """The command, with the number of threads where one was set, and the code."""
    origins = [member["provenance"] for member in found.values()]
    threads = {origin.get("omp_num_threads") for origin in origins} - {None}
    before = f"OMP_NUM_THREADS={threads.pop()} " if len(threads) == 1 else ""
    typed = shlex.join([f"sweep={name}", *(a for a in overrides if not a.startswith("work="))])
    tags = {str(origin.get("tag") or origin.get("commit")) for origin in origins}
    return (
        [f"Made by `{before}python -m repro.sweep {typed}`; code: {', '.join(sorted(tags))}."]
        if found
        else []
    )


def collate(folder: Path, name: str, runs: Mapping[str, Path | None], overrides: Sequence[str] = ()) -> str:
    """``tables/sweep.*`` and ``figures/sweep.*`` in the sweep's folder; returns the table as text.

    A member without a primary contrast, or with one seed, has no interval and says so. ``runs`` is label ->
    run folder, ``None`` of a member that failed; ``overrides`` are what was typed beside the sweep's name.
    """
    found = {label: summary.read(run) for label, run in runs.items() if run is not None}
    rows: list[list[Cell]] = []
    series = Series("", [], [], "interval")
    for label in runs:
        if (member := found.get(label)) is None:
            rows.append([label, "failed", *[None] * 6])
            continue
        row, marked = primary(member), label
        if failed := member.get("failed", []):
            marked = f"{label} ({len(failed)} model{'s' * (len(failed) > 1)} failed)"
        if row is None:
            rows.append([marked, "no primary contrast", *[None] * 5, _alone(member)])
            continue
        gap: Cell = f"{row['difference']:+.4f}, {row['verdict']}"
        if (limits := bounds(row)) is not None:
            gap = Interval(*limits, 4)
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
            [
                marked,
                f"{row['treatment']} − {row['control']}",
                *means,
                gap,
                sees,
                row["seeds"],
                row["verdict"],
            ]
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
    whole = len(found) == len(runs) and not any(member.get("failed") for member in found.values())
    notes = [
        *(_best(found) if whole else []),  # one that failed may be the best
        *_over_draws(found),
        could_see(*found.values()),
        (
            "Each member's own primary contrast and endpoint; intervals are not corrected for the number of"
            " members."
        ),
        *_made_by(name, list(overrides), found),
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
        still.write(
            Plot("sweep", f"Sweep {name}: primary contrast, 95 % intervals", alt, [panel]), folder / "figures"
        )
    return table.markdown()
