"""The report of a run with masked heads, on FABRICATED artifacts: what is counted, what is said, and table 6."""

import json

import fabricated
import pytest
from scipy import stats

from repro import experiments
from repro.experiments.mirror import view as mirror
from repro.heads.settings import CALIBRATION_TOKENS
from repro.outcomes import summary, verdict
from repro.paper import claims, committed
from repro.paper import tables as paper_tables
from repro.plan.table import estimate_stage
from repro.report import build, run_tables, sections, terminal
from repro.report.cells import Interval
from repro.settings.compose import compose


@pytest.fixture(scope="module")
def sealed(tmp_path_factory):
    return built(tmp_path_factory.mktemp("mirror"))


def built(folder, name="mirror_effect", **kwargs):
    settings, store, stages = fabricated.masked_run(folder / "work", **kwargs)
    settings.exp.name = name
    run = folder / "results" / "mine"
    run.mkdir(parents=True)
    build.build(run, settings, store, stages)
    return summary.read(run)


def row_of(sealed, control, metric="bits_per_byte"):
    return next(r for r in sealed["comparisons"] if (r["control"], r["metric"]) == (control, metric))


def test_draws_are_counted_as_evaluations_not_as_seeds(sealed):
    assert [row_of(sealed, control)["seeds"] for control in ("random_matched_damage", "random", "base")] == [
        3,
        3,
        1,
    ]
    assert len(run_tables.arm_values(sealed, "random", "bits_per_byte")) == 3
    assert len(run_tables.arm_values(sealed, "base", "bits_per_byte")) == 1
    seeds = next(t for t in sections.tables(sealed) if t.name == "seeds")
    assert sum(row[0] == "retrieval" and row[2] == "bits_per_byte" for row in seeds.rows) == 1


def test_the_interval_is_a_t_interval_over_draws_widened_by_items(sealed):
    row = row_of(sealed, "random")
    draws = run_tables.arm_values(sealed, "random", "bits_per_byte")
    fixed = run_tables.arm_values(sealed, "retrieval", "bits_per_byte")[0]
    oracle = stats.ttest_1samp([fixed - value for value in draws], 0).confidence_interval(0.95)
    assert row["difference"] == pytest.approx(fixed - sum(draws) / 3)
    assert row["low"] <= oracle.low + 1e-9 and row["high"] >= oracle.high - 1e-9


def test_the_verdict_needs_draws_not_documents(sealed, tmp_path):
    assert sealed["verdict"]["reasons"] == [] and sealed["verdict"]["words"] == "hurts more"
    sentence = sealed["verdict"]["sentence"]
    assert (
        "retrieval masked hurts more than random_matched_damage masked" in sentence
        and "3 control draws" in sentence
    )
    few = built(tmp_path, seeds=(0, 1))["verdict"]
    assert (
        few["reasons"] == ["2 control draws; a verdict needs 3"] and few["words"] == "no interval: two seeds"
    )


def test_heads_of_the_built_proxy_prove_nothing(sealed):
    settings = {**sealed["settings"], "proxy": {**sealed["settings"]["proxy"], "kind": "built"}}
    primary = row_of(sealed, "random_matched_damage")
    assert verdict.shortfalls({**sealed, "settings": settings}, primary) == [
        "the proxy is built by code; a verdict needs a trained one"
    ]


def test_draws_that_miss_the_damage_are_no_control(tmp_path):
    """The run with a draw that missed is the run without that draw, and says so."""
    few = built(tmp_path / "few", seeds=(0, 2, 3))
    found = built(tmp_path / "missed", seeds=(0, 1, 2, 3), missed=(1,))
    arm = found["arms"]["random_matched_damage"]
    assert list(arm["seeds"]) == ["0", "2", "3"] and list(arm["missed"]) == ["1"]
    rows = [row_of(summary, "random_matched_damage") for summary in (few, found)]
    assert rows[0] == rows[1] and rows[1]["seeds"] == 3 and found["verdict"]["words"] == "hurts more"
    assert row_of(found, "random")["seeds"] == 4
    said = "Left out: 1 of 4 draws of random_matched_damage (seed 1)"
    assert verdict.left_out(found)[0].startswith(said) and said in terminal.render(found).replace("\n", " ")
    listed = [row for row in mirror.masked(found).rows if row[0] == "random_matched_damage"]
    assert sorted((row[1], row[-1]) for row in listed) == [
        ("0", "yes"),
        ("1", "no"),
        ("2", "yes"),
        ("3", "yes"),
    ]
    none = built(tmp_path / "none", seeds=(0, 1), missed=(0, 1))
    assert (
        "was not measured in both arms" in none["verdict"]["sentence"]
        and "2 of 2 draws" in verdict.left_out(none)[0]
    )


