"""What an experiment stated before it ran, beside what this run did, and the conclusion that was fixed for
its outcome.
"""

from __future__ import annotations

from typing import Any

from repro.outcomes.outcome import Outcome
from repro.outcomes.registration import power_line
from repro.report.cells import Cell
from repro.report.table import Table
from repro.settings.registration import SHOWN


def lines(summary: Outcome) -> list[str]:
    """Conclusion and deviations, a sentence each, for the head of the page and the terminal."""
    found = summary.get("registration", {})
    said = []
    if drawn := found.get("conclusion"):
        stated = f"Stated beforehand for this outcome ({drawn['outcome']}): {drawn['text']}"
        said = [drawn["text"] if drawn["outcome"] == "none" else stated]
    return said + [
        f"Deviates from what was stated beforehand: {text}." for text in found.get("deviations", [])
    ]


def table(summary: Outcome) -> Table | None:
    """Statement by statement: what the YAML files say and what this run did."""
    found = summary.get("registration")
    if not found or not found["registered"]:
        return None
    before, now = found["registered"], found["run"]
    rows: list[list[Cell]] = []
    for key, words in SHOWN.items():
        folded = key in ("arms", "conclusions", "selects")
        if folded or before.get(key) is None and now.get(key) is None:  # runs of before may not have it
            continue
        same = before[key] == now[key]
        rows.append([words, _text(before[key]), "as stated" if same else f"deviates: {_text(now[key])}"])
    rows += [[f"if {outcome}", text, None] for outcome, text in now["conclusions"].items()]
    notes = [f"Deviates: {text}." for text in found["deviations"]]
    if now["contrast"]:
        notes.append(power_line(found["power"], now["smallest_effect"]).capitalize() + ".")
    columns = ["statement", "before the run", "this run"]
    return Table("registered", "Stated before the run", columns, rows, notes)


def _text(value: Any) -> str:
    if isinstance(value, dict):
        listed = {name: inner if isinstance(inner, list) else [inner] for name, inner in value.items()}
        return "; ".join(f"{name} {', '.join(map(str, inner))}" for name, inner in listed.items())
    return "none" if value is None else str(value)
