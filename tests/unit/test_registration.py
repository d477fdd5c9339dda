"""What was stated before a run, what a command line changed of it, and the power a pilot promises."""

import json
import re

import fabricated
import pytest

from repro.errors import SettingError
from repro.outcomes import noise, registration, summary
from repro.outcomes.statistics import detectable, power, upper_limit
from repro.plan import table as plan
from repro.report import build, sections, terminal
from repro.selection.settings import Mixture, Select
from repro.settings.compose import compose
from repro.settings.experiment import Arm, Contrast
from repro.settings.files import options, read_option
from repro.settings.registration import deviations, stated
from repro.settings.root import as_dict

RUN = ["exp=selection_30pct", "scale=smoke"]


@pytest.mark.parametrize("name", options("exp"))
def test_every_experiment_states_what_it_will_conclude(name):
    exp = read_option("exp", name)["exp"]
    primary = [c for c in exp.get("contrasts", []) if c.get("primary")]
    if primary:
        assert set(exp["conclusions"]) == {"better", "worse", "equivalent", "undecided"}
        assert exp["smallest_effect"] > 0 and exp["endpoint"]
        said = " ".join(exp["conclusions"].values())  # they hold for any share that a command line keeps
        assert not re.search(r"\d+ ?%|\d+ percent|\b(fifth|third|quarter|half)\b", said), said
    else:
        assert set(exp["conclusions"]) == {"described"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["exp.seeds=[5,6]"], "seeds of attention_influence: [5, 6], registered [0, 1]"),
        (["exp.arms.random.seeds=[0]"], "seeds of random: [0], registered [0, 1]"),
        (["exp.endpoint=accuracy_average"], "endpoint: accuracy_average, registered bits_per_byte"),
        (["exp.contrasts=[{treatment: attention_influence, control: full, primary: true}]"],
         "primary contrast: attention_influence − full, registered attention_influence − random"),
        (["budget.share=0.1"], '"share": 0.1'),
        (["exp.arms.random.budget.within_group=true"], '"within_group": true'),
        (["exp.arms.random.select=length"], '"selector": "column"'),
        (["exp.smallest_effect=0.1"], "smallest effect of interest: 0.1, registered 0.02"),
        (["exp.conclusions.better=Whatever."], "conclusions"),
        (["exp.only=[random,attention_influence]"], "arms: left out full, perplexity_low"),
        (["exp.arms.mine.select=length"], "arms: added mine"),
        (["eval.tasks=[arc_easy]"], 'measured on of tasks: ["arc_easy"], registered ['),
        (["eval.text_tasks=[wikitext]"], 'measured on of text_tasks: ["wikitext"]'),
        (["heads.share=0.01"], "heads of share: 0.01, registered 0.05"),
        (["score.mask=zero"], "mask: zero, registered uniform"),
        (["train.tokens=16384"], "training tokens: 16384, registered"),
    ],
)  # fmt: skip
def test_every_change_of_what_was_stated_is_named(arguments, says):
    assert any(says in text for text in deviations(compose([*RUN, *arguments])))


def test_the_smallest_effect_goes_with_its_endpoint():
    """0.02 bits per byte are not two points of accuracy."""
    other = "exp.endpoint=accuracy_average"
    assert compose(RUN).exp.smallest_effect == 0.02
    assert compose([*RUN, other]).exp.smallest_effect is None
    assert "smallest effect of interest: None, registered 0.02" in deviations(compose([*RUN, other]))
    assert compose([*RUN, other, "exp.smallest_effect=0.02"]).exp.smallest_effect == 0.02


@pytest.mark.parametrize(
    "arguments",
    [[], ["device=cpu"], ["train.log_every_steps=3"], ["exp.empty_domains=leave_out"], ["exp.seeds=[0,1]"]],
)
def test_what_changes_nothing_of_it_is_no_deviation(arguments):
    assert deviations(compose([*RUN, *arguments])) == []


def pilot(work, seeds=(200, 201, 202, 203, 204, 205), **changes):
    """A fabricated pilot in the setting of RUN: both arms are evaluated as the "random" and "full" arms of ``fabricated``."""
    settings, store, stages = fabricated.run(work, seeds=seeds)
    drawn = compose(["exp=pilot", "scale=smoke", "budget.share=0.3", f"work={work}"])
    settings.exp = drawn.exp
    settings.exp.arms = {"random": Arm(Select("random"), Mixture()), "full": Arm(Select("random"), Mixture())}
    settings.exp.contrasts, settings.exp.seeds = [Contrast("random", "full", noise=True)], list(seeds)
    for group in ("corpus", "items", "proxy", "heads", "score", "budget", "model", "train", "eval"):
        setattr(settings, group, getattr(drawn, group))
    for key, value in changes.items():
        setattr(settings.train, key, value)
    stages["arms"] = {name: stages["arms"][name] for name in settings.exp.arms}
    folder = work / "runs" / "pilot"
    folder.mkdir(parents=True)
    return folder, build.build(folder, settings, store, stages)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    work = tmp_path_factory.mktemp("pilot")
    return work, *pilot(work)


