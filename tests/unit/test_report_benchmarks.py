"""Benchmarks in a report: chance is drawn and said in words, BLiMP's parts are shown and not tested, endpoints are explained."""

import copy

import pytest

from repro.errors import SettingError
from repro.evaluate.settings import Eval
from repro.plan import checks
from repro.report import benchmarks, build, endpoint, interactive, still
from repro.report.sections import plots as figures
from repro.report.sections import tables
from repro.settings.experiment import Contrast, Experiment
from repro.settings.root import Settings


def seed(shift):
    cells = {"bits_per_byte": {"value": 2.0 + shift}}
    cells |= {f"text_bits_per_byte/{name}": {"value": 2.1, "n": 20} for name in ("wikitext", "squad")}
    cells["arc_easy/acc"] = {"value": 0.26 + shift, "stderr": 0.02, "n": 500, "chance": 0.25}
    cells["sciq/acc"] = {"value": 0.6 + shift, "stderr": 0.02, "n": 500, "chance": 0.25}
    for task in ("arc_easy", "sciq"):
        cells[f"gold_bits_per_byte/{task}"] = {"value": 1.9 + shift, "stderr": 0.05, "n": 500}
        cells[f"gold_probability/{task}"] = {"value": 0.3 + shift, "stderr": 0.01, "n": 500, "guess": 0.25}
    cells["blimp/acc"] = {
        "value": 0.6 + shift,
        "stderr": 0.02,
        "n": 400,
        "chance": 0.5,
        "clusters": 40,
        "ties": 3,
    }
    cells["gold_probability/blimp"] = {"value": 0.58 + shift, "stderr": 0.02, "n": 400, "guess": 0.5}
    cells["blimp_acc/binding"] = {
        "value": 0.6 + shift,
        "stderr": 0.02,
        "n": 20,
        "chance": 0.5,
        "clusters": 2,
        "ties": 0,
    }
    cells["blimp_acc/ellipsis"] = {"value": 0.9 + shift, "n": 10, "chance": 0.5, "clusters": 1, "ties": 0}
    return {"metrics": cells, "loss": [[1000, 3.0], [4000, 2.5]], "checkpoints": {"2000": cells}}


@pytest.fixture(scope="module")
def summary():
    arms = {
        name: {"seeds": {str(s): seed(shift + 0.001 * s * (1 + 20 * shift)) for s in range(8)}, "share": share, "equal_passes": False,
               "select": {"selector": selector, "params": {}}, "mixture": {"kind": "alone"}}
        for name, selector, share, shift in (("full", "all", 1.0, 0.0), ("r20", "random", 0.2, 0.01), ("r50", "random", 0.5, 0.02))
    }  # fmt: skip
    base = {"name": "word frequency", "metrics": {"blimp/acc": {"value": 0.55, "stderr": 0.03, "clusters": 40, "chance": 0.5, "n": 400,
            "ties": 60}}, "over": {"r20": {"blimp/acc": {"difference": 0.06, "low": 0.01, "high": 0.11, "seeds": 8}}}}  # fmt: skip
    text = {"bytes": 2_000_000, "documents": 30, "words": 400_000, "order": 5}
    made = {"endpoint": "bits_per_byte", "kind": "train", "arms": arms, "experiment": "x", "settings": {"proxy": {"kind": "built"}, "budget": {}, "exp": {"arms": {}}, "train": {"tokens": 9},
                     "model": {"layers": 1, "hidden": 8}},
            "baselines": {"baselines": {"word_frequency": base}, "missing": {}, "trained_on": text}, "artifacts": {}}  # fmt: skip
    for arm in arms.values():
        for row in arm["seeds"].values():
            row["artifacts"] = {}
    contrast = Contrast(treatment="r20", control="full", primary=True)
    every = dict.fromkeys(arms["full"]["seeds"]["0"]["metrics"], 1e-9)
    return build.judged(made, [contrast], {("r20", "full"): {**every, "blimp/acc": 0.0001}})


def cells(table, first):
    return next(dict(zip(table.columns, row, strict=True)) for row in table.rows if row[0] == first)


