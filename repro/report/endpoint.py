"""What an endpoint averages, in a sentence, from what a run measured."""

from __future__ import annotations

from repro.outcomes import measure
from repro.outcomes.compare import lower_is_better
from repro.outcomes.outcome import Metric, Outcome


def sentence(summary: Outcome, metric: str | None = None) -> str | None:
    """One sentence on ``metric`` (the run's endpoint); ``None`` where no arm has it."""
    metric = metric or summary["endpoint"]
    cells = next(
        (
            found
            for arm in summary["arms"].values()
            for s in arm["seeds"].values()
            if metric in (found := s.get("metrics", {}))
        ),
        None,
    )
    if cells is None:
        return None
    meaning = _meaning(metric, cells, summary)
    return f"{metric}: {meaning}; {'lower' if lower_is_better(summary, metric) else 'higher'} is better."


def _meaning(metric: str, cells: dict[str, Metric], summary: Outcome) -> str:
    one, cell = measure.of(metric), cells[metric]
    if metric == measure.ENDPOINT:
        kinds = {
            kind: [other.task for m in cells if (other := measure.of(m)).group == kind and other.task]
            for kind in _KINDS
        }
        means = [
            f"{what} (mean over {', '.join(kinds[kind])})" for kind, what in _KINDS.items() if kinds[kind]
        ]
        return "bits per UTF-8 byte of " + (
            f"two kinds, averaged: {' and '.join(means)}" if len(means) > 1 else means[0]
        )
    if metric == "accuracy_average":
        return (
            f"mean over the accuracies of {', '.join(summary.get('averaged', []))}, on which all arms"
            " together are above chance"
        )
    if "clusters" in cell:
        what = (
            "share of minimal pairs whose grammatical sentence is the likelier one, equal ones counting half"
        )
        if one.group == measure.PROBABILITY:
            what = "probability of the grammatical of two sentences, its likelihood over the sum of both"
        pairs = cell.get("n", 0)
        return f"{what}, mean over {cell['clusters']} paradigms ({pairs:,} pairs; guessing gives 0.5)"
    if one.group == measure.PROBABILITY:
        items = f"{_items(cell)} of {one.task}{_guessing(cell)}"
        return f"likelihood of the right answer over that of all choices, mean over {items}"
    if one.group == measure.GOLD:
        return f"bits per UTF-8 byte of the right answer, mean over {_items(cell)} of {one.task}"
    if one.group in (measure.TEXT, measure.HELD_OUT):
        where = (
            "held-out text of the corpus" if one.group == measure.HELD_OUT else "text from outside the corpus"
        )
        return f"bits per UTF-8 byte of {where}, {one.task}, over {_items(cell, 'texts')}"
    return f"lm-eval's {one.name}, mean over {_items(cell)} of {one.task}{_guessing(cell)}"


_KINDS = {measure.TEXT: "text from outside the corpus", measure.GOLD: "right answers of benchmarks"}


def _items(cell: Metric, what: str = "items") -> str:
    return f"{number:,} {what}" if (number := cell.get("n")) else f"the {what}"


def _guessing(cell: Metric) -> str:
    level = cell.get("chance", cell.get("guess"))
    return f" (guessing gives {level:.3g})" if level is not None else ""
