"""How a difference comes about: the contrasts after the tokens at which models of both arms were kept.

Intervals alone: nothing here is tested or corrected, has words, or takes part in a verdict.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import mean

from repro.outcomes import measure
from repro.outcomes.compare import item_variance, lower_is_better, of_items, with_average
from repro.outcomes.outcome import Arm, During, Metric, Outcome
from repro.settings.experiment import Contrast
from repro.store import finite

# (treatment, control, tokens) -> metric -> variance from the items
Kept = Mapping[tuple[str, str, int], Mapping[str, float]]


def shared_seeds(treatment: Arm, control: Arm) -> list[str]:
    """Seeds that both arms have, in the treatment's order."""
    return [seed for seed in treatment["seeds"] if seed in control["seeds"]]


def kept(treatment: Arm, control: Arm) -> list[int]:
    """Tokens after which a model was kept and measured in both arms with every seed that they share."""
    sides = [arm["seeds"][seed] for seed in shared_seeds(treatment, control) for arm in (treatment, control)]
    every = [set(map(int, seed.get("checkpoints", {}))) for seed in sides]
    return sorted(set.intersection(*every)) if every else []


def differences(summary: Outcome, contrasts: Sequence[Contrast], variances: Kept) -> list[During]:
    """A row a contrast, metric (:func:`values`) and number of tokens of which ``variances`` knows the items'
    share; no row of a pilot's contrast, which :mod:`repro.outcomes.noise` describes.
    """
    from repro.outcomes.statistics import compare

    rows: list[During] = []
    for contrast in contrasts:
        if contrast.noise or not {contrast.treatment, contrast.control} <= summary["arms"].keys():
            continue
        treatment, control = summary["arms"][contrast.treatment], summary["arms"][contrast.control]
        for tokens in kept(treatment, control):
            known = with_average(summary, variances.get((contrast.treatment, contrast.control, tokens)))
            if known is None:
                continue
            sides = [
                {
                    int(seed): values(
                        arm["seeds"][seed].get("checkpoints", {})[str(tokens)], summary["endpoint"]
                    )
                    for seed in shared_seeds(treatment, control)
                }
                for arm in (treatment, control)
            ]
            for metric in _common([found for side in sides for found in side.values()]):
                ours, theirs = ({seed: found[metric] for seed, found in side.items()} for side in sides)
                found = compare(ours, theirs, of_items(known, metric))
                rows.append({
                    "treatment": contrast.treatment,
                    "control": contrast.control,
                    "primary": contrast.primary,
                    "tokens": tokens,
                    "metric": metric,
                    "lower_is_better": lower_is_better(summary, metric),
                    "seeds": found.seeds,
                    "item_variance": finite(known[metric]) if metric in known else None,
                    **found.recorded(),
                })  # fmt: skip
    return rows


def values(cells: Mapping[str, Metric], endpoint: str) -> dict[str, float]:
    """{metric: value} of one model: the endpoint, the gain by copying, and under the name of their group the
    mean of the held-out bits per byte over domains; what was not measured is left out.
    """
    found = {metric: cells[metric]["value"] for metric in (endpoint, measure.COPYING) if metric in cells}
    held_out = [
        cell["value"] for metric, cell in cells.items() if measure.of(metric).group == measure.HELD_OUT
    ]
    return found | ({measure.HELD_OUT: mean(held_out)} if held_out else {})


def with_held_out(variances: Mapping[str, float]) -> dict[str, float]:
    """The items' variances and that of the mean over the held-out domains, which are independent parts."""
    parts = [v for metric, v in variances.items() if measure.of(metric).group == measure.HELD_OUT]
    return {**variances, **({measure.HELD_OUT: sum(parts) / len(parts) ** 2} if parts else {})}


def on_record(summary: Outcome) -> Kept:
    """The items' variances that a finished summary holds."""
    found: dict[tuple[str, str, int], dict[str, float]] = {}
    for row in summary.get("during", []):
        of_contrast = found.setdefault((row["treatment"], row["control"], row["tokens"]), {})
        if row["item_variance"] is not None or math.isinf(item_variance(row)):
            of_contrast[row["metric"]] = item_variance(row)
    return found


def _common(models: Sequence[Mapping[str, float]]) -> list[str]:
    return [metric for metric in models[0] if all(metric in model for model in models)] if models else []