def test_an_arm_scored_by_heads_that_miss_the_damage_is_no_evidence(sealed):
    arms = json.loads(json.dumps(sealed["arms"]))
    arms["random_matched_damage"]["seeds"]["1"]["masked"]["control"]["within_tolerance"] = False
    primary = row_of(sealed, "random_matched_damage")
    assert verdict.shortfalls({**sealed, "arms": arms}, primary) == [
        "the heads of random_matched_damage miss the damage they should match"
    ]


def test_the_masked_heads_are_listed_with_what_they_do_to_ordinary_text(sealed):
    table = mirror.masked(sealed)
    assert [(row[0], row[1]) for row in table.rows][:3] == [
        ("base", "all"),
        ("retrieval", "all"),
        ("random", "0"),
    ]
    assert len(table.rows) == 2 + 3 * 3
    by_arm = {row[0]: row for row in table.rows}
    assert (
        by_arm["base"][2] == "none" and by_arm["base"][3].value == 0 and by_arm["retrieval"][2] == "3.1, 4.0"
    )
    text = [mirror.heldout(sealed["arms"][arm]["seeds"]["0"]) for arm in ("retrieval", "base")]
    assert by_arm["retrieval"][3].value == pytest.approx(text[0] - text[1])
    assert [str(cell) for cell in by_arm["random_matched_damage"][4:]] == ["0.1100", "0.1200", "yes"]
    assert by_arm["random"][4:] == [None, None, None]


def test_terminal_and_notes_say_what_a_seed_is(sealed):
    text = terminal.render(sealed)
    assert "control draws" in text and "paired" not in text and max(map(len, text.split("\n"))) <= 100
    found = {t.name: t for t in sections.tables(sealed)}
    assert all(verdict.COVERS in found[name].notes for name in ("outcome", "contrasts"))


def test_table_6_shows_the_run_beside_the_paper(sealed):
    result = committed.Result("mine", sealed)
    table = paper_tables.table6([result])
    assert len({len(row) for row in table.rows} | {len(table.columns)}) == 1
    rows = {row[1]: row for row in table.rows}
    assert (
        list(rows)[-2:] == ["Banking77-en-ICL", "LAMBADA"]
        and rows["LAMBADA"][2:5] == ["not in the paper"] * 3
    )
    base, random, retrieval, gap, _, draws = rows["HellaSwag"][5:]
    assert [str(cell) for cell in rows["HellaSwag"][2:5]] == ["57.15", "55.18", "54.93"]
    for cell, arm in ((base, "base"), (random, "random"), (retrieval, "retrieval")):
        values = run_tables.arm_values(sealed, arm, "hellaswag/acc_norm")
        assert cell.value == pytest.approx(100 * sum(values) / len(values))
    own = row_of(sealed, "random", "hellaswag/acc_norm")
    assert isinstance(gap, Interval) and draws == 3
    assert (gap.value, gap.low, gap.high) == pytest.approx(
        tuple(100 * own[k] for k in ("difference", "low", "high"))
    )
    assert rows["GSM8K"][5:] == ["not run"] * 4 + [None, None]
    assert any("table6_controls" == t.name and len(t.rows) > 3 for t in paper_tables.tables([result]))
    assert "not run" in map(str, paper_tables.table6([]).rows[0])


@pytest.mark.parametrize(("hurt", "says"), [(0.3, "replicated"), (-0.3, "not replicated")])
def test_the_claim_is_that_masking_retrieval_heads_does_worse(tmp_path, hurt, says):
    result = committed.Result("mine", built(tmp_path, hurt=hurt))
    found = [claim for claim in claims.claims() if claim.experiment == "mirror_effect"]
    assert [claim.control for claim in found] == ["random", "random_matched_damage"]
    assert [claims.judge(claim, result).verdict for claim in found] == [says, says]


def test_the_plan_reckons_with_the_proxy_and_with_the_search_for_matched_heads():
    settings = compose(["exp=mirror_effect", "scale=laptop"])
    arms = experiments.build(settings).arms
    evaluated = estimate_stage(arms["retrieval"][0]["evaluate"], 1e5)
    assert evaluated.flops == 2 * settings.proxy.parameters * evaluated.tokens > 0
    matched, drawn = (
        estimate_stage(arms[arm][0]["heads"], 1e5) for arm in ("random_matched_damage", "random")
    )
    assert matched.tokens - drawn.tokens == 66 * CALIBRATION_TOKENS
