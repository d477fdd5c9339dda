"""Benchmarks of a run: accuracy with its chance level, beside it the likelihood of the right answer, which
leaves the floor first; BLiMP by phenomenon with what word frequencies and n-grams alone would score.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import mean

from repro.outcomes import measure
from repro.outcomes.compare import cells_of, headlines, interval, lower_is_better, metrics
from repro.outcomes.outcome import Arm, Metric, Outcome, bounds
from repro.report.cells import CHANCE, Cell, Interval, Number
from repro.report.curve import cells_by_tokens, intervals, lines_of, with_intervals
from repro.report.plots import BANDS, Panel, Plot, Series
from repro.report.table import Table

Lines = dict[str, dict[float, list[Metric]]]  # name -> place on the axis, ascending -> that of each seed

GREY = 6  # of plots.COLOURS
LIKELIHOODS = {
    measure.PROBABILITY: "probability of the right answer ↑",
    measure.GOLD: "bits per byte of the right answer ↓",
}
SHORT = {measure.PROBABILITY: "probability", measure.GOLD: "bits per byte"}
MEASURES = (
    "Probability of the right answer: its likelihood over the sum of those of all choices. Bits per byte of"
    " the right answer: its likelihood alone, over its UTF-8 bytes; defined for tasks without choices too."
)


def tables(summary: Outcome) -> list[Table]:
    """The tables there is data for."""
    return [table for maker in (likelihoods, blimp, over_baselines) if (table := maker(summary)) is not None]


def figures(summary: Outcome) -> list[Plot]:
    """The plots there is data for."""
    return [plot for maker in (accuracies, during_training, by_share) if (plot := maker(summary)) is not None]


def tasks(summary: Outcome) -> dict[str, list[str]]:
    """{task: its headline accuracy, probability and bits per byte of the right answer, as far as every arm
    has them}.
    """
    arms = list(summary["arms"].values())
    shared = [m for m in metrics(arms[0]) if all(m in metrics(arm) for arm in arms)] if arms else []
    found: dict[str, list[str]] = {}
    first = headlines(summary)
    for task in dict.fromkeys(one.task for m in shared if (one := measure.of(m)).group in LIKELIHOODS):
        headline = [first[task]] if task in first else []
        found[task] = headline + [f"{group}/{task}" for group in LIKELIHOODS if f"{group}/{task}" in shared]
    return found


def _guess(summary: Outcome, metric: str) -> float | None:
    """What guessing gives: the chance level of an accuracy, or that of a probability."""
    for arm in summary["arms"].values():
        for seed in arm["seeds"].values():
            if cell := seed.get("metrics", {}).get(metric):
                return cell.get("chance", cell.get("guess"))
    return None


def _cell(arm: Arm, metric: str) -> Cell:
    found = interval(arm, metric)
    mark = CHANCE if metric in arm.get("at_chance", []) else ""
    return Interval(*found, signed=False, mark=mark) if found else Number(_mean(arm, metric), 3, mark)


def _mean(arm: Arm, metric: str) -> float:
    return mean(seed.get("metrics", {})[metric]["value"] for seed in arm["seeds"].values())


def _primary(summary: Outcome) -> tuple[list[str], Callable[[str], Cell]]:
    """Column of the primary contrast, and its difference on a metric; no column without one."""
    rows = {row["metric"]: row for row in summary.get("comparisons", []) if row["primary"]}
    if not rows:
        return [], lambda metric: None
    first = next(iter(rows.values()))

    def difference(metric: str) -> Cell:
        limits = bounds(rows[metric]) if metric in rows else None
        return Interval(*limits) if limits is not None else None

    return [f"{first['treatment']} − {first['control']} [95 %]"], difference


def likelihoods(summary: Outcome) -> Table | None:
    """One row a task and measure: what guessing gives, every arm, and the primary contrast."""
    column, difference = _primary(summary)
    rows: list[list[Cell]] = []
    for task, measured in tasks(summary).items():
        for metric in measured:
            one = measure.of(metric)
            name = LIKELIHOODS.get(one.group, f"{one.name} ↑")
            cells = [_cell(arm, metric) for arm in summary["arms"].values()]
            guess = _guess(summary, metric)
            row: list[Cell] = [task, name, None if guess is None else Number(guess, 3), *cells]
            rows.append([*row, difference(metric)] if column else row)
    if not rows:
        return None
    notes = [
        MEASURES,
        f"95 % intervals over seeds and items, below three seeds over items alone.{chance_note(rows)}",
    ]
    if column:
        notes.append("Differences are shown for reading; words stand in the outcome table alone.")
    return Table("likelihoods", "Benchmarks: accuracy and likelihood of the right answer",
                 ["task", "measure", "guessing", *summary["arms"], *column], rows, notes)  # fmt: skip


def chance_note(rows: list[list[Cell]]) -> str:
    """What the mark means, where it stands."""
    marked = any(getattr(cell, "mark", "") for row in rows for cell in row)
    return f"{CHANCE}: not shown to be above chance, so in no verdict." if marked else ""


def _blimp_metrics(summary: Outcome) -> dict[str, str]:
    """{metric: what it is called} of every entry of minimal pairs: over all, then by phenomenon."""
    arms = list(summary["arms"].values())
    found: dict[str, str] = {}
    for metric in metrics(arms[0]) if arms else []:
        one = measure.of(metric)
        if "clusters" in _first(arms[0])[metric] and all(metric in metrics(a) for a in arms):
            found[metric] = one.task.replace("_", " ") if one.group else f"{one.task}, all"
    return found


def _first(arm: Arm) -> dict[str, Metric]:
    """The metrics of an arm's first model."""
    return next(iter(arm["seeds"].values())).get("metrics", {})


