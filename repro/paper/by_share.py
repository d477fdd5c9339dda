"""The comparison of accuracy and amount of data as a table: each arm by the share of the corpus that it keeps
and the tokens that its models have read. Its picture is :mod:`repro.paper.picture`.
"""

from __future__ import annotations

from statistics import mean

from repro.outcomes import measure
from repro.outcomes.compare import headlines
from repro.outcomes.outcome import Outcome, bounds
from repro.paper.committed import Result, difference
from repro.report.cells import CHANCE, NOT_RUN, Cell, Interval, Number
from repro.report.curve import by_tokens
from repro.report.run_tables import CHANCE_NOTE
from repro.report.table import Table

NAME, TITLE = "accuracy_vs_data", "Accuracy by share of the data kept and by tokens read"
COLUMNS = ["run", "metric", "arm", "kept", "tokens read", "seeds", "mean", "− random [95 %]"]


def table(results: list[Result]) -> Table:
    """The endpoint, the gain by copying and every task's headline accuracy of ``exp=accuracy_vs_data``; a row
    an arm and number of tokens after which its models were evaluated.
    """
    rows: list[list[Cell]] = []
    for result in (r for r in results if r.summary["experiment"] == NAME):
        summary = result.summary
        for metric in [summary["endpoint"], *headlines(summary).values(), measure.COPYING]:
            rows += [[result.label, metric, *row] for row in _rows(result, metric)]
    notes = [
        "Means over seeds. − random: paired by seed against the random arm of the same share and budget, 95 %"
        " intervals, not corrected for their number; before the end for what is compared there alone.",
        "A whole training is the last number of tokens of an arm. Bits per byte: lower is better;"
        " copying_gain: nats a token.",
    ]
    marked = any(getattr(cell, "mark", "") for row in rows for cell in row)
    notes += [CHANCE_NOTE + " Said of finished models."] if marked else []
    return Table(NAME, TITLE, COLUMNS, rows or [[NOT_RUN, *[None] * 7]], notes, by=2 if rows else 0)


def _rows(result: Result, metric: str) -> list[list[Cell]]:
    found: list[list[Cell]] = []
    for name, arm in result.summary["arms"].items():
        points = by_tokens(arm, metric)
        partner = partner_of(result.summary, name)
        for tokens, values in points.items():
            last = tokens == max(points)
            mark = CHANCE if last and metric in arm["at_chance"] else ""
            gap: Cell = None
            if partner and last:
                gap = difference(result, name, partner, [metric], digits=3).cell
            elif partner:
                gap = _before(result.summary, name, partner, int(tokens), metric)
            kept = f"{100 * arm['share']:.0f} %"
            found.append([name, kept, int(tokens), len(values), Number(mean(values), 3, mark), gap])
    return found


def partner_of(summary: Outcome, arm: str) -> str | None:
    """The random arm that keeps as much as ``arm`` and is trained on as much; ``None`` for itself, and where
    there is none.
    """
    own = summary["arms"][arm]
    alike = [
        name
        for name, row in summary["arms"].items()
        if row["select"]["selector"] == "random"
        and not row.get("strata")
        and all(row.get(key) == own.get(key) for key in ("share", "equal_passes", "mixture"))
    ]
    return alike[0] if alike and arm not in alike else None


def _before(summary: Outcome, arm: str, partner: str, tokens: int, metric: str) -> Cell:
    for row in summary.get("during", []):
        if (row["treatment"], row["control"], row["tokens"], row["metric"]) == (arm, partner, tokens, metric):
            limits = bounds(row)
            return Interval(*limits) if limits else None
    return None