def test_a_pilot_gives_the_spread_of_differences_and_its_upper_limit(done):
    _, folder, found = done
    row = found["noise"]["bits_per_byte"]
    values = {
        arm: [s["metrics"]["bits_per_byte"]["value"] for s in found["arms"][arm]["seeds"].values()]
        for arm in ("random", "full")
    }
    import numpy as np

    d = np.subtract(values["random"], values["full"])
    assert row["paired"] == pytest.approx(d.std(ddof=1)) and row["paired_limit"] == pytest.approx(
        upper_limit(d.std(ddof=1), 5)
    )
    assert row["unpaired"] == pytest.approx(
        np.sqrt(np.var(values["random"], ddof=1) + np.var(values["full"], ddof=1))
    )
    assert row["detectable"]["8"] == pytest.approx(detectable(row["paired_limit"], 8))
    assert "hellaswag/acc_norm" in found["noise"] and found["comparisons"] == []
    assert found["verdict"]["sentence"] == noise.sentence(
        found
    ) and f"{row['paired_limit']:.4f}" in noise.sentence(found)
    table = next(t for t in sections.tables(found) if t.name == "noise")
    assert table.rows[0][0] == "bits_per_byte"
    assert "Noise between two random draws" in (folder / "report.html").read_text()


def test_power_is_that_of_the_pilot_found_by_itself_or_named(done, monkeypatch, tmp_path):
    work, folder, made = done
    monkeypatch.setattr(registration, "RESULTS", tmp_path)
    limit = made["noise"]["bits_per_byte"]["paired_limit"]
    for arguments in ([f"work={work}"], [f"exp.pilot={folder}"]):
        found = registration.power(compose([*RUN, *arguments, "exp.seeds=[0,1,2,3]"]))
        assert (found["deviation"], found["pairs"], found["differs"]) == (limit, 4, [])
        assert found["power"] == pytest.approx(power(0.02, limit, 4)) and found[
            "detectable"
        ] == pytest.approx(detectable(limit, 4))
    said = plan.describe(compose([*RUN, f"work={work}", "exp.seeds=[0,1,2,3]"]))
    assert f"power: {found['power']:.0%} at 0.02, 80 % at {found['detectable']:.4f}, from 4 pairs" in said
    assert "deviates from its registration: seeds of random: [0, 1, 2, 3]" in said
    uneven = compose([*RUN, f"work={work}", "exp.arms.random.seeds=[1,2,3]", "exp.seeds=[0,1,2]"])
    assert registration.power(uneven)["pairs"] == 2  # those that both arms have


def test_a_pilot_of_another_setting_is_none_and_one_that_is_named_says_what_differs(
    done, monkeypatch, tmp_path
):
    work, folder, _ = done
    monkeypatch.setattr(registration, "RESULTS", tmp_path)
    other = [*RUN, f"work={work}", "train.learning_rate=0.1"]
    assert registration.power(compose(other)) == {
        "unknown": "no pilot of this setting (pilot differs in train.learning_rate)"
    }
    assert registration.power(compose([*RUN, f"work={work}", "budget.share=0.2"]))["unknown"].endswith(
        "budget.share)"
    )
    assert registration.power(compose([*other, f"exp.pilot={folder}"]))["differs"] == ["train.learning_rate"]
    assert (
        registration.power(compose([*RUN, f"work={work}", "train.launcher=torchrun", "corpus.seed=3"]))[
            "differs"
        ]
        == []
    )
    assert "power: not known, no pilot of this setting" in plan.describe(compose([*RUN, f"work={tmp_path}"]))
    with pytest.raises(SettingError, match="is not there"):
        registration.power(compose([*RUN, f"exp.pilot={tmp_path}"]))


def test_a_pilot_says_nothing_where_no_model_is_trained_or_it_saw_no_noise(done, monkeypatch, tmp_path):
    monkeypatch.setattr(registration, "RESULTS", tmp_path)
    made = json.loads((done[1] / "summary.json").read_text())
    made["noise"]["bits_per_byte"] |= {"paired": 0.0, "paired_limit": 0.0}
    summary.write(tmp_path / "summary.json", made)
    for arguments in (["exp.endpoint=nothing"], []):
        found = registration.power(compose([*RUN, *arguments, f"exp.pilot={tmp_path}"]))
        assert "has no noise of" in found["unknown"] and json.dumps(found, allow_nan=False)
    masked = compose(["exp=mirror_effect", "scale=smoke", f"exp.pilot={done[1]}"])
    assert "another kind of experiment" in registration.power(masked)["unknown"]


