"""The README's picture: what trained models are worth against the share of the data kept, one line a
selector; and, where models were kept during training, the primary contrast against the tokens read.
"""

from __future__ import annotations

from dataclasses import replace
from statistics import mean

from repro.outcomes.compare import lower_is_better, masked
from repro.outcomes.outcome import Metric
from repro.paper.committed import Result, values
from repro.paper.sizes import sizes
from repro.report import curve, during
from repro.report.plots import Panel, Plot

NAME = "by_share_kept"


def figure(results: list[Result]) -> Plot | None:
    """Endpoint and mean accuracy of the result that says most: evidence before demonstrations, then more
    shares, then longer trainings, then more seeds.
    """
    found = [plot for result in sorted(results, key=_worth, reverse=True) if (plot := _drawn(result))]
    return found[0] if found else None


def block(results: list[Result]) -> str:
    """The picture in HTML for light and dark grounds; empty without one."""
    if (plot := figure(results)) is None:
        return ""
    lines = [
        "<picture>",
        f'  <source media="(prefers-color-scheme: dark)" srcset="paper_tables/{plot.name}_dark.svg">',
        f'  <img alt="{plot.alt}" src="paper_tables/{plot.name}.svg">',
        "</picture>",
        "",
    ]
    return "\n".join(lines)


def _worth(result: Result) -> tuple[bool, int, int, int]:
    arms = result.summary["arms"].values()
    shares = {arm["share"] for arm in arms}
    seeds = min((len(arm["seeds"]) for arm in arms), default=0)
    tokens = max((end for arm in arms for end in during.ends(arm)), default=0)
    return not result.summary["verdict"]["demonstration"], len(shares), tokens, seeds


def _alone(values: dict[int, float]) -> list[Metric]:
    """Of a mean over tasks nothing is known of the items."""
    return [{"value": value} for value in values.values()]


def _drawn(result: Result) -> Plot | None:
    summary = result.summary
    arms = summary["arms"]
    alone = {name for name, arm in arms.items() if (arm.get("mixture") or {}).get("kind", "alone") == "alone"}
    if masked(summary) or len(alone) < 2 or alone != set(arms):
        return None
    measured: list[tuple[str, list[str], float | None]]
    better = "lower is better" if lower_is_better(summary, summary["endpoint"]) else "higher is better"
    level = curve.chance(summary, summary["endpoint"])
    measured = [(f"{summary['endpoint'].replace('_', ' ')}, {better}", [summary["endpoint"]], level)]
    if above := summary.get("averaged", []):
        level = mean(curve.chance(summary, metric) or 0.0 for metric in above)
        title = f"mean accuracy of the {len(above)} tasks above chance, higher is better"
        measured.append((title, above, level))
    panels, said = [], []
    for title, metrics, level in measured:
        lines = curve.lines_of(summary, lambda arm, m=metrics: _alone(values(result, arm, m)))
        if not lines:
            return None
        series = [
            curve.whiskers(name, [100 * share for share in by], [v for _, v in by.values()], metrics[0])
            for name, by in lines.items()
        ]
        seen = curve.span(series, [v for by in lines.values() for _, v in by.values()])
        panels.append(Panel(title, "% of the data kept", "", series, level=level, span=seen))
        number = {(name, 100 * share): len(v) for name, by in lines.items() for share, (_, v) in by.items()}
        ends = [
            f"{s.name} {y:.3f} ({x:.0f} %, {number[s.name, x]} seeds)"
            for s in series
            for x, y in zip(s.x, s.y, strict=True)
        ]
        said.append(f"{title}: {', '.join(ends)}" + (f"; chance {level:.3f}" if level is not None else ""))
    if rows := during.of_primary(summary):
        panel = during.panel(summary, summary["endpoint"], rows)
        [line] = panel.series
        panels.append(
            replace(panel, title=f"difference in {summary['endpoint'].replace('_', ' ')}", ylabel="")
        )
        ends = [
            f"{y:+.3f} ({low:+.3f} to {high:+.3f}) at {x / 1e6:.1f} million tokens"
            for x, y, low, high in zip(line.x, line.y, line.low, line.high, strict=True)
        ]
        said.append(f"{line.name}: {', '.join(ends)}")
    seeds = {len(arm["seeds"]) for arm in arms.values()}
    size = (
        f"{sizes([result])}, {min(seeds)} seeds"
        if len(seeds) == 1
        else f"{sizes([result])}, {min(seeds)} to {max(seeds)} seeds"
    )
    limits = (
        "too small for a verdict" if summary["verdict"]["demonstration"] else "nothing follows for larger"
    )
    selectors = [arm["select"]["selector"] for arm in arms.values()]
    chosen = "; random: what chance selects" if "random" in selectors else ""
    cut = "; whiskers at an edge go on" if any(panel.span for panel in panels) else ""
    own = "means over an arm's own seeds" if len(seeds) > 1 else "means"
    title = f"{result.name}: {size}\n{own}, 95 % intervals; {limits}{cut}"
    alt = (
        f"{result.name}, {size}. {'. '.join(said)}. {own.capitalize()} with 95 % intervals over"
        f" seeds{chosen}; {limits}."
    )
    return Plot(NAME, title, alt, panels)
