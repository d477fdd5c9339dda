"""Items that come in clusters: coverage by simulation, against a truth that is known."""

import numpy as np
import polars as pl
import pytest

from repro.evaluate.clusters import cluster_means, clustered
from repro.outcomes import items
from repro.outcomes.statistics import few, limits, paired_item_variance

RUNS = 1500


def test_an_accuracy_over_paradigms_is_covered_and_one_over_items_is_not():
    """40 paradigms whose true accuracies vary around .6, 50 pairs each: the truth is the mean over all paradigms there could be."""
    draw = np.random.default_rng(0)
    held = {"clustered": 0, "items": 0}
    labels = np.repeat(np.arange(40), 50)
    for _ in range(RUNS):
        true = draw.beta(0.6 * 4, 0.4 * 4, 40)
        right = (draw.random(len(labels)) < true[labels]).astype(float)
        value, stderr, n = clustered(right, labels.tolist())
        assert stderr is not None
        low, high = limits(np.full(3, value), stderr**2 * few(n))
        held["clustered"] += low <= 0.6 <= high
        held["items"] += abs(right.mean() - 0.6) <= 1.96 * right.std() / len(right) ** 0.5
    assert 0.935 < held["clustered"] / RUNS < 0.965
    assert held["items"] / RUNS < 0.6


@pytest.mark.parametrize(("seeds", "clusters"), [(3, 12), (8, 40)])
def test_a_paired_difference_over_seeds_and_paradigms_is_covered(seeds, clusters):
    """Paradigm effects shared by all seeds, seed effects, pairs' noise; the truth is .03."""
    draw = np.random.default_rng(1)
    labels = np.repeat(np.arange(clusters), 10).tolist()
    held = {True: 0, False: 0}
    for _ in range(RUNS):
        gaps = 0.03 + draw.normal(0, 0.01, (seeds, 1)) + np.repeat(draw.normal(0, 0.1, clusters), 10)[None, :]
        gaps = gaps + draw.normal(0, 0.3, (seeds, len(labels)))
        means = cluster_means(gaps, labels).mean(axis=1)
        for known in held:
            variance = paired_item_variance(gaps, labels if known else None)
            low, high = limits(means, variance)
            held[known] += low <= 0.03 <= high
    assert 0.935 < held[True] / RUNS <= 1.0
    assert held[False] < held[True]
    assert held[False] / RUNS < 0.9 or seeds == 3


def test_one_cluster_says_nothing():
    assert clustered(np.array([1.0, 0.0]), ["a", "a"]) == (0.5, None, 1)
    assert paired_item_variance(np.zeros((3, 4)), ["a"] * 4) == float("inf")


def test_the_variance_of_a_run_is_taken_over_paradigms(tmp_path):
    """From two folders of per-item rows, against the paradigms' means by hand."""
    draw = np.random.default_rng(2)
    sides = {}
    for side in ("treatment", "control"):
        rows = [{"entry": "blimp", "task": f"blimp_{c}", "filter": "none", "doc_id": i, "metrics": f'{{"acc": {r}}}', "finite": True,
                 "gold_bits_per_byte": None, "gold_probability": 0.5, "cluster": f"blimp_{c}", "phenomenon": f"p{c % 3}"}
                for c in range(9) for i, r in enumerate((draw.random(8) < 0.2 + 0.08 * c).astype(float))]  # fmt: skip
        (tmp_path / side).mkdir()
        sides[side] = pl.DataFrame(rows, schema_overrides={"gold_bits_per_byte": pl.Float64})
        sides[side].write_parquet(tmp_path / side / "items.parquet")
    found = items.item_variances([(tmp_path / "treatment", tmp_path / "control")])
    means = {side: rows.with_columns(r=pl.col("metrics").str.json_path_match("$.acc").cast(pl.Float64))
             .group_by("cluster").agg(pl.col("r").mean()).sort("cluster")["r"].to_numpy() for side, rows in sides.items()}  # fmt: skip
    gaps = means["treatment"] - means["control"]
    assert found["blimp/acc"] == pytest.approx(gaps.var(ddof=1) / 9 * few(9))
    assert set(found) == {"blimp/acc", "gold_probability/blimp", *(f"blimp_acc/p{k}" for k in range(3))}
    over = items.over_baseline([tmp_path / "treatment"] * 2, tmp_path / "control" / "items.parquet")[
        "blimp/acc"
    ]
    half = 1.959964 * (gaps.var(ddof=1) / 9 * few(9)) ** 0.5
    assert (over["difference"], over["low"], over["seeds"]) == pytest.approx(
        (gaps.mean(), gaps.mean() - half, 2)
    )


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_a_difference_to_a_baseline_is_covered_with_few_seeds(seeds, tmp_path, monkeypatch):
    """Models that differ from item to item; two of them have no spread over seeds that would hold it."""
    draw = np.random.default_rng(seeds)
    held, runs = 0, 400
    for _ in range(runs):
        gaps = 0.03 + draw.normal(0, 0.1, (1, 67)) + draw.normal(0, 0.1, (seeds, 67))
        monkeypatch.setattr(items, "_differences_of", lambda _, g=gaps: {"x/acc": (g, None, np.ones(67))})
        monkeypatch.setattr(items, "_items", lambda _: {})
        found = items.over_baseline([tmp_path] * seeds, tmp_path)["x/acc"]
        held += found["low"] <= 0.03 <= found["high"]
    assert held / runs > 0.92
