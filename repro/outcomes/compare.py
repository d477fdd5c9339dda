"""Comparisons of arms: one difference, one interval, wherever it is shown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import cast

from repro.errors import require
from repro.outcomes import measure
from repro.outcomes.outcome import Arm, Difference, During, Gap, Metric, Outcome, Seed, bounds
from repro.settings.experiment import Contrast
from repro.store import finite

# (treatment, control) -> metric -> variance from the items
Variances = Mapping[tuple[str, str], Mapping[str, float]]
AVERAGE = "accuracy_average"
# metric -> standard deviation of one seed's difference, the upper limit of a pilot
Limits = Mapping[str, float]


def primary(summary: Outcome) -> Difference | None:
    """The primary contrast on the endpoint; ``None`` where none was named or it was not measured in both
    arms.
    """
    rows = summary.get("comparisons", [])
    return next((row for row in rows if row["primary"] and row["metric"] == summary["endpoint"]), None)


def metrics(arm: Arm) -> list[str]:
    """Metrics that every seed of an arm has, in their order."""
    seeds = [seed.get("metrics", {}) for seed in arm["seeds"].values()]
    return [m for m in seeds[0] if all(m in s for s in seeds)] if seeds else []


def measured(arm: Arm) -> list[str]:
    """Metrics that some seed of an arm has, in their order."""
    return list(dict.fromkeys(m for seed in arm["seeds"].values() for m in seed.get("metrics", {})))


def evaluated(arm: Arm) -> dict[str, Seed]:
    """{seed: row}, each evaluation once: where an arm draws nothing from its seeds they share one
    (``exp.kind: mirror``).
    """
    first: dict[str, str] = {}
    for seed, row in arm["seeds"].items():
        first.setdefault(_evaluation(row, seed), seed)
    return {seed: arm["seeds"][seed] for seed in first.values()}


def _evaluation(row: Seed, otherwise: str) -> str:
    return row.get("artifacts", {}).get("evaluate", {}).get("fingerprint", otherwise)


def _compared(treatment: Arm, control: Arm, seeds: set[int]) -> int:
    """How many of the shared seeds compare other evaluations: one, where neither arm draws anything."""
    pairs = [
        [_evaluation(arm["seeds"][str(seed)], str(seed)) for arm in (treatment, control)] for seed in seeds
    ]
    return len({tuple(pair) for pair in pairs})


def lower_is_better(summary: Outcome, metric: str) -> bool:
    """By what lm-eval's task says of its metric, where that is on record; else by the metric's name."""
    cells = [
        seed.get("metrics", {}).get(metric, {})
        for arm in summary["arms"].values()
        for seed in arm["seeds"].values()
    ]
    said = [cell["lower_is_better"] for cell in cells if "lower_is_better" in cell]
    return said[0] if said else measure.of(metric).lower_is_better


def seed_values(arm: Arm, metric: str) -> dict[int, float]:
    """{seed: value} of a metric."""
    found = {
        int(s): cells[metric]["value"]
        for s, row in arm["seeds"].items()
        if metric in (cells := row.get("metrics", {}))
    }
    return dict(sorted(found.items()))


def differences(summary: Outcome, row: Difference) -> list[float]:
    """The differences that a comparison rests on, one a seed that both arms have."""
    ours, theirs = (
        seed_values(summary["arms"][arm], row["metric"]) for arm in (row["treatment"], row["control"])
    )
    return [ours[seed] - theirs[seed] for seed in ours if seed in theirs]


def covers_chance(arm: Arm, metric: str) -> bool:
    """Whether an arm's accuracy is not shown to be above chance: the 95 % interval of its mean
    (:func:`interval`) reaches down to that level. Accuracies without a chance level (generated answers) have
    one of zero.
    """
    cells = cells_of(arm, metric)
    chance = cells[0].get("chance", 0.0 if measure.of(metric).accuracy else None)
    if chance is None:
        return False
    found = interval(arm, metric)
    return found is None or found[1] <= chance


def interval(arm: Arm, metric: str) -> tuple[float, float, float] | None:
    """Mean of a metric over an arm's models and its 95 % limits; see :func:`interval_of`."""
    return interval_of(cells_of(arm, metric), metric)


def interval_of(cells: Sequence[Metric], metric: str) -> tuple[float, float, float] | None:
    """Mean of a metric over these models and its 95 % limits; ``None`` where nothing says how far it may be
    off.

    It takes in the items (mean of the models' own standard errors, which share the items; of BLiMP the
    paradigms) and the spread over seeds, as those of differences do; below three models the items alone.
    """
    from repro.outcomes.statistics import FEWEST, few, limits

    values = [cell["value"] for cell in cells]
    centre, clusters = mean(values), min(cell.get("clusters", 0) for cell in cells)
    share = 0 <= centre <= 1 and not measure.of(metric).bits
    stated = [
        cell.get("stderr") or (_of_share(centre, n) if share and (n := cell.get("n")) else None)
        for cell in cells
    ]
    errors = [error for error in stated if error is not None]
    if clusters == 1 or len(errors) < len(stated):
        return None
    variance = mean(errors) ** 2 * (few(clusters) if clusters else 1.0)
    low, high = limits(values if len(values) >= FEWEST else [centre] * FEWEST, variance)
    return centre, float(low), float(high)


