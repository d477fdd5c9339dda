"""A finished run in W&B: one W&B run a stage with its artifact and what it was made from, and one with tables
and images.

Everything comes from ``summary.json``; an artifact holds the record of its stage (identity, inputs, cost,
facts), the files themselves stay in the store. W&B draws the arrows between artifacts only for runs that are
online: offline, each artifact names its inputs in its metadata.
"""

from __future__ import annotations

import hashlib
import json
import os
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypedDict

from repro.outcomes.outcome import Outcome
from repro.outcomes.spent import artifacts
from repro.report import sections
from repro.tracking import wandb_settings


def folder(run_dir: Path) -> Path:
    """Where offline runs go: one folder at the top of the work folder, beside ``runs/``; of a run that lies
    elsewhere beside its files.
    """
    run_dir = run_dir.resolve()
    return run_dir.parent.parent if run_dir.parent.name == "runs" else run_dir


def identity(*parts: str) -> str:
    """W&B's id of a run: the same for the same stage of the same run, so that logging again adds nothing."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def log(run_dir: Path, summary: Outcome, mode: Literal["online", "offline"]) -> list[Path]:
    """Log every stage, then tables and figures; ``mode`` is "online" or "offline". Returns the folders of
    this run's offline W&B runs; one that is there already is left as it is.
    """
    import wandb

    os.environ.setdefault("WANDB_SILENT", "true")
    tracking = summary["settings"]["tracking"]
    started = partial(
        wandb.init,
        project=tracking["project"],
        entity=tracking["entity"],
        mode=mode,
        group=summary["experiment"],
        dir=str(folder(run_dir)),
        reinit="create_new",
        resume="allow",
        settings=wandb_settings(),
    )
    seal = summary.get("checksum", "")
    written: list[Path] = []

    def absent(key: str) -> bool:
        """Whether a run is still to be written: online the same id resumes, offline its folder is there."""
        there = sorted((folder(run_dir) / "wandb").glob(f"offline-run-*-{key}")) if mode == "offline" else []
        written.extend(there[-1:])
        return not there

    stages = artifacts(summary)
    names = {stage["fingerprint"]: f"{stage['stage']}-{stage['fingerprint'][:8]}" for stage in stages}
    owners = _owners(summary)
    for stage in stages:
        place = owners.get(stage["fingerprint"], {})
        config = {"scale": summary["scale"], "fingerprint": stage["fingerprint"], **place}
        name = names[stage["fingerprint"]]
        key = identity(summary["experiment"], summary["scale"], stage["fingerprint"])
        if not absent(key):
            continue
        shown, tags = _readable(summary, stage["stage"], place), _tags(summary, place)
        with started(name=shown, job_type=stage["stage"], id=key, config=config, tags=tags) as run:
            written.append(Path(run.dir).parent)
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
    key = identity(summary["experiment"], summary["scale"], seal)
    if not absent(key):
        return written
    shown, tags = _readable(summary, "report", {}), _tags(summary, {})
    config = {"settings": summary["settings"]}
    with started(name=shown, job_type="report", id=key, config=config, tags=tags) as run:
        written.append(Path(run.dir).parent)
        for table in sections.tables(summary):
            rows: list[Any] = [["" if cell is None else str(cell) for cell in row] for row in table.rows]
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
    return written


class Place(TypedDict, total=False):
    """Which model a stage belongs to; nothing of one that several share."""

    arm: str
    seed: int


def _readable(summary: Outcome, stage: str, place: Place) -> str:
    """A name for people: experiment, scale, arm, seed, stage."""
    arm = _named(place)
    return " / ".join([summary["experiment"], summary["scale"], *arm, stage])


def _named(place: Place) -> list[str]:
    return [
        *([place["arm"]] if "arm" in place else []),
        *([f"seed {place['seed']}"] if "seed" in place else []),
    ]


def _tags(summary: Outcome, place: Place) -> list[str]:
    """For filters: scale, arm and seed (W&B takes 64 characters a tag)."""
    return [tag[:64] for tag in [summary["scale"], *_named(place)]]


def _owners(summary: Outcome) -> dict[str, Place]:
    """{fingerprint: the arm and the seed that a stage belongs to}, each where it belongs to one."""
    owned: dict[str, set[tuple[str, int]]] = {}
    for arm, row in summary["arms"].items():
        for seed, one in row["seeds"].items():
            for artifact in one["artifacts"].values():
                owned.setdefault(artifact["fingerprint"], set()).add((arm, int(seed)))
    found: dict[str, Place] = {}
    for fingerprint, owners in owned.items():
        arms, seeds = {arm for arm, _ in owners}, {seed for _, seed in owners}
        found[fingerprint] = Place()
        if len(arms) == 1:
            found[fingerprint]["arm"] = arms.pop()
        if len(seeds) == 1:
            found[fingerprint]["seed"] = seeds.pop()
    return found
