"""The comparison for the terminal: what was asked, what came out, how sure one can be. Fits 100 columns."""

from __future__ import annotations

import textwrap
from statistics import mean

from repro import kinds
from repro.outcomes.outcome import Outcome
from repro.outcomes.verdict import gate, left_out, of_arm, unit
from repro.report.run_tables import arm_values
from repro.report.sections import said

WIDTH = 100


def render(summary: Outcome) -> str:
    """Plain text, no colours, no trailing newline."""
    lines = ["", *textwrap.wrap(summary["question"], WIDTH), ""]
    lines += _arms(summary) + _contrasts(summary)
    if own := getattr(kinds.load(summary["kind"], "view"), "lines", None):
        lines += own(summary)
    verdict = summary["verdict"]
    if verdict["demonstration"]:
        lines.append("This is a demonstration, not evidence:")
    for text in [
        verdict["sentence"],
        *(f"- {reason}" for reason in verdict["reasons"]),
        *said(summary),
        *gate(summary),
        *left_out(summary),
    ]:
        lines += textwrap.wrap(text, WIDTH, subsequent_indent="  " if text.startswith("- ") else "")
    return "\n".join(lines)


def _arms(summary: Outcome) -> list[str]:
    metric = summary["endpoint"]
    found = {arm: values for arm in summary["arms"] if (values := arm_values(summary, arm, metric))}
    if not found:
        return []
    width = max(map(len, found))
    lines = [f"{metric}: mean over an arm's {of_arm(summary)}, then each"]
    for arm, v in found.items():
        line = f"  {arm:{width}}  {mean(v):.4f}   ({', '.join(f'{x:.4f}' for x in v)})"
        below = " " * min(width + 14, WIDTH // 2)
        lines += textwrap.wrap(line, WIDTH, subsequent_indent=below, break_on_hyphens=False)
    return [*lines, ""]


def _contrasts(summary: Outcome) -> list[str]:
    rows = [r for r in summary.get("comparisons", []) if r["metric"] == summary["endpoint"]]
    if not rows:
        return []
    names = [f"{r['treatment']} - {r['control']}{' *' if r['primary'] else ''}" for r in rows]
    width = min(max(map(len, names)), 60)
    better = (
        "below zero favours the first arm"
        if rows[0]["lower_is_better"]
        else "above zero favours the first arm"
    )
    lines = [f"differences over {unit(summary)}, 95 % intervals ({better}; * primary)"]
    for name, r in zip(names, rows, strict=True):
        interval = r["verdict"] if r["low"] is None else f"[{r['low']:+.4f}, {r['high']:+.4f}]"
        *above, last = textwrap.wrap(name, width)
        lines += [f"  {part}" for part in above]
        lines.append(f"  {last:{width}}  {r['difference']:+.4f}  {interval}")
        if r["low"] is not None and not summary["verdict"]["demonstration"]:  # that is said once, below
            seen = f"; could see {r['detectable']:.4f}" if r["detectable"] is not None else ""
            lines.append(f"  {'':{width}}  {r['verdict']}{seen}")
    return [*lines, ""]
