"""Selections set side by side, in the report and in the paper's tables, on fabricated comparisons."""

import fabricated
import pytest
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from repro.experiments.analyse import view as selected
from repro.outcomes import summary
from repro.outcomes.collect import collect
from repro.paper import committed
from repro.paper import figures as paper_figures
from repro.paper import tables as paper_tables
from repro.report import build, interactive, plots, sections, still


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    settings, store, stages = fabricated.run(tmp_path_factory.mktemp("analyse"), kind="train", seeds=(0,))
    settings.exp.contrasts = []
    found = collect(settings, store, stages) | {"kind": "analyse", "experiment": "what_was_selected"}
    found["pairs"] = {"attention_influence | random": fabricated.pair()}
    for arm, yes in (("attention_influence", 30), ("random", 10)):
        found["arms"][arm]["seeds"]["0"] |= {
            "profile": fabricated.profile(),
            "judged": fabricated.judged(yes, 40),
        }
    return summary.seal(build.judged(found, []))


@pytest.fixture
def result(found):
    return committed.Result("mine", found)


def test_tables_of_a_run(found):
    by_name = {table.name: table for table in sections.tables(found)}
    assert [str(c) for c in by_name["overlap"].rows[0]] == [
        "attention_influence | random",
        "code",
        *["0.50", "None"] * 3,
    ]
    assert [str(c) for c in by_name["shared"].rows[0][2:]] == ["2", "2", "1", "4", "0.33", "None"]
    assert by_name["words"].rows[0][-1] == "theorem, <proof>" and by_name["words"].rows[1][-1] == "none"
    share = next(row for row in by_name["judged"].rows if row[0] == "attention_influence")[3]
    assert (share.low, share.high) == pytest.approx(proportion_confint(30, 40, method="wilson")) and str(
        share
    ).startswith("0.75 [")
    assert "2 x timeout" in by_name["judged"].notes[0] and "random" in by_name["judged"].notes[0]


def test_the_sentence_says_how_much_the_selections_share(found):
    said = found["verdict"]["sentence"]
    assert said.startswith("Of the documents of attention_influence") and said.count("random 50 to 50 %") == 1
    assert "2 selections were described" in selected.sentence(
        {**found, "pairs": {}, "arms": {"a": {}, "b": {}}}
    )


def test_no_answer_is_said_in_words():
    assert selected.share({"answered": 0, "yes": 0}) == "no answers"


def test_plots_are_drawn_and_the_same_again(found, tmp_path):
    [drawn] = [
        [block for block in part.blocks if isinstance(block, plots.Plot)] for part in selected.sections(found)
    ]
    assert [plot.name for plot in drawn] == ["distributions", "clusters", "map", "clouds"]
    for plot in drawn:
        assert interactive.to_plotly(plot)["data"] and len(plot.alt) > 10
        for folder in ("one", "two"):
            still.write(plot, tmp_path / folder)
        assert (tmp_path / "one" / f"{plot.name}.svg").read_bytes() == (
            tmp_path / "two" / f"{plot.name}.svg"
        ).read_bytes()
    assert "&lt;b&gt;" in str(interactive.to_plotly(drawn[3])) and "<b>'" not in str(
        interactive.to_plotly(drawn[3])["data"]
    )
    assert [100 * v for v in (0.75, 1.0)] == drawn[0].panels[0].series[0].y


def test_what_two_proxies_measured_is_not_shown_as_of_one(found):
    """The same documents have other lengths and losses by another tokenizer and model."""
    other = fabricated.profile()
    two = {"mean_tokens": 80.0, "selected_mean_tokens": 80.0}
    other["code"] |= two | {
        "quantities": {"length": other["code"]["quantities"]["length"] | {"edges": [80, 800, 8000]}}
    }
    one = {"code": fabricated.profile()["code"] | {"mean_tokens": 100.0, "selected_mean_tokens": 100.0}}
    arms = {
        "attention_influence": {"seeds": {"0": {"profile": one}}},
        "random": {"seeds": {"0": {"profile": other}}},
    }
    apart = {**found, "arms": arms}
    assert [line.name for line in selected.distributions(apart).panels[0].series] == [
        "all documents",
        "attention_influence",
        "all documents, by random's proxy",
        "random",
    ]
    assert selected.judged(apart).notes == [
        "Mean tokens: by the tokenizer of each selection's own proxy; of all documents, selected or not: code"
        " attention_influence 100.0, random 80.0."
    ]
    assert "left selection's proxy" in selected.shared(apart).notes[-1]
    arms["random"]["seeds"]["0"]["profile"] = one
    assert len(selected.distributions(apart).panels[0].series) == 3
    assert not selected.judged(apart).notes and len(selected.shared(apart).notes) == 1


def test_the_papers_tables_take_ours_in(result):
    found = {table.name: table for table in paper_tables.tables([result])}
    ours = next(row for row in found["table3"].rows if row[1] == "attention_influence")
    assert ours[0] == "mine (scale smoke)"
    assert (ours[-1].low, ours[-1].high) == pytest.approx(
        confint_proportions_2indep(30, 40, 10, 40, method="newcomb")
    )
    assert ours[-1].value == pytest.approx(0.5)
    assert next(row for row in found["table3"].rows if row[1] == "random")[-1] is None
    assert found["table4"].rows[-1][0] == "mine (scale smoke)" and len(found["table4"].rows[-1]) == len(
        found["table4"].columns
    )
    assert {row[1] for row in found["table11"].rows} == {"attention_influence", "random"}
    assert found["table5"].rows[-1][1] == "not run"


def test_the_papers_figures_take_ours_in(result):
    found = {plot.name: plot for plot in paper_figures.paper_figures([result])}
    assert set(found) == {"figure2", "figure4", "figure5", "figure18"}
    assert found["figure5"].title.startswith("Figure 5: ") and "mine (scale smoke)" in found["figure5"].title
