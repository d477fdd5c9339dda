"""The arena's arms, its comparisons with random, and whether a small size decides as a large one does."""

from itertools import combinations
from statistics import mean, variance

import numpy as np
import pytest

from repro.errors import SettingError
from repro.experiments import build
from repro.outcomes import decision
from repro.outcomes.contents import overlap
from repro.settings.compose import compose
from repro.store import Store, read_json, write_json

SMOKE = ["exp=arena", "scale=smoke"]


def test_every_selector_stands_at_every_size_and_against_random_of_its_own():
    settings = compose([*SMOKE, "exp.only=[random,length]", "exp.contrasts=[]"])
    assert list(settings.exp.arms) == ["random_tiny", "length_tiny", "random_mini", "length_mini"]
    assert {(c.treatment, c.control) for c in settings.exp.contrasts} == {
        ("length_mini", "random_mini"),
        ("length_tiny", "random_tiny"),
    }
    experiment = build(settings)
    tiny, mini = (experiment.arms[f"length_{size}"][0] for size in ("tiny", "mini"))
    assert tiny["selection"].fingerprint == mini["selection"].fingerprint
    assert tiny["pretrain"].inputs["tokens"].fingerprint == mini["pretrain"].inputs["tokens"].fingerprint
    assert (tiny["pretrain"].settings["model"]["layers"], mini["pretrain"].settings["model"]["layers"]) == (
        2,
        3,
    )
    assert (
        tiny["pretrain"].settings["model"]["vocabulary"] == mini["pretrain"].settings["model"]["vocabulary"]
    )


def test_the_primary_contrast_is_that_of_the_largest_size_and_what_was_stated():
    settings = compose(SMOKE)
    primary = next(c for c in settings.exp.contrasts if c.primary)
    assert (primary.treatment, primary.control) == ("attention_influence_mini", "random_mini")
    from repro.settings.registration import deviations

    assert deviations(settings) == []
    assert "left out" in deviations(compose([*SMOKE, "exp.only=[random,attention_influence]"]))[0]


def test_ones_own_selector_joins_by_being_named():
    settings = compose(
        [*SMOKE, "exp.arms.mine.select=imported", "exp.arms.mine.select.params.path=scores.csv"]
    )
    assert {"mine_tiny", "mine_mini"} <= set(settings.exp.arms)
    assert ("mine_mini", "random_mini") in {(c.treatment, c.control) for c in settings.exp.contrasts}


def test_scores_of_a_csv_keep_their_ids(tmp_path):
    import polars

    from repro.selection.selectors import imported

    class Known:
        @staticmethod
        def query(sql):
            return [("007",), ("8",)]

    (tmp_path / "mine.csv").write_text("doc_id,score,other\n007,1.5,x\n8,-2,y\n9,3,z\n")
    found = imported.priority(Known(), str(tmp_path))
    assert found.equals(polars.DataFrame({"doc_id": ["007", "8"], "priority": [1.5, -2.0]}))
    (tmp_path / "mine.csv").write_text("doc_id,score\n007,high\n")
    with pytest.raises(SettingError, match="cannot read scores from"):
        imported.priority(Known(), str(tmp_path))


@pytest.mark.parametrize(
    "argument,said",
    [
        ("exp.params.models=[huge]", "no size 'huge'"),
        ("exp.params.model=[tiny]", "unknown setting 'exp.params.model'; did you mean exp.params.models?"),
        ("exp.params.models=tiny", "must be a list"),
        ("exp.params.models=[]", "names no size"),
        ("exp.params.models=[tiny,proxy]", "proxy has no layers of its own"),
        ("exp.only=[attention_influence]", "compares with the arm 'random'"),
    ],
)
def test_an_arena_that_cannot_be_is_refused(argument, said):
    with pytest.raises(SettingError, match=said):
        compose([*SMOKE, argument])


