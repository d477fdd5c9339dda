"""Paired comparisons at few seeds, and what they could have seen.

Each seed gives one paired difference (arms of one seed share initial weights and data order). Percentile
bootstraps over so few cover far less than they say, so the interval is Student's, with two additions:

* Where the items of a benchmark are a sample of the questions one cares about, their variance is added; the
  quantile is the mean of Student's for the seeds and the normal for the items, weighted by their variances
  (Cochran and Cox, Experimental Designs, 1957, for two variances of different degrees of freedom).
* Student's interval covers 88 % where the differences are skewed (exponential, 3 to 8 seeds), and misses on
  the side of the long tail. That limb is made longer by the skewness that is seen; the other one is never
  made shorter (Johnson, JASA 1978, shifts both, which takes from the one what it gives the other). Normal
  differences are then covered in 96 to 97 %.

The p-value is one minus the level at which the interval ends at zero, so the two cannot disagree. Coverage,
errors and power are simulated by ``benchmarks/coverage.py``; its table is in ``docs/statistics.md``.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any, NamedTuple, cast

import numpy as np
from scipy import stats
from scipy.optimize import brentq
from scipy.special import ndtri, stdtr, stdtrit

from repro.evaluate.clusters import cluster_means
from repro.outcomes.outcome import Statistics
from repro.store import finite

FEWEST = 3  # seeds, below which there is no interval
# of the limb on the side of the skew, a unit of skewness, over the square of the number of seeds: about the
STRETCH = 40.0
# least with which exponential differences are covered in 93 % at 3 to 10 seeds (benchmarks/coverage.py)
ONE_ITEM = "one item or text"  # reasons why there is no interval
NO_ITEMS = "nothing is known of single items"
NUMBERS = ("no shared seed", "one seed", "two seeds")
NOT_FINITE, NO_SPREAD = "a value is not finite", "every seed gives the very same difference"


@dataclass(frozen=True)
class Comparison:
    """Treatment minus control. ``low`` and ``high`` bound the mean difference at ``level``; NaN where nothing
    says how far it may be off, and ``no_interval`` says why.

    ``p`` is the two-sided p-value of no difference; ``detectable`` the smallest true difference that this
    many seeds see with 80 % power at the noise that a pilot measured, NaN without a pilot. What a summary
    records of every comparison are all fields but those marked; one with a ``column`` is shown in every table
    of comparisons.
    """

    difference: float
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan
    # a summary counts those that compare other evaluations
    seeds: int = field(default=0, metadata={"recorded": False})
    level: float = field(default=0.95, metadata={"recorded": False})
    deviation: float = field(default=math.nan, metadata={"recorded": False})
    detectable: float = field(default=math.nan, metadata={"column": "could see"})
    no_interval: str = ""
    test: str = "t"

    def recorded(self) -> Statistics:
        """What a summary records: numbers that are not finite are ``None`` there."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.metadata.get("recorded", True)}
        plain = {key: value if isinstance(value, str) else finite(value) for key, value in values.items()}
        return cast(Statistics, plain)


COLUMNS = {f.name: f.metadata["column"] for f in fields(Comparison) if "column" in f.metadata}