def cells_of(arm: Arm, metric: str) -> list[Metric]:
    """The metric in each evaluation of an arm that has it."""
    every = [row.get("metrics", {}) for row in evaluated(arm).values()]
    return [cells[metric] for cells in every if metric in cells]


def _of_share(value: float, n: int) -> float:
    """Standard error of a share of ``n`` items; where every item is right, or wrong, it has none of its
    own.
    """
    return math.sqrt(value * (1 - value) / n)


def headlines(summary: Outcome) -> dict[str, str]:
    """{task: its headline accuracy} of the tasks that every arm has."""
    arms = list(summary["arms"].values())
    shared = [m for m in metrics(arms[0]) if all(m in metrics(arm) for arm in arms)] if arms else []
    found: dict[str, str] = {}
    for wanted in measure.ACCURACIES:
        for metric in shared:
            if (one := measure.of(metric)).name.split(",")[0] == wanted:
                found.setdefault(one.task, metric)
    return found


def add_average(summary: Outcome) -> None:
    """``accuracy_average``: mean over the tasks on which the models of all arms together are above chance
    (:func:`covers_chance`), so that no arm by itself, better or of fewer seeds than others, decides which.

    The same tasks for every arm; added to each seed's metrics where at least two tasks qualify.
    """
    arms = list(summary["arms"].values())
    every = {
        f"{name} {seed}": row for name, arm in summary["arms"].items() for seed, row in arm["seeds"].items()
    }
    together = cast(Arm, {"seeds": every})
    counted = [metric for metric in headlines(summary).values() if not covers_chance(together, metric)]
    summary["averaged"] = counted
    if len(counted) < 2:
        return
    for arm in arms:
        for seed in arm["seeds"].values():
            for cells in (seed.get("metrics", {}), *seed.get("checkpoints", {}).values()):
                if all(m in cells for m in counted):
                    cells[AVERAGE] = {"value": mean(cells[m]["value"] for m in counted)}


def compare_arms(
    summary: Outcome, contrast: Contrast, variances: Mapping[str, float] | None, noise: Limits | None = None
) -> list[Difference]:
    """One row a metric: treatment minus control, paired by seed, the items' share of the error taken in.

    ``low``, ``high`` and ``p`` are ``None`` where ``no_interval`` says why, ``detectable`` also where
    ``noise`` holds no pilot's limit for the metric. Perplexities are left out: bits per byte say the same,
    and a mean of exponentials over small models is noise.
    """
    from repro.outcomes.statistics import FEWEST, compare

    noise = noise or {}
    variances = with_average(summary, variances)
    treatment, control = summary["arms"][contrast.treatment], summary["arms"][contrast.control]
    one_kind_of_device(contrast, treatment, control)
    rows = []
    for metric in measured(treatment):
        ours, theirs = seed_values(treatment, metric), seed_values(control, metric)
        if not set(ours) & set(theirs) or measure.of(metric).perplexity:
            continue
        pairs = _compared(treatment, control, set(ours) & set(theirs))
        # neither arm draws: however many draws others have, the items alone
        if pairs == 1 < len(set(ours) & set(theirs)):
            ours, theirs = (
                dict.fromkeys(range(FEWEST), next(iter(side.values()))) for side in (ours, theirs)
            )
        items, on_endpoint = of_items(variances, metric), metric == summary["endpoint"]
        first = contrast.primary and on_endpoint
        found = compare(ours, theirs, items, noise=noise.get(metric))
        row: Difference = {
            "treatment": contrast.treatment,
            "control": contrast.control,
            "primary": contrast.primary,
            "metric": metric,
            "lower_is_better": lower_is_better(summary, metric),
            "exploratory": not first and (measure.of(metric).part or not (contrast.primary or on_endpoint)),
            "at_chance": metric in treatment["at_chance"] and metric in control["at_chance"],
            "seeds": pairs,
            "item_variance": finite(items) if metric in (variances or ()) else None,
            "noise": noise.get(metric),
            **found.recorded(),
            "p_holm": None,
            "verdict": "",  # of all comparisons together
        }
        rows.append(row)
    return rows


def of_items(variances: Mapping[str, float] | None, metric: str) -> float:
    """What the choice of items contributes to the variance of a difference on ``metric``: not a number where
    this is not known. None of the gain by copying, which is measured on drawn words, and none where no
    evaluation was looked into (``None``).
    """
    if variances is None or metric == measure.COPYING:
        return 0.0
    return variances.get(metric, math.nan)


def with_average(summary: Outcome, variances: Mapping[str, float] | None) -> Mapping[str, float] | None:
    """With that of the average accuracy, where those of all its tasks, which are independent, are known."""
    tasks = summary.get("averaged", [])
    if not tasks or variances is None or not all(metric in variances for metric in tasks):
        return variances
    return {**variances, AVERAGE: sum(variances[m] for m in tasks) / len(tasks) ** 2}


