"""One number, one set of words, wherever it is printed; no word that its interval contradicts."""

import gc
import importlib.util
import itertools
import math
from pathlib import Path

import numpy as np
import pytest

from repro.outcomes import statistics, words
from repro.outcomes.compare import between
from repro.outcomes.verdict import gate, judge
from repro.outcomes.words import AFTER_CORRECTION, direction, outwards, verdict

spec = importlib.util.spec_from_file_location(
    "coverage_of", Path(__file__).parents[2] / "benchmarks" / "coverage.py"
)
coverage = importlib.util.module_from_spec(spec)
spec.loader.exec_module(coverage)


@pytest.fixture(autouse=True)
def frozen():
    """statsmodels collects garbage in every correction, which takes long where a whole suite is loaded."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("p", [None, 0.01, 0.5])
def test_the_words_never_say_what_the_interval_does_not(masked, lower, p):
    for low, high in itertools.combinations((-0.12, -0.05, -0.001, 0.0, 0.001, 0.05, 0.12), 2):
        said = verdict(low, high, lower, p_corrected=p, masked=masked)
        clear = low > 0 or high < 0
        assert clear != said.startswith("undecided")
        assert (said == AFTER_CORRECTION) == (clear and p == 0.5)
        if clear and p != 0.5:
            assert direction(said) == (1 if (high < 0) == lower else -1)
        else:
            assert direction(said) == 0
        assert not {"better", "worse"} & set(said.split()) or not masked


def test_a_harm_that_is_the_treatment_is_called_one():
    assert verdict(0.036, 0.151, masked=True) == "hurts more"
    assert verdict(0.036, 0.151) == "worse"


def test_what_is_not_excluded_is_never_rounded_below_the_bound():
    assert [outwards(x) for x in (0.1234, 0.13, 0.0999, 12.3, 1234.5, 0.0)] == [
        "0.13",
        "0.13",
        "0.1",
        "13",
        "1300",
        "0",
    ]
    for value in 10 ** np.random.default_rng(0).uniform(-9, 5, 2000):
        assert value <= float(outwards(value)) <= 1.1 * value


def test_equivalence_needs_a_margin_and_an_interval_within_it():
    assert verdict(-0.01, 0.015, margin=0.02) == "equivalent within 0.02"
    assert verdict(-0.01, 0.02, margin=0.02) == verdict(-0.01, 0.02) == "undecided; up to 0.02 not excluded"
    assert verdict(0.001, 0.015, margin=0.02) == "worse"


def summaries(number):
    """Random runs: effects on some metrics or none, missing and unpaired seeds, equal values, values that are not finite."""
    g = np.random.default_rng(0)
    for _ in range(number):
        seeds = int(g.integers(1, 9))
        draw = coverage.DIFFERENCES[str(g.choice(list(coverage.DIFFERENCES)))]
        values = {arm: 5 + draw(g, (5, seeds)) * g.choice([0.01, 1.0], (5, 1)) for arm in "abc"}
        values["a"] -= g.choice([0.0, 0.0, 3.0], (5, 1))
        if g.random() < 0.2:
            values["b"][int(g.integers(5))] = values["a"][0] - 0.5
        found = coverage.run_of(values, margin=float(g.choice([0.02, 3.0])))
        if g.random() < 0.1:
            found["arms"]["a"]["seeds"]["0"]["make_up"] = {"web": {"selected": 199, "groups": 5}}
        for arm, seed in itertools.product("abc", range(seeds)):
            if g.random() < 0.1:
                del found["arms"][arm]["seeds"][str(seed)]
            elif g.random() < 0.05:
                found["arms"][arm]["seeds"][str(seed)]["metrics"]["text_bits_per_byte/t1"]["value"] = math.inf
        variances = {
            m: float(g.choice([0.0, 0.01, math.inf], p=[0.6, 0.3, 0.1]))
            for m in [coverage.ENDPOINT, *coverage.SECONDARY]
        }
        yield judge(found, coverage.CONTRASTS, {("a", "b"): variances})


def test_no_word_contradicts_its_interval_in_random_runs():
    seen = set()
    for found in summaries(250):
        rows = found["comparisons"]
        first = next((r for r in rows if r["primary"] and r["metric"] == coverage.ENDPOINT), None)
        opened = first is not None and direction(first["verdict"]) != 0
        for row in rows:
            said, low, high = row["verdict"], row["low"], row["high"]
            seen.add(said.split(";")[0].split(" within")[0])
            if low is None:
                assert (
                    said == f"no interval: {row['no_interval']}" and row["p"] is None and row["no_interval"]
                )
                continue
            assert low <= row["difference"] <= high and (row["p"] < 0.05) == (low > 0 or high < 0)
            assert said not in ("better", "worse") or (high < 0 if said == "better" else low > 0)
            assert said not in ("better", "worse") or row is first or (opened and row["p_holm"] <= 0.05)
            assert not said.startswith("undecided") or low <= 0 <= high
            if said.startswith("undecided"):
                far = float(said.split("up to ")[1].split(" ")[0])
                assert -far <= low and high <= far
            if said.startswith("equivalent"):
                margin = float(said.rsplit(" ", 1)[1])
                assert row is first and -margin < low <= 0 <= high < margin
            assert said != AFTER_CORRECTION or ((low > 0 or high < 0) and row["p_holm"] > 0.05 and opened)
            assert (said == words.NOT_TESTED) <= (not opened) and (row["p_holm"] is None or opened)
            assert said != words.EXPLORATORY or not (row["primary"] or row["metric"] == coverage.ENDPOINT)
        assert bool(gate(found)) == any(r["verdict"] == words.NOT_TESTED for r in rows)
    assert {"better", "worse", "undecided", "equivalent", "not tested", "exploratory", "demonstration only", AFTER_CORRECTION,
            "no interval: one seed", "no interval: two seeds", "no interval: a value is not finite",
            "no interval: one item or text", "no interval: every seed gives the very same difference"} <= seen  # fmt: skip


def test_bad_inputs_are_answered_in_words():
    said = coverage.bad_inputs()
    assert (
        said["one seed"] == "no interval: one seed"
        and said["three seeds, one without its pair"] == "no interval: two seeds"
    )
    assert all(text.startswith("no interval: ") and len(text) > 16 for text in said.values())


@pytest.mark.parametrize("seeds", coverage.SEEDS)
def test_intervals_cover_normal_and_skewed_differences(seeds):
    for name in ("normal", "gamma, shape 4", "exponential"):
        found = coverage.coverage(coverage.DIFFERENCES[name], seeds, 4000)
        assert 0.92 < found["ours"] < 0.98, (name, found)
    assert found["Student"] < 0.915  # why Student's alone is not enough where differences are skewed


@pytest.mark.parametrize("kind", ["items", "clusters", "texts"])
def test_intervals_cover_items_that_are_drawn_anew(kind):
    for name in coverage.BY_HAND:
        found = coverage.coverage_with_items(coverage.DIFFERENCES[name], 5, kind, 800)
        assert 0.925 < found["ours"] < 0.995 and found["seeds alone"] < 0.92, (name, found)


def test_words_of_a_run_are_wrong_in_at_most_one_of_twenty():
    null, real = coverage.errors(5, 0.0, 400), coverage.errors(5, 6.0, 400)
    most = 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)
    assert null["any word wrong"] <= most and real["a secondary word wrong"] <= most
    assert real["primary established"] > 0.8


def test_claims_and_equivalence_are_wrong_in_at_most_one_of_twenty():
    assert coverage.claims_wrong(400) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)
    assert coverage.equivalence_wrong(5, 4000) <= 0.03


@pytest.mark.parametrize("family", [1, 10])
def test_four_pilots_in_five_promise_what_is_kept(family):
    found = coverage.power_by_pilot(6, 5, family, 2000)
    assert (
        found["pilots"] > 0.77 and found["estimate"] < 0.6
    )  # the estimate itself would be too low as often as not


def test_a_mean_over_metrics_has_the_p_of_its_interval():
    g = np.random.default_rng(1)
    found = judge(
        coverage.run_of({arm: g.normal(size=(5, 5)) - 2 * (arm == "a") for arm in "abc"}), coverage.CONTRASTS
    )
    gap = between(found, "a", "b", coverage.SECONDARY[:2])
    assert (gap["p"] < 0.05) == (gap["low"] > 0 or gap["high"] < 0)
    single = between(found, "a", "b", [coverage.ENDPOINT])
    assert single["p"] == found["comparisons"][0]["p"]


def test_what_could_be_seen_comes_from_the_pilot_at_the_level_that_the_correction_leaves():
    g = np.random.default_rng(1)
    run = coverage.run_of({arm: g.normal(size=(5, 5)) for arm in "abc"})
    noise = {coverage.ENDPOINT: 0.5, coverage.SECONDARY[0]: 2.0}
    rows = judge(run, coverage.CONTRASTS, None, noise)["comparisons"]
    seen = {(r["treatment"], r["control"], r["metric"]): r["detectable"] for r in rows}
    assert seen["a", "b", coverage.ENDPOINT] == pytest.approx(statistics.detectable(0.5, 5))
    assert seen["a", "b", coverage.SECONDARY[0]] == pytest.approx(statistics.detectable(2.0, 5, 1 - 0.05 / 6))
    assert seen["a", "c", coverage.ENDPOINT] == pytest.approx(statistics.detectable(0.5, 5, 1 - 0.05 / 6))
    assert seen["a", "b", coverage.SECONDARY[1]] is None


def test_a_spread_above_the_pilots_limit_is_said_beside_what_the_pilot_promised():
    d = np.array([0.9, -1.1, 0.3, -0.6, 0.4])  # undecided, with a standard deviation of 0.811
    other = np.zeros((5, 5))
    run = {"a": np.vstack([d, np.zeros((4, 5))]), "b": other, "c": other}

    def said(limit):
        return judge(coverage.run_of(run), coverage.CONTRASTS, None, {coverage.ENDPOINT: limit})["verdict"][
            "sentence"
        ]

    assert "its own pairs spread more" not in said(0.82)
    assert said(0.80).endswith("(standard deviation 0.8106 against 0.8000), so that may promise too much.")
