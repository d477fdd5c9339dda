"""What committed results say, as cells of the paper's tables: means, differences with their intervals, or why
there are none.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from repro.outcomes import measure, summary
from repro.outcomes.compare import between, no_interval, seed_values
from repro.outcomes.outcome import Outcome, bounds
from repro.paper import printed as paper
from repro.report.cells import CHANCE, NOT_RUN, Cell, Interval, Number


@dataclass(frozen=True)
class Result:
    """A committed outcome: the folder's name and its sealed summary."""

    name: str
    summary: Outcome

    @property
    def label(self) -> str:
        """Name, scale, the proxy where it is what was evaluated and, below the thresholds, that it is a
        demonstration.
        """
        masked = self.summary.get("kind") == "mirror"
        proxy = f", proxy {self.summary['settings']['proxy']['name']}" if masked else ""
        weak = ", demonstration" if self.summary["verdict"]["demonstration"] else ""
        return f"{self.name} (scale {self.summary['scale']}{proxy}{weak})"


def read_results(folder: Path) -> list[Result]:
    """Every ``*/summary.json`` under ``folder``, by name; an edited or foreign one raises
    ``SettingError``.
    """
    return [Result(path.parent.name, summary.read(path)) for path in sorted(folder.glob("*/summary.json"))]


def is_the_method(result: Result, arm: str) -> bool:
    """Whether an arm is selected by the paper's score, ranked as the paper ranks it: a run may put another
    selector, other heads or ranking within sources in its place.
    """
    row = result.summary["arms"].get(arm)
    if row is None or row.get("strata") or row["heads"]:
        return False
    return row["select"]["selector"] == "attention_influence" and not row["select"]["params"]


def values(result: Result, arm: str, metrics: list[str]) -> dict[int, float]:
    """{seed: mean over ``metrics``} for seeds that have all of them; empty when the arm or a metric was not
    run.
    """
    row = result.summary["arms"].get(arm)
    found = [seed_values(row, metric) for metric in metrics] if row else []
    shared = set.intersection(*map(set, found)) if found else set()
    return {seed: mean(f[seed] for f in found) for seed in sorted(shared)}


@dataclass(frozen=True)
class Gap:
    """A difference as a table shows it: its interval or why there is none, what the run could see, seeds and
    p-value.
    """

    cell: Cell
    could_see: Cell = None
    seeds: Cell = None
    p: float | None = None

    @property
    def cells(self) -> list[Cell]:
        """In the order of the columns of :func:`gap_columns`."""
        return [self.cell, self.could_see, self.seeds]


def gap_columns(name: str = "difference") -> list[str]:
    """Headings of a :class:`Gap`."""
    return [f"{name} [95 %]", "could see", "seeds"]


def difference(
    result: Result, treatment: str, control: str, metrics: list[str], scale: float = 1.0, digits: int = 2
) -> Gap:
    """Treatment minus control, paired by seed (:func:`repro.outcomes.compare.between`), times ``scale``."""
    arms = result.summary["arms"]
    there = treatment in arms and control in arms
    row = between(result.summary, treatment, control, metrics) if there else None
    if row is None:
        return Gap(NOT_RUN)
    if (limits := bounds(row)) is None:
        return Gap(no_interval(row), None, row["seeds"])
    value, low, high = (scale * end for end in limits)
    shown = Interval(value, low, high, digits)
    sees = None if row["detectable"] is None else Number(scale * row["detectable"], digits)
    return Gap(shown, sees, row["seeds"], row["p"])


def columns_of(result: Result, column: str) -> list[str]:
    """The run's metrics behind a column of table 1 (several are averaged), empty when one of them was not
    run.
    """
    if column == "Avg":
        return ["accuracy_average"] if _has(result, "accuracy_average") else []
    sought = paper.metric_names().get(column, [])
    return sought if all(_has(result, metric) for metric in sought) else []


def _has(result: Result, metric: str) -> bool:
    return any(
        metric in seed.get("metrics", {})
        for arm in result.summary["arms"].values()
        for seed in arm["seeds"].values()
    )


def percent(result: Result, arm: str, metrics: list[str]) -> Cell:
    """Mean over seeds in percent, marked at chance, or why there is none."""
    found = values(result, arm, metrics) if metrics else {}
    if not found:
        return NOT_RUN
    at_chance = all(m in result.summary["arms"][arm]["at_chance"] for m in metrics)
    return Number(100 * mean(found.values()), 2, CHANCE if at_chance else "")


def primary(result: Result) -> list[tuple[str, str]]:
    """(treatment, control) of the run's primary contrast, if it has one."""
    pairs = {(r["treatment"], r["control"]): None for r in result.summary["comparisons"] if r["primary"]}
    return list(pairs)


def own_columns(result: Result) -> dict[str, list[str]]:
    """The columns that the run's own evaluation suite names, of tasks that it asked, with their metrics."""
    suite = result.summary["settings"]["eval"]
    asked = {"", *(Path(task).stem for task in suite["tasks"])}
    columns = {
        column: [sought] if isinstance(sought, str) else list(sought)
        for column, sought in suite["columns"].items()
    }
    return {
        column: sought
        for column, sought in columns.items()
        if any((found := measure.of(metric)).group or found.task in asked for metric in sought)
    }
