"""What a scoring run shows and leaves behind: how much each arm keeps, and the kept documents themselves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from repro.outcomes import documents
from repro.outcomes.outcome import Outcome
from repro.report.sections import Section
from repro.store import Store


def sections(summary: Outcome) -> list[Section]:
    """Nothing that other runs with scores do not show."""
    return []


def lines(summary: Outcome) -> list[str]:
    """For the terminal: what was kept."""
    found = []
    for arm, row in summary["arms"].items():
        for seed in list(row["seeds"].values())[:1]:
            for domain, made in seed.get("make_up", {}).items():
                found.append(
                    f"  {arm}: {domain}: {made['selected']:,} of {made['documents']:,} documents kept"
                )
    return [*found, ""]


def sentence(summary: Outcome) -> str:
    """What stands where a training run has its verdict."""
    scored = [row["documents"] for row in summary.get("scores", {}).values()]
    domains = f"{len(scored)} domain{'' if len(scored) == 1 else 's'}"
    return (
        f"{sum(scored):,} documents in {domains} were scored; nothing was trained, so nothing is concluded."
    )


def leave(run_dir: Path, store: Store, stages: Mapping[str, Any]) -> None:
    """``kept/<arm>/*.parquet``, ready for ``datasets``, and all scores as one file."""
    folders = store.path(stages["corpus"]), store.path(stages["score"])
    for arm, by_seed in stages.get("arms", {}).items():
        for named in by_seed.values():
            documents.export(run_dir / "kept" / arm, *folders, store.path(named["selection"]))
    documents.export_scores(run_dir / "scores.parquet", folders[1])
