"""Agreement of rankings against scipy, sorting by brute force, chance, and simulated intervals."""

import math

import numpy as np
import polars as pl
import pytest
from scipy import stats

from repro.analysis import ranks
from repro.analysis.ranks import Ranks
from repro.experiments.agree.measure import measure
from repro.experiments.agree.stages import Agreement


@pytest.fixture
def generator():
    return np.random.default_rng(0)


def pair(generator, n, values=1000):
    """Two rankings of n documents; few values make many ties."""
    return generator.integers(values, size=n).astype(float), generator.integers(values, size=n).astype(float)


@pytest.mark.parametrize("values", [3, 1000])
def test_spearman_is_scipys_also_of_documents_that_occur_often(generator, values):
    for _ in range(20):
        x, y = pair(generator, 40, values)
        times = generator.integers(0, 4, size=40)
        found = ranks.spearman(Ranks.of(x), Ranks.of(y), times.astype(float))
        assert found == pytest.approx(
            stats.spearmanr(np.repeat(x, times), np.repeat(y, times)).statistic, abs=1e-12
        )
    assert math.isnan(ranks.spearman(Ranks.of(np.ones(5)), Ranks.of(np.arange(5.0)), np.ones(5)))


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_overlap_is_that_of_two_sorted_lists(generator, share):
    for values in (4, 1000):
        x, y = pair(generator, 37, values)
        times = generator.integers(0, 4, size=37)
        number = max(1, round(share * times.sum()))

        def top(priority, times=times, number=number):
            """(document, copy) of the first ones; equal ones in their order, copies side by side."""
            copies = [(-priority[i], i, copy) for i in range(37) for copy in range(times[i])]
            return {(i, copy) for _, i, copy in sorted(copies)[:number]}

        found = ranks.overlap(Ranks.of(x), Ranks.of(y), times.astype(float), share)
        assert found == pytest.approx(len(top(x) & top(y)) / number)


def test_rankings_that_know_nothing_of_each_other_share_what_chance_says(generator):
    for share in (0.1, 0.5):
        overlaps = [
            ranks.overlap(
                Ranks.of(generator.random(200)), Ranks.of(generator.random(200)), np.ones(200), share
            )
            for _ in range(300)
        ]
        assert np.mean(overlaps) == pytest.approx(share, abs=0.02)


def frame(x, y, groups):
    return pl.DataFrame({"group": [str(g) for g in groups], "priority": x, "other": y})


def test_a_ranking_agrees_with_itself_and_not_with_its_reverse(generator):
    x = generator.random(60)
    same = measure(frame(x, np.exp(x), np.arange(60) % 12), Agreement(draws=100))
    assert same["spearman"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert all((o["value"], o["low"], o["high"]) == (1.0, 1.0, 1.0) for o in same["overlap"].values())
    assert [o["chance"] for o in same["overlap"].values()] == [0.1, 0.2, 0.3, 0.5]
    assert (same["drawn"], same["units"]) == ("sources", 12)
    reverse = measure(frame(x, -x, np.arange(60) % 12), Agreement(draws=100))
    assert reverse["spearman"]["value"] == -1.0 and reverse["overlap"]["0.5"]["value"] == 0.0


def test_documents_without_a_score_are_dropped_and_counted(generator):
    x, y = generator.random(30).tolist(), generator.random(30).tolist()
    x[0] = y[0] = y[1] = None
    x[2] = math.nan
    found = measure(frame(x, y, np.arange(30) % 4), Agreement(draws=100))
    assert (found["documents"], found["dropped"]) == (27, 3)
    assert (found["drawn"], found["units"]) == ("sources", 4)
    few = [found["spearman"], *found["overlap"].values()]  # four sources are too few to draw: no interval
    assert all(one["value"] is not None and one["low"] is one["high"] is None for one in few)
    assert found["spearman"]["value"] == pytest.approx(stats.spearmanr(x[3:], y[3:]).statistic, abs=1e-6)


def test_what_cannot_be_compared_says_why(generator):
    few = measure(frame(generator.random(9), generator.random(9), range(9)), Agreement())
    assert few["spearman"] is None and few["reason"] == "too few documents"
    constant = measure(frame(np.zeros(30), generator.random(30), range(30)), Agreement())
    assert (
        constant["spearman"] is None
        and constant["reason"] == "all scores equal"
        and constant["overlap"] == {}
    )


@pytest.mark.parametrize(("sources", "size", "correlation"), [(6, 12, 0.8), (20, 4, 0.4)])
def test_intervals_cover_the_truth(generator, sources, size, correlation):
    """Bivariate normal ranks whose sources differ (30 % of the variance): the truth is known in closed form."""
    true = 6 / math.pi * math.asin(correlation / 2)
    cut = stats.norm.ppf(0.8)
    top = stats.multivariate_normal(cov=[[1, correlation], [correlation, 1]]).cdf([-cut, -cut]) / 0.2
    root = np.linalg.cholesky([[1, correlation], [correlation, 1]]).T
    rounds, covered = 120, np.zeros(2)
    for seed in range(rounds):
        group = np.repeat(np.arange(sources), generator.integers(size // 2, 2 * size, sources))
        of_source, own = (generator.normal(size=(n, 2)) @ root for n in (sources, len(group)))
        z = math.sqrt(0.3) * of_source[group] + math.sqrt(0.7) * own
        found = measure(frame(z[:, 0], z[:, 1], group), Agreement(shares=[0.2], draws=150, seed=seed))
        estimates = found["spearman"], found["overlap"]["0.2"]
        covered += [e["low"] <= truth <= e["high"] for e, truth in zip(estimates, (true, top), strict=True)]
    assert (covered / rounds >= 0.9).all(), (
        covered / rounds
    )  # 0.95 less two standard errors of 120 rounds, and a little


def test_intervals_over_documents_of_few_sources_are_too_narrow(generator):
    """Why sources are drawn: with documents as units the same simulation covers less."""
    n, sources = 120, 6
    group = np.arange(n) % sources
    draws = generator.normal(size=(sources, 2))[group] + 0.3 * generator.normal(size=(n, 2))
    by_source = measure(frame(draws[:, 0], draws[:, 1], group), Agreement(draws=200))
    by_document = measure(frame(draws[:, 0], draws[:, 1], np.arange(n)), Agreement(draws=200))
    width = [f["spearman"]["high"] - f["spearman"]["low"] for f in (by_source, by_document)]
    assert width[0] > 2 * width[1]