def blimp(summary: Outcome) -> Table | None:
    """Accuracy on minimal pairs, over all paradigms and by phenomenon: arms, baselines, the primary
    contrast.
    """
    found = _blimp_metrics(summary)
    if not found:
        return None
    column, difference = _primary(summary)
    arms, baselines = summary["arms"], summary.get("baselines", {}).get("baselines", {})
    rows: list[list[Cell]] = []
    for metric, name in found.items():
        cell = _first(next(iter(arms.values())))[metric]
        counts = cell.get("clusters"), cell.get("n")
        row: list[Cell] = [name, *counts, *(_cell(arm, metric) for arm in arms.values())]
        row += [_baseline(base["metrics"].get(metric)) for base in baselines.values()]
        rows.append([*row, difference(metric)] if column else row)
    names = [row["name"] for row in baselines.values()]
    notes = [
        (
            "Share of pairs whose grammatical sentence is the likelier one, in float32; equal likelihoods"
            " count half. Mean over paradigms; 95 % intervals over seeds and paradigms (pairs of a paradigm"
            f" come from one template and are no independent items). Guessing gives 0.5.{chance_note(rows)}"
        ),
        "Phenomena are shown for reading: they are not tested.",
        f"Ties: {_ties(summary, found)}.",
    ]
    if baselines:
        text = summary.get("baselines", {})["trained_on"]
        notes.append(
            f"{' and '.join(names)}: counted on {text['bytes'] / 1e6:.1f} MB of the unselected training"
            f" corpus ({text['documents']:,} documents, {text['words']:,} words and sentence starts)."
        )
    columns = ["phenomenon", "paradigms", "pairs", *arms, *names, *column]
    return Table("blimp", "BLiMP: grammatical against ungrammatical", columns, rows, notes)


def _baseline(cell: Metric | None) -> Cell:
    from repro.evaluate.minimal_pairs import wide

    if cell is None:
        return "not run"
    value, stderr = cell["value"], cell.get("stderr")
    if stderr is None:
        return Number(value, 3, CHANCE)
    half = wide(cell.get("clusters", 0)) * stderr
    mark = CHANCE if value - half <= (cell.get("chance") or 0.0) else ""
    return Interval(value, value - half, value + half, signed=False, mark=mark)


def _ties(summary: Outcome, found: dict[str, str]) -> str:
    """How many pairs had equal likelihoods, in words."""
    said = []
    for metric in (m for m in found if m.endswith("/acc")):
        for name, arm in summary["arms"].items():
            counts = [seed.get("metrics", {})[metric].get("ties", 0) for seed in arm["seeds"].values()]
            span = f"{min(counts):,}" if min(counts) == max(counts) else f"{min(counts):,} to {max(counts):,}"
            said.append(f"{name} {span}")
        for row in summary.get("baselines", {}).get("baselines", {}).values():
            if metric in row["metrics"]:
                said.append(f"{row['name']} {row['metrics'][metric]['ties']:,}")
    return ", ".join(said)


def over_baselines(summary: Outcome) -> Table | None:
    """By how much every arm is ahead of word frequencies and n-grams on the same pairs."""
    rows: list[list[Cell]] = []
    for base in summary.get("baselines", {}).get("baselines", {}).values():
        for arm, by_metric in base["over"].items():
            for metric in (m for m in by_metric if m.endswith("/acc")):
                found = by_metric[metric]
                if found["low"] is None:
                    cell: Cell = Number(found["difference"], 3)
                else:
                    cell = Interval(found["difference"], found["low"], found["high"])
                rows.append([measure.of(metric).task, arm, base["name"], cell, found["seeds"]])
    if not rows:
        return None
    notes = [
        "Paired by pair; 95 % intervals over seeds and paradigms, uncorrected; below three seeds over"
        " paradigms alone."
    ]
    columns = ["task", "arm", "baseline", "accuracy over it [95 %]", "seeds"]
    return Table("over_baselines", "Minimal pairs: models over baselines", columns, rows, notes)


