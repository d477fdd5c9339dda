"""Minimal pairs (BLiMP, Warstadt et al. 2020): does the model find the grammatical sentence likelier than the
other?

Which tasks these are and how a sentence is presented stands in lm-eval's own definitions; what differs is the
counting. Two equal likelihoods count half (lm-eval takes the first of them, which is the grammatical one, for
right), the model computes in float32 whatever ``eval.dtype`` says (bfloat16 makes ties), and the error of an
accuracy is that of a sample of paradigms: the pairs of a paradigm come from one template and are right or
wrong together.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import polars as pl

from repro.evaluate import likelihood, per_item
from repro.evaluate.cells import Cell
from repro.evaluate.clusters import clustered
from repro.evaluate.tasks import Plan
from repro.items.stage import read_rows
from repro.plain import Json, Row
from repro.store import read_json
from repro.tracking import progress

FORM = {
    "output_type": "multiple_choice",
    "doc_to_text": "",
    "doc_to_choice": "{{[sentence_good, sentence_bad]}}",
}
# keys of a definition that change prompts, items or results
ELSEWHERE = ("process_docs", "process_results", "description", "filter_list", "num_fewshot", "doc_to_image")
# the paper's twelve; the data set writes one of them in two ways
PHENOMENA = {"s-selection": "argument_structure"}
# likelihoods are equal if they differ by less than this share of themselves: what float32 can tell apart
TIE = 1e-6
CHANCE = 0.5

Pair = tuple[float, float]  # log-likelihoods in nats of the grammatical and the ungrammatical sentence


def recognises(plan: Plan) -> bool:
    """Whether everything that an entry runs are pairs of sentences, as lm-eval's definition of BLiMP writes
    them, and asks for nothing that :func:`run` does not do.
    """
    return bool(plan.leaves) and all(_plain(plan, leaf) for leaf in plan.leaves)


def _plain(plan: Plan, leaf: str) -> bool:
    found = _definition(plan, leaf)
    asked = [metric.get("metric") for metric in found.get("metric_list") or [{"metric": "acc"}]]
    return (
        leaf in plan.items
        and FORM.items() <= found.items()
        and found.get("doc_to_target", 0) in (0, "0")
        and asked == ["acc"]
        and not any(found.get(key) for key in ELSEWHERE)
    )


def absent(plan: Plan, items: Path) -> str:
    """Why an entry without any paradigm does not run, and what would help."""
    found = items / "items.json"
    source = read_json(found)["source"] if found.is_file() else {}
    where = "items=wheel has" if "wheel" in source else "these items have"
    return (
        f"not run: {where} none of the {len(plan.missing)} paradigms of {plan.name}; "
        "use items=hub, or items=folder items.folder=DIR with DIR/blimp/<paradigm>/train.jsonl"
    )


def pairs(plan: Plan, limit: int | None) -> Iterator[tuple[str, int, Row]]:
    """(task, index, item) of every pair, the first ``limit`` of each paradigm as in lm-eval."""
    for leaf in plan.leaves:
        definition = _definition(plan, leaf)
        split = definition.get("test_split") or definition["validation_split"]
        for index, row in enumerate(read_rows(Path(plan.items[leaf][split]))):
            if index == limit:
                break
            yield leaf, index, row


def _definition(plan: Plan, leaf: str) -> Json:
    from lm_eval.tasks._yaml_loader import load_yaml

    own = plan.files[f"{leaf}.yaml"]
    return {"target_delimiter": " ", **load_yaml(Path(own["include"]), resolve_func=False), **own}


def run(lm: Any, plan: Plan, limit: int | None, label: str) -> tuple[Row, list[Row]]:
    """Results in lm-eval's form and the rows of :mod:`repro.evaluate.per_item`. ``lm`` is loaded, in
    float32.
    """
    found = list(pairs(plan, limit))
    delimiters = {leaf: _definition(plan, leaf)["target_delimiter"] for leaf in plan.leaves}
    texts = [
        delimiters[leaf] + row[side] for leaf, _, row in found for side in ("sentence_good", "sentence_bad")
    ]
    requests = [
        _request(lm.prefix_token_id, ids)
        for ids in lm.tokenizer(texts, add_special_tokens=False)["input_ids"]
    ]
    fits = [0 < len(answer) <= lm.max_length for _, answer in requests]
    with progress(len(set(texts)), "requests", label) as bar:
        kept = [(context, answer) for (context, answer), fit in zip(requests, fits, strict=True) if fit]
        read = iter(likelihood.loglikelihoods(lm.model, kept, bar))
    nats = [next(read)[0] if fit else math.nan for fit in fits]
    rows = [
        row_of(plan.name, leaf, index, item, pair)
        for (leaf, index, item), pair in zip(found, zip(nats[::2], nats[1::2], strict=True), strict=True)
    ]
    excluded: dict[str, list[int]] = defaultdict(list)
    for row in rows:
        if not row["finite"]:
            excluded[row["task"]].append(row["doc_id"])
    why = (
        "log-likelihoods that are not finite"
        if all(fits)
        else f"longer than the context of {lm.max_length} tokens, or empty"
    )
    if rows and sum(map(len, excluded.values())) == len(rows):
        raise ArithmeticError(f"all {len(rows)} pairs are left out: {why}")
    return (
        results(plan, rows)
        | {
            "excluded": dict(excluded),
            "why_excluded": dict.fromkeys(excluded, why),
            "redrawn": {},
        },
        rows,
    )


def _request(prefix: int, ids: list[int]) -> tuple[list[int], list[int]]:
    """What lm-eval makes of a text without a context: the prefix token stands before it, unless it begins
    with it.
    """
    return (ids[:1], ids[1:]) if ids and ids[0] == prefix else ([prefix], ids)


def row_of(entry: str, task: str, index: int, item: Row, pair: Pair) -> Row:
    """One pair as a row of the per-item table. ``gold`` is the grammatical sentence, ``other`` the
    ungrammatical one.
    """
    from lm_eval.utils import handle_non_serializable, hash_string

    good, bad = pair
    finite = math.isfinite(good) and math.isfinite(bad)
    right = correct(pair) if finite else None
    text = json.dumps(item, indent=2, default=handle_non_serializable, ensure_ascii=False)
    phenomenon = item.get("linguistics_term")
    return dict.fromkeys(per_item.SCHEMA) | {
        "entry": entry,
        "task": task,
        "filter": "none",
        "doc_id": index,
        "doc_hash": hash_string(text),
        "acc": right,
        "metrics": json.dumps({} if right is None else {"acc": right}),
        "gold_loglikelihood": good if finite else None,
        "other_loglikelihood": bad if finite else None,
        "gold_bytes": len(item["sentence_good"].encode()),
        "gold_probability": 1 / (1 + math.exp(min(700.0, bad - good))) if finite else None,
        "n_choices": 2,
        "finite": finite,
        "cluster": task,
        "phenomenon": PHENOMENA.get(phenomenon, phenomenon) if phenomenon else None,
    }


def is_tie(pair: Pair) -> bool:
    """Whether two log-likelihoods are equal as far as float32 can say."""
    return math.isclose(*pair, rel_tol=TIE)


def correct(pair: Pair) -> float:
    """1 where the grammatical sentence is the likelier one, 0 where it is not, one half where neither is."""
    return 0.5 if is_tie(pair) else float(pair[0] > pair[1])


def results(plan: Plan, rows: Sequence[Row]) -> Row:
    """lm-eval's native shape: every paradigm, and the group as the mean over paradigms where the entry is
    one.
    """
    by_task: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row["finite"]:
            by_task[row["task"]].append(row["acc"])
    found: dict[str, Json] = {}
    for task, values in by_task.items():
        n, share = len(values), sum(values) / len(values)
        stderr = (sum((v - share) ** 2 for v in values) / (n - 1) / n) ** 0.5 if n > 1 else "N/A"
        found[task] = {"alias": task, "acc,none": share, "acc_stderr,none": stderr, "sample_len": n}
    if plan.name not in found and found:
        cell = metrics(plan.name, frame(rows))[f"{plan.name}/acc"]
        found[plan.name] = {
            "alias": plan.name,
            "acc,none": cell["value"],
            "acc_stderr,none": cell["stderr"] or "N/A",
        }
        found[plan.name]["sample_len"] = cell["n"]
    return {"results": found, "n-shot": dict.fromkeys(by_task, 0)}


def frame(rows: Sequence[Row]) -> pl.DataFrame:
    """Rows as a table."""
    return per_item.frame(list(rows))


def metrics(entry: str, items: pl.DataFrame) -> dict[str, Cell]:
    """``<entry>/acc`` and ``<entry>_acc/<phenomenon>``: value, clustered stderr, n, chance, clusters
    (paradigms) and ties.
    """
    finite = items.filter("finite")
    found = {f"{entry}/acc": _cell(finite)}
    if finite["task"].n_unique() > 1:
        for (phenomenon,), part in finite.drop_nulls("phenomenon").group_by(
            "phenomenon", maintain_order=True
        ):
            found[f"{entry}_acc/{phenomenon}"] = _cell(part)
    return found


def _cell(items: pl.DataFrame) -> Cell:
    value, stderr, clusters = clustered(items["acc"].to_numpy(), items["cluster"].to_list())
    ties = sum(map(is_tie, items.select("gold_loglikelihood", "other_loglikelihood").iter_rows()))
    return {
        "value": value,
        "stderr": stderr,
        "n": len(items),
        "chance": CHANCE,
        "clusters": clusters,
        "ties": ties,
        "covers_chance": stderr is None or abs(value - CHANCE) <= wide(clusters) * stderr,
    }


def wide(clusters: int) -> float:
    """Quantile of a 95 % interval over so many paradigms."""
    from scipy.special import stdtrit

    return float(stdtrit(clusters - 1, 0.975))


@contextmanager
def float32(lm: Any) -> Iterator[Any]:
    """Within the block the model computes in float32; its own tensors come back afterwards, to the bit."""
    model = lm.model
    tensors = [
        t for t in chain(model.parameters(), model.buffers()) if t.is_floating_point() and t.itemsize < 4
    ]
    own = [t.data for t in tensors]
    try:
        for tensor in tensors:
            tensor.data = tensor.data.float()
        yield lm
    finally:
        for tensor, data in zip(tensors, own, strict=True):
            tensor.data = data
