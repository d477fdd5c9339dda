"""Statistics against simulated truth: coverage, false alarms and power at the seed counts in use."""

import numpy as np
import pytest
from scipy import stats

from repro.outcomes.statistics import (
    compare,
    detectable,
    holm,
    limits,
    paired_item_variance,
    power,
    upper_limit,
)
from repro.outcomes.words import conclusion, verdict


def as_seeds(values):
    return dict(enumerate(values))


@pytest.mark.parametrize("seeds", [3, 5, 8])
def test_the_interval_covers_the_truth_95_percent_of_the_time(seeds):
    g, runs, truth = np.random.default_rng(seeds), 1500, 0.3
    covered = 0
    for _ in range(runs):
        shared = g.normal(size=seeds) * 5  # what seeds share between arms must cancel
        c = compare(as_seeds(shared + truth + g.normal(size=seeds)), as_seeds(shared))
        covered += c.low <= truth <= c.high
    assert 0.95 - 3 * np.sqrt(0.95 * 0.05 / runs) < covered / runs < 0.985


def test_a_percentile_bootstrap_at_three_seeds_would_not():
    """Why the interval is Student t: the usual bootstrap is far too narrow here, so the test above can fail."""
    g, covered = np.random.default_rng(0), 0
    for _ in range(600):
        d = g.normal(size=3)
        low, high = np.percentile(d[g.integers(0, 3, (400, 3))].mean(axis=1), [2.5, 97.5])
        covered += low <= 0 <= high
    assert covered / 600 < 0.85


@pytest.mark.parametrize("seeds", [3, 5, 8])
@pytest.mark.parametrize(
    ("of_seed", "of_item", "noise"), [(0.01, 0.0, 0.5), (0.0, 0.5, 0.3), (0.02, 0.3, 0.3), (0.05, 0.3, 0.3)]
)
def test_whichever_variance_dominates_the_interval_covers(seeds, of_seed, of_item, noise):
    """Seeds alone cover 36 to 95 % of the time in these settings; 99.5 % would be an interval that says nothing."""
    g, runs, items, covered, alone = np.random.default_rng(seeds), 1000, 100, 0, 0
    for _ in range(runs):
        d = (
            g.normal(size=(seeds, items)) * noise
            + g.normal(size=items) * of_item
            + g.normal(size=(seeds, 1)) * of_seed
        )
        means = as_seeds(d.mean(axis=1))
        c, seeds_only = (compare(means, as_seeds(np.zeros(seeds)), v) for v in (paired_item_variance(d), 0.0))
        covered += c.low <= 0 <= c.high
        alone += seeds_only.low <= 0 <= seeds_only.high
    error = np.sqrt(0.95 * 0.05 / runs)
    assert 0.95 - 3 * error < covered / runs < 0.995
    if seeds == 8 and of_item:
        assert alone / runs < 0.92


@pytest.mark.parametrize("items", [5, 20])
def test_few_items_are_allowed_for(items):
    g, runs, covered = np.random.default_rng(0), 1500, 0
    for _ in range(runs):
        d = np.repeat(g.normal(size=(1, items)), 5, axis=0) + g.normal(size=(5, items)) * 0.01
        c = compare(as_seeds(d.mean(axis=1)), as_seeds(np.zeros(5)), paired_item_variance(d))
        covered += c.low <= 0 <= c.high
    assert abs(covered / runs - 0.95) < 3 * np.sqrt(0.95 * 0.05 / runs)


@pytest.mark.parametrize("seeds", [3, 7, 9])
@pytest.mark.parametrize("item_variance", [0.0, 0.05])
def test_p_and_interval_never_contradict_each_other(seeds, item_variance):
    g = np.random.default_rng(seeds)
    for _ in range(200):
        d = g.exponential(size=seeds) - g.random()
        c = compare(as_seeds(d), as_seeds(np.zeros(seeds)), item_variance)
        assert (c.p < 0.05) == (c.low > 0 or c.high < 0)
        low, high = limits(d, item_variance, 1 - c.p)
        assert min(abs(low), abs(high)) == pytest.approx(0, abs=1e-6 * (high - low))


