"""What a run cost, from the records that its stages left."""

from __future__ import annotations

from repro.outcomes.outcome import Artifact, Outcome

SCORING = ("detection", "heads", "score")  # stages


def artifacts(summary: Outcome) -> list[Artifact]:
    """Every artifact of the run once, shared ones first."""
    seen = {a["fingerprint"]: a for a in summary["artifacts"].values()}
    for row in summary["arms"].values():
        for seed in row["seeds"].values():
            seen.update({a["fingerprint"]: a for a in seed["artifacts"].values()})
    return list(seen.values())


def scoring(summary: Outcome, arm: str) -> list[Artifact]:
    """The scores that an arm's selections rank by, and the detection and heads behind them; nothing where the
    selections read no losses, and so make do with measures of the documents.
    """
    known = {artifact["fingerprint"]: artifact for artifact in artifacts(summary)}
    found: dict[str, Artifact] = {}

    def visit(reader: Artifact) -> None:
        for key in reader["inputs"].values():
            if key in known and known[key]["stage"] in SCORING and key not in found:
                found[key] = known[key]
                visit(known[key])

    for seed in summary["arms"][arm]["seeds"].values():
        if "selection" in seed["artifacts"]:
            visit(seed["artifacts"]["selection"])
    return list(found.values())


def scoring_flops(summary: Outcome, arm: str) -> float:
    """FLOPs of what an arm's selections rank by: of detection and scoring, as two whole passes of its proxy
    (2 a parameter and token each; the fork saves some of it).
    """
    settings = summary["settings"]
    proxy = settings["proxy"] | settings["exp"]["arms"][arm]["proxy"]
    passes = {"detection": 1, "score": 2}
    read = sum(passes.get(a["stage"], 0) * a["facts"].get("tokens", 0) for a in scoring(summary, arm))
    return 2.0 * proxy["parameters"] * read