def compare(
    treatment: Mapping[int, float],
    control: Mapping[int, float],
    item_variance: float = 0.0,
    level: float = 0.95,
    noise: float | None = None,
) -> Comparison:
    """Interval (:func:`limits`) of ``treatment[seed] - control[seed]`` over the seeds that both have.

    ``item_variance`` is the variance of the mean difference that comes from which items were asked (see
    :func:`paired_item_variance`); infinite of a single item, not a number where nothing is known of it.
    ``noise`` is the standard deviation of one seed's difference as a pilot measured it (its upper limit).
    Below three seeds, without any spread, with one item or none known and with values that are not finite
    there is no interval. ``p`` is below 1 - ``level`` where
    the interval leaves zero out, and only there.
    """
    seeds = sorted(set(treatment) & set(control))
    sides = np.array([[treatment[s], control[s]] for s in seeds], dtype=np.float64).reshape(-1, 2)
    n = len(seeds)
    if not np.isfinite(sides).all():
        return Comparison(math.nan, seeds=n, level=level, no_interval=NOT_FINITE)
    d = sides[:, 0] - sides[:, 1]
    mean = float(d.mean()) if n else math.nan
    deviation = float(d.std(ddof=1)) if n > 1 else math.nan
    # rounding: no spread was seen, which is not certainty
    if n > 1 and deviation <= 1e-12 * float(np.abs(sides).max()):
        d, deviation = np.full(n, mean), 0.0
    if n < FEWEST:
        why = NUMBERS[n]
    elif not math.isfinite(item_variance):
        why = NO_ITEMS if math.isnan(item_variance) else ONE_ITEM
    else:
        why = NO_SPREAD if deviation == 0 and item_variance == 0 else ""
    if why:
        return Comparison(mean, seeds=n, level=level, deviation=deviation, no_interval=why)
    low, high = (float(end) for end in limits(d, item_variance, level))
    effect = math.nan if noise is None else smallest_effect(noise, n, item_variance, level)
    return Comparison(mean, low, high, p_value(d, item_variance), n, level, deviation, effect)