def test_texts_of_very_unequal_length_are_weighed():
    """Eight texts of log-normal lengths: with as many degrees of freedom as texts 89 % are covered, not 95."""
    g, runs, covered, usual = np.random.default_rng(3), 1500, 0, 0
    for _ in range(runs):
        length = np.exp(1.2 * g.normal(size=8))
        gaps = (g.normal(size=8) + g.normal(size=(3, 8)) * 0.05) * length
        ratio = (gaps.sum(axis=1) / length.sum()).mean()
        own = np.full(3, ratio)  # no noise of seeds: the texts alone
        low, high = limits(own, paired_item_variance(gaps, weights=length))
        covered += low <= 0 <= high
        low, high = limits(own, paired_item_variance((gaps - ratio * length) / length.mean()))
        usual += low <= 0 <= high
    assert 0.93 < covered / runs < 0.98 and usual / runs < 0.91


def test_weights_that_are_equal_change_nothing():
    g = np.random.default_rng(0)
    d = g.normal(size=(1, 12)) + g.normal(size=(4, 12)) * 0.1
    of_item = d.mean(axis=0)
    residual = d - of_item - d.mean(axis=1, keepdims=True) + d.mean()
    noise = (residual**2).sum() / (3 * 11) / 4
    plain = (of_item.var(ddof=1) - noise) / 12 * (stats.t.ppf(0.975, 11) / stats.norm.ppf(0.975)) ** 2
    assert (
        paired_item_variance(d)
        == pytest.approx(plain)
        == pytest.approx(paired_item_variance(3 * d, weights=np.full(12, 3)))
    )


@pytest.mark.parametrize("seeds", [3, 5, 8])
def test_intervals_with_item_variance_cover_the_population_of_items(seeds):
    """Truth: the mean over all items one could ask. Items differ in their effect, seeds add noise per item and overall."""
    g, runs, items, covered = np.random.default_rng(1), 600, 60, 0
    for _ in range(runs):
        effect = 0.2 + g.normal(size=items)
        d = effect + g.normal(size=(seeds, items)) + g.normal(size=(seeds, 1)) * 0.05
        c = compare(as_seeds(d.mean(axis=1)), as_seeds(np.zeros(seeds)), paired_item_variance(d))
        covered += c.low <= 0.2 <= c.high
    assert covered / runs > 0.93


def test_without_skew_it_is_scipys_and_with_skew_one_end_is():
    a, b = np.array([1.0, 2.0, 3.0, 4.0]), np.array([0.0, 2.0, 2.0, 4.0])
    symmetric, oracle = compare(as_seeds(a), as_seeds(b)), stats.ttest_rel(a, b)
    expected = oracle.confidence_interval(0.95)
    assert (symmetric.p, symmetric.low, symmetric.high) == pytest.approx(
        (oracle.pvalue, expected.low, expected.high)
    )
    skewed = np.array([0.1, 0.2, 0.3, 2.0])
    c, expected = (
        compare(as_seeds(skewed), as_seeds(0 * skewed)),
        stats.ttest_1samp(skewed, 0).confidence_interval(0.95),
    )
    longer = 1 + 40 / 4**2 * stats.skew(skewed)
    assert c.low == pytest.approx(expected.low)
    assert c.high - c.difference == pytest.approx(longer * (expected.high - c.difference))
    turned = compare(as_seeds(0 * skewed), as_seeds(skewed))
    assert (turned.low, turned.high, turned.p) == pytest.approx((-c.high, -c.low, c.p))


@pytest.mark.parametrize("seeds", [3, 5, 8])
def test_the_detectable_effect_is_detected_80_percent_of_the_time(seeds):
    g, runs = np.random.default_rng(2), 3000
    low, _ = limits(g.normal(size=(runs, seeds)) + detectable(1.0, seeds))
    assert abs((low > 0).mean() - 0.8) < 3 * np.sqrt(0.16 / runs)


def test_holm_is_statsmodels_and_keeps_names():
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})
    assert holm({}) == {}


def test_only_seeds_that_both_arms_have_are_paired():
    assert compare({0: 1.0, 1: 2.0, 7: 100.0}, {0: 0.0, 1: 1.5, 9: -100.0}).difference == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("low", "high", "lower_is_better", "says"),
    [(-2, -1, True, "better"), (-2, -1, False, "worse"), (1, 2, True, "worse"), (-0.5, 0.2, True, "undecided; up to 0.5 not excluded"),
     (float("nan"), float("nan"), True, "no interval: one seed")],
)  # fmt: skip
def test_verdicts_in_words(low, high, lower_is_better, says):
    assert verdict(low, high, lower_is_better, no_interval="one seed") == says


