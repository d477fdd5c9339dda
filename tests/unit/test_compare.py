"""Two runs side by side, on fabricated artifacts."""

import copy

import fabricated
import pytest

from repro import compare
from repro.outcomes import summary
from repro.outcomes.collect import collect
from repro.report import build


def sealed(folder, change=lambda settings: None, **kwargs):
    settings, store, stages = fabricated.run(folder / "work", **kwargs)
    change(settings)
    return summary.write(
        folder / "summary.json", build.judged(collect(settings, store, stages), settings.exp.contrasts)
    )


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")

    def other(settings):
        settings.train.learning_rate = 0.5

    return (
        folder,
        sealed(folder / "a"),
        sealed(folder / "b", other, effect=0.2, seeds=(1, 2, 3), documents=25),
    )


def test_what_differed_is_named_and_nothing_else(pair):
    _, a, b = pair
    by_name = {table.name: table for table in compare.differences(a, b)}
    assert [row for row in by_name["settings"].rows if row[0] != "exp.seeds"] == [
        ["train.learning_rate", "0.003", "0.5"]
    ]
    assert ["corpus kept", "72", "75"] in by_name["data"].rows
    assert not any("heads" in row[0] for row in by_name["data"].rows)
    assert by_name["code"].rows == []


def test_outcomes_are_paired_over_the_shared_seeds(pair):
    _, a, b = pair
    row = next(
        r for r in compare.outcomes(a, b).rows if r[0] == "attention_influence" and r[1] == "bits_per_byte"
    )
    assert row[-1] == 2 and row[4] == "-0.1500, no interval: two seeds"
    ours, theirs = (compare.seed_values(run["arms"][row[0]], row[1]) for run in (a, b))
    assert set(ours) != set(theirs)
    means = [sum(side[seed] for seed in (1, 2)) / 2 for side in (ours, theirs)]
    assert [cell.value for cell in row[2:4]] == pytest.approx(means)


def test_arms_that_cannot_be_compared_are_named(pair):
    _, a, b = pair
    other = copy.deepcopy(b)
    other["arms"]["random"]["seeds"] = {"9": other["arms"]["random"]["seeds"]["1"]}
    assert "not compared: random." in compare.report(a, other)
    other["arms"] = {f"{name}_b": arm for name, arm in other["arms"].items()}
    assert compare.report(a, other).endswith("The runs share no arm: no outcome is compared.")


def test_a_run_does_not_differ_from_itself(pair):
    _, a, _ = pair
    assert compare.report(a, a) == "The two runs do not differ."


def test_the_door(pair, capsys):
    folder, _, _ = pair
    assert compare.main([str(folder / "a"), str(folder / "b" / "summary.json")]) == 0
    out = capsys.readouterr().out
    assert "# Settings" in out and "# Outcomes that differ" in out
    assert compare.main([str(folder / "a"), str(folder / "nowhere")]) == 2
    assert capsys.readouterr().err.startswith("error: ")
