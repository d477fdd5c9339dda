"""``python -m repro.compare RUN_A RUN_B``: what differed in settings, data and versions, and how the outcomes
differ.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

from repro import environment
from repro.errors import SettingError
from repro.outcomes.compare import metrics, of_items, seed_values
from repro.outcomes.items import item_variances
from repro.outcomes.outcome import Arm, Json, Outcome, Seed
from repro.report.cells import CHANCE, Cell, Interval, Number
from repro.report.table import Table

if TYPE_CHECKING:
    from repro.report.table import Table


def main(arguments: list[str] | None = None) -> int:
    """The door. Exit 2 for a user's mistake."""
    environment.prepare(restart=arguments is None)
    parser = argparse.ArgumentParser(
        prog=environment.program or "python -m repro.compare", description=__doc__
    )
    parser.add_argument("a", type=Path, metavar="RUN_A", help="folder of a run, or its summary.json")
    parser.add_argument("b", type=Path, metavar="RUN_B")
    parsed = parser.parse_args(arguments)
    try:
        from repro.outcomes import summary

        print(report(summary.read(parsed.a), summary.read(parsed.b), (parsed.a, parsed.b)))
    except SettingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def report(a: Outcome, b: Outcome, folders: Sequence[Path] = ()) -> str:
    """Markdown: tables of what differed, then of outcomes (B minus A, paired by seed, 95 % intervals)."""
    found = outcomes(a, b, folders)
    parts = [table.markdown() for table in (*differences(a, b), found) if table.rows]
    parts += [] if found.rows else found.notes
    return "\n".join(parts) if parts else "The two runs do not differ."


def differences(a: Outcome, b: Outcome) -> list[Table]:
    """One table each for settings, data (counts and artifact fingerprints) and versions, with the rows that
    differ.
    """
    tables = []
    for title, pick in (
        ("Settings", _settings),
        ("Data and artifacts", _data),
        ("Code and versions", _versions),
    ):
        ours, theirs = pick(a), pick(b)
        keys = [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]
        rows: list[list[Cell]] = [
            [key, str(ours.get(key, "absent")), str(theirs.get(key, "absent"))] for key in keys
        ]
        tables.append(Table(title.split()[0].lower(), title, ["", "A", "B"], rows))
    return tables


def outcomes(a: Outcome, b: Outcome, folders: Sequence[Path] = ()) -> Table:
    """Every metric of every arm the runs share, over the seeds they share: B minus A, paired by seed, with an
    interval from three of these.

    ``folders`` are those of A and B: while their evaluations are in the store beside them, intervals take in
    the items too.
    """
    from repro.outcomes.statistics import compare

    rows: list[list[Cell]] = []
    notes = []
    both = [name for name in a["arms"] if name in b["arms"]]
    apart = [name for name in both if not set(a["arms"][name]["seeds"]) & set(b["arms"][name]["seeds"])]
    if not both:
        notes.append("The runs share no arm: no outcome is compared.")
    if apart:
        notes.append(f"Without a shared seed, and so not compared: {', '.join(apart)}.")
    for arm in both:
        variances = _item_variances(a["arms"][arm], b["arms"][arm], folders)
        mark = " (seeds alone)" if variances is None else ""
        for metric in metrics(a["arms"][arm]):
            ours, theirs = seed_values(a["arms"][arm], metric), seed_values(b["arms"][arm], metric)
            shared = sorted(set(ours) & set(theirs))
            if not shared or all(ours[s] == theirs[s] for s in shared):
                continue
            found = compare(theirs, ours, of_items(variances, metric))
            gap: Cell = f"{found.difference:+.4f}, no interval: {found.no_interval}"
            if isfinite(found.low):
                gap = Interval(found.difference, found.low, found.high, 4, mark=mark)
            marks = [CHANCE if metric in side["arms"][arm].get("at_chance", []) else "" for side in (a, b)]
            means = [
                Number(mean(side[s] for s in shared), 4, mark)
                for side, mark in zip((ours, theirs), marks, strict=True)
            ]
            rows.append([arm, metric, *means, gap, len(shared)])
    columns = ["arm", "metric", "A", "B", "B − A [95 %]", "shared seeds"]
    if any(" (seeds alone)" in str(row[4]) for row in rows):
        notes.append(
            "seeds alone: the evaluations are not in the store, so the interval leaves out which items were"
            " asked."
        )
    return Table("outcomes", "Outcomes that differ", columns, rows, notes)


def _item_variances(a: Arm, b: Arm, folders: Sequence[Path]) -> dict[str, float] | None:
    """What the choice of items contributes to each difference of an arm between two runs; ``None`` where it
    is not at hand.
    """
    shared = [seed for seed in a["seeds"] if seed in b["seeds"]]
    if not shared or len(folders) != 2:
        return None
    pairs = []
    for seed in shared:
        ours = _evaluation(folders[0], a["seeds"][seed])
        theirs = _evaluation(folders[1], b["seeds"][seed])
        if ours is None or theirs is None or not ours.is_dir() or not theirs.is_dir():
            return None
        pairs.append((theirs, ours))
    return item_variances(pairs)


def _evaluation(folder: Path, seed: Seed) -> Path | None:
    """Folder of a seed's evaluation in the store that a run folder (``<work>/runs/<run>``) stands in."""
    run = folder if folder.is_dir() else folder.parent
    evaluated = seed["artifacts"].get("evaluate")
    return run.resolve().parents[1] / "artifacts" / evaluated["folder"] if evaluated else None


def _settings(summary: Outcome) -> Json:
    from repro.report.run_tables import flatten

    return flatten(summary["settings"])


def _data(summary: Outcome) -> Json:
    from repro.report.run_tables import flatten

    found = {
        f"{name} artifact": artifact["fingerprint"][:12] for name, artifact in summary["artifacts"].items()
    }
    for arm, row in summary["arms"].items():
        for seed, one in row["seeds"].items():
            found |= {
                f"{arm} seed {seed} {name}": artifact["fingerprint"][:12]
                for name, artifact in one["artifacts"].items()
            }
    found |= {f"corpus {key}": value for key, value in flatten(summary.get("corpus", {})).items()}
    heads = summary.get("heads", {}).get("selected")
    return found | ({"selected heads": " ".join(f"{layer}.{head}" for layer, head in heads)} if heads else {})


def _versions(summary: Outcome) -> Json:
    from repro.report.run_tables import flatten

    return {key: value for key, value in flatten(summary["provenance"]).items() if key != "command"}


if __name__ == "__main__":
    sys.exit(main())