def test_a_verdict_is_held_back_where_the_run_or_the_correction_does_not_carry_it():
    assert verdict(-2, -1, reasons=["2 sources in web; a verdict needs 3"]) == "demonstration only"
    assert verdict(-2, -1, p_corrected=0.04) == "better"
    assert verdict(-2, -1, p_corrected=0.06) == "not established after correction"
    assert verdict(-2, -1, p_corrected=0.01, tested=False) == "not tested"
    assert verdict(None, None, reasons=["1 paired seed"], no_interval="one seed") == "no interval: one seed"


@pytest.mark.parametrize("gap", [0.0, 0.01])
def test_seeds_that_agree_to_the_last_digit_prove_nothing(gap):
    control = {0: 1.0, 1: 2.0, 2: 3.0}
    c = compare({s: v + gap for s, v in control.items()}, control)
    assert c.difference == pytest.approx(gap) and np.isnan([c.low, c.high, c.p, c.detectable]).all()
    with_items = compare({s: v + gap for s, v in control.items()}, control, item_variance=1e-4)
    assert c.no_interval == "every seed gives the very same difference"
    assert with_items.low < gap < with_items.high


@pytest.mark.parametrize("mean", [0.0, 1e-18, -1e-17, 1e12])
def test_p_at_the_edges_is_a_probability(mean):
    noise = np.array([1e-3, -1e-3, 0.0])
    c = compare(as_seeds(mean + noise), as_seeds(np.zeros(3)), item_variance=1e-4)
    assert c.p == (1.0 if abs(mean) < 1 else pytest.approx(0.0, abs=1e-3))


@pytest.mark.parametrize(("seeds", "effect"), [(3, 1.5), (5, 1.0), (8, 0.7), (8, 0.0)])
def test_power_is_how_often_the_effect_is_seen_with_its_sign(seeds, effect):
    d = np.random.default_rng(9).normal(effect, 1.0, (20_000, seeds))
    low, _ = limits(d)
    assert (
        power(2 * effect, 2.0, seeds)
        == power(-effect, 1.0, seeds)
        == pytest.approx((low > 0).mean(), abs=0.012)
    )
    assert power(detectable(0.3, seeds), 0.3, seeds) == pytest.approx(0.8, abs=1e-3)


@pytest.mark.parametrize("seeds", [3, 8])
def test_power_of_large_effects_is_certain_and_without_spread_unknown(seeds):
    grid = [power(effect, 1.0, seeds) for effect in (0.1, 1.0, 10.0, 100.0, 1e4, 1e9)]
    assert grid == sorted(grid) and grid[-1] == 1.0 and np.isfinite(grid).all()
    assert np.isnan([power(1.0, 0.0, seeds), power(1.0, 1.0, 2), detectable(1.0, 2)]).all()


@pytest.mark.parametrize("n", [3, 6, 12])
def test_the_upper_limit_lies_above_the_true_deviation_four_times_in_five(n):
    deviations = np.random.default_rng(1).normal(0.0, 3.0, (20_000, n)).std(axis=1, ddof=1)
    above = np.mean([upper_limit(s, n - 1) > 3.0 for s in deviations])
    assert above == pytest.approx(0.8, abs=0.01)


def test_no_conclusion_contradicts_its_interval():
    rng = np.random.default_rng(2)
    for low, high in np.sort(rng.normal(0, 1, (2000, 2)), axis=1):
        for lower in (True, False):
            word = conclusion(low, high, lower, 0.7)
            zero = low <= 0 <= high
            assert zero == (word in ("equivalent", "undecided"))
            assert (word == "better") == ((high < 0) if lower else (low > 0))
            assert word != "equivalent" or (-0.7 < low and high < 0.7)
            assert conclusion(low, high, lower, None) != "equivalent"
    assert conclusion(None, None, True, 1.0) == conclusion(float("nan"), 1.0, True, 5.0) == "undecided"
