"""One row per benchmark item, from lm-eval's logged samples."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

import numpy as np
import polars as pl

from repro.evaluate import targets
from repro.evaluate.cells import Cell, Cut
from repro.evaluate.clusters import clustered
from repro.plain import Row

SCHEMA = {
    "entry": pl.String,  # the name in eval.tasks: a task, a group, a tag
    "task": pl.String,  # the task of lm-eval
    "filter": pl.String,  # lm-eval's answer filter ("none" for log-likelihoods)
    "doc_id": pl.Int64,  # index of the item in the evaluated split
    "doc_hash": pl.String,
    "acc": pl.Float64,
    "acc_norm": pl.Float64,
    "metrics": pl.String,  # JSON: every scalar metric of the item
    # nats, of the continuation as lm-eval scores it (with its leading space)
    "gold_loglikelihood": pl.Float64,
    "gold_bytes": pl.Int64,  # UTF-8 bytes of that continuation
    "gold_bits_per_byte": pl.Float64,
    # nats, of the likeliest wrong choice; of a minimal pair's ungrammatical sentence
    "other_loglikelihood": pl.Float64,
    "gold_probability": pl.Float64,  # likelihood of the gold answer over the sum of those of all choices
    "n_choices": pl.Int64,
    "guess": pl.Float64,  # of a written answer: what always writing the task's commonest one would earn
    "cut_tokens": pl.Int64,  # of the prompt, from its beginning: they did not fit the context
    "finite": pl.Boolean,  # every log-likelihood of the item is a number; others enter no mean
    # what the item was drawn with, where items are no sample by themselves: a BLiMP paradigm
    "cluster": pl.String,
    "phenomenon": pl.String,  # of a minimal pair (BLiMP's linguistics_term)
}

GOLD = ("gold_loglikelihood", "gold_bytes", "gold_bits_per_byte", "gold_probability", "other_loglikelihood")


def rows(entry: str, task: Any, samples: list[Row]) -> list[Row]:
    """Rows of one lm-eval task. ``samples`` are its logged samples.

    The gold answers must be those that lm-eval's accuracy was made with. A task that makes its own results
    may mean others (``process_results``): then it has none here.
    """
    found = [_row(entry, task, sample) for sample in samples]
    if task.OUTPUT_TYPE == "generate_until":
        answers = [str(sample["target"]) for sample in samples if sample["filter"] == samples[0]["filter"]]
        found = [row | {"guess": _commonest(answers)} for row in found]
    if all(row.pop("agrees") for row in found):
        return found
    if not callable(task.config.process_results):
        raise targets.Refused(
            "lm-eval's accuracy is not that of the right answers read here: a fault of this project"
        )
    return [row | {name: None for name in GOLD} for row in found]


def frame(items: list[Row]) -> pl.DataFrame:
    """The rows as a table with fixed columns, empty or not."""
    return pl.DataFrame(items, schema=SCHEMA)


def _row(entry: str, task: Any, sample: Row) -> Row:
    metrics = {name: sample[name] for name in sample["metrics"]}
    scalars = {
        k: float(v) for k, v in metrics.items() if isinstance(v, (int, float, np.number)) and math.isfinite(v)
    }
    row = dict.fromkeys(SCHEMA) | {
        "entry": entry,
        "task": task.task_name,
        "filter": sample["filter"],
        "doc_id": sample["doc_id"],
        "doc_hash": sample["doc_hash"],
        "acc": scalars.get("acc"),
        "acc_norm": scalars.get("acc_norm"),
        "metrics": json.dumps(scalars, sort_keys=True),
        "cut_tokens": 0,
        "finite": True,
        "agrees": True,
    }
    kind = task.OUTPUT_TYPE
    if kind == "multiple_choice":
        row |= _choices(task, sample)
    elif kind == "loglikelihood":
        row |= _gold(sample["resps"][0][0][0], sample["arguments"][0][1])
        row["finite"] = row["gold_loglikelihood"] is not None
    elif kind == "loglikelihood_rolling":
        row["finite"] = math.isfinite(_rolling(sample))
    return row if row["finite"] else row | {"acc": None, "acc_norm": None}


def _commonest(answers: list[str]) -> float:
    """Share of the other items that have the commonest answer: near one over the number of choices where a
    question lists them, 0 where no two answers are alike.
    """
    return (max(Counter(answers).values()) - 1) / (len(answers) - 1) if len(answers) > 1 else 0.0


def _rolling(sample: Row) -> float:
    response = sample["resps"][0][0]
    return float(response[0] if isinstance(response, (tuple, list)) else response)


def _gold(loglikelihood: float, continuation: str) -> Row:
    """Gold columns; a log-likelihood that is not a number leaves them empty."""
    n_bytes = len(continuation.encode())
    if not math.isfinite(loglikelihood) or not n_bytes:
        return {"gold_loglikelihood": None, "gold_bytes": n_bytes, "gold_bits_per_byte": None}
    return {
        "gold_loglikelihood": loglikelihood,
        "gold_bytes": n_bytes,
        "gold_bits_per_byte": -loglikelihood / math.log(2) / n_bytes,
    }


def _choices(task: Any, sample: Row) -> Row:
    choices = task.doc_to_choice(sample["doc"])
    loglikelihoods = np.array([response[0][0] for response in sample["resps"][: len(choices)]], dtype=float)
    row: Row = {"n_choices": len(choices), "finite": bool(np.isfinite(loglikelihoods).all())}
    if not row["finite"]:
        return row
    label = task.doc_to_text(sample["doc"]) if task.multiple_input else sample["target"]
    try:
        gold = targets.indices(label, choices)
    except targets.Refused:
        if not callable(task.config.process_results):
            raise
        return row
    best = max(gold, key=lambda index: loglikelihoods[index])  # of several right answers, the likeliest
    row |= _gold(float(loglikelihoods[best]), sample["arguments"][best][1])
    others = [index for index in range(len(choices)) if index not in gold]
    if others:
        row["other_loglikelihood"] = float(loglikelihoods[others].max())
        row["gold_probability"] = float(
            np.exp(loglikelihoods - np.logaddexp.reduce(loglikelihoods))[gold].sum()
        )
    if "acc" in sample["metrics"] and sample["filter"] == "none":
        row["agrees"] = float(sample["acc"]) == float(int(loglikelihoods.argmax()) in gold)
    return row


def gold_bits_per_byte(items: pl.DataFrame) -> dict[str, Cell]:
    """Mean over items of the gold answer's bits per byte, for each entry that has any, with its standard
    error.
    """
    scored = items.drop_nulls("gold_bits_per_byte").unique(
        ["task", "doc_id"], keep="first", maintain_order=True
    )
    means = scored.group_by("entry", maintain_order=True).agg(
        pl.col("gold_bits_per_byte").mean().alias("value"),
        (pl.col("gold_bits_per_byte").std() / pl.len().sqrt()).alias("stderr"),
        pl.len().alias("n"),
        pl.col("gold_bytes").sum().alias("bytes"),
    )
    return {
        entry: {"value": value, "stderr": stderr, "n": n, "bytes": n_bytes}
        for entry, value, stderr, n, n_bytes in means.iter_rows()
    }


def gold_probability(items: pl.DataFrame) -> dict[str, Cell]:
    """Mean over items of the gold answer's normalised probability, for each entry with choices, with its
    standard error and what guessing gives; where items come in clusters both are those of the clusters'
    means.
    """
    found: dict[str, Cell] = {}
    scored = items.drop_nulls("gold_probability").unique(
        ["task", "doc_id"], keep="first", maintain_order=True
    )
    for (entry,), part in scored.group_by("entry", maintain_order=True):
        clusters = part["cluster"].to_list() if part["cluster"].null_count() == 0 else list(range(len(part)))
        value, stderr, _ = clustered(part["gold_probability"].to_numpy(), clusters)
        found[str(entry)] = {"value": value, "stderr": stderr, "n": len(part), "guess": chance(part)}
    return found


def cuts(items: pl.DataFrame) -> dict[str, Cut]:
    """{entry: items, items_cut, tokens_cut} of entries with prompts that were longer than the context."""
    once = items.unique(["entry", "task", "doc_id"], keep="first", maintain_order=True)
    counted = once.group_by("entry", maintain_order=True).agg(
        pl.len().alias("items"),
        (pl.col("cut_tokens") > 0).sum().alias("items_cut"),
        pl.col("cut_tokens").sum().alias("tokens_cut"),
    )
    return {
        entry: {"items": number, "items_cut": cut, "tokens_cut": tokens}
        for entry, number, cut, tokens in counted.filter(pl.col("items_cut") > 0).iter_rows()
    }


def chance(items: pl.DataFrame) -> float | None:
    """Accuracy of guessing: the mean of one over the number of choices, of written answers that of always the
    commonest one, 0 for an item without either; ``None`` if none has any.
    """
    guesses = items.select(pl.coalesce(1 / pl.col("n_choices"), pl.col("guess"))).to_series().to_list()
    if all(guess is None for guess in guesses):
        return None
    return sum(guess or 0.0 for guess in guesses) / len(guesses)
