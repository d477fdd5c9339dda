"""Whether a run's summary may be committed as evidence: its code and its inputs can be had again."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from repro.outcomes.outcome import Outcome
    from repro.settings.root import Settings


def faults(summary: Outcome) -> list[str]:
    """Why a run's summary is no result to be committed: evidence comes from a clean checkout of one tagged
    commit.
    """
    code, report = summary.get("code"), summary["provenance"]
    if code is None:
        return ["its summary does not say which code its stages come from"]
    commits, found = {*code["commits"], str(report["commit"])}, []
    if code["dirty"] or report["dirty"] is not False:
        found.append("made with uncommitted changes, or outside git")
    if len(commits) != 1:
        found.append(f"mixes {len(commits)} commits: {', '.join(sorted(commit[:8] for commit in commits))}")
    if "None" in code["tags"] or report.get("tag") is None:
        found.append("a stage or the report comes from a commit without a tag")
    return found


def unnamed(summary: Outcome, settings: Settings) -> list[str]:
    """Inputs outside the repository, as the settings of the run's command name them, whose checksum the
    summary lacks.
    """
    artifacts, found = summary["artifacts"], []
    for name, kind, outside in (
        ("corpus", settings.corpus.kind, "files"),
        ("proxy", settings.proxy.kind, "folder"),
    ):
        if kind == outside and not any(
            key.split()[0] == name and a.get("outside") for key, a in artifacts.items()
        ):
            found.append(name)
    if settings.items.kind == "folder" and "items" in summary and "sha256" not in str(summary["items"]):
        found.append("items")
    return found
