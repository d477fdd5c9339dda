"""What a run cost, from the records that its stages left."""

from __future__ import annotations

from repro.outcomes.outcome import Artifact, Outcome


def artifacts(summary: Outcome) -> list[Artifact]:
    """Every artifact of the run once, shared ones first."""
    seen = {a["fingerprint"]: a for a in summary["artifacts"].values()}
    for row in summary["arms"].values():
        for seed in row["seeds"].values():
            seen.update({a["fingerprint"]: a for a in seed["artifacts"].values()})
    return list(seen.values())


def scoring_flops(summary: Outcome) -> float:
    """FLOPs of detection and scoring, as two whole passes (2 a parameter and token each; the fork saves some
    of it).
    """
    tokens = {name: row["facts"].get("tokens", 0) for name, row in summary["artifacts"].items()}
    read = tokens.get("detection", 0) + 2 * tokens.get("score", 0)
    return 2.0 * summary["settings"]["proxy"]["parameters"] * read
