"""The paper's figures from our runs alone: it prints no values behind any of them."""

from __future__ import annotations

from copy import copy
from dataclasses import replace

from repro.experiments.analyse import view as selected
from repro.experiments.evolve import view as evolution
from repro.paper import printed as paper
from repro.paper.committed import Result, columns_of
from repro.paper.tables import BASELINE
from repro.report import curve, figures
from repro.report.plots import Plot

WANTED = {
    "figure1": "benchmark score and training loss against tokens",
    "figure2": "retrieval scores by layer and head",
    "figure4": "clusters of the two selections",
    "figure5": "map of document embeddings, method against classifier",
    "figure6": "map of document embeddings, two proxies",
    "figure7": "each benchmark against tokens",
    "figure9": "each benchmark against tokens, small proxy",
    "figure10": "each benchmark against tokens, large proxy",
    "figure18": "word clouds of the two selections",
}

MADE_BY = {  # the experiment whose result holds what a figure draws
    **dict.fromkeys(("figure1", "figure7"), "paper_mixture"),
    "figure2": "head_evolution",
    **dict.fromkeys(("figure4", "figure5", "figure18"), "what_was_selected"),
    "figure6": "proxy_selections",
    **dict.fromkeys(("figure9", "figure10"), "proxy_size"),
}


def paper_figures(results: list[Result]) -> list[Plot]:
    """Those of ``WANTED`` that some result has the data for."""
    found: list[Plot] = []
    for result in (r for r in results if r.summary["experiment"] == "paper_mixture"):
        score = curve.performance(result.summary, ["accuracy_average"]) or curve.performance(
            result.summary, [result.summary["endpoint"]]
        )
        if (loss := figures.learning(result.summary)) is not None:
            panels = [*(score.panels if score else []), *loss.panels]
            found.append(
                _named("figure1", result, replace(loss, title="score and training loss", panels=panels))
            )
        found += _benchmarks("figure7", result, list(result.summary["arms"]))
        break
    for result in (r for r in results if r.summary["experiment"] == "proxy_size"):
        found += _benchmarks("figure9", result, [BASELINE, "full_plus_small"])
        found += _benchmarks("figure10", result, [BASELINE, "full_plus_large"])
        break
    found += _figure2(results)[:1]
    for result in (r for r in results if r.summary["experiment"] == "what_was_selected"):
        makers = {"figure4": selected.clusters, "figure5": selected.plane, "figure18": selected.clouds}
        found += [
            _named(name, result, plot)
            for name, maker in makers.items()
            if (plot := maker(result.summary)) is not None
        ]
        break
    for result in (r for r in results if r.summary["experiment"] == "proxy_selections"):
        if (plot := selected.plane(result.summary)) is not None:
            found.append(_named("figure6", result, plot))
        break
    return found


def _figure2(results: list[Result]) -> list[Plot]:
    """Heads over checkpoints, retrieval heads first; after them one model's heads, for results without
    checkpoints.
    """
    drawn = [(result, plot) for result in results for plot in evolution.figures(result.summary)]
    drawn.sort(key=lambda pair: "retrieval" not in pair[1].name)
    drawn += [(result, plot) for result in results if (plot := figures.heads(result.summary)) is not None]
    return [_named("figure2", result, plot) for result, plot in drawn]


def _benchmarks(name: str, result: Result, arms: list[str]) -> list[Plot]:
    """Every column of table 1 that was run, against training tokens, for the given arms."""
    metrics = dict.fromkeys(m for column in paper.reference()["columns"] for m in columns_of(result, column))
    some = copy(result.summary)
    some["arms"] = {arm: row for arm, row in some["arms"].items() if arm in arms}
    plot = curve.performance(some, list(metrics)) if metrics else None
    return [_named(name, result, plot)] if plot is not None else []


def _named(name: str, result: Result, plot: Plot) -> Plot:
    """A run's plot under the paper's number and the run's name."""
    return replace(
        plot, name=name, title=f"{name.replace('figure', 'Figure ')}: {plot.title}. {result.label}"
    )
