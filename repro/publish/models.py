"""Trained models of a run as a repository of the hub: one in its root, several in folders of their own."""

from __future__ import annotations

import shutil
from pathlib import Path

from repro.errors import require
from repro.publish import portable
from repro.publish.made import Made
from repro.tracking import progress

ROOT = "."


def chosen(made: Made, arm: str | None, seed: int | None) -> dict[str, tuple[str, str]]:
    """{folder: (arm, seed)} of the trained models asked for, all without a word of which."""
    arms = list(made.summary["arms"]) if arm is None else [made.arm(arm)]
    found = [
        (name, s)
        for name in arms
        for s, own in made.summary["arms"][name]["seeds"].items()
        if "pretrain" in own["artifacts"] and (seed is None or s == str(seed))
    ]
    asked = "".join(f" {key}={value}" for key, value in (("arm", arm), ("seed", seed)) if value is not None)
    require(bool(found), f"{made.folder} has no trained model{f' of{asked}' if asked else ''}")
    return {ROOT if len(found) == 1 else f"{name}-seed{s}": (name, s) for name, s in found}


def write(target: Path, made: Made, models: dict[str, tuple[str, str]]) -> None:
    """Copy the models; their configurations lose this machine's paths, their own short cards give way to the
    one of the repository.
    """
    places = {
        folder: made.place(made.summary["arms"][arm]["seeds"][seed]["artifacts"]["pretrain"]) / "model"
        for folder, (arm, seed) in models.items()
    }
    with progress(len(places), "models", "copying") as bar:
        for folder, place in places.items():
            for path in sorted(p for p in place.iterdir() if p.is_file() and p.name != "README.md"):
                (target / folder).mkdir(exist_ok=True)
                if path.name.endswith("config.json"):
                    portable.copy_configuration(path, target / folder / path.name)
                else:
                    shutil.copyfile(path, target / folder / path.name)
            bar.update(1)