def test_limits_against_random_are_dunnetts():
    """Two against one of three values each: 2.86 standard errors, as Dunnett's table of 1955 has it for six degrees of freedom."""
    values = {"random": [1.0, 2.0, 3.0], "a": [4.0, 6.0, 5.0], "b": [1.5, 2.0, 3.5]}
    half = 2.86 * (mean(variance(found) for found in values.values()) * 2 / 3) ** 0.5
    found = decision.against_control(values, "random")
    assert list(found) == ["a", "b"]
    gap, low, high, p = found["a"]
    assert (gap, low, high) == (3.0, pytest.approx(3 - half, abs=0.03), pytest.approx(3 + half, abs=0.03))
    assert p < 0.05 < found["b"][3]


def test_the_same_values_give_the_same_limits_and_an_arm_that_lost_its_seeds_takes_nobodys():
    rng = np.random.default_rng(0)
    values = {name: list(rng.normal(size=2)) for name in ("random", "a", "b", "c", "d")}
    found = decision.against_control(values, "random")
    assert (
        found
        == decision.against_control(values, "random")
        == decision.against_control({**values, "e": [1.0]}, "random")
    )


def test_some_arm_is_called_different_in_one_of_twenty_experiments_in_which_none_is():
    """Simulated truth: the level is that of the whole table."""
    rng, runs = np.random.default_rng(3), 60
    wrong = 0
    for drawn in rng.normal(size=(runs, 6, 3)):
        found = decision.against_control({str(i): list(row) for i, row in enumerate(drawn)}, "0")
        wrong += any(low > 0 or high < 0 for _, low, high, _ in found.values())
    assert wrong <= runs * 0.05 + 2.6 * (runs * 0.05 * 0.95) ** 0.5


@pytest.mark.parametrize(
    "values", [{"random": [1.0], "a": [2.0]}, {"random": [1.0, 1.0], "a": [2.0, 2.0]}, {"random": [1.0, 2.0]}]
)
def test_what_has_no_spread_has_no_interval(values):
    assert decision.against_control(values, "random") == {}


def test_decision_accuracy_counts_pairs():
    small, large = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 0.0}, {"a": 1.0, "b": 3.0, "c": 2.0, "e": 9.0}
    pairs = list(combinations("abc", 2))
    agree = [(small[x] < small[y]) == (large[x] < large[y]) for x, y in pairs]
    assert decision.agreement(small, large) == pytest.approx(sum(agree) / len(pairs)) == pytest.approx(2 / 3)
    assert decision.agreement({"a": 1.0, "b": 1.0}, large) == 0.5
    assert decision.agreement({"a": 1.0}, large) is None


def test_halves_of_the_seeds_agree_as_often_as_noise_lets_them():
    rng = np.random.default_rng(0)
    clear = {str(i): {s: i + rng.normal() * 1e-3 for s in range(4)} for i in range(6)}
    noise = {str(i): {s: rng.normal() for s in range(4)} for i in range(12)}
    assert decision.of_halves(clear) == 1.0
    assert 0.3 < decision.of_halves(noise) < 0.7
    assert decision.of_halves({"a": {0: 1.0}, "b": {0: 2.0}}) is None


class Chosen:
    """A finished selection stage."""

    def __init__(self, store, name, rows):
        import polars

        self.fingerprint, self.folder = name, f"selection/{name}"
        store.path(self).mkdir(parents=True)
        frame = polars.DataFrame(rows, schema=["doc_id", "repeats"], orient="row")
        frame.write_parquet(store.path(self) / "selection.parquet")


def test_overlap_is_the_share_of_ones_own_documents(tmp_path):
    store = Store(tmp_path)
    one = Chosen(store, "one", [("x", 1), ("y", 2), ("z", 0)])
    other = Chosen(store, "other", [("x", 0), ("y", 1), ("z", 1), ("w", 1)])
    arms = {"a_s": {0: {"selection": one}}, "b_s": {0: {"selection": other}}, "a_l": {0: {"selection": one}}}
    assert overlap(store, arms) == {"a_s": {"b_s": 0.5}, "b_s": {"a_s": 1 / 3}}


