"""Paired comparisons at few seeds, and what they could have seen.

Percentile bootstraps over 2 to 5 seeds cover far less than they say, so intervals over seeds are Student t. Each seed gives
one paired difference (arms of one seed share initial weights and data order); where the items of a benchmark are a sample
of the questions one cares about, their variance is added: seeds alone then cover as little as 36 %. Each variance has its own
quantile, Student's for the seeds and the normal for the items, and the half-widths add as squares. That covers 95 to 99 % at
2 to 8 seeds whichever variance dominates; Welch's single degrees of freedom cover 93 % at three seeds and 90 % at two.
Coverage is proven by simulation in ``tests/oracle``.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache

import numpy as np
from scipy import stats
from scipy.optimize import brentq
from scipy.special import ndtri, stdtr, stdtrit

from repro.evaluate.clusters import cluster_means


@dataclass(frozen=True)
class Comparison:
    """Treatment minus control. ``low`` and ``high`` bound the mean difference at ``level``; NaN where nothing says how far it
    may be off: with one seed, or where every seed gives the very same difference and no items were resampled.

    ``p`` is the two-sided p-value of no difference; ``detectable`` the smallest true difference that this many seeds with
    this spread see with 80 % power. What a summary records of every comparison are all fields but those marked; one with a
    ``column`` is shown in every table of comparisons.
    """

    difference: float
    low: float
    high: float
    p: float
    seeds: int = field(metadata={"recorded": False})  # a summary counts those that compare other evaluations
    level: float = field(metadata={"recorded": False})
    deviation: float = field(metadata={"recorded": False})
    detectable: float = field(metadata={"column": "could see"})
    test: str  # "t" | "sign flips" (exact, from eight seeds on)


RECORDED = [f.name for f in fields(Comparison) if f.metadata.get("recorded", True)]
COLUMNS = {f.name: f.metadata["column"] for f in fields(Comparison) if "column" in f.metadata}


def compare(
    treatment: Mapping[int, float],
    control: Mapping[int, float],
    item_variance: float = 0.0,
    level: float = 0.95,
) -> Comparison:
    """Paired t-interval of ``treatment[seed] - control[seed]`` over the seeds that both have.

    ``item_variance`` is the variance of the mean difference that comes from which items were asked (see
    :func:`paired_item_variance`). ``p`` is below 1 - ``level`` where the interval leaves zero out. From eight seeds on it is
    the exact sign-flip permutation test; flipping seeds says nothing about other items, so with them it is the larger of the
    two.
    """
    seeds = sorted(set(treatment) & set(control))
    d = np.array([treatment[s] - control[s] for s in seeds], dtype=np.float64)
    n = len(d)
    mean = float(d.mean()) if n else math.nan
    if n < 2:
        return Comparison(mean, math.nan, math.nan, math.nan, n, level, math.nan, math.nan, "t")
    deviation = float(d.std(ddof=1))
    if deviation <= 1e-12 * float(np.abs(d).max()) and not item_variance:  # no spread was seen; that is not certainty
        return Comparison(mean, math.nan, math.nan, math.nan, n, level, 0.0, math.nan, "t")
    half = half_width(deviation, n, item_variance, level)
    p, test = _p(mean, deviation, n, item_variance), "t"
    if n >= 8:
        p, test = max(sign_flip_p(d), p if item_variance else 0.0), "sign flips"
    effect = math.hypot(detectable(deviation, n, level), math.sqrt(item_variance) * _normal_effect(level))
    return Comparison(mean, mean - half, mean + half, p, n, level, deviation, effect, test)


def half_width(deviation: float, seeds: int, item_variance: float, level: float = 0.95) -> float:
    """Half the width of the interval of a mean over ``seeds`` with spread ``deviation``, items drawn anew."""
    of_seeds = float(stdtrit(seeds - 1, 0.5 + level / 2)) * deviation / math.sqrt(seeds)
    return math.hypot(of_seeds, float(ndtri(0.5 + level / 2)) * math.sqrt(item_variance))


def _p(mean: float, deviation: float, seeds: int, item_variance: float) -> float:
    """One minus the level at which the interval ends at zero."""
    if mean == 0:
        return 1.0
    if item_variance == 0:
        return float(2 * stdtr(seeds - 1, -abs(mean) / deviation * math.sqrt(seeds)))

    def excess(p: float) -> float:
        return half_width(deviation, seeds, item_variance, 1 - p) - abs(mean)

    least, most = 1e-15, 1 - 1e-15
    if excess(most) >= 0:  # a mean that is zero but for rounding
        return 1.0
    return least if excess(least) <= 0 else float(brentq(excess, least, most))


def _normal_effect(level: float, power: float = 0.8) -> float:
    return float(ndtri(0.5 + level / 2) + ndtri(power))


def paired_item_variance(differences: np.ndarray, clusters: Sequence[Hashable] | None = None) -> float:
    """Variance of a benchmark's mean difference that comes from the items drawn.

    ``differences`` is (seeds, items): per item, treatment minus control. A two-way layout: averaging over seeds leaves what the
    questions themselves contribute; the noise of (seed, item) in those averages is subtracted, at least to zero, because
    the interval over seeds holds it already. With few items the variance is raised so that normal quantiles act as Student's.

    ``clusters`` names what each item was drawn with; the clusters' means are then what was drawn, as in
    :func:`repro.evaluate.clusters.clustered`. One
    cluster says nothing about others: infinity.
    """
    if clusters is not None:
        differences = cluster_means(differences, clusters)
    seeds, items = differences.shape
    if items < 2:
        return math.inf if clusters is not None else 0.0
    of_item = differences.mean(axis=0)
    residual = differences - of_item - differences.mean(axis=1, keepdims=True) + differences.mean()
    noise = float((residual**2).sum()) / ((seeds - 1) * (items - 1)) / seeds if seeds > 1 else 0.0
    return float(max(0.0, of_item.var(ddof=1) - noise) / items * few(items))


def few(items: int) -> float:
    """Factor on the variance of a mean of so many items with which a normal quantile acts as Student's."""
    return float((stdtrit(items - 1, 0.975) / ndtri(0.975)) ** 2)


