"""What nothing is known of gets no narrow interval and no word: a metric's direction, its items, seeds that lack it."""

import json
import math

import numpy as np
import polars as pl
import pytest

from repro.errors import SettingError
from repro.evaluate.summary import task_metrics
from repro.outcomes import again, collect, items, registration
from repro.outcomes.compare import compare_arms, lower_is_better
from repro.outcomes.during import differences
from repro.outcomes.statistics import NO_ITEMS, ONE_ITEM
from repro.outcomes.verdict import judge
from repro.plan import checks
from repro.report.run_tables import POWER, could_see
from repro.settings.compose import compose
from repro.settings.experiment import Contrast
from repro.settings.root import as_dict

CONTRASTS = [Contrast("a", "b", primary=True)]
CLOSE = [0.0100, 0.0105, 0.0110, 0.0105]


def run(endpoint, ours, theirs, **cell):
    """Two arms, one metric, a value a seed (``None``: the model lacks it)."""
    arms = {
        name: {"share": 0.2, "equal_passes": False, "seeds": {
            str(seed): {"metrics": {} if value is None else {endpoint: {"value": value, **cell}}} for seed, value in enumerate(values)}}
        for name, values in {"a": ours, "b": theirs}.items()
    }  # fmt: skip
    settings = {"exp": {"contrasts": [], "smallest_effect": None}, "budget": {}, "proxy": {"kind": "x"}}
    return {"endpoint": endpoint, "settings": settings, "arms": arms}


def verdict_of(found, variances=None):
    known = {("a", "b"): variances} if variances is not None else None
    [row] = judge(found, CONTRASTS, known)["comparisons"]
    return row


def test_the_direction_of_a_metric_is_what_its_task_says():
    name = "t/brier_score"
    results = {
        "results": {"t": {"brier_score,none": 0.7, "acc,none": 0.5, "sample_len": 9}},
        "higher_is_better": {"t": {"brier_score": False, "acc": True}},
    }
    rows = pl.DataFrame({"task": ["t"] * 9, "doc_id": range(9), "n_choices": [4] * 9, "guess": [None] * 9})
    cells = task_metrics(results, ["t"], rows)
    assert cells[name]["higher_is_better"] is False and cells["t/acc"]["higher_is_better"] is True
    flat = collect.flatten_metrics({"metrics": cells})
    assert flat[name]["lower_is_better"] is True and "lower_is_better" not in flat["t/acc"]
    found = run(name, [0.80, 0.81, 0.79], [0.60, 0.61, 0.6], lower_is_better=True)
    assert lower_is_better(found, name) and verdict_of(found)["verdict"] == "worse"
    assert verdict_of(run(name, [0.80, 0.81, 0.79], [0.60, 0.61, 0.6]))["verdict"] == "better"


def test_without_values_of_single_items_there_is_no_interval():
    theirs = [0.5, 0.6, 0.4, 0.5]
    ours = [value + gap for value, gap in zip(theirs, CLOSE, strict=True)]
    found = run("t/acc", ours, theirs)
    assert verdict_of(found, {"t/acc": 4e-4})["low"] < 0 and verdict_of(found)["low"] > 0
    for variances, why in (({}, NO_ITEMS), ({"t/acc": math.inf}, ONE_ITEM)):
        row = verdict_of(found, variances)
        assert (row["low"], row["p"], row["no_interval"]) == (None, None, why)
        found["comparisons"] = [row]
        settings = {**found["settings"]["exp"], "contrasts": [CONTRASTS[0].__dict__]}
        kept = {**found, "settings": {**found["settings"], "exp": settings}}
        contrasts, known, noise = again.given(kept)
        assert judge(again.measured(kept), contrasts, known, noise)["comparisons"] == [row]
    copied = run("copying_gain", ours, theirs)
    assert verdict_of(copied, {})["low"] > 0  # is measured on drawn words


