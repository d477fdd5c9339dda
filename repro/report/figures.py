"""The plots of a run, from its summary alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from repro.report import agreement, evolution, planted, selected
from repro.report import benchmarks as benchmark_plots
from repro.report.outcomes import seed_values
from repro.report.plots import Heat, Panel, Plot, Series


def figures(summary: dict[str, Any]) -> list[Plot]:
    """Every plot the summary has the data for, the outcome first."""
    makers = (contrasts, benchmarks, by_share, learning, performance, heads, scores, sources, cost)
    return (
        [plot for maker in makers if (plot := maker(summary)) is not None]
        + benchmark_plots.figures(summary)
        + selected.figures(summary)
        + planted.figures(summary)
        + agreement.figures(summary)
        + evolution.figures(summary)
    )


def _rows(summary: dict[str, Any], **wanted: Any) -> list[dict[str, Any]]:
    found = summary.get("comparisons", [])
    return [r for r in found if r["low"] is not None and all(r[key] == value for key, value in wanted.items())]


def _interval(rows: list[dict[str, Any]], labels: list[str], name: str = "") -> Series:
    values = {key: [row[key] for row in rows] for key in ("difference", "low", "high")}
    return Series(name, values["difference"], labels, "interval", values["low"], values["high"])


def contrasts(summary: dict[str, Any]) -> Plot | None:
    """The primary endpoint, every contrast."""
    rows = _rows(summary, metric=summary["endpoint"])
    if not rows:
        return None
    labels = [f"{row['treatment']} − {row['control']}" for row in rows]
    better = "Left of zero favours the first arm" if rows[0]["lower_is_better"] else "Right of zero favours the first arm"
    axis = f"difference in {summary['endpoint'].replace('_', ' ')}"
    panel = Panel("", axis, "", [_interval(rows, labels)], zero_line=True)
    said = [f"{l}: {r['difference']:+.4f} ({r['low']:+.4f} to {r['high']:+.4f})" for l, r in zip(labels, rows, strict=True)]
    return Plot("contrasts", "Primary endpoint, 95 % intervals", f"{better}. {'; '.join(said)}.", [panel])


def benchmarks(summary: dict[str, Any]) -> Plot | None:
    """The primary contrast on every metric: losses and accuracies in panels of their own."""
    chosen = [r for r in _rows(summary, primary=True) if not r["at_chance"] and not r.get("exploratory")]
    chosen = [r for r in chosen if "perplexity" not in r["metric"]]
    panels = []
    for title, lower in (("bits per byte: left is better", True), ("accuracy: right is better", False)):
        rows = [r for r in chosen if r["lower_is_better"] == lower]
        if rows:
            panels.append(Panel(title, "difference", "", [_interval(rows, [r["metric"] for r in rows])], zero_line=True))
    if not panels:
        return None
    name = f"{chosen[0]['treatment']} − {chosen[0]['control']}"
    clear = [r["metric"] for r in chosen if r["low"] > 0 or r["high"] < 0]
    alt = f"{name} on {len(chosen)} metrics; the interval excludes zero on {', '.join(clear) or 'none of them'}."
    return Plot("benchmarks", f"{name}, every metric, 95 % intervals", alt, panels)


def learning(summary: dict[str, Any]) -> Plot | None:
    """Training loss against tokens: mean over seeds with the range between them."""
    series, ends = [], []
    for arm, row in summary["arms"].items():
        curves = [seed["loss"] for seed in row["seeds"].values() if seed.get("loss")]
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
    alt = f"Training loss against tokens; at the end: {', '.join(ends)} nats. Each arm reads its own text: this ranks no arm."
    panel = Panel("", "training tokens", "training loss (nats)", series)
    return Plot("learning", "Training loss (each arm on its own text)", alt, [panel])


def performance(summary: dict[str, Any], metrics: Sequence[str] = ()) -> Plot | None:
    """Metrics of the evaluated checkpoints against training tokens, the finished model last: means over seeds.

    Without ``metrics``: the endpoint and the average accuracy.
    """
    panels = []
    for metric in metrics or (summary["endpoint"], "accuracy_average"):
        series = []
        for arm, row in summary["arms"].items():
            by_tokens: dict[int, list[float]] = {}
            for seed in row["seeds"].values():
                ends = {str(int(seed["loss"][-1][0])): seed.get("metrics", {})} if seed.get("loss") else {}
                for tokens, cells in {**seed.get("checkpoints", {}), **ends}.items():
                    if metric in cells:
                        by_tokens.setdefault(int(tokens), []).append(cells[metric]["value"])
            if len(by_tokens) > 1:
                points = sorted(by_tokens.items())
                series.append(_with_intervals(arm, [tokens for tokens, _ in points], [values for _, values in points]))
        if series:
            panels.append(Panel("", "training tokens", metric.replace("_", " "), series))
    if not panels:
        return None
    ends = [f"{p.ylabel}: " + ", ".join(f"{s.name} {s.y[-1]:.3f}" for s in p.series) for p in panels]
    alt = f"Checkpoints against training tokens, means over seeds with 95 % intervals; at the end {'; '.join(ends)}."
    return Plot("performance", "Performance during training", alt, panels)


def by_share(summary: dict[str, Any]) -> Plot | None:
    """The endpoint against the share of the corpus that is kept, and against the training tokens where these differ: one line a
    selector, means over seeds with 95 % t-intervals."""
    lines: dict[str, dict[float, tuple[float, list[float]]]] = {}  # name -> share -> (training tokens, values)
    whole: dict[float, tuple[float, list[float]]] = {}
    for arm, row in summary["arms"].items():
        values = list(seed_values(row, summary["endpoint"]).values())
        params = "".join(f" {value}" for value in row["select"]["params"].values())
        name = row["select"]["selector"] + params + (", equal passes" if row["equal_passes"] else "")
        if values and row["select"]["selector"] == "all":
            whole = {1.0: (_training_tokens(summary, arm), values)}
        elif values:
            lines.setdefault(name, {})[row["share"]] = (_training_tokens(summary, arm), values)
    lines = {name: dict(sorted({**by, **whole}.items())) for name, by in lines.items() if len(by) > 1}
    if not lines:
        return None
    endpoint = summary["endpoint"].replace("_", " ")
    shares = [_with_intervals(name, [100 * s for s in by], [v for _, v in by.values()]) for name, by in lines.items()]
    panels = [Panel("", "% of the corpus kept", endpoint, shares)]
    shorter = {name: by for name, by in lines.items() if len({tokens for tokens, _ in by.values()}) > 1}
    if shorter:
        tokens = [
            _with_intervals(name, [t for t, _ in by.values()], [v for _, v in by.values()]) for name, by in shorter.items()
        ]
        panels.append(Panel("", "training tokens", endpoint, tokens))
    alt = "Means over seeds with 95 % intervals: " + "; ".join(
        f"{s.name}: " + ", ".join(f"{x:.0f} % {y:.4f}" for x, y in zip(s.x, s.y, strict=True)) for s in shares
    )
    return Plot("by_share", "Endpoint by how much is kept", alt, panels)


def _training_tokens(summary: dict[str, Any], arm: str) -> float:
    seeds = summary["arms"][arm]["seeds"].values()
    return max((seed["loss"][-1][0] for seed in seeds if seed.get("loss")), default=0.0)


def _with_intervals(name: str, x: list[float], values: list[list[float]]) -> Series:
    """A line of means over seeds in a band of t-intervals; of one seed the band has no width."""
    from statistics import mean, stdev

    from repro.analysis.statistics import half_width

    half = [half_width(stdev(v), len(v), 0.0) if len(v) > 1 else 0.0 for v in values]
    means = [mean(v) for v in values]
    low, high = ([m + sign * h for m, h in zip(means, half, strict=True)] for sign in (-1, 1))
    return Series(name, x, means, "line", low, high)


def heads(summary: dict[str, Any]) -> Plot | None:
    """Retrieval score of every head, selected ones framed."""
    found = summary.get("heads")
    if not found:
        return None
    values, selected = found["scores"], [(layer, head) for layer, head in found["selected"]]
    named = ", ".join(f"{layer}.{head}" for layer, head in sorted(selected)[:40])
    alt = (
        f"{found['num_layers']} layers by {found['num_heads']} heads; selected (layer.head): {named}. "
        f"The highest score is {max(map(max, values)):.2f}."
    )
    panel = Panel("", "head", "layer", [], Heat(values, selected, "score"))
    return Plot("heads", "Head scores (selected heads framed)", alt, [panel])


def scores(summary: dict[str, Any]) -> Plot | None:
    """Distribution of the influence score, one panel a domain: scores are only comparable within one."""
    panels, said = [], []
    for domain, row in summary.get("scores", {}).items():
        if not row["documents"]:
            continue
        edges, counts = row["histogram"]["edges"], row["histogram"]["counts"]
        middles = [(low + high) / 2 for low, high in zip(edges, edges[1:], strict=False)]
        panels.append(
            Panel(
                domain, "score = (L_ref − L_base) / L_base", "documents", [Series("", middles, counts, "histogram", colour=0)]
            )
        )
        said.append(f"{domain}: median {row['quantiles']['0.5']:.3f} over {row['documents']} documents")
    return Plot("scores", "Influence scores by domain", f"{'; '.join(said)}.", panels) if panels else None


def sources(summary: dict[str, Any]) -> Plot | None:
    """Share of each source group in the corpus and in what every arm selected, by domain."""
    shares: dict[str, dict[str, dict[str, float]]] = {}  # domain -> arm or "corpus" -> group -> share of bytes
    for arm, row in summary["arms"].items():
        seeds = [seed["make_up"] for seed in row["seeds"].values() if seed.get("make_up")]
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
    alt = f"Share of each source group in the corpus and in each selection, in {', '.join(p.title for p in panels)}."
    return Plot("sources", "What was selected, by source", alt, panels)


def selected_shares(made: list[dict[str, Any]]) -> dict[str, float]:
    """{source group: share of the selected bytes}, mean over the seeds' make-up of one domain."""
    rows = [{g["group"]: g["selected_bytes"] / (one["selected_bytes"] or 1) for g in one["by_group"]} for one in made]
    return {group: sum(row[group] for row in rows) / len(rows) for group in rows[0]}


def artifacts(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """Every artifact of the run once, shared ones first."""
    seen = {a["fingerprint"]: a for a in summary["artifacts"].values()}
    for row in summary["arms"].values():
        for seed in row["seeds"].values():
            seen.update({a["fingerprint"]: a for a in seed["artifacts"].values()})
    return list(seen.values())


def cost(summary: dict[str, Any]) -> Plot | None:
    """Minutes of computing by stage."""
    minutes: dict[str, float] = {}
    for artifact in artifacts(summary):
        minutes[artifact["stage"]] = minutes.get(artifact["stage"], 0.0) + artifact["seconds_last_attempt"] / 60
    if not minutes:
        return None
    alt = "Minutes by stage: " + ", ".join(f"{name} {value:.1f}" for name, value in minutes.items()) + "."
    bars = Series("", list(minutes.values()), list(minutes), "bars")
    panel = Panel("", "minutes (the last attempt of each stage)", "", [bars])
    return Plot("cost", "Time by stage", alt, [panel])