def between(summary: Outcome, treatment: str, control: str, metrics: Sequence[str]) -> Gap | None:
    """Difference of two arms of a finished run on ``metrics`` (their mean): the one interval that every table
    and figure shows.

    ``difference``, ``low``, ``high``, ``p``, ``detectable``, ``seeds`` and whether the run has ``compared``
    them. Of one metric those of the run's own comparison, turned where it has the arms the other way round;
    of several computed from their values and the items' variances on record. Of two arms that the run does
    not compare those are not on record, and over seeds alone an interval would be too narrow: ``low`` is
    ``None``. ``None`` where no seed has both.
    """
    from repro.outcomes.statistics import compare

    sign, rows = _rows_between(summary, treatment, control)
    if len(metrics) == 1 and (row := rows.get(metrics[0])) is not None:
        _, low, high = bounds(row) or (None, None, None)
        if low is not None and high is not None and sign < 0:
            low, high = -high, -low
        return {
            "difference": row["difference"] and sign * row["difference"],
            "low": low,
            "high": high,
            "p": row["p"],
            "detectable": row["detectable"],
            "seeds": row["seeds"],
            "compared": True,
        }
    sides = [
        [seed_values(summary["arms"][arm], metric) for metric in metrics] for arm in (treatment, control)
    ]
    shared = set.intersection(*(set(values) for side in sides for values in side))
    if not shared:
        return None
    ours, theirs = (
        {seed: mean(values[seed] for values in side) for seed in sorted(shared)} for side in sides
    )
    known = all(metric in rows for metric in metrics)
    variance = sum(item_variance(rows[m]) for m in metrics) / len(metrics) ** 2 if known else 0.0
    found = compare(ours, theirs, variance)
    return {
        "difference": found.difference,
        "low": finite(found.low) if known else None,
        "high": finite(found.high) if known else None,
        "p": finite(found.p) if known else None,
        "detectable": None,
        "seeds": found.seeds,
        "compared": known,
    }


def item_variance(row: Difference | During) -> float:
    """What the choice of items contributes to the variance of a recorded difference; infinite where one item
    was asked, not a number where nothing is known of them.
    """
    from repro.outcomes.statistics import NO_ITEMS, ONE_ITEM

    unknown = {ONE_ITEM: math.inf, NO_ITEMS: math.nan}
    return unknown.get(row.get("no_interval", ""), row["item_variance"] or 0.0)


def _rows_between(summary: Outcome, treatment: str, control: str) -> tuple[int, dict[str, Difference]]:
    """{metric: comparison} of two arms, and -1 where the run compares them the other way round."""
    for sign, sides in ((1, (treatment, control)), (-1, (control, treatment))):
        rows = {r["metric"]: r for r in summary["comparisons"] if (r["treatment"], r["control"]) == sides}
        if rows:
            return sign, rows
    return 1, {}


def no_interval(found: Gap) -> str:
    """Why a difference (:func:`between`) has none."""
    if not found["compared"]:
        return "no interval (the run does not compare these arms)"
    return (
        f"no interval ({found['seeds']} seed{'s' * (found['seeds'] > 1)}, or nothing says how far it may be"
        " off)"
    )


def one_kind_of_device(contrast: Contrast, treatment: Arm, control: Arm) -> None:
    """Refuse to pair models that were trained or evaluated on different kinds of device: the difference would
    be in it.
    """
    for seed, row in treatment["seeds"].items():
        other = control["seeds"].get(seed, {}).get("artifacts", {})
        for stage in ("pretrain", "evaluate"):
            sides = [side[stage] for side in (row.get("artifacts", {}), other) if stage in side]
            kinds = [side["device"].partition(":")[0] for side in sides]
            require(
                len(set(kinds)) < 2,
                f"{contrast.treatment} and {contrast.control}, seed {seed}: {stage} ran on"
                f" {' and '.join(kinds)}; paired arms need one kind of device: delete one of the two"
                " artifacts and run again with device=NAME",
            )


def secondary(rows: list[Difference], endpoint: str) -> list[Difference]:
    """The family that is corrected: the primary contrast's other metrics, and the other contrasts on the
    endpoint. Metrics at chance, parts of a benchmark and what has no interval take no part.
    """
    shown = [
        r
        for r in rows
        if r["primary"] != (r["metric"] == endpoint) and not r["at_chance"] and not r.get("exploratory")
    ]
    return [row for row in shown if row["p"] is not None]


def masked(summary: Outcome) -> bool:
    """Whether the model itself was evaluated, heads masked, and nothing trained: its seeds are draws of the
    control heads.
    """
    return has_stage(summary, "evaluate") and not has_stage(summary, "pretrain")


def has_stage(summary: Outcome, stage: str) -> bool:
    """Whether any model of the run has an artifact of the stage."""
    arms = summary["arms"].values()
    return any(stage in seed.get("artifacts", {}) for arm in arms for seed in arm["seeds"].values())
