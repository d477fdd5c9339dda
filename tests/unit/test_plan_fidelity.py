"""A plan that ranks by a distilled score says what that costs, from which measurement, or that there is none."""

from pathlib import Path

from repro.experiments import build
from repro.plan.fidelity import PAIR, RESULT, fidelity
from repro.settings.compose import compose
from repro.store import read_json

RESULTS = Path(__file__).resolve().parents[2] / "results"


def said(*words, results=RESULTS):
    settings = compose(["exp=score_corpus", "scale=smoke", *words])
    return fidelity(settings, build(settings).order(), results)


def test_the_loss_is_that_of_the_committed_result(tmp_path):
    assert said() == []
    (line,) = said("score.sample=0.05", "exp.arms.attention_influence.select=distilled", "budget.share=0.25")
    domains = read_json(RESULTS / RESULT / "summary.json")["agreement"][PAIR]
    ranks = {name: row["spearman"]["value"] for name, row in domains.items()}
    found = {name: row["overlap"]["0.2"]["value"] for name, row in domains.items()}
    for values, form in ((ranks, ".2f"), (found, ".0%")):
        for end in (min, max):
            name = end(values, key=values.get)
            assert f"{values[name]:{form}} ({name})" in line
    assert "0.05 of the documents are scored" in line and "of the best 20%" in line and RESULT in line
    assert "Of this corpus it is not measured: repro run exp=score_agreement" in line
    (line,) = said("exp.arms.attention_influence.select=distilled", results=tmp_path)
    assert "was not measured" in line and "0." not in line