def test_chance_is_said_in_words_and_a_star_nowhere(summary):
    assert "arc_easy/acc" in summary["arms"]["full"]["at_chance"]
    assert "blimp/acc" not in summary["arms"]["full"]["at_chance"]
    made = {table.name: table for table in tables(summary)}
    assert str(cells(made["outcome"], "arc_easy/acc ↑")["full"]).endswith(" (chance)")
    for table in made.values():
        assert not any("*" in str(cell) for row in table.rows for cell in row)
    rows = {(row[0], row[1]): row for row in made["likelihoods"].rows}
    assert str(rows["arc_easy", "acc ↑"][3]).endswith("(chance)")
    assert "chance" not in str(rows["arc_easy", "probability of the right answer ↑"][3])
    assert str(rows["sciq", "acc ↑"][2]) == "0.250"


def test_two_paradigms_are_no_evidence_and_one_is_none(summary):
    """.6 with a standard error of .02 is clear of chance over 40 paradigms, not over two: Student's quantile is 12.7."""
    found = summary["arms"]["full"]["at_chance"]
    assert "blimp_acc/binding" in found
    assert "blimp_acc/ellipsis" in found
    table = next(table for table in tables(summary) if table.name == "blimp")
    assert str(cells(table, "blimp, all")["full"]) == "0.603 [0.563, 0.644]"
    assert str(cells(table, "ellipsis")["full"]) == "0.903 (chance)"
    assert str(cells(table, "blimp, all")["word frequency"]) == "0.550 [0.489, 0.611] (chance)"
    assert any("Ties: full 3, r20 3, r50 3, word frequency 60." in note for note in table.notes)


def test_parts_of_a_benchmark_are_neither_tested_nor_worded(summary):
    rows = {row["metric"]: row for row in summary["comparisons"]}
    parts = [row for metric, row in rows.items() if metric.startswith("blimp_acc/")]
    assert len(parts) == 2
    assert {(row["p_holm"], row["verdict"]) for row in parts} <= {(None, "exploratory"), (None, "at chance")}
    assert rows["gold_probability/sciq"]["p_holm"] is not None
    assert not any(
        row[0].startswith("blimp_acc") for row in next(t for t in tables(summary) if t.name == "outcome").rows
    )


def test_accuracies_and_curves_are_drawn_with_chance_and_baselines(summary, tmp_path):
    drawn = {plot.name: plot for plot in figures(summary)}
    by_name = {series.name: series for series in drawn["accuracies"].panels[0].series}
    assert dict(zip(by_name["chance"].y, by_name["chance"].x, strict=True)) == {
        "arc_easy": 0.25,
        "sciq": 0.25,
        "blimp": 0.5,
    }
    assert by_name["word frequency"].x == [0.55]
    for name in ("benchmarks_training", "benchmarks_share"):
        panels = {(panel.title, panel.ylabel): panel.series for panel in drawn[name].panels}
        assert [s.name for s in panels["blimp", "accuracy ↑"] if s.dashed] == ["chance", "word frequency"]
        assert {s.y[0] for s in panels["sciq", "probability ↑"] if s.dashed} == {0.25}
        assert not any(s.dashed for s in panels["sciq", "bits per byte ↓"])
        still.write(drawn[name], tmp_path)
        interactive.to_plotly(drawn[name])
    assert panels["blimp", "accuracy ↑"][0].x == [20.0, 50.0, 100.0]


def test_a_checkpoint_kept_at_the_end_counts_no_seed_twice(summary):
    """Sixteen values of eight models would make the interval narrower than it is."""
    kept = copy.deepcopy(summary)
    for arm in kept["arms"].values():
        for row in arm["seeds"].values():
            row["checkpoints"]["4000"] = row["metrics"]
    assert benchmarks.during_training(kept) == benchmarks.during_training(summary)


