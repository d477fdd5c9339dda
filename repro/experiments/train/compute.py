"""Net compute of an experiment that trains some arms on less: what scoring cost against what training
saved.
"""

from __future__ import annotations

from statistics import mean

from repro.outcomes.compare import between, no_interval
from repro.outcomes.outcome import Outcome, bounds
from repro.outcomes.spent import scoring_flops
from repro.pretrain import cost
from repro.pretrain.settings import Model, Train
from repro.report.cells import Cell, Interval, Number
from repro.report.table import Table

WHOLE = "all"  # selector of the arm that is trained on everything


def tables(summary: Outcome) -> list[Table]:
    """One row an arm of equal passes, where the run also trained on everything; otherwise nothing was
    saved.
    """
    arms = summary["arms"]
    whole = next((name for name, arm in arms.items() if arm["select"]["selector"] == WHOLE), None)
    shorter = [name for name, arm in arms.items() if arm["equal_passes"]]
    if whole is None or not shorter:
        return []
    rows = [row for name in shorter if (row := _row(summary, name, whole)) is not None]
    notes = [
        (
            f"Saved: model FLOPs of {whole} minus the arm's. Scoring: detection and two passes of the proxy"
            " over what was scored, once for all arms; a selection that reads no losses (random, length)"
            " needs none. Net: saved minus scoring, for one training."
        ),
        (
            f"Difference in {summary['endpoint']} to {whole}, 95 % interval of the run's own contrast: what"
            " the saving costs."
        ),
    ]
    columns = ["arm", "training tokens", "training FLOPs", "saved", "scoring", "net", f"arm − {whole} [95 %]"]
    return [Table("net_compute", "Net compute", columns, rows, notes)] if rows else []


def _row(summary: Outcome, name: str, whole: str) -> list[Cell] | None:
    own, everything = _training_flops(summary, name), _training_flops(summary, whole)
    if own is None or everything is None:
        return None
    found = between(summary, name, whole, [summary["endpoint"]])
    gap: Cell = None
    if found is not None:
        limits = bounds(found)
        gap = no_interval(found) if limits is None else Interval(*limits, 4)
    scoring, saved = scoring_flops(summary, name), everything - own
    tokens = mean(_tokens(summary, name))
    return [
        name,
        Number(tokens, 0),
        *(f"{flops:.3g}" for flops in (own, saved, scoring, saved - scoring)),
        gap,
    ]


def _tokens(summary: Outcome, arm: str) -> list[int]:
    seeds = summary["arms"][arm]["seeds"].values()
    return [
        seed["artifacts"]["pretrain"]["facts"]["tokens"]
        for seed in seeds
        if "pretrain" in seed.get("artifacts", {})
    ]


def _training_flops(summary: Outcome, arm: str) -> float | None:
    """Model FLOPs of one training of the arm, mean over seeds."""
    if not (tokens := _tokens(summary, arm)):
        return None
    settings = summary["settings"]
    own = settings["exp"]["arms"][arm]
    model = Model(**settings["model"] | own.get("model", {}))  # older runs have no such settings
    train = Train(**settings["train"] | own.get("train", {}))
    return cost.flops_per_token(model, train.context) * mean(tokens)
