"""Of a pilot: how far two arms differ that differ in nothing but the draw, and what that lets other
experiments see.

The paired standard deviation is that of one seed's difference; the unpaired one is what it would be if the
arms of a seed shared nothing. Both are estimates from few seeds, so their upper 80 % limits stand beside
them, and effects rest on the limit.
"""

from __future__ import annotations

from math import sqrt
from statistics import stdev, variance

from repro.outcomes import measure
from repro.outcomes.compare import metrics, seed_values
from repro.outcomes.outcome import Json, Noise, Outcome
from repro.outcomes.statistics import detectable, upper_limit

SEEDS = (3, 5, 8)  # for which the smallest visible effect is printed


def noise(summary: Outcome, contrast: Json) -> dict[str, Noise]:
    """{metric: ``seeds``, ``paired``, ``paired_limit``, ``unpaired``, ``unpaired_limit``, ``detectable``
    {seeds: effect}}.

    Standard deviations of the difference of two models, ``contrast`` naming the arms. Fewer than three shared
    seeds give none.
    """
    ours, theirs = (summary["arms"][contrast[side]] for side in ("treatment", "control"))
    found = {}
    for metric in metrics(ours):
        left, right = seed_values(ours, metric), seed_values(theirs, metric)
        seeds = sorted(set(left) & set(right))
        if len(seeds) < 3 or measure.of(metric).perplexity:
            continue
        paired = stdev(left[s] - right[s] for s in seeds)
        unpaired = sqrt(variance([left[s] for s in seeds]) + variance([right[s] for s in seeds]))
        limit = upper_limit(paired, len(seeds) - 1)
        found[metric] = {
            "seeds": len(seeds),
            "paired": paired,
            "paired_limit": limit,
            "unpaired": unpaired,
            "unpaired_limit": upper_limit(unpaired, 2 * (len(seeds) - 1)),
            "detectable": {str(n): detectable(limit, n) for n in SEEDS},
        }
    return found


def sentence(summary: Outcome) -> str:
    """The noise of the endpoint in words."""
    row = summary.get("noise", {}).get(summary["endpoint"])
    if row is None:
        return "A pilot needs three seeds that both arms have, so the noise is not known."
    effects = ", ".join(f"{n} pairs {row['detectable'][str(n)]:.3f}" for n in SEEDS)
    return (
        f"Two draws of the same size differ in {summary['endpoint']} with a standard deviation of"
        f" {row['paired']:.4f} paired (upper 80 % limit {row['paired_limit']:.4f}) and {row['unpaired']:.4f}"
        f" unpaired (limit {row['unpaired_limit']:.4f}), over {row['seeds']} seeds. At the paired limit 80 %"
        f" power needs a true difference of: {effects}."
    )
