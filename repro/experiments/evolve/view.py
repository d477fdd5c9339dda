"""What head scores over checkpoints show: table, plots and words (figure 2 of the paper)."""

from __future__ import annotations

import re

from repro.experiments.evolve.series import ABOVE
from repro.outcomes.outcome import Outcome
from repro.report.cells import Cell, Number
from repro.report.plots import Heat, Panel, Plot
from repro.report.sections import Section
from repro.report.table import Table


def sections(summary: Outcome) -> list[Section]:
    """The heads of every checkpoint, series by series."""
    return [Section("evolution", "Heads over checkpoints", [*figures(summary), *tables(summary)])]


def tables(summary: Outcome) -> list[Table]:
    """One row a series and checkpoint."""
    rows: list[list[Cell]] = []
    notes: list[str] = []
    for name, found in summary.get("evolution", {}).items():
        heads = found["num_layers"] * found["num_heads"]
        for row in found["checkpoints"]:
            shared = row["shared_with_last"]
            rows.append(
                [name, row["name"], row["tokens"], Number(row["max"], 3), row["above"],
                 heads - row["zero_heads"],
                 Number(row["probe_accuracy"], 3),
                 "no head scores" if shared is None else Number(100 * shared, 0)]
            )  # fmt: skip
            if row["same_as"]:
                notes.append(
                    f"{name}: {row['name']} scores as {row['same_as']} does to the last digit: the same"
                    " weights twice?"
                )
        probe = found["probe"]
        notes.append(
            f"{name}: {heads} heads, {probe['probes']} probes of at most {probe['probe_tokens']} tokens."
        )
    columns = ["series", "checkpoint", "tokens", "highest score", "heads above 0.1", "heads above 0",
               "probe accuracy",
               "% of the last one's top heads"]  # fmt: skip
    notes.append("Probe accuracy: share of the answers' tokens that the checkpoint itself ranks first.")
    return [Table("evolution", "Head scores over checkpoints", columns, rows, notes)] if rows else []


def figures(summary: Outcome) -> list[Plot]:
    """A plot a series: layer by head, one panel a checkpoint, on one colour scale."""
    plots = []
    for name, found in summary.get("evolution", {}).items():
        rows = found["checkpoints"]
        top = max(ABOVE, *(row["max"] for row in rows))  # what counts as no retrieval head must not shine
        panels = [
            Panel(
                row["name"],
                "head",
                "layer",
                [],
                Heat(row["scores"], [(l, h) for l, h in row["selected"]], "score", highest=top),
            )
            for row in rows
        ]
        told = ", ".join(f"{row['name']} {row['max']:.2f}" for row in rows)
        alt = (
            f"{found['num_layers']} layers by {found['num_heads']} heads, selected ones framed. Highest"
            f" score: {told}."
        )
        plots.append(Plot(f"evolution_{_file(name)}", f"Head scores over checkpoints: {name}", alt, panels))
    return plots


def _file(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name)


def lines(summary: Outcome) -> list[str]:
    """For the terminal: a line a checkpoint."""
    text: list[str] = []
    for name, found in summary.get("evolution", {}).items():
        text.append(f"{name}: highest score, heads above 0.1, share of the last checkpoint's top heads")
        width = max(len(row["name"]) for row in found["checkpoints"])
        for row in found["checkpoints"]:
            shared = "none there" if row["shared_with_last"] is None else f"{row['shared_with_last']:.0%}"
            text.append(f"  {row['name']:>{width}}  {row['max']:.3f}  {row['above']:4}  {shared}")
        text.append("")
    return text


def sentence(summary: Outcome) -> str:
    """What stands where a training run has its verdict."""
    told = []
    for name, found in summary.get("evolution", {}).items():
        rows = found["checkpoints"]
        first = next((i for i, row in enumerate(rows) if row["above"]), None)
        if first is None:
            told.append(f"{name}: no head ever scores above 0.1")
            continue
        later = [row["shared_with_last"] for row in rows[first:-1]]
        top = f"{len(rows[-1]['selected'])} of {found['num_layers'] * found['num_heads']}"
        stay = f" and from there on its top heads ({top}) are those of the last checkpoint" if later else ""
        told.append(
            f"{name}: a head scores above 0.1 first at {rows[first]['name']}"
            + (stay if all(share == 1 for share in later) else "")
        )
    return (
        f"{'; '.join(told)}. Checkpoints of one training were looked at, so nothing is concluded about"
        " others."
    )