def accuracies(summary: Outcome) -> Plot | None:
    """Headline accuracy of every task and arm with its interval, the chance level beside it."""
    named = {
        task: found[0]
        for task, found in tasks(summary).items()
        if not found[0].startswith(tuple(LIKELIHOODS))
    }
    if not named:
        return None
    series = []
    for name, arm in summary["arms"].items():
        means = [_mean(arm, metric) for metric in named.values()]
        ends = [interval(arm, m) or (v, v, v) for m, v in zip(named.values(), means, strict=True)]
        series.append(
            Series(name, means, list(named), "interval", [e[1] for e in ends], [e[2] for e in ends])
        )
    for base in summary.get("baselines", {}).get("baselines", {}).values():
        there = {task: base["metrics"][m]["value"] for task, m in named.items() if m in base["metrics"]}
        if there:
            values = list(there.values())
            series.append(Series(base["name"], values, list(there), "interval", values, values))
    levels = {task: level for task, m in named.items() if (level := _guess(summary, m)) is not None}
    values = list(levels.values())
    series.append(Series("chance", values, list(levels), "interval", values, values, colour=GREY))
    at = [
        f"{task} ({arm})"
        for arm, row in summary["arms"].items()
        for task, m in named.items()
        if m in row["at_chance"]
    ]
    alt = (
        "Accuracy by task and arm with 95 % intervals and the level of guessing. At chance:"
        f" {', '.join(at) or 'none'}."
    )
    return Plot(
        "accuracies",
        "Accuracy and chance, 95 % intervals",
        alt,
        [Panel("", "accuracy (higher is better)", "", series)],
    )


def during_training(summary: Outcome) -> Plot | None:
    """Accuracy, probability and bits per byte of the right answer of every task against the tokens read."""

    def lines(metric: str) -> Lines:
        return {name: cells_by_tokens(arm, metric) for name, arm in summary["arms"].items()}

    return _drawn(summary, "benchmarks_training", "Benchmarks during training", "training tokens", lines)


def by_share(summary: Outcome) -> Plot | None:
    """The same against the share of the corpus kept: the lines of :func:`repro.report.curve.by_share`."""

    def lines(metric: str) -> Lines:
        found = lines_of(summary, lambda arm: cells_of(summary["arms"][arm], metric))
        return {
            name: {100.0 * share: cells for share, (_, cells) in by.items()} for name, by in found.items()
        }

    return _drawn(
        summary, "benchmarks_share", "Benchmarks by how much is kept", "% of the corpus kept", lines
    )


def _drawn(
    summary: Outcome,
    name: str,
    title: str,
    axis: str,
    lines: Callable[[str], Lines],
) -> Plot | None:
    """A panel a task and measure: means over seeds in bands of 95 % intervals; what guessing and baselines
    give is dashed.
    """
    panels, drawn = [], {}
    for task, measured in tasks(summary).items():
        for metric in measured:
            found = {line: points for line, points in lines(metric).items() if len(points) > 1}
            if not found:
                continue
            drawn[metric] = [cells for points in found.values() for cells in points.values()]
            series = [
                with_intervals(line, list(points), list(points.values()), metric)
                for line, points in found.items()
            ]
            for line in series:
                line.marks = len(series) > BANDS
            ends = [min(s.x[0] for s in series), max(s.x[-1] for s in series)]
            for label, level, colour in _levels(summary, metric):
                series.append(Series(label, ends, [level, level], "line", dashed=True, colour=colour))
            short = SHORT.get(measure.of(metric).group, "accuracy")
            short += " ↓" if lower_is_better(summary, metric) else " ↑"
            panels.append(Panel(task, axis, short, series))
    if not panels:
        return None
    said = [
        f"{p.title} {p.ylabel}: " + ", ".join(f"{s.name} {s.y[-1]:.3f}" for s in p.series) for p in panels
    ]
    alt = f"Means over seeds with {intervals(drawn)}. At the end: {'; '.join(said)}."
    return Plot(name, title, alt, panels)


def _levels(summary: Outcome, metric: str) -> list[tuple[str, float, int]]:
    """(name, level, colour) of the flat lines of a panel."""
    guess = _guess(summary, metric)
    found = [] if guess is None else [("chance", guess, GREY)]
    for number, base in enumerate(summary.get("baselines", {}).get("baselines", {}).values()):
        if metric in base["metrics"]:
            found.append((base["name"], base["metrics"][metric]["value"], GREY + 1 - 4 * number))
    return found
