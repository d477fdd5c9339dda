"""The curve: endpoint, likelihood and accuracy against the share of the corpus kept, and against the tokens
read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import mean
from typing import TypeVar

from repro.outcomes import measure
from repro.outcomes.compare import cells_of, interval_of, lower_is_better
from repro.outcomes.compare import metrics as common_metrics
from repro.outcomes.outcome import Arm, Metric, Outcome
from repro.report.plots import BANDS, Panel, Plot, Series

BLIMP = "blimp/acc"
CROWDED = 14  # arms, above which only those of the primary contrast's share are drawn over the tokens read

Each = TypeVar("Each")  # what each seed has: a metric, or a number
Points = dict[float, tuple[float, list[Each]]]  # share -> (training tokens, of each seed)


def default_metrics(summary: Outcome) -> list[str]:
    """The endpoint, the average accuracy, and BLiMP's and the gain by copying where they were measured."""
    first = next(iter(summary["arms"].values()), None)
    measured = common_metrics(first) if first is not None else []
    return [summary["endpoint"], "accuracy_average", *(m for m in (BLIMP, measure.COPYING) if m in measured)]


def chance(summary: Outcome, metric: str) -> float | None:
    """The level of guessing of an accuracy, of the average the mean over its tasks; ``None`` where there is
    none.
    """
    counted = summary.get("averaged", []) if metric == "accuracy_average" else [metric]
    cells = next(
        (s.get("metrics", {}) for row in summary["arms"].values() for s in row["seeds"].values()), {}
    )
    levels = [cells.get(m, {}).get("chance") for m in counted]
    known = [level for level in levels if level is not None]
    return mean(known) if known and len(known) == len(levels) else None


def axis_of(summary: Outcome, metric: str) -> str:
    """A metric as an axis names it, with the direction that is better."""
    side = "lower" if lower_is_better(summary, metric) else "higher"
    return f"{metric.replace('_', ' ')} ({side} is better)"


def line_of(summary: Outcome, arm: str) -> tuple[str, str]:
    """(what the arms of one line of the curve have in common, its name): everything but the share and the
    seeds, the arm's own proxy, heads, model and training among it. The name is that of the arm without its
    share (``repro.settings.arms.named``).
    """
    row = summary["arms"][arm]
    own = summary.get("settings", {}).get("exp", {}).get("arms", {}).get(arm, {})
    select = own.get("select", {})
    same = [
        row["select"]["selector"],
        row["select"]["params"],
        row.get("strata"),
        row.get("mixture"),
        row["equal_passes"],
        {key: own[key] for key in ("train", "model", "proxy", "heads", "score") if own.get(key)},
        select.get("match"),
        {**own.get("budget", {}), **select.get("budget", {}), "share": None},
    ]
    name = re.sub(r"(_\d\d)?(_passes)?$", "", arm).replace("_", " ")
    return repr(same), name + (", equal passes" if row["equal_passes"] else "")


def by_share(summary: Outcome) -> Plot | None:
    """Metrics against the share of the corpus that is kept, and the endpoint against the training tokens
    where these differ: one line a selector, means over seeds with 95 % intervals. A selector of one share is
    a point.
    """
    panels, said, drawn = [], [], {}
    for metric in default_metrics(summary):
        lines = lines_of(summary, lambda arm, m=metric: cells_of(summary["arms"][arm], m))
        if not any(len(by) > 1 for by in lines.values()):
            continue
        series = [
            whiskers(name, [100 * share for share in by], [v for _, v in by.values()], metric)
            for name, by in lines.items()
        ]
        level = chance(summary, metric)
        drawn[metric] = [cells for by in lines.values() for _, cells in by.values()]
        seen = span(series, drawn[metric])
        panels.append(
            Panel("", "% of the corpus kept", axis_of(summary, metric), series, level=level, span=seen)
        )
        if metric != summary["endpoint"]:
            continue
        said = [
            f"{s.name}: " + ", ".join(f"{x:.0f} % {y:.4f}" for x, y in zip(s.x, s.y, strict=True))
            for s in series
        ]
        shorter = {name: by for name, by in lines.items() if len({tokens for tokens, _ in by.values()}) > 1}
        if shorter:
            tokens = [
                whiskers(name, [t for t, _ in by.values()], [v for _, v in by.values()], metric)
                for name, by in shorter.items()
            ]
            x = "training tokens, whole trainings"
            panels.append(Panel("", x, axis_of(summary, metric), tokens, span=seen))
    if not panels:
        return None
    alt = f"Means over seeds with {intervals(drawn)}; a dotted line is chance. {'; '.join(said)}."
    return Plot("by_share", "By how much is kept", alt, panels)


def lines_of(summary: Outcome, values_of: Callable[[str], list[Each]]) -> dict[str, Points[Each]]:
    """Shares and ``values_of(arm)``, one a seed, by line. The whole corpus ends every line of several
    shares, and is a point of its own where there is none.
    """
    lines: dict[str, Points[Each]] = {}
    names: dict[str, str] = {}
    whole: dict[str, Points[Each]] = {}
    for arm, row in summary["arms"].items():
        values = values_of(arm)
        if values and row["select"]["selector"] == "all":
            whole = {arm: {1.0: (training_tokens(summary, arm), values)}}
        elif values:
            line, name = line_of(summary, arm)
            name = names.setdefault(line, name if name not in names.values() else arm)
            lines.setdefault(name, {})[row["share"]] = (training_tokens(summary, arm), values)
    end = next(iter(whole.values()), {})
    joined = {
        name: dict(sorted({**by, **(end if len(by) > 1 else {})}.items())) for name, by in lines.items()
    }
    if not any(len(by) > 1 for by in joined.values()):
        joined |= whole
    return dict(sorted(joined.items(), key=lambda item: len(item[1]) == 1))


