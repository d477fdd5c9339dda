"""What selections set side by side show: tables, plots and words (the paper's section 6)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import cast

from repro.outcomes.outcome import Json, Outcome
from repro.report.cells import Cell, Interval, Number
from repro.report.plots import Panel, Plot, Series, Words
from repro.report.sections import Section, folded
from repro.report.table import Table

CLUSTERS = 12  # bars of a domain, largest first


def sections(summary: Outcome) -> list[Section]:
    """Shared documents, judged quality and shared words; distributions of each selection; clusters, map and
    word clouds of the first pair, or of the primary contrast's; words by rank band.
    """
    counted = [table for table in (shared(summary), judged(summary), overlap(summary)) if table.rows]
    drawn = [distributions(summary), clusters(summary), plane(summary), clouds(summary)]
    banded = words(summary)
    return [
        Section(
            "compared", "Selections compared", [*counted, *drawn, folded(banded if banded.rows else None)]
        )
    ]


def _cells(summary: Outcome) -> Iterator[tuple[str, str, Json]]:
    """(pair, domain, what the comparison found)."""
    for pair, domains in summary.get("pairs", {}).items():
        for domain, found in domains.items():
            yield pair, domain, found


def _profiles(summary: Outcome) -> Iterator[tuple[str, str, Json]]:
    """(arm, domain, profile of the first seed's selection)."""
    for arm, row in summary["arms"].items():
        for seed in list(row["seeds"].values())[:1]:
            for domain, found in seed.get("profile", {}).items():
                yield arm, domain, found


def shared(summary: Outcome) -> Table:
    """Documents and tokens that two selections share, and how alike their rankings are."""
    rows: list[list[Cell]] = []
    for pair, domain, found in _cells(summary):
        d = found["documents"]
        sizes = [d["left"], d["right"], d["both"], d["both_tokens"]]
        rows.append([pair, domain, *sizes, _number(d["jaccard"]), _number(d["spearman"])])
    columns = [
        "selections",
        "domain",
        "documents left",
        "right",
        "both",
        "tokens both",
        "Jaccard",
        "rank correlation",
    ]
    notes = [
        "Two given selections as they are: nothing is drawn, so there is no interval (exp=score_agreement has"
        " them)."
    ]
    if _tokenizers(summary):
        notes.append("Tokens both: by the tokenizer of the left selection's proxy.")
    return Table("shared", "Documents two selections share", columns, rows, notes if rows else [])


def _tokenizers(summary: Outcome) -> list[str]:
    """Domains whose documents the arms' proxies count differently, with the mean length that each finds."""
    found: dict[str, dict[str, float]] = {}
    for arm, domain, profile in _profiles(summary):
        if (mean := profile.get("mean_tokens")) is not None:
            found.setdefault(domain, {})[arm] = mean
    return [
        f"{domain} {', '.join(f'{arm} {mean:.1f}' for arm, mean in means.items())}"
        for domain, means in found.items()
        if len(set(means.values())) > 1
    ]


def overlap(summary: Outcome) -> Table:
    """Table 4 of the paper: overlap of high-frequency words among the top documents of two rankings."""
    rows: list[list[Cell]] = []
    columns: list[str] = []
    for pair, domain, found in _cells(summary):
        tops = found["overlap"]["documents"]
        columns = [
            f"{100 * float(top):.0f} % {weight}" for top, weights in tops.items() for weight in weights
        ]
        rows.append(
            [pair, domain, *(_number(value) for weights in tops.values() for value in weights.values())]
        )
    note = (
        "Shared words over the smaller set, among the top 10, 20 and 50 % of the documents: counted, not"
        " estimated."
    )
    notes = [note] if rows else []
    return Table(
        "overlap", "Overlap of high-frequency words", ["selections", "domain", *columns], rows, notes
    )


def judged(summary: Outcome) -> Table:
    """Tables 3 and 5 of the paper: shares judged educational and reasoning-intensive, with Wilson's 95 %
    intervals.

    Without a judge the mean length is that of the whole selection.
    """
    rows: list[list[Cell]] = []
    notes: list[str] = []
    for arm, row in summary["arms"].items():
        for seed in list(row["seeds"].values())[:1]:
            verdicts = seed.get("judged")
            for domain, found in (verdicts or {}).get("domains", {}).items():
                shares = [share(found[question]) for question in ("education", "reasoning")]
                rows.append([arm, domain, *shares, found["documents"], _number(found["mean_tokens"], 1)])
            if verdicts:
                lost = ", ".join(f"{n} x {reason}" for reason, n in verdicts["failures"].items())
                paid = f", cost {verdicts['cost']:g}" if verdicts.get("cost") is not None else ""
                notes.append(
                    f"{arm}: judged by {verdicts['model']}{paid}{f'; left open: {lost}' if lost else ''}."
                )
                continue
            for domain, profile in seed.get("profile", {}).items():
                rows.append(
                    [arm, domain, "no judge", "no judge", None, _number(profile["selected_mean_tokens"], 1)]
                )
    if rows and (counted := _tokenizers(summary)):
        notes.append(
            "Mean tokens: by the tokenizer of each selection's own proxy; of all documents, selected or not:"
            f" {'; '.join(counted)}."
        )
    columns = ["selection", "domain", "education [95 %]", "reasoning [95 %]", "documents", "mean tokens"]
    return Table("judged", "Judged quality of each selection", columns, rows, notes)


def share(counts: dict[str, int]) -> Cell:
    """Share of yes with Wilson's interval; in words where nothing was answered."""
    from statsmodels.stats.proportion import proportion_confint

    if not counts["answered"]:
        return "no answers"
    ends = cast(tuple[float, float], proportion_confint(counts["yes"], counts["answered"], method="wilson"))
    return Interval(counts["yes"] / counts["answered"], *ends, 2, signed=False)


def words(summary: Outcome) -> Table:
    """Table 11 of the paper: words by band of the ranking."""
    rows: list[list[Cell]] = [
        [arm, domain, band, ", ".join(found) or "none"]
        for arm, domain, profile in _profiles(summary)
        for band, found in profile["words"].items()
    ]
    return Table("words", "Words by rank band", ["selection", "domain", "rank band", "words"], rows)


def distributions(summary: Outcome) -> Plot | None:
    """Length and loss of what each arm selected, among all documents of the domain, by its own proxy."""
    panels: dict[tuple[str, str], Panel] = {}
    drawn: dict[tuple[str, str], list[Json]] = {}
    for arm, domain, profile in _profiles(summary):
        for quantity in ("length", "base_loss"):
            found = profile["quantities"].get(quantity)
            if not found:
                continue
            xlabel = {"length": "tokens of a document", "base_loss": "loss (nats)"}[quantity]
            panel = panels.setdefault((domain, quantity), Panel(domain, xlabel, "% of documents up to here"))
            panel.log_x = quantity == "length"
            measured = drawn.setdefault((domain, quantity), [])
            own = {"edges": found["edges"], **found["all"]}
            everything = f"all documents, by {arm}'s proxy" if measured else "all documents"
            kinds = () if own in measured else ((everything, "all"),)
            measured.append(own)
            for name, kind in (*kinds, (arm, "selected")):
                counts = list(accumulate(found[kind]["counts"]))
                panel.series.append(
                    Series(name, found["edges"][1:], [100 * c / (counts[-1] or 1) for c in counts])
                )
    if not panels:
        return None
    alt = f"Lengths and losses of {', '.join(summary['arms'])} against all documents, by domain."
    return Plot("distributions", "Length and loss of each selection", alt, list(panels.values()))


def shown_pair(summary: Outcome) -> tuple[str, Json] | None:
    """The pair whose plots are drawn: against an educational classifier where there is one, else the
    first.
    """
    pairs = summary.get("pairs", {})
    ranked = sorted(pairs, key=lambda name: "edu" not in name and "classifier" not in name)
    return (ranked[0], pairs[ranked[0]]) if ranked else None


def clusters(summary: Outcome) -> Plot | None:
    """Figure 4 of the paper: how the two selections fall on clusters of their documents."""
    if (pair := shown_pair(summary)) is None:
        return None
    left, _, right = pair[0].partition(" | ")
    panels, said = [], []
    for domain, found in pair[1].items():
        if not (topics := found.get("topics")):
            continue
        rows = sorted(topics["clusters"], key=lambda r: -(r["left"] + r["right"]))[:CLUSTERS]
        names = [f"{i}. {row['name']}" for i, row in enumerate(rows, 1)]
        series = [
            Series(name, [row[key] for row in rows], names, "bars")
            for name, key in ((left, "left"), (right, "right"))
        ]
        panels.append(Panel(domain, "documents of the sample", "", series))
        even = [topics["evenness"][key] for key in ("left", "right")]
        if None not in even:
            said.append(f"{domain}: evenness {left} {even[0]:.2f}, {right} {even[1]:.2f}")
    return (
        Plot("clusters", f"Topics: {pair[0]}", "; ".join(said) or "Clusters by size.", panels)
        if panels
        else None
    )


def plane(summary: Outcome) -> Plot | None:
    """Figures 5 and 6 of the paper: embeddings of both selections on two principal components."""
    if (pair := shown_pair(summary)) is None:
        return None
    left, _, right = pair[0].partition(" | ")
    panels = []
    for domain, found in pair[1].items():
        if not (mapped := found.get("map")):
            continue
        series = []
        for name, key in ((f"only {left}", "left"), (f"only {right}", "right"), ("both", "both")):
            points = mapped["points"][key]
            if points:
                series.append(Series(name, [x for x, _ in points], [y for _, y in points], "points"))
        first, second = (100 * e for e in mapped["explained"])
        panels.append(Panel(domain, f"component 1 ({first:.0f} %)", f"component 2 ({second:.0f} %)", series))
    alt = (
        f"Where the documents of {left} and {right} lie on the first two principal components of their"
        " embeddings."
    )
    return Plot("map", f"Embeddings: {pair[0]}", alt, panels) if panels else None


def clouds(summary: Outcome) -> Plot | None:
    """Figure 18 of the paper: frequent words of each selection without those frequent in both."""
    if (pair := shown_pair(summary)) is None:
        return None
    names = dict(zip(("left", "right"), pair[0].split(" | "), strict=True))
    panels, said = [], []
    for domain, found in pair[1].items():
        for key, name in names.items():
            cloud = [(word, float(count)) for word, count in found["clouds"][key]]
            if cloud:
                panels.append(Panel(f"{domain}: {name}", content=Words(cloud)))
                said.append(f"{domain}, {name}: {', '.join(word for word, _ in cloud[:6])}")
    return (
        Plot("clouds", f"Words of one selection only: {pair[0]}", "; ".join(said) + ".", panels)
        if panels
        else None
    )


def sentence(summary: Outcome) -> str:
    """What stands where a training run has its verdict: how much of one selection the others hold too."""
    held: dict[str, dict[str, list[float]]] = {}
    for pair, _, found in _cells(summary):
        left, _, right = pair.partition(" | ")
        if documents := found["documents"]["left"]:
            held.setdefault(left, {}).setdefault(right, []).append(
                100 * found["documents"]["both"] / documents
            )
    end = "Nothing was trained, so nothing is concluded about training."
    if not held:
        return f"{len(summary['arms'])} selections were described. {end}"
    told = []
    for left, others in held.items():
        parts = ", ".join(
            f"{right} {min(values):.0f} to {max(values):.0f} %" for right, values in others.items()
        )
        told.append(f"of the documents of {left}, these hold as many, lowest to highest domain: {parts}")
    words = "; ".join(told)
    return f"{words[0].upper()}{words[1:]}. {end}"


def _number(value: float | None, digits: int = 2) -> Number | None:
    return None if value is None else Number(value, digits)
