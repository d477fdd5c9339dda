"""What an experiment stated before it ran, beside what this run did, and the conclusion that was fixed for its outcome."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from repro.config import SettingError, Settings, as_dict
from repro.registration import SHOWN, deviations, power, power_line, stated
from repro.report.table import Cell, Table


def record(settings: Settings) -> dict[str, Any]:
    """For the summary: what was ``registered``, what this run has (``run``), its ``deviations`` in words, and the ``power``."""
    return {
        "registered": settings.exp.registered,
        "run": stated(as_dict(settings)),
        "deviations": deviations(settings),
        "power": _power(settings) if settings.exp.kind in ("train", "mirror") else None,
    }


def _power(settings: Settings) -> dict[str, Any] | None:
    """As printed before the run; a pilot that has gone since then must not cost the report."""
    try:
        return power(settings)
    except SettingError as error:
        return {"unknown": str(error)}


def concluded(summary: Mapping[str, Any]) -> dict[str, str] | None:
    """The ``outcome`` of the primary contrast and the ``text`` that was stated for it; ``None`` where nothing was stated.

    A demonstration draws no conclusion, whatever its interval.
    """
    from repro.analysis.statistics import conclusion

    said = summary["registration"]["run"]["conclusions"]
    row = next((r for r in summary["comparisons"] if r["primary"] and r["metric"] == summary["endpoint"]), None)
    if row is None or not said:
        return None
    if summary["verdict"]["demonstration"]:
        return {"outcome": "none", "text": "A demonstration: none of the conclusions stated beforehand is drawn."}
    margin = summary["registration"]["run"]["smallest_effect"]
    outcome = conclusion(row["low"], row["high"], row["lower_is_better"], margin)
    text = said.get(outcome, "Nothing was stated for this outcome.")
    if outcome in ("better", "worse") and margin is not None and max(abs(row["low"]), abs(row["high"])) < margin:
        text += f" The whole interval is smaller than the smallest effect of interest, {margin:g}."
    return {"outcome": outcome, "text": text}


def lines(summary: Mapping[str, Any]) -> list[str]:
    """Conclusion and deviations, a sentence each, for the head of the page and the terminal."""
    found = summary.get("registration", {})
    said = [f"Stated beforehand for this outcome ({c['outcome']}): {c['text']}"] if (c := found.get("conclusion")) else []
    return said + [f"Deviates from what was stated beforehand: {text}." for text in found.get("deviations", [])]


def table(summary: Mapping[str, Any]) -> Table | None:
    """Statement by statement: what the YAML files say and what this run did."""
    found = summary.get("registration")
    if not found or not found["registered"]:
        return None
    before, now = found["registered"], found["run"]
    rows: list[list[Cell]] = []
    for key, words in SHOWN.items():
        if key in ("arms", "conclusions", "selects") or before[key] is None and now[key] is None:
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
        return "; ".join(f"{name} {', '.join(map(str, inner))}" for name, inner in value.items())
    return "none" if value is None else str(value)
