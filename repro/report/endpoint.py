"""What an endpoint averages, in a sentence, from what a run measured."""

from __future__ import annotations

from typing import Any


def sentence(summary: dict[str, Any], metric: str | None = None) -> str | None:
    """One sentence on ``metric`` (the run's endpoint); ``None`` where no arm has it."""
    metric = metric or summary["endpoint"]
    cells = next(
        (s["metrics"] for arm in summary["arms"].values() for s in arm["seeds"].values() if metric in s.get("metrics", {})),
        None,
    )
    if cells is None:
        return None
    meaning = _meaning(metric, cells, summary)
    return f"{metric}: {meaning}; {'lower' if _lower(metric) else 'higher'} is better."


def _meaning(metric: str, cells: dict[str, Any], summary: dict[str, Any]) -> str:
    group, _, name = metric.partition("/")
    cell = cells[metric]
    if metric == "bits_per_byte":
        kinds = {
            kind: [m.partition("/")[2] for m in cells if m.startswith(f"{kind}_bits_per_byte/")] for kind in ("text", "gold")
        }
        means = [f"{what} (mean over {', '.join(kinds[kind])})" for kind, what in _KINDS.items() if kinds[kind]]
        return "bits per UTF-8 byte of " + (f"two kinds, averaged: {' and '.join(means)}" if len(means) > 1 else means[0])
    if metric == "accuracy_average":
        return f"mean over the accuracies of {', '.join(summary.get('averaged', []))}, which are above chance in every arm"
    if "clusters" in cell:
        what = "share of minimal pairs whose grammatical sentence is the likelier one, equal ones counting half"
        if group == "gold_probability":
            what = "probability of the grammatical of two sentences, its likelihood over the sum of both"
        return f"{what}, mean over {cell['clusters']} paradigms ({cell['n']:,} pairs; guessing gives 0.5)"
    if group == "gold_probability":
        return f"likelihood of the right answer over that of all choices, mean over {_items(cell)} of {name}{_guessing(cell)}"
    if group == "gold_bits_per_byte":
        return f"bits per UTF-8 byte of the right answer, mean over {_items(cell)} of {name}"
    if group in ("text_bits_per_byte", "heldout_bits_per_byte"):
        where = "held-out text of the corpus" if group.startswith("heldout") else "text from outside the corpus"
        return f"bits per UTF-8 byte of {where}, {name}, over {_items(cell, 'texts')}"
    task, _, measure = metric.rpartition("/")
    return f"lm-eval's {measure}, mean over {_items(cell)} of {task}{_guessing(cell)}"


_KINDS = {"text": "text from outside the corpus", "gold": "right answers of benchmarks"}


def _items(cell: dict[str, Any], what: str = "items") -> str:
    return f"{cell['n']:,} {what}" if cell.get("n") else f"the {what}"


def _guessing(cell: dict[str, Any]) -> str:
    level = cell.get("chance", cell.get("guess"))
    return f" (guessing gives {level:.3g})" if level is not None else ""


def _lower(metric: str) -> bool:
    from repro.outcomes.collect import lower_is_better

    return lower_is_better(metric)
