"""Many arms against one, and whether a small experiment decides as a large one does (DataDecide, Magnusson et
al. 2025).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from statistics import mean
from typing import Any

Values = Mapping[str, Mapping[int, float]]  # arm -> seed -> value


def against_control(
    values: Mapping[str, Sequence[float]], control: str
) -> dict[str, tuple[float, float, float, float]]:
    """Difference of each arm to ``control`` with limits that hold for all of them at once (95 %), and p:
    Dunnett (1955).

    The variance is pooled over all arms. An arm with fewer than two values (its seeds failed) takes no part.
    Empty where that is the control, nobody else is left, or none of them varies: nothing says how far a mean
    may be off. The same values give the same limits: the distribution is integrated at random points, drawn
    from one seed.
    """
    import numpy
    from scipy.stats import dunnett

    values = {name: found for name, found in values.items() if len(found) >= 2}
    others = [name for name in values if name != control]
    if not others or control not in values or all(len(set(found)) == 1 for found in values.values()):
        return {}
    drawn = numpy.random.default_rng(0)
    samples = [list(values[name]) for name in others]
    compared: Any = dunnett  # its decorator hides that it takes a generator
    result = compared(*samples, control=list(values[control]), random_state=drawn)
    limits = result.confidence_interval(0.95)
    gaps = [mean(values[name]) - mean(values[control]) for name in others]
    return {
        name: (gap, float(low), float(high), float(p))
        for name, gap, low, high, p in zip(others, gaps, limits.low, limits.high, result.pvalue, strict=True)
    }


def agreement(one: Mapping[str, float], other: Mapping[str, float]) -> float | None:
    """Share of all pairs of arms that both put in the same order; a tie in either counts half. ``None`` below
    two arms.

    DataDecide's decision accuracy, where ``one`` is the small size and ``other`` the large.
    """
    pairs = list(combinations([name for name in one if name in other], 2))
    if not pairs:
        return None
    return mean(_agree(one[a] - one[b], other[a] - other[b]) for a, b in pairs)


def _agree(x: float, y: float) -> float:
    return 0.5 if x == 0 or y == 0 else float((x > 0) == (y > 0))


def of_halves(values: Values) -> float | None:
    """:func:`agreement` of one size with itself: of the means over two halves of the seeds, over all ways to
    halve them. A lower bound of what another set of as many seeds would agree in.

    Of an odd number of seeds one half has one more. ``None`` below two seeds that all arms share.
    """
    seeds = sorted(set.intersection(*(set(by_seed) for by_seed in values.values()))) if values else []
    if len(seeds) < 2:
        return None
    found = []
    for half in combinations(seeds, len(seeds) // 2):
        rest = [seed for seed in seeds if seed not in half]
        sides = [
            {name: mean(by_seed[s] for s in side) for name, by_seed in values.items()}
            for side in (half, rest)
        ]
        found.append(agreement(*sides))
    return None if None in found else math.fsum(found) / len(found)
