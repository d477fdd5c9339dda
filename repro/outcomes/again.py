"""What a finished summary holds for judging it once more: values, contrasts, the items' variances, the
pilot's noise.
"""

from __future__ import annotations

import copy
import math

from repro.outcomes.compare import item_variance
from repro.outcomes.items import of_endpoint
from repro.outcomes.outcome import Outcome, Seed
from repro.outcomes.registration import limits_on_record
from repro.settings.experiment import Contrast

AVERAGE = "accuracy_average"


def measured(summary: Outcome) -> Outcome:
    """The summary without what judging adds to it; models and their metrics are copies."""
    found = {
        key: value
        for key, value in summary.items()
        if key not in ("comparisons", "verdict", "averaged", "noise")
    }
    found["arms"] = {
        name: {**arm, "seeds": {seed: _without_average(row) for seed, row in arm["seeds"].items()}}
        for name, arm in summary["arms"].items()
    }
    return found  # type: ignore[return-value]


def _without_average(row: Seed) -> Seed:
    new = copy.deepcopy({key: row[key] for key in ("metrics", "checkpoints") if key in row})  # type: ignore[literal-required]
    for cells in (new.get("metrics", {}), *new.get("checkpoints", {}).values()):
        cells.pop(AVERAGE, None)
    return {**row, **new}  # type: ignore[typeddict-item]


def given(
    summary: Outcome,
) -> tuple[list[Contrast], dict[tuple[str, str], dict[str, float]], dict[str, float]]:
    """The contrasts, the items' variances and the pilot's limits, as ``repro.outcomes.verdict.judge`` takes
    them.
    """
    contrasts = [Contrast(**contrast) for contrast in summary["settings"]["exp"]["contrasts"]]
    variances: dict[tuple[str, str], dict[str, float]] = {}
    noise: dict[str, float] = {}
    for row in summary["comparisons"]:
        if row.get("noise") is not None:
            noise[row["metric"]] = row["noise"]
        known = row["item_variance"] is not None or math.isinf(item_variance(row))
        if known and row["metric"] != AVERAGE:
            alone = _of_one_item(summary, row["treatment"], row["metric"])
            of_sides = variances.setdefault((row["treatment"], row["control"]), {})
            of_sides[row["metric"]] = math.inf if alone else item_variance(row)
    noise = noise or limits_on_record(summary)
    return contrasts, {sides: found | of_endpoint(found) for sides, found in variances.items()}, noise


def _of_one_item(summary: Outcome, arm: str, metric: str) -> bool:
    """Whether a single text or item was asked, or all of one cluster: earlier versions recorded no variance
    for it.
    """
    cells = [seed["metrics"].get(metric, {}) for seed in summary["arms"][arm]["seeds"].values()]
    return any(cell.get("clusters", cell.get("n")) == 1 for cell in cells)