@pytest.mark.parametrize("lost", [None, "x/acc"])
def test_an_average_has_the_items_of_all_its_tasks_on_the_way_too(lost):
    values = {"a": [0.51, 0.62, 0.43, 0.54], "b": [0.5, 0.61, 0.42, 0.53]}
    found = run("accuracy_average", values["a"], values["b"])
    found["averaged"] = ["x/acc", "y/acc"]
    for name, arm in found["arms"].items():
        arm["at_chance"] = []
        for seed, row in arm["seeds"].items():
            row["checkpoints"] = {"90": {"accuracy_average": {"value": values[name][int(seed)]}}}
    variances = {m: 4e-4 for m in found["averaged"] if m != lost}
    [end] = compare_arms(found, CONTRASTS[0], variances)
    [kept] = differences(found, CONTRASTS, {("a", "b", 90): variances})
    assert (end["low"], end["high"]) == (kept["low"], kept["high"])
    assert (end["low"] is None) == (lost is not None)
    assert lost or end["low"] < 0 < end["high"]


def folder(path, metrics):
    path.mkdir(parents=True)
    draw = np.random.default_rng(len(str(path)))
    rows = [{"entry": t, "task": t, "filter": "none", "doc_id": i, "metrics": json.dumps({"acc": float(draw.integers(2))}), "finite": True,
             "gold_bits_per_byte": None, "gold_probability": None} for t in metrics for i in range(20)]  # fmt: skip
    pl.DataFrame(rows).write_parquet(path / "items.parquet")
    return path


def test_a_model_that_lacks_a_task_does_not_take_the_items_of_the_other_pairs(tmp_path):
    pairs = [
        (folder(tmp_path / f"a{n}", ["x", "y"] if n else ["x"]), folder(tmp_path / f"b{n}", ["x", "y"]))
        for n in range(3)
    ]
    found = items.item_variances(pairs)
    assert found["y/acc"] == items.item_variances(pairs[1:])["y/acc"] and set(found) == {"x/acc", "y/acc"}


@pytest.mark.parametrize("lacks", ["a", "b"])
def test_a_seed_that_lacks_a_metric_counts_alike_on_either_side(lacks):
    ours, theirs = [0.48, 0.481, 0.479, 0.482, 0.478], [0.46, 0.461, 0.459, 0.46, 0.46]
    whole = run("t/acc", ours, theirs, chance=0.5, n=1000)
    assert verdict_of(whole)["verdict"] == "at chance"
    (ours if lacks == "a" else theirs)[2] = None
    row = verdict_of(run("t/acc", ours, theirs, chance=0.5, n=1000))
    assert (row["verdict"], row["seeds"]) == ("at chance", 4)


@pytest.mark.parametrize("lacks", ["a", "b"])
def test_a_model_without_any_endpoint_makes_the_run_a_demonstration(lacks):
    ours, theirs = [2.0, 2.1, 2.2, 2.1], [3.0, 3.1, 3.2, 3.0]
    (ours if lacks == "a" else theirs)[0] = None
    found = run("bits_per_byte", ours, theirs)
    collect.whole_endpoints(found["arms"], "bits_per_byte")
    found = judge(found, CONTRASTS)
    [row] = found["comparisons"]
    assert row["seeds"] == 3 and found["verdict"]["demonstration"]
    assert any(
        f"{lacks}, seed 0: bits_per_byte is not in this model" in r for r in found["verdict"]["reasons"]
    )


def test_a_part_of_a_benchmark_that_is_the_endpoint_has_a_word():
    found = run("blimp_acc/island_effects", [0.80, 0.81, 0.8], [0.60, 0.6, 0.61])
    judged = judge(found, CONTRASTS)
    assert judged["comparisons"][0]["verdict"] == "better" == judged["verdict"]["words"]
    assert "does better" in judged["verdict"]["sentence"]


