"""From lm-eval's results and the texts' bits to ``summary.json``: what tables and statistics read."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from statistics import mean
from typing import Any

import polars as pl

from repro.evaluate import bits_per_byte, per_item
from repro.evaluate.cells import Absent, Cell, Pooled

Z95 = 1.959964  # two-sided 95 % of the normal distribution
# metrics that guessing earns: among the choices, or what is written most often
CHANCE = ("acc", "acc_norm", "acc_bytes", "exact_match", "math_verify")


def task_metrics(results: Mapping[str, Any], names: list[str], items: pl.DataFrame) -> dict[str, Cell]:
    """{"task/metric": {value, stderr, n, chance, covers_chance}} of one entry of ``eval.tasks``.

    ``names`` are the tasks or groups to show. A metric keeps lm-eval's filter in its name
    ("gsm8k/exact_match,flexible- extract") unless that is "none". ``covers_chance`` says whether the 95 %
    score interval of the accuracy (Wilson 1927) holds the chance level; unlike value +- 1.96 stderr it has a
    width where every item is right, or wrong.
    """
    found: dict[str, Cell] = {}
    directions = results.get("higher_is_better", {})
    for name in names:
        row = results["results"].get(name, {})
        own = items.filter(pl.col("task") == name)
        guess = per_item.chance(own if len(own) else items)
        for key, value in row.items():
            metric, comma, filter_ = key.partition(",")
            if not comma or metric.endswith("_stderr") or not isinstance(value, (int, float)):
                continue
            stderr = row.get(f"{metric}_stderr,{filter_}")
            stderr = stderr if isinstance(stderr, (int, float)) else None
            level = guess if metric in CHANCE else None
            higher = directions.get(name, {}).get(metric)
            n = row.get("sample_len") or items["doc_id"].len()
            shown = f"{name}/{metric}" if filter_ == "none" else f"{name}/{metric},{filter_}"
            found[shown] = {
                "value": value,
                "stderr": stderr,
                "n": n,
                "chance": level,
                "covers_chance": (
                    None if level is None else abs(value - level) <= Z95 * (level * (1 - level) / n) ** 0.5
                ),
            }
            if higher is not None:
                found[shown]["higher_is_better"] = higher
    return found


def text_metrics(texts: pl.DataFrame, kind: str) -> dict[str, Pooled]:
    """{source: {value, stderr, n, bytes, non_finite}} of the texts of one kind ("out_of_corpus" or
    "heldout").
    """
    found = {}
    for source in texts.filter(pl.col("kind") == kind)["source"].unique(maintain_order=True):
        part = texts.filter((pl.col("kind") == kind) & (pl.col("source") == source))
        found[source] = bits_per_byte.pooled(part["bits"].to_list(), part["n_bytes"].to_list())
    return found


def endpoint(text: Mapping[str, Pooled], gold: Mapping[str, Cell]) -> float | None:
    """The primary endpoint: bits per byte over out-of-corpus text and gold answers (method.md, section 6);
    lower is better.

    The mean of two numbers: the mean over out-of-corpus text sources of their bits per byte, and the mean
    over tasks of the gold answers' bits per byte. So both kinds weigh the same however many sources or tasks
    there are. Where one kind is absent the other stands alone; ``None`` without either. Held-out text of the
    corpus is not in it: it favours arms that train on the unselected corpus.
    """
    kinds = [
        [value for cell in kind.values() if (value := cell["value"]) is not None] for kind in (text, gold)
    ]
    means = [mean(values) for values in kinds if values]
    return mean(means) if means else None


def column(cells: Mapping[str, Cell], missing: Mapping[str, str], sought: str | list[str]) -> Cell | Absent:
    """One cell of a table: a metric by name, or the mean of several; {"why": ...} where it was not measured.

    ``sought`` comes from ``eval.columns``; the standard error of a mean takes its parts as independent.
    """
    names = [sought] if isinstance(sought, str) else list(sought)
    for name in names:
        if name not in cells:
            task = name.partition("/")[0]
            return {"why": missing.get(task, f"not run: {name} was not measured")}
    if len(names) == 1:
        return copy(cells[names[0]])
    parts = [cells[name] for name in names]
    errors = [error for part in parts if (error := part["stderr"]) is not None]
    levels = [level for part in parts if (level := part.get("chance")) is not None]
    return {
        "value": mean(part["value"] for part in parts),
        "stderr": sum(e**2 for e in errors) ** 0.5 / len(parts) if len(errors) == len(parts) else None,
        "n": sum(part["n"] for part in parts),
        "chance": mean(levels) if len(levels) == len(parts) else None,
    }