def performance(summary: Outcome, metrics: Sequence[str] = ()) -> Plot | None:
    """Metrics of the evaluated checkpoints against training tokens, the finished model last: means over
    seeds.

    Without ``metrics``: those of :func:`default_metrics`.
    """
    panels, drawn = [], {}
    arms = _uncrowded(summary)
    for metric in metrics or default_metrics(summary):
        series = []
        for arm, row in arms.items():
            points = cells_by_tokens(row, metric)
            if len(points) > 1:
                series.append(with_intervals(arm, list(points), list(points.values()), metric))
        for line in series:
            line.marks = len(series) > BANDS
        if series:
            level = chance(summary, metric)
            drawn[metric] = [
                cells for row in arms.values() for cells in cells_by_tokens(row, metric).values()
            ]
            seen, up = span(series, drawn[metric]), axis_of(summary, metric)
            panels.append(Panel("", "training tokens", up, series, level=level, span=seen))
    if not panels:
        return None
    ends = [f"{p.ylabel}: " + ", ".join(f"{s.name} {s.y[-1]:.3f}" for s in p.series) for p in panels]
    alt = (
        f"Checkpoints against training tokens, means over seeds with {intervals(drawn)}. At the end:"
        f" {'; '.join(ends)}."
    )
    return Plot("performance", "Performance during training", alt, panels)


def by_tokens(arm: Arm, metric: str) -> dict[float, list[float]]:
    """{training tokens: the value of each seed}; see :func:`cells_by_tokens`."""
    return {t: [cell["value"] for cell in cells] for t, cells in cells_by_tokens(arm, metric).items()}


def cells_by_tokens(arm: Arm, metric: str) -> dict[float, list[Metric]]:
    """{training tokens: the metric of each seed} of the evaluated checkpoints and, last, of the finished
    models, which stand for checkpoints kept at the end.
    """
    found: dict[float, list[Metric]] = {}
    for seed in arm["seeds"].values():
        ends = {str(int(loss[-1][0])): seed.get("metrics", {})} if (loss := seed.get("loss")) else {}
        for tokens, cells in {**seed.get("checkpoints", {}), **ends}.items():
            if metric in cells:
                found.setdefault(int(tokens), []).append(cells[metric])
    return dict(sorted(found.items()))


def _uncrowded(summary: Outcome) -> dict[str, Arm]:
    """The arms; of too many for one picture those that keep everything or as much as the primary contrast's
    first arm.
    """
    arms, settings = summary["arms"], summary.get("settings", {}).get("exp", {})
    primary = next((c for c in settings.get("contrasts", []) if c["primary"]), None)
    if len(arms) <= CROWDED or primary is None:
        return arms
    share = arms[primary["treatment"]]["share"]
    return {name: row for name, row in arms.items() if row["share"] in (share, 1.0)}


def training_tokens(summary: Outcome, arm: str) -> float:
    """How many tokens the arm's longest training read."""
    seeds = summary["arms"][arm]["seeds"].values()
    return max((loss[-1][0] for seed in seeds if (loss := seed.get("loss"))), default=0.0)


def span(series: Sequence[Series], points: Sequence[list[Metric]]) -> tuple[float, float] | None:
    """What of the y axis to show: from the lowest to the highest of all single values, and as much again
    on either side, where whiskers reach further: three models of which one is far off have an interval
    beside which nothing else could be told apart. ``None`` where nothing has to be cut.
    """
    every = [cell["value"] for cells in points for cell in cells]
    room = max(every) - min(every)
    low, high = (
        min((end for line in series for end in line.low), default=math.inf),
        max((end for line in series for end in line.high), default=-math.inf),
    )
    bottom, top = max(low, min(every) - room), min(high, max(every) + room)
    return (bottom, top) if room and (bottom > low or top < high) else None


def whiskers(name: str, x: list[float], points: list[list[Metric]], metric: str) -> Series:
    """A line with a mark and a 95 % interval at each point."""
    series = with_intervals(name, x, points, metric)
    series.marks = True
    return series


def with_intervals(name: str, x: list[float], points: list[list[Metric]], metric: str) -> Series:
    """A line of means over seeds in a band of 95 % intervals: those that tables have, over items and seeds
    (:func:`repro.outcomes.compare.interval_of`), and over seeds alone where nothing is known of the items.
    Below three seeds of these there is none, and the band has no width.
    """
    from repro.outcomes.statistics import FEWEST, limits

    means, low, high = [], [], []
    for cells in points:
        values = [cell["value"] for cell in cells]
        centre = mean(values)
        seeds = limits(values) if len(values) >= FEWEST else (centre, centre)
        ends = found[1:] if (found := interval_of(cells, metric)) else seeds
        for side, end in zip((means, low, high), (centre, *ends), strict=True):
            side.append(float(end))
    return Series(name, x, means, "line", low, high)


def intervals(drawn: Mapping[str, Iterable[list[Metric]]]) -> str:
    """What the intervals of a figure take in, in words, from what is drawn of each metric."""
    alone = [m for m, points in drawn.items() if any(interval_of(cells, m) is None for cells in points)]
    if len(alone) == len(drawn):
        return "95 % intervals over seeds alone"
    said = f" (over seeds alone: {', '.join(m.replace('_', ' ') for m in alone)})" if alone else ""
    return f"95 % intervals over seeds and items{said}"
