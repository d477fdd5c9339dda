"""What scoring cost, from the facts that stages left."""

from __future__ import annotations

from repro.outcomes.outcome import Outcome


def scoring_flops(summary: Outcome) -> float:
    """FLOPs of detection and scoring, as two whole passes (2 a parameter and token each; the fork saves some
    of it).
    """
    tokens = {name: row["facts"].get("tokens", 0) for name, row in summary["artifacts"].items()}
    read = tokens.get("detection", 0) + 2 * tokens.get("score", 0)
    return 2.0 * summary["settings"]["proxy"]["parameters"] * read