def summary(tmp_path):
    """Two sizes, three selectors, two seeds; the small size has two of them the wrong way round."""
    truth = {"random": 2.0, "attention_influence": 1.8, "length": 2.2}
    small = {"random": 2.0, "attention_influence": 2.1, "length": 2.2}
    arms = {}
    for size, values in (("mini", small), ("1m", truth)):
        for name, value in values.items():
            seeds = {}
            for seed in (0, 1):
                inputs = {"scores": "S" if name == "attention_influence" else "M"}
                named = {"stage": "selection", "fingerprint": f"{name} {seed}"}
                made = {"selection": {**named, "inputs": inputs, "seconds_last_attempt": 3.0}}
                cells = {
                    "bits_per_byte": {"value": value + 0.01 * seed},
                    "blimp/acc": {"value": 1 / value + 0.01 * seed},
                }
                seeds[str(seed)] = {"artifacts": made, "metrics": cells}
            arms[f"{name}_{size}"] = {"seeds": seeds}
    score = {
        "stage": "score",
        "fingerprint": "S",
        "inputs": {"heads": "H"},
        "seconds_last_attempt": 40.0,
        "facts": {"tokens": 1000},
    }
    heads = {
        "stage": "heads",
        "fingerprint": "H",
        "inputs": {"detection": "D"},
        "seconds_last_attempt": 2.0,
        "facts": {},
    }
    detection = {
        "stage": "detection",
        "fingerprint": "D",
        "inputs": {},
        "seconds_last_attempt": 5.0,
        "facts": {"tokens": 100},
    }
    found = {
        "endpoint": "bits_per_byte",
        "arms": arms,
        "artifacts": {"detection": detection, "heads": heads, "score": score},
        "overlap": {
            "random_mini": {"attention_influence_mini": 0.2},
            "attention_influence_mini": {"random_mini": 0.25},
        },
        "settings": {
            "exp": {"params": {"models": ["mini", "1m"]}, "arms": {name: {"proxy": {}} for name in arms}},
            "train": {"tokens": 10},
            "proxy": {"parameters": 10.0},
        },
    }
    write_json(tmp_path / "s.json", found)
    return read_json(tmp_path / "s.json")


def test_the_tables_say_who_is_best_what_it_costs_and_how_well_the_small_size_decides(tmp_path):
    from repro.experiments.arena import view

    found = summary(tmp_path)
    table = view.against_random(found, "1m")
    assert [row[0] for row in table.rows] == ["attention_influence", "length"]
    best = table.rows[0]
    assert best[2].value == pytest.approx(-0.2) and best[2].high < 0
    assert (best[4], best[5].value) == ("4.2e+04", 50.0) and table.rows[1][4] is None
    decided = view.decisions(found)
    assert [(row[1], round(row[2].value, 2), row[3]) for row in decided.rows][0][1:] == (0.67, 3)
    assert "agree in 1.00 of pairs" in decided.notes[1]
    assert (
        len(decided.rows) == 2 and decided.rows[1][2].value == decided.rows[0][2].value
    )  # accuracies turn round
    assert view.overlaps(found).rows[0][0] == "random"
    assert decided.rows[0][1] == "bits_per_byte" and all(
        row[1] for row in decided.rows
    )  # each says by what it was measured
    assert "on bits_per_byte: decision" in decided.notes[0] and "random, bits_per_byte [" in table.columns[2]


def test_a_selector_that_reads_text_costs_what_reading_it_took(tmp_path):
    from repro.experiments.arena import view

    found = summary(tmp_path)
    for seed in found["arms"]["length_1m"]["seeds"].values():
        read = {"stage": "priority", "fingerprint": "P", "inputs": {}, "seconds_last_attempt": 20.0}
        seed["artifacts"]["priority dsir"] = read
    assert view.cost(found, "length_1m") == (0.0, 23.0)


def test_a_seed_that_one_arm_lacks_decides_nothing(tmp_path):
    from repro.experiments.arena import view

    found = summary(tmp_path)
    before = [row[2].value for row in view.decisions(found).rows]
    found["arms"]["random_mini"]["seeds"]["1"]["metrics"]["bits_per_byte"]["value"] = 99.0
    del found["arms"]["length_1m"]["seeds"]["1"]
    assert [row[2].value for row in view.decisions(found).rows] == before