def limits(
    values: np.ndarray | Sequence[float], item_variance: float | np.ndarray = 0.0, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper limit of the mean of ``values`` (..., seeds), items drawn anew; see the head of this
    file.

    ``item_variance`` (...) is that of the mean. Of the longer limb as of Student's quantile the seeds' share
    of the variance is taken.
    """
    mean, spread = _moments(np.asarray(values, dtype=np.float64), item_variance)
    below, above = _limbs(spread, level)
    return mean - below, mean + above


def p_value(values: np.ndarray, item_variance: float = 0.0) -> float:
    """One minus the level at which the interval (:func:`limits`) of ``values`` (seeds) ends at zero."""
    mean, spread = _moments(np.asarray(values, dtype=np.float64), item_variance)
    if mean and item_variance == 0:  # Student's, the limb as long as it is
        unit = [float(limb) / stdtrit(len(values) - 1, 0.975) for limb in _limbs(spread, 0.95)]
        return float(2 * stdtr(len(values) - 1, -abs(mean) / unit[int(mean < 0)]))

    def excess(p: float) -> float:
        below, above = _limbs(spread, 1 - p)
        return float(below if mean > 0 else above) - abs(float(mean))

    least, most = 1e-15, 1 - 1e-15
    if mean == 0 or excess(most) >= 0:  # a mean that is zero, or zero but for rounding
        return 1.0
    if excess(least) <= 0:
        return least
    root: Any = brentq(excess, least, most, xtol=1e-18, rtol=np.float64(1e-12))
    return float(root)


class _Spread(NamedTuple):
    """Variance of a mean over seeds and items, the seeds' share of it, their skewness, and their number."""

    total: np.ndarray
    share: np.ndarray
    skewness: np.ndarray
    n: np.ndarray


def _moments(values: np.ndarray, item_variance: float | np.ndarray) -> tuple[np.ndarray, _Spread]:
    """Mean and spread of ``values`` (..., seeds)."""
    n = values.shape[-1]
    mean = values.mean(axis=-1)
    apart = values - mean[..., None]
    squares = (apart**2).sum(axis=-1)
    of_seeds = squares / (n - 1) / n
    total = of_seeds + item_variance
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(total > 0, of_seeds / total, 0.0)
        skewness = np.where(squares > 0, (apart**3).mean(axis=-1) / (squares / n) ** 1.5, 0.0)
    return mean, _Spread(total, share, skewness, np.asarray(n))


def _limbs(spread: _Spread, level: float) -> tuple[np.ndarray, np.ndarray]:
    """How far the interval reaches below and above the mean."""
    total, share, skewness, n = spread
    student, normal = stdtrit(n - 1, 0.5 + level / 2), ndtri(0.5 + level / 2)
    half = np.sqrt(total) * (share * student + (1 - share) * normal)
    longer = STRETCH / n**2 * skewness * share
    return half * (1 + np.maximum(-longer, 0)), half * (1 + np.maximum(longer, 0))


def paired_item_variance(
    differences: np.ndarray, clusters: Sequence[Hashable] | None = None, weights: np.ndarray | None = None
) -> float:
    """Variance of a benchmark's mean difference that comes from the items drawn.

    ``differences`` is (seeds, items): per item, treatment minus control. A two-way layout: averaging over
    seeds leaves what the questions themselves contribute; the noise of (seed, item) in those averages is
    subtracted, at least to zero, because the interval over seeds holds it already. With few items the
    variance is raised so that normal quantiles act as Student's.

    ``clusters`` names what each item was drawn with; the clusters' means are then what was drawn, as in
    :func:`repro.evaluate.clusters.clustered`. ``weights`` (items) are those of a ratio: ``differences`` are
    then sums (bits) and the mean is their sum over that of the weights (bytes). The variance is the
    jackknife's, which leaves out one text at a time, and its degrees of freedom are those of as many texts of
    equal length as weigh the same (Kish). One item or cluster says nothing about others: infinity.
    """
    if clusters is not None:
        differences, weights = cluster_means(differences, clusters), None  # clusters weigh the same
    seeds, items = differences.shape
    weight = np.ones(items) if weights is None else np.asarray(weights, dtype=np.float64)
    whole = weight.sum()
    if items < 2:
        return math.inf
    of_seed = differences.sum(axis=1, keepdims=True) / whole
    apart = differences - of_seed * weight  # what each item moves the mean of a seed by, times all weights
    shared = apart.mean(axis=0)
    noise = ((apart - shared) ** 2).sum(axis=0) / (seeds - 1) / seeds if seeds > 1 else 0.0
    found = float(((shared**2 - noise) / (whole - weight) ** 2).sum()) * (items - 1) / items
    return max(0.0, found) * few(float(whole**2 / (weight**2).sum()))


def few(items: float) -> float:
    """Factor on the variance of a mean of so many items with which a normal quantile acts as Student's."""
    return float((stdtrit(items - 1, 0.975) / ndtri(0.975)) ** 2)


def detectable(deviation: float, seeds: int, level: float = 0.95, power: float = 0.8) -> float:
    """Smallest true mean difference that :func:`compare` over ``seeds`` sees with ``power``, at the given
    spread.

    ``deviation`` is the standard deviation of one seed's difference. NaN below three seeds.
    """
    if seeds < FEWEST or not math.isfinite(deviation):
        return math.nan
    return deviation * float(np.quantile(_needed(seeds, level), power))


def smallest_effect(deviation: float, seeds: int, item_variance: float, level: float = 0.95) -> float:
    """:func:`detectable` where items are drawn anew, too; the effects of both add as squares."""
    of_items = math.sqrt(item_variance) * float(ndtri(0.5 + level / 2) + ndtri(0.8))
    return math.hypot(detectable(deviation, seeds, level), of_items)


def power(effect: float, deviation: float, seeds: int, level: float = 0.95) -> float:
    """Probability that :func:`compare` over ``seeds`` finds a true mean difference of ``effect`` in its own
    direction.

    ``deviation`` is the standard deviation of one seed's difference. NaN below three seeds.
    """
    if seeds < FEWEST or not deviation > 0:
        return math.nan
    return float((_needed(seeds, level) < abs(effect) / deviation).mean())


@lru_cache
def _needed(seeds: int, level: float, draws: int = 100_000) -> np.ndarray:
    """Of simulated standard normal differences (the same ones always): the true difference from which on the
    interval of each draw would leave zero out.
    """
    low, _ = limits(np.random.default_rng(0).standard_normal((draws, seeds)), level=level)
    return -low


def upper_limit(deviation: float, df: int, confidence: float = 0.8) -> float:
    """One-sided upper confidence limit of a normal sample's standard deviation with ``df`` degrees of
    freedom.
    """
    return deviation * math.sqrt(df / float(stats.chi2.ppf(1 - confidence, df)))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down correction; keys keep their p-values' names."""
    from statsmodels.stats.multitest import multipletests

    if not p_values:
        return {}
    corrected = np.asarray(multipletests(list(p_values.values()), method="holm")[1])
    return dict(zip(p_values, (float(p) for p in corrected), strict=True))
