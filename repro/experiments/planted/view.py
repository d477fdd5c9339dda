"""What a planted-truth run shows: which kinds of document each selector finds."""

from __future__ import annotations

from collections.abc import Iterator

from repro.outcomes.outcome import Json, Outcome
from repro.report.cells import Cell, Interval, Number
from repro.report.plots import Panel, Plot, Series
from repro.report.sections import Section
from repro.report.table import Table

OVER_SHUFFLED = "facts_over_shuffled"


def sections(summary: Outcome) -> list[Section]:
    """What each selector finds, and what repetition does to it."""
    return [Section("planted", "What each selector finds", [*figures(summary), *tables(summary)])]


def _found(summary: Outcome) -> Iterator[tuple[str, Json]]:
    """(arm, what its selector finds)."""
    for arm, row in summary["arms"].items():
        for seed in list(row["seeds"].values())[:1]:
            if "found" in seed:
                yield arm, seed["found"]


def _interval(estimate: Json | None) -> Cell:
    if estimate is None:
        return "no documents"
    return Interval(estimate["auroc"], estimate["low"], estimate["high"], 2, signed=False)


def tables(summary: Outcome) -> list[Table]:
    """AUROC of each kind by selector, before and after deduplication; and what deduplication does to repeated
    text.
    """
    found = dict(_found(summary))
    if not found:
        return []
    kinds = list(next(iter(found.values()))["all"])
    rows: list[list[Cell]] = []
    for scope, what in _scopes(found):
        for arm, by_kind in what.items():
            for when in ("before", "after"):
                rows.append([scope, arm, when, *(_interval(by_kind[kind][when]) for kind in kinds)])
    some = next(iter(found.values()))["all"]["facts"]["before"] or {"wanted": 0, "others": 0, "sources": 0}
    notes = [
        (
            "AUROC of planted documents over real text of the same domain and length: 0.5 is blind, 1 is"
            " always above. 95 % intervals over sources."
        ),
        (
            f"Per kind {some['wanted']} documents over {some['others']} real ones, from {some['sources']}"
            " sources. Before and after: deduplication of sentences and lines within documents, real ones"
            " too."
        ),
        "facts over facts_shuffled: the same sentences, with and without something to copy.",
    ]
    columns = ["domain", "selector", "deduplication", *(k.replace("_over_", " over facts_") for k in kinds)]
    return [Table("planted", "What each selector finds", columns, rows, notes), _multiplied(found)]


def _scopes(found: Json) -> Iterator[tuple[str, Json]]:
    yield "all", {arm: f["all"] for arm, f in found.items()}
    for domain in next(iter(found.values()))["domains"]:
        yield domain, {arm: f["domains"][domain] for arm, f in found.items()}


def _multiplied(found: Json) -> Table:
    rows: list[list[Cell]] = []
    for arm, f in found.items():
        before, after = (f["all"]["repeated"][when] for when in ("before", "after"))
        if before and after:
            rows.append(
                [
                    arm,
                    *(
                        _number(e[c])
                        for e, c in ((before, "median"), (after, "median"), (before, "median_of_others"))
                    ),
                ]
            )
    columns = ["selector", "repeated four times", "once", "real text"]
    notes = [
        "Medians of what each selector ranks by, over all documents of a kind: described, not estimated.",
        "Copying is what an influence score measures.",
    ]
    return Table("repeated", "What repetition does to a selector's priority", columns, rows, notes)


def _number(value: float | None) -> Number | None:
    return None if value is None else Number(value, 4)


def sentence(summary: Outcome) -> str:
    """What the first selector finds, in numbers; the others stand in the table."""
    found = dict(_found(summary))
    if not found:
        return "Nothing was found."
    name, of_all = next((arm, f["all"]) for arm, f in found.items())
    said = [f"{kind.replace('_over_', ' over facts_').replace('_', ' ')} {_interval(of_all[kind]['before'])}"
            for kind in ("facts", OVER_SHUFFLED, "list") if kind in of_all]  # fmt: skip
    repeated = [str(_interval(of_all["repeated"][when])) for when in ("before", "after")]
    return (
        f"AUROC of planted documents over real text, {name}: {', '.join(said)}; text repeated four times"
        f" {repeated[0]}, and {repeated[1]} once deduplicated. {len(found)} selectors ranked them; nothing"
        " was trained."
    )


def figures(summary: Outcome) -> list[Plot]:
    """One panel a kind: AUROC of every selector with its interval, before and after deduplication."""
    found = dict(_found(summary))
    if not found:
        return []
    panels, said = [], []
    for kind in next(iter(found.values()))["all"]:
        series = []
        for when in ("before", "after"):
            here = {arm: f["all"][kind][when] for arm, f in found.items() if f["all"][kind][when]}
            values = {key: [e[key] for e in here.values()] for key in ("auroc", "low", "high")}
            series.append(
                Series(when, values["auroc"], list(here), "interval", values["low"], values["high"])
            )
            if when == "before" and here:
                best = max(here, key=lambda arm: here[arm]["auroc"])
                said.append(f"{kind}: highest for {best}, {here[best]['auroc']:.2f}")
        panels.append(Panel(kind.replace("_", " "), "AUROC", "", series))
    title = "What each selector finds, before and after deduplication"
    return [Plot("planted", title, f"95 % intervals; 0.5 is blind. {'; '.join(said)}.", panels)]
