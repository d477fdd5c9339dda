"""A finished run in W&B: one W&B run a stage with its artifact and what it was made from, and one with tables
and images.

Everything comes from ``summary.json``; an artifact holds the record of its stage (identity, inputs, cost,
facts), the files themselves stay in the store. W&B draws the arrows between artifacts only for runs that are
online: offline, each artifact names its inputs in its metadata.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from repro.outcomes.outcome import Outcome
from repro.report import figures, sections
from repro.tracking import wandb_settings


def log(run_dir: Path, summary: Outcome, mode: str) -> int:
    """Log every stage, then tables and figures; ``mode`` is "online" or "offline". Returns how many W&B runs
    were written.
    """
    import wandb

    os.environ.setdefault("WANDB_SILENT", "true")
    tracking = summary["settings"]["tracking"]
    common = {
        "project": tracking["project"],
        "entity": tracking["entity"],
        "mode": mode,
        "group": summary["experiment"],
        "dir": str(run_dir),
        "reinit": "create_new",
        "settings": wandb_settings(),
    }
    stages = figures.artifacts(summary)
    names = {stage["fingerprint"]: f"{stage['stage']}-{stage['fingerprint'][:8]}" for stage in stages}
    owners = _owners(summary)
    for stage in stages:
        place = owners.get(stage["fingerprint"], {})
        config = {"scale": summary["scale"], "fingerprint": stage["fingerprint"], **place}
        name = names[stage["fingerprint"]]
        with wandb.init(
            **common, job_type=stage["stage"], name=name, config=config, tags=[stage["stage"]]
        ) as run:
            inputs = {
                key: names[fingerprint]
                for key, fingerprint in stage["inputs"].items()
                if fingerprint in names
            }
            for used in inputs.values() if mode == "online" else ():
                run.use_artifact(f"{used}:latest")
            artifact = wandb.Artifact(name, type=stage["stage"], metadata={"inputs": inputs, **place})
            with artifact.new_file("record.json") as file:
                json.dump(stage, file, indent=1)
            run.log_artifact(artifact)
    with wandb.init(
        **common, job_type="report", name="report", config={"settings": summary["settings"]}
    ) as run:
        for table in sections.tables(summary):
            rows = [["" if cell is None else str(cell) for cell in row] for row in table.rows]
            run.log(
                {f"tables/{table.name}": wandb.Table(columns=[c or " " for c in table.columns], data=rows)}
            )
        for plot in sections.plots(summary):
            run.log(
                {
                    f"figures/{plot.name}": wandb.Image(
                        str(run_dir / "figures" / f"{plot.name}.png"), caption=plot.alt
                    )
                }
            )
        run.summary.update(
            {"verdict": summary["verdict"]["sentence"], "demonstration": summary["verdict"]["demonstration"]}
        )
    return len(stages) + 1


def _owners(summary: Outcome) -> dict[str, dict[str, Any]]:
    """{fingerprint: {"arm", "seed"}} of the stages that belong to one arm and seed."""
    found: dict[str, dict[str, Any]] = {}
    for arm, row in summary["arms"].items():
        for seed, one in row["seeds"].items():
            for artifact in one["artifacts"].values():
                found.setdefault(artifact["fingerprint"], {"arm": arm, "seed": int(seed)})
    return found
