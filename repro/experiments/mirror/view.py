"""The proxy with heads masked (``exp.kind: mirror``, table 6): which heads, and how much that hurts ordinary
text.
"""

from __future__ import annotations

from statistics import mean

from repro.outcomes import measure
from repro.outcomes.compare import evaluated
from repro.outcomes.outcome import Outcome, Seed
from repro.report.cells import Cell, Number
from repro.report.sections import NOTHING_CONCLUDED, Section
from repro.report.table import Table

NOTHING_TRAINED = (
    "The model itself is evaluated, with the heads of each arm masked to equal attention over all visible"
    " positions; nothing is trained."
)


def sections(summary: Outcome) -> list[Section]:
    """Which heads are masked, and how much that hurts ordinary text."""
    return [
        Section("arms", "What is compared", [_arms(summary), NOTHING_TRAINED]),
        Section("masked", "Heads masked", [masked(summary)]),
    ]


def sentence(summary: Outcome) -> str:
    """What stands where a run without a primary contrast would have its verdict."""
    return NOTHING_CONCLUDED


def _arms(summary: Outcome) -> Table:
    rows: list[list[Cell]] = [
        [name, arm["heads"].get("detector", summary["settings"]["heads"]["detector"]), len(evaluated(arm))]
        for name, arm in summary["arms"].items()
    ]
    return Table("arms", "Arms", ["arm", "heads masked", "evaluations"], rows)


def masked(summary: Outcome) -> Table:
    """One row an arm and draw: its heads, and the rise in loss on held-out text over the arm that masks
    nothing.
    """
    found = {name: evaluated(arm) | arm.get("missed", {}) for name, arm in summary["arms"].items()}
    base = next(
        (heldout(row) for by_seed in found.values() for row in by_seed.values() if "masked" not in row), None
    )
    rows: list[list[Cell]] = []
    for name, by_seed in found.items():
        for draw, row in by_seed.items():
            heads, text = row.get("masked", {}), heldout(row)
            control = heads.get("control") or {}
            rise = Number(text - base, 4) if base is not None and text is not None else None
            named = ", ".join(f"{layer}.{head}" for layer, head in heads.get("selected", [])) or "none"
            damage = [_number(control.get(key)) for key in ("loss_rise", "loss_rise_of_important")]
            within = {True: "yes", False: "no", None: None}[control.get("within_tolerance")]
            rows.append([name, draw if len(by_seed) > 1 else "all", named, rise, *damage, within])
    columns = ["arm", "draw", "heads (layer.head)", "held-out text, bits per byte, rise",
               "matched: rise (nats a token)",
               "matched: rise by retrieval heads", "within tolerance"]  # fmt: skip
    text = (
        "Held-out text of the corpus, mean over domains, minus the arm that masks nothing. The damage of"
        " matched draws was measured, when they were drawn, on the beginnings of such documents."
    )
    return Table("masked", "Masked heads and what they do to ordinary text", columns, rows, [text])


def heldout(row: Seed) -> float | None:
    """Bits per byte of held-out text, mean over domains."""
    found = [
        cell["value"]
        for name, cell in row.get("metrics", {}).items()
        if measure.of(name).group == measure.HELD_OUT
    ]
    return mean(found) if found else None


def _number(value: float | None) -> Number | None:
    return None if value is None else Number(value, 4)
