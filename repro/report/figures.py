"""The plots of a run, from its summary alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from repro.outcomes.compare import differences
from repro.outcomes.outcome import Difference, MakeUp, Outcome, bounds
from repro.outcomes.spent import artifacts
from repro.report.plots import BANDS, Heat, Panel, Plot, Series


def _rows(summary: Outcome, **wanted: Any) -> list[Difference]:
    found = summary.get("comparisons", [])
    return [
        r for r in found if r["low"] is not None and all(r[key] == value for key, value in wanted.items())
    ]


def _interval(summary: Outcome, rows: list[Difference], labels: list[str]) -> Series:
    """Intervals, and the differences of the seeds that they rest on."""
    limits = [found for row in rows if (found := bounds(row)) is not None]
    middle, low, high = ([ends[i] for ends in limits] for i in range(3))
    dots = [differences(summary, row) for row in rows]
    return Series("", middle, labels, "interval", low, high, dots=dots)


def contrasts(summary: Outcome) -> Plot | None:
    """The primary endpoint, every contrast."""
    rows = _rows(summary, metric=summary["endpoint"])
    if not rows:
        return None
    labels = [f"{row['treatment']} − {row['control']}" for row in rows]
    better = (
        "Left of zero favours the first arm"
        if rows[0]["lower_is_better"]
        else "Right of zero favours the first arm"
    )
    side = "← better" if rows[0]["lower_is_better"] else "better →"
    axis = f"difference in {summary['endpoint'].replace('_', ' ')} ({side})"
    panel = Panel("", axis, "", [_interval(summary, rows, labels)], zero_line=True)
    said = [
        f"{l}: {r['difference']:+.4f} ({r['low']:+.4f} to {r['high']:+.4f})"
        for l, r in zip(labels, rows, strict=True)
    ]
    return Plot(
        "contrasts", "Primary endpoint, 95 % intervals and seeds", f"{better}. {'; '.join(said)}.", [panel]
    )


def benchmarks(summary: Outcome) -> Plot | None:
    """The primary contrast on every metric: losses and accuracies in panels of their own."""
    chosen = [r for r in _rows(summary, primary=True) if not r["at_chance"] and not r.get("exploratory")]
    panels = []
    for title, lower in (("bits per byte: left is better", True), ("accuracy: right is better", False)):
        rows = [r for r in chosen if r["lower_is_better"] == lower]
        if rows:
            panels.append(
                Panel(
                    title,
                    "difference",
                    "",
                    [_interval(summary, rows, [r["metric"] for r in rows])],
                    zero_line=True,
                )
            )
    if not panels:
        return None
    name = f"{chosen[0]['treatment']} − {chosen[0]['control']}"
    clear = [r["metric"] for r in chosen if (limits := bounds(r)) and (limits[1] > 0 or limits[2] < 0)]
    alt = (
        f"{name} on {len(chosen)} metrics; the interval excludes zero on"
        f" {', '.join(clear) or 'none of them'}."
    )
    return Plot("benchmarks", f"{name}, every metric, 95 % intervals", alt, panels)


def learning(summary: Outcome) -> Plot | None:
    """Training loss against tokens: mean over seeds with the range between them, where ranges of so many
    arms can be told apart.
    """
    series, ends = [], []
    for arm, row in summary["arms"].items():
        curves = [loss for seed in row["seeds"].values() if (loss := seed.get("loss"))]
        if not curves:
            continue
        points = list(zip(*curves, strict=False))
        losses = [[loss for _, loss in point] for point in points]
        means = [sum(values) / len(values) for values in losses]
        tokens = [point[0][0] for point in points]
        series.append(Series(arm, tokens, means, "line", [min(v) for v in losses], [max(v) for v in losses]))
        ends.append(f"{arm} {means[-1]:.3f}")
    if not series:
        return None
    alt = (
        "Training loss against tokens: each arm reads its own text, this ranks no arm. At the end:"
        f" {', '.join(ends)} nats."
    )
    if len(series) > BANDS:
        series = [replace(line, low=[], high=[]) for line in series]
    panel = Panel("", "training tokens", "training loss (nats)", series)
    return Plot("learning", "Training loss (each arm on its own text)", alt, [panel])


def heads(summary: Outcome) -> Plot | None:
    """Retrieval score of every head, selected ones framed."""
    found = summary.get("heads")
    if not found or found["scores"] is None:  # heads named by hand have none
        return None
    values, selected = found["scores"], [(layer, head) for layer, head in found["selected"]]
    named = ", ".join(f"{layer}.{head}" for layer, head in sorted(selected)[:40])
    alt = (
        f"{found['num_layers']} layers by {found['num_heads']} heads; selected (layer.head): {named}. "
        f"The highest score is {max(map(max, values)):.2f}."
    )
    panel = Panel("", "head", "layer", [], Heat(values, selected, "score"))
    return Plot("heads", "Head scores (selected heads framed)", alt, [panel])


def scores(summary: Outcome) -> Plot | None:
    """Distribution of the influence score, one panel a domain: scores are only comparable within one."""
    panels, said = [], []
    for domain, row in summary.get("scores", {}).items():
        if not row["documents"]:
            continue
        edges, counts = row["histogram"]["edges"], row["histogram"]["counts"]
        middles = [(low + high) / 2 for low, high in zip(edges, edges[1:], strict=False)]
        panels.append(
            Panel(
                domain,
                "score = (L_ref − L_base) / L_base",
                "documents",
                [Series("", middles, counts, "histogram", colour=0)],
            )
        )
        said.append(f"{domain}: median {row['quantiles']['0.5']:.3f} over {row['documents']} documents")
    return Plot("scores", "Influence scores by domain", f"{'; '.join(said)}.", panels) if panels else None


def sources(summary: Outcome) -> Plot | None:
    """Share of each source group in the corpus and in what every arm selected, by domain."""
    # domain -> arm or "corpus" -> group -> share of bytes
    shares: dict[str, dict[str, dict[str, float]]] = {}
    for arm, row in summary["arms"].items():
        seeds = [made for seed in row["seeds"].values() if (made := seed.get("make_up"))]
        for domain in seeds[0] if seeds else []:
            here = shares.setdefault(domain, {})
            total = seeds[0][domain]["bytes"] or 1
            here["corpus"] = {g["group"]: g["bytes"] / total for g in seeds[0][domain]["by_group"]}
            if all(s[domain]["selected"] == s[domain]["documents"] for s in seeds):
                continue  # everything: the corpus itself
            here[arm] = selected_shares([s[domain] for s in seeds])
    panels = []
    for domain, here in shares.items():
        if len(here) < 2 or len(here["corpus"]) < 2:
            continue
        series = []
        for name, by_group in here.items():
            values = [100 * v for v in by_group.values()]
            series.append(Series(name, values, list(by_group), "interval", values, values))
        panels.append(Panel(domain, "% of the bytes", "", series))
    if not panels:
        return None
    alt = (
        "Share of each source group in the corpus and in each selection, in"
        f" {', '.join(p.title for p in panels)}."
    )
    return Plot("sources", "What was selected, by source", alt, panels)


def selected_shares(made: list[MakeUp]) -> dict[str, float]:
    """{source group: share of the selected bytes}, mean over the seeds' make-up of one domain."""
    rows = [
        {g["group"]: g["selected_bytes"] / (one["selected_bytes"] or 1) for g in one["by_group"]}
        for one in made
    ]
    return {group: sum(row[group] for row in rows) / len(rows) for group in rows[0]}


def cost(summary: Outcome) -> Plot | None:
    """Minutes of computing by stage."""
    minutes: dict[str, float] = {}
    for artifact in artifacts(summary):
        minutes[artifact["stage"]] = (
            minutes.get(artifact["stage"], 0.0) + artifact["seconds_last_attempt"] / 60
        )
    if not minutes:
        return None
    alt = "Minutes by stage: " + ", ".join(f"{name} {value:.1f}" for name, value in minutes.items()) + "."
    bars = Series("", list(minutes.values()), list(minutes), "bars")
    panel = Panel("", "minutes (the last attempt of each stage)", "", [bars])
    return Plot("cost", "Time by stage", alt, [panel])
