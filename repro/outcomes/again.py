"""What a finished summary holds for judging it once more: values, contrasts, the items' variances, the
pilot's noise.
"""

from __future__ import annotations

import copy
import math
from typing import cast

from repro.outcomes.compare import AVERAGE, item_variance
from repro.outcomes.items import of_endpoint
from repro.outcomes.outcome import Json, Metric, Outcome, Seed
from repro.outcomes.registration import limits_on_record
from repro.settings.experiment import Contrast


def measured(summary: Outcome) -> Outcome:
    """The summary without what judging adds to it; models and their metrics are copies."""
    found = copy.copy(summary)
    for key in ("comparisons", "during", "verdict", "averaged", "noise"):
        cast(Json, found).pop(key, None)
    found["arms"] = {
        name: {**arm, "seeds": {seed: _without_average(row) for seed, row in arm["seeds"].items()}}
        for name, arm in summary["arms"].items()
    }
    return found


def _without_average(row: Seed) -> Seed:
    new = copy.copy(row)
    if "metrics" in row:
        new["metrics"] = _measured_alone(row["metrics"])
    if "checkpoints" in row:
        new["checkpoints"] = {tokens: _measured_alone(cells) for tokens, cells in row["checkpoints"].items()}
    return new


def _measured_alone(cells: dict[str, Metric]) -> dict[str, Metric]:
    return {metric: copy.copy(cell) for metric, cell in cells.items() if metric != AVERAGE}


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
        if (deviation := row.get("noise")) is not None:
            noise[row["metric"]] = deviation
        # of this metric nothing is known, of the contrast's others something may be
        if math.isnan(item_variance(row)):
            variances.setdefault((row["treatment"], row["control"]), {})
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
    seeds = [seed.get("metrics", {}) for seed in summary["arms"][arm]["seeds"].values()]
    cells = [cells[metric] for cells in seeds if metric in cells]
    return any(cell.get("clusters", cell.get("n")) == 1 for cell in cells)
