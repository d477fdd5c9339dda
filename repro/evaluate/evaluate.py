"""Evaluate one model: every entry of ``eval.tasks``, then text. Finished parts survive a kill."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import polars as pl
import torch

from repro.device import out_of_memory
from repro.errors import SettingError, require
from repro.evaluate import baselines, harness, minimal_pairs, per_item, tasks, texts
from repro.evaluate import summary as summaries
from repro.evaluate.cells import Cell, Summary
from repro.evaluate.settings import Eval
from repro.plain import Json, Row
from repro.store import atomic, discard, parquet, read_json, sha256_file, write_json
from repro.store.cached import content_digests
from repro.store.disk import is_full

IDENTITY = "identity.json"  # of finished parts: without it none of them counts


class Part(TypedDict):
    """What is kept of a finished entry until all are: its results, or ``why`` there are none."""

    name: str
    missing: dict[str, str]
    notes: dict[str, str]
    why: NotRequired[str]
    pairs: NotRequired[bool]  # minimal pairs
    results: NotRequired[Json]
    items: NotRequired[dict[str, dict[str, str]]]


def evaluate(
    model: Path | tuple[Any, Any],
    s: Eval,
    items: Path,
    out: Path,
    corpus: Path | None = None,
    device: str = "cpu",
    definitions: Path | None = None,
    masked: Sequence[tuple[int, int]] = (),
) -> Summary:
    """Evaluate a Hugging Face folder, or a loaded ``(model, tokenizer)`` such as one with masked heads;
    returns the summary.

    ``items`` is an items folder, ``corpus`` a corpus artifact with a ``heldout`` split. Writes
    ``results.json``, ``items.parquet``, ``texts.parquet`` and ``summary.json`` into ``out``. Each entry's
    results go to ``parts/`` as soon as they are there, and are found again by the next call for the same
    model, items and settings. An entry that cannot run is named under ``missing`` with the reason; the rest
    goes on. The generated task definitions are left in ``definitions/<name>`` if that is given. ``masked``
    only names the (layer, head) pairs that the caller has masked, so that parts of other heads are not taken
    over. Raises :class:`SettingError` for an unknown task name or an unusable model folder.
    """
    names = [tasks.name_of(entry) for entry in s.tasks]
    for name in names:
        require(names.count(name) == 1, f"eval.tasks names {name!r} twice; name it once")
    plans = [
        tasks.plan(
            entry, items, s.overrides.get(name), s.shots.get(name), s.allow_code_execution, s.allow_task_code
        )
        for entry, name in zip(s.tasks, names, strict=True)
    ]
    sources = texts.gather(items, s.text_tasks, corpus, s.text_bytes)
    lm = harness.load(model, s.batch_size, s.dtype, device, s.max_length)
    parts = _parts(out, model, lm, s, items, masked)
    for number, plan in enumerate(plans, 1):
        if not (parts / f"{plan.name}.json").is_file():
            with tempfile.TemporaryDirectory() as folder:
                place = (definitions or Path(folder)) / plan.name
                _task(lm, model, plan, s, items, out, place, f"{number}/{len(plans)} {plan.name}")
    bits = texts.measure(lm, sources, parts)
    summary = _merge(lm, plans, s, items, bits, out)
    discard(parts, IDENTITY)
    return summary


def _parts(
    out: Path,
    model: Path | tuple[Any, Any],
    lm: harness.QuietLM,
    s: Eval,
    items: Path,
    masked: Sequence[tuple[int, int]],
) -> Path:
    """The folder of finished parts, emptied if another model, other heads, items or settings left them."""
    from repro.evaluate import stage

    kinds = ("*.safetensors", "*.json", "*.model")  # weights, configurations and tokenizers
    weights = sorted(p for kind in kinds for p in model.glob(kind)) if isinstance(model, Path) else []
    identity = {
        "settings": json.loads(json.dumps(stage.identity(s) | {"batch_size": s.batch_size})),
        "items": str(items.resolve()),
        "model": [[path.name, sha] for path, sha in zip(weights, content_digests(weights), strict=True)],
        "parameters": sum(p.numel() for p in lm.model.parameters()),
        "device": lm.device.type,
    } | ({"masked": [list(pair) for pair in masked]} if masked else {})
    parts = out / "parts"
    if not (parts / IDENTITY).is_file() or read_json(parts / IDENTITY) != identity:
        discard(parts, IDENTITY)
        write_json(parts / IDENTITY, identity)
    return parts


def _task(
    lm: harness.QuietLM,
    model: Path | tuple[Any, Any],
    plan: tasks.Plan,
    s: Eval,
    items: Path,
    out: Path,
    folder: Path,
    label: str,
) -> None:
    """Evaluate one entry and leave ``parts/<name>.parquet``, then ``parts/<name>.json``, which says that it
    is done.
    """
    part: Part = {"name": plan.name, "missing": plan.missing, "notes": plan.notes}
    rows: list[Row] = []
    if not plan.leaves:
        part["why"] = next(iter(plan.missing.values()), "it has no tasks")
        if baselines.is_blimp(plan.name):
            part["why"] = minimal_pairs.absent(plan, items)
    else:
        tasks.write(plan, folder)
        try:
            limit = s.limits.get(plan.name, s.limit)
            if minimal_pairs.recognises(plan):
                with _in_float32(lm, model) as exact:
                    results, rows = minimal_pairs.run(exact, plan, limit, label)
                part["pairs"] = True
            else:
                results, rows = harness.run(
                    lm, plan, folder, s.shots.get(plan.name), limit, s.allow_code_execution, label
                )
            part["results"], part["items"] = results, _checksums(plan)
        except SettingError:
            raise
        # a task's own code fails in any way it likes; the other cells must not suffer
        except Exception as error:
            if is_full(error) or out_of_memory(error):  # not the task's fault
                raise
            part["why"] = harness.first_line(error)
    with atomic(out / "parts" / f"{plan.name}.parquet") as temporary:
        per_item.frame(rows).write_parquet(temporary)
    write_json(out / "parts" / f"{plan.name}.json", part)


def _in_float32(
    lm: harness.QuietLM, model: Path | tuple[Any, Any]
) -> AbstractContextManager[harness.QuietLM]:
    """The model in float32: as its files hold it, or, of a model that was given loaded, its own weights."""
    if lm.model.dtype == torch.float32 or not isinstance(model, Path):
        return minimal_pairs.float32(lm)
    return nullcontext(harness.load(model, lm.batch_size, "float32", lm.device.type, lm.max_length))


def _checksums(plan: tasks.Plan) -> dict[str, dict[str, str]]:
    """{task: {split: sha256}} of the files that the entry read."""
    return {
        leaf: {split: sha256_file(Path(path)) for split, path in files.items()}
        for leaf, files in plan.items.items()
    }


def _merge(
    lm: harness.QuietLM, plans: list[tasks.Plan], s: Eval, items: Path, bits: pl.DataFrame, out: Path
) -> Summary:
    """Write the four files from the finished parts."""
    done: list[Part] = [read_json(out / "parts" / f"{plan.name}.json") for plan in plans]
    parts = [parquet.read(out / "parts" / f"{plan.name}.parquet") for plan in plans]
    rows = pl.concat(parts, how="diagonal")  # a stopped run's may be of fewer columns
    native: Json = {}
    metrics: dict[str, Cell] = {}
    missing: dict[str, str] = {}
    notes: dict[str, list[str]] = {}
    for plan, part in zip(plans, done, strict=True):
        if "results" not in part or "items" not in part:
            missing[plan.name] = part.get("why", "")
            continue
        results = part["results"]
        remarks = {f"without {task}: {why}" for task, why in part["missing"].items()} | set(
            part["notes"].values()
        )
        remarks |= {
            f"without {len(ids)} of {task}: {results['why_excluded'][task]}"
            for task, ids in results["excluded"].items()
        }
        remarks |= {
            f"{n} worked examples of {task} were redrawn: they were copies of the item that was asked"
            for task, n in results["redrawn"].items()
        }
        if remarks:
            notes[plan.name] = sorted(remarks)
        for key, value in results.items():
            (
                native.setdefault(key, {}).update(value)
                if isinstance(value, dict)
                else native.setdefault(key, value)
            )
        native.setdefault("items", {}).update(part["items"])
        shown = [plan.name] if plan.name in results["results"] else plan.leaves
        own = rows.filter(pl.col("entry") == plan.name)
        pairs = part.get("pairs", False)
        metrics |= (
            minimal_pairs.metrics(plan.name, own) if pairs else summaries.task_metrics(results, shown, own)
        )
    cuts = per_item.cuts(rows)
    for name, cell in cuts.items():
        told = (
            f"{cell['items_cut']} of {cell['items']} prompts lost their first tokens, {cell['tokens_cut']}"
            " in all"
        )
        notes[name] = [*notes.get(name, []), f"{told}: they are longer than the context of {lm.max_length}"]
    text, gold = summaries.text_metrics(bits, "out_of_corpus"), per_item.gold_bits_per_byte(rows)
    source = (
        read_json(items / "items.json")["source"]
        if (items / "items.json").is_file()
        else {"folder": items.name}
    )
    config = {
        "parameters": sum(p.numel() for p in lm.model.parameters()),
        "batch_size": lm.batch_size,
        "dtype": str(lm.model.dtype).removeprefix("torch."),
        "device": lm.device.type,
        "context": lm.max_length,
        "text_window": min(lm.max_length, texts.WINDOW),
        "limit": s.limit,
        "limits": s.limits,
        "text_starts_with": lm.encoder.prefix,  # token ids, of models trained so
        "seeds": harness.SEEDS,
        "bootstrap_iters": harness.BOOTSTRAP,
        "items_source": source,
    }
    for source_name in s.text_tasks:
        if source_name not in text:
            missing[f"text/{source_name}"] = "no items of this name to take text from"
    summary: Summary = {
        "metrics": metrics,
        "gold_bits_per_byte": gold,
        "gold_probability": per_item.gold_probability(rows),
        "text_bits_per_byte": text,
        "heldout_bits_per_byte": summaries.text_metrics(bits, "heldout"),
        "bits_per_byte": summaries.endpoint(text, gold),
        "missing": missing,
        "notes": notes,
        "cut": cuts,
        "non_finite": native.get("excluded", {}),
        "shots": native.get("n-shot", {}),
        "n_items": rows.select("task", "doc_id").n_unique(),
        "config": config,
    }
    with atomic(out / "items.parquet") as temporary:
        rows.write_parquet(temporary)
    with atomic(out / "texts.parquet") as temporary:
        bits.write_parquet(temporary)
    write_json(out / "results.json", native | {"config": config})
    write_json(out / "summary.json", summary)
    for name, why in missing.items():
        print(f"    {name}: {why}", file=sys.stderr)
    return summary
