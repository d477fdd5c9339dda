"""How far two rankings of the same documents agree, in each domain. Scores are only comparable within one.

Spearman's correlation looks at all documents; the overlap of the highest 10, 20, 30 and 50 % at those that a
selection would keep. Two rankings that know nothing of each other share as much of their top as the top is of
the domain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NotRequired, TypedDict

import numpy as np
import polars

from repro.analysis.ranks import (
    SOURCES,
    Estimate,
    Ranks,
    alone,
    correlation_interval,
    number_of,
    overlap,
    resampled,
    share_interval,
    spearman,
    units_of,
)

if TYPE_CHECKING:
    from repro.experiments.agree.stages import Agreement

FEWEST = 10  # documents of a domain, below which nothing is said


class Agreed(TypedDict):
    """How far two rankings of a domain agree; estimates have ``value``, ``low`` and ``high``."""

    documents: int
    dropped: int
    spearman: Estimate | None
    overlap: dict[str, Estimate]  # share -> estimate and what chance gives
    drawn: NotRequired[str]
    units: NotRequired[int]
    reason: NotRequired[str]


def measure(documents: polars.DataFrame, s: Agreement) -> Agreed:
    """Agreement within one domain; ``documents`` has group, priority and other, in the order that breaks
    ties.

    ``dropped`` documents have no priority in one ranking or in both. ``drawn`` says what the bootstrap draws,
    and of how many ``units``: of fewer than :data:`SOURCES` nothing, and estimates have no interval.
    ``reason`` says why there is no estimate.
    """
    ranked = documents.filter(polars.col("priority").is_finite() & polars.col("other").is_finite())
    n = len(ranked)
    found: Agreed = {"documents": n, "dropped": len(documents) - n, "spearman": None, "overlap": {}}
    if n < FEWEST:
        return {**found, "reason": "too few documents"}
    if min(ranked["priority"].n_unique(), ranked["other"].n_unique()) < 2:
        return {**found, "reason": "all scores equal"}
    x, y = (Ranks.of(ranked[column].to_numpy()) for column in ("priority", "other"))
    unit, units = units_of(ranked["group"])

    def statistics(weight: np.ndarray) -> list[float]:
        return [spearman(x, y, weight), *(overlap(x, y, weight, share) for share in s.shares)]

    few = units < SOURCES
    drawn = np.array(
        [statistics(weight) for weight in resampled(unit, units, 0 if few else s.draws, s.seed)]
    ).T
    values = statistics(np.ones(n))
    found["drawn"], found["units"] = "sources", units
    found["spearman"] = alone(values[0]) if few else correlation_interval(values[0], drawn[0], units)
    for number, share in enumerate(s.shares, 1):
        estimate = alone(values[number]) if few else share_interval(values[number], drawn[number], units)
        found["overlap"][str(share)] = (estimate or {}) | {"chance": round(number_of(share, n) / n, 6)}
    return found