def sign_flip_p(differences: Sequence[float] | np.ndarray, draws: int = 20_000) -> float:
    """Two-sided permutation test of paired differences: all 2^n sign patterns up to n = 14, else seeded draws."""
    d = np.asarray(differences, dtype=np.float64)
    n = len(d)
    if n <= 14:
        signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        means = np.abs(signs @ d)
        return float((means >= abs(d.sum()) * (1 - 1e-12)).mean())
    signs = np.random.default_rng(0).choice((-1.0, 1.0), size=(draws, n))
    return float((1 + (np.abs(signs @ d) >= abs(d.sum()) * (1 - 1e-12)).sum()) / (draws + 1))


def detectable(deviation: float, seeds: int, level: float = 0.95, power: float = 0.8) -> float:
    """Smallest true mean difference that a paired t-test over ``seeds`` sees with ``power``, at the given spread.

    ``deviation`` is the standard deviation of one seed's difference. Solved on the noncentral t distribution.
    """
    if seeds < 2 or not math.isfinite(deviation):
        return math.nan
    return deviation * _unit_effect(seeds, level, power)


def power(effect: float, deviation: float, seeds: int, level: float = 0.95) -> float:
    """Probability that a paired t-test over ``seeds`` finds a true mean difference of ``effect``, whatever its sign.

    ``deviation`` is the standard deviation of one seed's difference. From the noncentral t distribution; NaN below two seeds.
    """
    if seeds < 2 or not deviation > 0:
        return math.nan
    df, shift = seeds - 1, abs(effect) / deviation * math.sqrt(seeds)
    critical = float(stats.t.ppf(0.5 + level / 2, df))
    if shift > 5 + 5 * critical:  # certain; far out the noncentral t overflows
        return 1.0
    return float(stats.nct.sf(critical, df, shift) + stats.nct.cdf(-critical, df, shift))


def upper_limit(deviation: float, df: int, confidence: float = 0.8) -> float:
    """One-sided upper confidence limit of a normal sample's standard deviation with ``df`` degrees of freedom."""
    return deviation * math.sqrt(df / float(stats.chi2.ppf(1 - confidence, df)))


def conclusion(low: float | None, high: float | None, lower_is_better: bool, margin: float | None) -> str:
    """Which outcome of those an experiment registers: better, worse, equivalent or undecided.

    Better and worse leave zero outside the interval, whatever the size; equivalent holds zero and lies within ``margin``, the
    smallest effect of interest, on both sides (at 95 % stricter than two one-sided tests at 5 %).
    """
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return "undecided"
    if low > 0 or high < 0:
        return "better" if (high < 0) == lower_is_better else "worse"
    return "equivalent" if margin is not None and max(-low, high) < margin else "undecided"


@lru_cache
def _unit_effect(seeds: int, level: float, power: float) -> float:
    """:func:`detectable` for a standard deviation of one."""
    df, root = seeds - 1, math.sqrt(seeds)
    critical = float(stats.t.ppf(0.5 + level / 2, df))

    def lack(effect: float) -> float:
        return power - float(stats.nct.sf(critical, df, effect * root))  # the other tail holds nothing by then

    high = 0.5
    while lack(high) > 0:  # doubling keeps away from shifts so large that the noncentral t overflows
        high *= 2
    return float(brentq(lack, high / 2 if high > 0.5 else 1e-9, high))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down correction; keys keep their p-values' names."""
    from statsmodels.stats.multitest import multipletests

    if not p_values:
        return {}
    corrected = multipletests(list(p_values.values()), method="holm")[1]
    return dict(zip(p_values, (float(p) for p in corrected), strict=True))


WORDS = ("better", "worse"), ("hurts less", "hurts more")  # the latter where the treatment is a harm: heads are masked
AFTER_CORRECTION = "undecided after correction"


def verdict(
    difference: float,
    low: float | None,
    high: float | None,
    lower_is_better: bool = True,
    p_corrected: float | None = None,
    reasons: Sequence[str] = (),
    level: float = 0.95,
    masked: bool = False,
) -> str:
    """The words for one comparison, wherever they are printed: README, page, tables, verdicts by claim.

    "better" or "worse" (:data:`WORDS`; others where heads are ``masked``) where the interval leaves zero out; "undecided after
    correction" where it does and a secondary comparison's p-value after Holm, ``p_corrected``, is not below 1 - ``level``; "no
    difference larger than x" only where the interval holds zero. Without an interval (``low`` or ``high`` is ``None`` or NaN)
    there is not enough data. ``reasons`` say what a verdict would need and the run does not have (method.md, section 6): a
    demonstration.
    """
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return "not enough data"
    if reasons:
        return "demonstration only"
    if low <= 0 <= high:
        return f"no difference larger than {max(abs(low), abs(high)):.2g}"
    if p_corrected is not None and p_corrected > 1 - level:
        return AFTER_CORRECTION
    better, worse = WORDS[masked]
    return better if (difference < 0) == lower_is_better else worse


def direction(words: str) -> int:
    """1 where the words of :func:`verdict` speak for the treatment, -1 where they speak against it, 0 where for neither."""
    return next((sign for pair in WORDS for sign, word in zip((1, -1), pair, strict=True) if word == words), 0)
