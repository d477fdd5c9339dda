"""The evaluation stage: benchmarks through lm-eval, bits per byte of text, per-item results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from repro.config import Eval, SettingError
from repro.store import Context, Stage, read_json, sha256_file, write_json


def stage(s: Eval, seed: int, items: Stage, corpus: Stage | None, model: Stage) -> Stage:
    """Evaluate a model, and the checkpoints it left. ``seed`` is only named: evaluation itself draws nothing from it.

    ``model`` is any stage that leaves a Hugging Face folder in ``model/``, and further ones in ``models/<tokens>/``;
    ``corpus=None`` leaves out held-out text. Files: ``results.json`` (lm-eval's native JSON), ``items.parquet`` (one row
    per item), ``texts.parquet`` (one row per text) and ``summary.json``, whose ``checkpoints`` holds {tokens: summary};
    a checkpoint's own files are in ``checkpoints/<tokens>/``.
    """
    inputs = {"items": items, "model": model} | ({"corpus": corpus} if corpus else {})
    label = model.label if model.label.endswith(f"seed{seed}") else f"{model.label}-seed{seed}"

    def run(ctx: Context) -> None:
        from repro.evaluate.evaluate import evaluate

        data = (ctx.inputs["items"], ctx.inputs.get("corpus"))
        checkpoints = {}
        for folder in sorted(ctx.inputs["model"].glob("models/*"), key=lambda p: p.name.zfill(20)):
            if folder.name.isdigit() and (folder / "config.json").is_file():
                out = ctx.out / "checkpoints" / folder.name
                done = out / "summary.json"
                found = read_json(done) if done.is_file() else evaluate(folder, s, data[0], out, data[1], ctx.device)
                checkpoints[folder.name] = found
        summary = evaluate(ctx.inputs["model"] / "model", s, data[0], ctx.out, data[1], ctx.device)
        if checkpoints:
            write_json(ctx.out / "summary.json", summary | {"checkpoints": checkpoints})
        ctx.facts |= {
            "missing": summary["missing"],
            "items": summary["n_items"],
            "non_finite_items": sum(len(ids) for ids in summary["non_finite"].values()),
            "bits_per_byte": summary["bits_per_byte"],
            "checkpoints": list(checkpoints),
        }

    return Stage("evaluate", label, identity(s), run, inputs)


def identity(s: Eval) -> dict[str, Any]:
    """The settings that change a result; a user's YAML counts by its content, wherever it lies."""
    tasks = []
    for entry in s.tasks:
        if entry.endswith((".yaml", ".yml")):
            if not Path(entry).is_file():
                raise SettingError(f"eval.tasks names {entry}, which is not a file; give a task's name or its YAML's path")
            tasks.append({"yaml": Path(entry).name, "sha256": sha256_file(Path(entry))})
        else:
            tasks.append(entry)
    kept = ("shots", "overrides", "limit", "batch_size", "dtype", "max_length", "text_tasks", "text_bytes")
    return {"tasks": tasks, **{name: getattr(s, name) for name in kept}, "allow_code_execution": s.allow_code_execution}