def test_an_edited_or_foreign_file_among_the_results_is_passed_over_and_one_arm_is_no_pilot(
    done, monkeypatch, tmp_path
):
    monkeypatch.setattr(registration, "RESULTS", tmp_path)
    text = json.loads((done[1] / "summary.json").read_text())
    (tmp_path / "edited").mkdir()
    (tmp_path / "edited" / "summary.json").write_text(json.dumps({**text, "question": "?"}, indent=1))
    assert registration.power(compose([*RUN, f"work={tmp_path}"])) == {"unknown": "no pilot of this setting"}
    folder = tmp_path / "plain"
    folder.mkdir()
    summary.write(folder / "summary.json", {"settings": {}, "noise": {}})
    with pytest.raises(SettingError, match="no pilot of two arms"):
        registration.power(compose([*RUN, f"exp.pilot={folder}"]))


def judged(**run):
    """A summary with comparisons, an outcome and what was stated for it."""
    row = {"primary": True, "metric": "bits_per_byte", "lower_is_better": True, **run}
    said = {
        "better": "It helps.",
        "worse": "It hurts.",
        "equivalent": "It is the same.",
        "undecided": "Nothing.",
    }
    said_before = {"conclusions": said, "smallest_effect": 0.1}
    return {"comparisons": [row], "endpoint": "bits_per_byte", "verdict": {"demonstration": run.get("demonstration", False)},
            "registration": {"run": said_before}}  # fmt: skip


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [(-0.5, -0.2, "better"), (0.2, 0.5, "worse"), (-0.05, 0.09, "equivalent"), (-0.05, 0.2, "undecided"), (None, None, "undecided")],
)  # fmt: skip
def test_the_conclusion_is_the_one_stated_for_the_outcome(low, high, outcome):
    found = registration.concluded(judged(low=low, high=high))
    assert (
        found["outcome"] == outcome
        and found["text"] == judged()["registration"]["run"]["conclusions"][outcome]
    )
    assert registration.concluded(judged(low=low, high=high, demonstration=True))["outcome"] == "none"


def test_of_another_comparison_than_the_one_stated_nothing_is_concluded():
    found = judged(low=-0.5, high=-0.2)
    before, run = (
        {
            **found["registration"]["run"],
            "contrast": contrast,
            "selects": {"x": {"selector": x}, "y": {"selector": y}},
        }
        for contrast, x, y in (("a − b", "length", "random"), ("b − a", "random", "length"))
    )
    found["registration"] = {"registered": before, "run": before}
    assert registration.concluded(found)["text"] == "It helps."
    found["registration"]["run"] = run
    assert registration.concluded(found)["text"].startswith(
        "What was stated is about a − b; for b − a nothing"
    )
    found["registration"]["run"] = {**run, "conclusions": {**run["conclusions"], "better": "Mine."}}
    assert registration.concluded(found)["text"] == "Mine."


def test_a_difference_that_is_sure_but_too_small_to_matter_says_so():
    assert (
        "smaller than the smallest effect of interest"
        in registration.concluded(judged(low=-0.05, high=-0.01))["text"]
    )
    assert "smallest" not in registration.concluded(judged(low=-0.5, high=-0.01))["text"]


def test_page_and_summary_mark_what_deviates_and_say_what_follows(tmp_path):
    settings, store, stages = fabricated.run(tmp_path / "w", documents=900)
    settings.exp.conclusions, settings.exp.smallest_effect = {"better": "It helps <here>."}, 0.02
    settings.exp.registered = stated(as_dict(settings))
    settings.exp.registered["smallest_effect"] = 0.5
    (tmp_path / "run").mkdir()
    found = build.build(tmp_path / "run", settings, store, stages)
    deviation = "smallest effect of interest: 0.02, registered 0.5"
    assert found["registration"]["deviations"] == [deviation]
    assert found["registration"]["power"]["unknown"]
    assert found["registration"]["conclusion"]["outcome"] == "better", found["verdict"]
    html = (tmp_path / "run" / "report.html").read_text()
    assert (
        f"Deviates from what was stated beforehand: {deviation}." in html and "It helps &lt;here&gt;." in html
    )
    assert deviation in " ".join(terminal.render(found).split())
    table = next(t for t in sections.tables(found) if t.name == "registered")
    assert ["smallest effect of interest", "0.5", "deviates: 0.02"] in table.rows
    assert sections.said({}) == []  # summaries of earlier versions have none


def test_arms_that_are_left_out_are_named_once_whatever_was_stated_of_them():
    """Also where nothing is primary, and every arm's selection is part of the statement."""
    settings = compose(["exp=score_agreement", "scale=smoke", "exp.only=[attention_influence,distilled]"])
    (said,) = deviations(settings)
    assert "left out difference" in said and "selector" not in said