def test_selections_of_one_selector_with_other_parameters_or_mixtures_are_lines_of_their_own(summary):
    of_random = [copy.deepcopy(summary["arms"][name]) for name in ("r20", "r50")]
    arms = {"full": summary["arms"]["full"]}
    for name, keep, mixture in (
        ("perplexity_low", "low", "alone"),
        ("perplexity_high", "high", "alone"),
        ("perplexity_high_added", "high", "add"),
    ):
        select = {"selector": "perplexity", "params": {"keep": keep}}
        for arm in of_random:
            given = {"select": select, "mixture": {"kind": mixture}}
            arms[f"{name}_{arm['share'] * 100:.0f}"] = {**arm, **given}
    for panel in benchmarks.by_share({**summary, "arms": arms}).panels:
        drawn = {series.name: series.x for series in panel.series if not series.dashed}
        assert list(drawn) == ["perplexity low", "perplexity high", "perplexity high added"]
        assert set(map(tuple, drawn.values())) == {(20.0, 50.0, 100.0)}


def test_arms_that_differ_in_their_own_proxy_heads_or_model_are_lines_of_their_own(summary):
    """Two of one share would otherwise be one point, and the later one would stand for both."""
    arms, own = {"full": summary["arms"]["full"]}, {}
    for name, settings in (
        ("small", {"proxy": {"path": "small"}}),
        ("large", {"proxy": {"path": "large"}}),
        ("wide", {"model": {"hidden": 16}}),
    ):
        for arm in ("r20", "r50"):
            key, share = f"{name}_{arm[1:]}", summary["arms"][arm]["share"]
            arms[key] = copy.deepcopy(summary["arms"][arm])
            own[key] = {**settings, "budget": {"share": share}, "select": {"budget": {}, "match": None}}
    own["wide_20"]["seeds"] = [0, 1, 2]  # more or fewer seeds are no other line
    made = {**summary, "arms": arms, "settings": {**summary["settings"], "exp": {"arms": own}}}
    for panel in benchmarks.by_share(made).panels:
        drawn = {series.name: series.x for series in panel.series if not series.dashed}
        assert drawn == dict.fromkeys(("small", "large", "wide"), [20.0, 50.0, 100.0])


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("bits_per_byte", "two kinds, averaged: text from outside the corpus (mean over wikitext, squad) and right answers of "
                          "benchmarks (mean over arc_easy, sciq); lower is better."),
        ("blimp/acc", "equal ones counting half, mean over 40 paradigms (400 pairs; guessing gives 0.5); higher is better."),
        ("sciq/acc", "lm-eval's acc, mean over 500 items of sciq (guessing gives 0.25); higher is better."),
        ("gold_probability/sciq", "over that of all choices, mean over 500 items of sciq (guessing gives 0.25); higher is better."),
    ],
)  # fmt: skip
def test_an_endpoint_is_explained_by_what_was_measured(summary, metric, said):
    assert endpoint.sentence(summary, metric).endswith(said)


def test_an_endpoint_that_was_not_measured_is_not_explained(summary):
    assert endpoint.sentence(summary, "blimp/f1") is None


@pytest.mark.parametrize(
    "name",
    ["blimp/acc", "blimp_acc/binding", "gold_probability/blimp", "mmlu_anatomy/acc", "accuracy_average"],
)
def test_endpoints_of_the_suite_are_taken(name):
    settings = Settings(eval=Eval(tasks=["blimp", "mmlu"]), exp=Experiment(endpoint=name))
    checks.endpoint(settings)


@pytest.mark.parametrize("name", ["blip/acc", "blimp", "gold_probability/sciq", "bits_per_bite"])
def test_an_endpoint_the_suite_cannot_measure_is_refused_before_anything_runs(name):
    settings = Settings(eval=Eval(tasks=["blimp", "mmlu"]), exp=Experiment(endpoint=name))
    with pytest.raises(SettingError, match=f"exp.endpoint={name}: .* name one of bits_per_byte"):
        checks.endpoint(settings)


@pytest.mark.parametrize("limit", [0, True, "many", 1.5])
def test_a_limit_of_a_task_is_a_number_of_items(limit):
    with pytest.raises(SettingError, match="eval.limits.blimp="):
        Eval(limits={"blimp": limit})
    Eval(limits={"blimp": None})
    assert benchmarks.tasks({"arms": {}}) == {}
