"""A finished run to be published: its summary, and the artifacts behind it."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from repro.errors import SettingError, nearest, require
from repro.outcomes import summary
from repro.outcomes.command import command
from repro.outcomes.outcome import Artifact, Outcome
from repro.publish import portable
from repro.store import read_json
from repro.store.soundness import amiss

FIRST = "attention_influence"  # published of a run with several arms and no primary contrast


@dataclass(frozen=True)
class Made:
    """A run folder, what its summary says, and the store its artifacts lie in."""

    folder: Path
    summary: Outcome
    store: Path

    def arm(self, name: str | None) -> str:
        """The arm asked for; else the treatment of the primary contrast, or the arm of that name, or the only
        one.
        """
        arms = list(self.summary["arms"])
        require(bool(arms), f"{self.folder} has no arms: nothing was selected")
        if name is not None:
            require(name in arms, f"--arm {name}: the run has {', '.join(arms)}; {nearest(name, arms)}?")
            return name
        primary = [row["treatment"] for row in self.summary["comparisons"] if row["primary"]]
        found = next((arm for arm in (*primary, FIRST) if arm in arms), arms[0] if len(arms) == 1 else None)
        if found is None:
            raise SettingError(f"--arm is needed: the run has {', '.join(arms)}")
        return found

    def seed(self, arm: str, seed: int | None) -> str:
        """The seed asked for, as the summary writes it; else the arm's first."""
        seeds = list(self.summary["arms"][arm]["seeds"])
        require(
            bool(seeds) and (seed is None or str(seed) in seeds),
            f"--seed {seed}: {arm} has {', '.join(seeds) or 'no finished seed'}",
        )
        return seeds[0] if seed is None else str(seed)

    def artifacts(self, arm: str, seed: str) -> dict[str, Artifact]:
        """What an arm and seed read and made, by the names of the summary."""
        own = self.summary["arms"][arm]["seeds"][seed]["artifacts"]
        return {**self.summary["artifacts"], **own}

    def place(self, artifact: Artifact) -> Path:
        """An artifact's folder, whole and undamaged; a :class:`SettingError` where it is not."""
        path, again = self.store / artifact["folder"], "run its command once more, and then publish"
        require(
            (path / "manifest.json").is_file(),
            f"{path} is not there; name the work folder of the run with --work DIR, or {again}",
        )
        require(
            not read_json(path / "manifest.json").get("left_out"),
            f"{path} came in a pack, without text or weights; {again}",
        )
        wrong = amiss(path, artifact["fingerprint"])
        require(not wrong, f"{path} is damaged ({', '.join(wrong[:3])}); {again}")
        return path

    def manifest(self, artifact: Artifact) -> dict[str, Any]:
        """What an artifact says about itself."""
        return read_json(self.store / artifact["folder"] / "manifest.json")

    def command(self) -> str:
        """How it was made, without this machine's paths."""
        return command(self.summary, portable.word)

    def places(self) -> list[Path]:
        """Folders of this machine whose names are nobody's business."""
        return [self.folder, self.store.parent, Path.home(), Path.cwd(), Path(tempfile.gettempdir())]


def read(given: Path, work: Path | None) -> Made:
    """The run whose folder, or a folder or file inside it, is ``given``.

    Its store is that of ``work``, else of the work folder that the run folder lies in, else of the one that
    its settings name.
    """
    inside = (place for place in (given, *given.absolute().parents) if (place / "summary.json").is_file())
    folder = given if given.name == "summary.json" else next(inside, given)
    folder = folder.parent if folder.name == "summary.json" else folder
    found = summary.read(folder)
    if work is None:
        above = folder.absolute().parent
        work = above.parent if above.name == "runs" else _named(folder)
    return Made(folder, found, work / "artifacts")


def _named(folder: Path) -> Path:
    try:
        return Path(yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))["work"])
    except (OSError, KeyError, TypeError, yaml.YAMLError):
        return Path("work")
