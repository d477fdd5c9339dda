"""How large what was trained is, in words."""

from __future__ import annotations

from repro.outcomes.spent import artifacts
from repro.paper.committed import Result


def sizes(results: list[Result]) -> str:
    """What was trained, of all these results: parameters and tokens."""
    facts = [a["facts"] for result in results for a in artifacts(result.summary) if a["stage"] == "pretrain"]
    found = {
        key: sorted(fact[key] / 1e6 for fact in facts if key in fact) for key in ("parameters", "tokens")
    }
    ranges = {
        k: f"{v[0]:.1f}" if f"{v[0]:.1f}" == f"{v[-1]:.1f}" else f"{v[0]:.1f} to {v[-1]:.1f}"
        for k, v in found.items()
        if v
    }
    return (
        f"models of {ranges.get('parameters', '?')} million parameters, trained on"
        f" {ranges.get('tokens', '?')} million tokens"
    )
