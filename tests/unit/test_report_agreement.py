"""Agreement of scores and heads over checkpoints in the report, on FABRICATED summaries."""

import fabricated
import pytest

from repro.experiments.agree import view as agreement
from repro.experiments.evolve import view as evolution
from repro.outcomes import summary
from repro.outcomes.collect import collect
from repro.paper import committed
from repro.paper import figures as paper_figures
from repro.report import build, figures, interactive, still


def estimate(value):
    return {"value": value, "low": value - 0.1, "high": value + 0.05}


def cell(value, **more):
    overlap = {share: estimate(value) | {"chance": float(share)} for share in ("0.1", "0.2")}
    found = {
        "documents": 40,
        "dropped": 1,
        "spearman": estimate(value),
        "overlap": overlap,
        "drawn": "sources",
        "units": 7,
    }
    return found | more


NONE = {"documents": 3, "dropped": 0, "spearman": None, "overlap": {}, "reason": "too few documents"}
PAIRS = {
    "a | ref": {"code": cell(0.9), "prose": cell(0.5)},
    "b | ref": {"code": NONE, "prose": cell(0.2)},
    "c | ref": {"code": NONE},
}


def arm(heads, proxy="p", selector="attention_influence"):
    artifacts = {"heads": {"inputs": {"proxy": proxy}}}
    return {
        "select": {"selector": selector},
        "seeds": {"0": {"masked": {"selected": heads}, "artifacts": artifacts}},
    }


@pytest.fixture
def found():
    arms = {
        "ref": arm([[0, 1], [1, 1]]),
        "a": arm([[0, 1], [1, 2]]),
        "b": arm([[0, 1]], "other"),
        "c": arm([], "p", "column"),
    }
    return {"kind": "agree", "arms": arms, "agreement": PAIRS}


def test_table_of_agreement(found):
    (table,) = agreement.tables(found)
    assert len(table.rows) == 5 and table.columns[2:5] == [
        "Spearman [95 %]",
        "top 10 % shared [95 %]",
        "top 20 % shared [95 %]",
    ]
    first = [str(c) for c in table.rows[0]]
    assert first == ["a | ref", "code", *["0.90 [0.80, 0.95]"] * 3, "1 of 2", "40", "1", "7 sources"]
    assert table.rows[2][2:6] == ["too few documents"] * 3 + [None]  # another proxy's heads are other heads
    assert table.notes[-1].startswith("b: by a proxy that has tokens of its own")
    found["arms"]["b"] = arm([[0, 1]])
    assert len(agreement.tables(found)[0].notes) == 3
    assert agreement.tables({"arms": {}}) == []


def test_words_and_plot_of_agreement(found):
    lines = agreement.lines(found)
    assert (
        lines[0].startswith("agreement with ref") and "0.50 to 0.90" in lines[1] and "no estimate" in lines[3]
    )
    sentence = agreement.sentence(found)
    assert (
        "b and ref agree least (Spearman 0.20 over domains); a and ref agree most (Spearman 0.50 to 0.90"
        in sentence
    )
    assert "No domain" in agreement.sentence({"agreement": {"c | ref": {"code": NONE}}})
    (plot,) = agreement.figures(found)
    assert [p.title for p in plot.panels] == ["code", "prose"] and plot.panels[1].series[0].y == ["a", "b"]
    assert interactive.to_plotly(plot)["data"] and "with ref" in plot.title
    several = {"agreement": {"a | ref": PAIRS["a | ref"], "a | b": PAIRS["b | ref"]}, "arms": {}}
    assert agreement.figures(several)[0].panels[1].series[0].y == ["a | ref", "a | b"]


def checkpoint(name, scores, **more):
    top = max(map(max, scores))
    found = {
        "name": name,
        "tokens": 10,
        "scores": scores,
        "selected": [[0, 1]] if top else [],
        "max": top,
        "above": int(top > 0.1),
    }
    rest = {
        "zero_heads": 3,
        "shared_with_last": 1.0,
        "probe_accuracy": 0.5,
        "probe_loss": 1.0,
        "same_as": None,
    }
    return found | rest | more


def series(top):
    rows = [
        checkpoint("early", [[0.0, 0.0], [0.0, 0.0]]),
        checkpoint("late", [[0.0, top], [0.0, 0.0]], same_as="early"),
    ]
    probe = {"probes": 8, "probe_tokens": 256}
    return {
        "num_layers": 2,
        "num_heads": 2,
        "probe": probe,
        "detector": "retrieval",
        "share": 0.05,
        "checkpoints": rows,
    }


def test_heads_over_checkpoints():
    found = {"evolution": {"retrieval": series(0.6), "full, induction": series(0.02)}}
    (table,) = evolution.tables(found)
    assert [str(c) for c in table.rows[1]] == ["retrieval", "late", "10", "0.600", "1", "1", "0.500", "100"]
    assert "the same weights twice?" in table.notes[0]
    bright, dim = evolution.figures(found)
    assert (bright.name, dim.name) == ("evolution_retrieval", "evolution_full_induction")
    assert [p.content.highest for p in bright.panels] == [0.6, 0.6]
    assert dim.panels[1].content.highest == 0.1  # what is no retrieval head does not shine
    assert interactive.to_plotly(bright)["data"][0]["zmax"] == 0.6
    assert "retrieval: a head scores above 0.1 first at late" in evolution.sentence(found)
    assert "full, induction: no head ever scores above 0.1" in evolution.sentence(found)
    assert sum("late" in line for line in evolution.lines(found)) == 2


@pytest.mark.parametrize(("shared", "stays"), [([0, 1.0, 1.0], True), ([0, 0.5, 1.0], False)])
def test_that_heads_stay_is_said_where_they_do(shared, stays):
    found = series(0.6)
    middle = checkpoint("middle", [[0.0, 0.3], [0.0, 0.0]])
    found["checkpoints"].insert(1, middle)
    for row, share in zip(found["checkpoints"], shared, strict=True):
        row["shared_with_last"] = share
    said = evolution.sentence({"evolution": {"retrieval": found}})
    assert "first at middle" in said and ("from there on its top heads (1 of 4) are those" in said) == stays


def test_figure_2_is_drawn_of_checkpoints_where_there_are_any(tmp_path):
    settings, store, stages = fabricated.run(tmp_path / "work", kind="score", seeds=(0,))
    plain = summary.seal(build.judged(collect(settings, store, stages), []))
    traced = summary.seal(
        {**plain, "kind": "evolve", "evolution": {"induction": series(0.3), "retrieval": series(0.6)}}
    )
    one, other = committed.Result("plain", plain), committed.Result("traced", traced)
    (only,) = [p for p in paper_figures.paper_figures([one]) if p.name == "figure2"]
    assert (
        len(only.panels) == 1
        and only.panels[0].content.values == figures.heads(plain).panels[0].content.values
    )
    (drawn,) = [p for p in paper_figures.paper_figures([one, other]) if p.name == "figure2"]
    assert (
        [p.title for p in drawn.panels] == ["early", "late"]
        and "traced" in drawn.title
        and "retrieval" in drawn.title
    )
    still.write(drawn, tmp_path)
    assert (tmp_path / "figure2.svg").is_file()