def test_endpoints_that_nothing_measures_or_compares_are_refused():
    base = ["exp=selection_30pct", "scale=smoke"]
    for arguments, said in (
        (["exp.endpoint=lambada_openai/perplexity"], "perplexities are compared nowhere"),
        (["eval.tasks=[gsm8k]", "eval.text_tasks=[]"], "needs a text or a task whose answers are read"),
        (
            ["eval.tasks=[gsm8k]", "exp.endpoint=gsm8k/exact_match"],
            "strict-match and flexible-extract; name one: exp.endpoint=gsm8k/exact_match,flexible-extract",
        ),
        (["eval.tasks=[gsm8k]", "exp.endpoint=gsm8k/exact_match,flexible"], "name one: exp.endpoint=gsm8k"),
    ):
        with pytest.raises(SettingError, match=said):
            checks.endpoint(compose([*base, *arguments]))
    for arguments in (
        ["eval.tasks=[gsm8k]", "eval.text_tasks=[wikitext]"],
        ["eval.tasks=[gsm8k,piqa]", "eval.text_tasks=[]"],
        ["eval.tasks=[gsm8k]", "eval.text_tasks=[]", "exp.endpoint=gsm8k/exact_match,flexible-extract"],
    ):
        checks.endpoint(compose([*base, *arguments]))


@pytest.mark.parametrize(
    ("pilot", "run", "differ"),
    [
        (["exp=pilot", "budget.share=0.3"], ["exp=selection_30pct"], []),
        (["exp=pilot"], ["exp=paper_mixture"], ["budget.unit", "exp.mixture"]),
        (["exp=pilot", "budget.share=0.3"],
         ["exp=selection_30pct", "exp.arms.attention_influence.equal_passes=true", "exp.arms.random.equal_passes=true"],
         ["exp.equal_passes"]),
        (["exp=pilot", "budget.share=0.3", "corpus=files", "corpus.paths=[/data/english_web]"],
         ["exp=selection_30pct", "corpus=files", "corpus.paths=[/other/machine/english_web]"], []),
        (["exp=pilot", "budget.share=0.3", "corpus=files", "corpus.paths=[/data/english_web]"],
         ["exp=selection_30pct", "corpus=files", "corpus.paths=[/data/python_code]"], ["corpus.paths"]),
    ],
)  # fmt: skip
def test_a_pilot_of_other_arms_or_another_corpus_differs(pilot, run, differ):
    made, mine = as_dict(compose([*pilot, "scale=smoke"])), compose([*run, "scale=smoke"])
    assert registration.differences(made, mine) == differ


def test_a_pilot_that_differs_is_said_beside_what_the_run_could_see():
    found = run("bits_per_byte", [2.0, 2.1, 2.2, 2.0], [2.1, 2.0, 2.15, 2.2])
    assert could_see(found) == POWER
    found["registration"] = {"power": {"differs": ["budget.share"]}}
    sentence = judge(found, CONTRASTS, None, {"bits_per_byte": 0.1})["verdict"]["sentence"]
    assert "By the noise of a pilot that differs in budget.share it saw" in sentence
    assert could_see(found).endswith(" A pilot here differs from its run in budget.share.")


def test_an_average_is_over_tasks_on_which_all_arms_together_are_above_chance():
    """An arm of three models, one of which cannot do a task, takes it from no other arm; what is chance stays out."""
    able, unable, draw = (
        [0.45, 0.46, 0.44, 0.45, 0.46, 0.45, 0.44, 0.46],
        [0.26, 0.45, 0.44],
        np.random.default_rng(0),
    )
    tasks = {
        "x/acc": (able, unable),
        "y/acc": (able, unable),
        "z/acc": (draw.normal(0.25, 0.01, 8), draw.normal(0.25, 0.01, 3)),
    }
    arms = {
        name: {"share": 0.2, "equal_passes": False, "seeds": {
            str(seed): {"metrics": {task: {"value": float(values[side][seed]), "chance": 0.25, "n": 500} for task, values in tasks.items()}}
            for seed in range(number)}}
        for side, (name, number) in enumerate((("a", 8), ("b", 3)))
    }  # fmt: skip
    found = judge({**run("x/acc", able, able), "arms": arms}, CONTRASTS)
    assert "x/acc" in found["arms"]["b"]["at_chance"] and found["averaged"] == ["x/acc", "y/acc"]
    assert found["arms"]["b"]["seeds"]["0"]["metrics"]["accuracy_average"]["value"] == pytest.approx(0.26)
