"""Rows of a sweep are called what they were run with; questions say what the settings say."""

import re

import pytest

from repro import sweep
from repro.errors import SettingError
from repro.settings.compose import compose
from repro.settings.files import options


@pytest.mark.parametrize(
    ("name", "override"),
    [
        ("seeds", "exp.seeds=[0,1]"),
        ("select_share", "budget.share=0.2"),
        ("select_share", "budget={share: 0.2}"),
        ("proxy", "proxy=built"),
        ("proxy", "proxy.kind=built"),
        ("mixture", "exp.arms.attention_influence.mixture.weight=3"),
        ("mixture", "exp.arms.attention_influence={select: random}"),
        ("score_form", "exp.arms.new.select.selector=random"),
    ],
)
def test_an_override_of_what_the_grid_sets_is_refused(name, override):
    with pytest.raises(SettingError, match="touches .* leave it out"):
        sweep.members(name, [override])


def test_neighbours_of_a_grid_key_are_free():
    points = sweep.members(
        "select_share", ["budget.unit=documents", "scale=smoke", "exp=paper_mixture", "exp.seeds=[1]"]
    )
    for label, arguments in points.items():
        settings = compose(arguments)
        assert label == f"budget.share={settings.budget.share}" and settings.budget.unit == "documents"


@pytest.mark.parametrize(
    "name, key, option, more",
    [
        ("corpus_draw", "corpus.seed", "corpus=files", ["corpus.paths=[README.md]"]),
        ("head_share", "heads.share", "heads=random", []),
    ],
)
def test_an_option_may_be_chosen_beside_a_grid_that_sets_a_part_of_its_group(name, key, option, more):
    group, part = key.split(".")
    for label, arguments in sweep.members(name, [option, *more, "scale=smoke"]).items():
        assert label == f"{key}={getattr(getattr(compose(arguments), group), part)}"


def test_members_that_are_one_run_or_run_with_something_else_are_refused(monkeypatch, tmp_path):
    for grid, words in (
        ({"budget.share": [0.3, 0.30]}, "names .* twice"),
        (
            {"score.window": [128], "score": ["default"], "budget.unit": ["tokens", "tokens "]},
            "would run with",
        ),
    ):
        monkeypatch.setattr(
            sweep, "read_option", lambda group, name, schema, g=grid: {"exp": "score_corpus", "grid": g}
        )
        with pytest.raises(SettingError, match=words):
            sweep.run("own", ["scale=smoke", f"work={tmp_path}"])


@pytest.mark.parametrize("name", options("exp"))
def test_no_question_holds_a_number_or_a_name_that_its_settings_do_not(name):
    settings = compose([f"exp={name}", "scale=smoke"])
    assert not re.search(r"[{}]", settings.exp.question)
    from repro.settings.files import read_option

    written = read_option("exp", name)["exp"]["question"]
    assert not re.search(r"\d+ ?%|random|attention|perplexity|pythia|larger|smaller", written.lower()), (
        written
    )


@pytest.mark.parametrize(
    ("arguments", "says", "never"),
    [
        (["exp=selection_30pct"], "the 30 % of each domain's tokens that AttentionInfluence ranks highest than on a random 30 %", "20"),
        (["exp=selection_30pct", "budget.share=0.1"], "the 10 % of each domain's tokens", "30"),
        (["exp=selection_30pct", "budget.unit=documents"], "30 % of each domain's documents", "domain's tokens"),
        (["exp=selection_30pct", "exp.arms.random.select=perplexity_low"], "that perplexity (low) takes first?", "a random"),
        (["exp=paper_mixture", "budget.share=0.05"], "the full corpus plus the 5 % of each domain's documents", "20"),
        (["exp=paper_mixture"], "than on the full corpus plus a random subset of the same tokens and repeats?", "10"),
        (["exp=pilot", "budget.share=0.5"], "models of a random 50 % of each domain's tokens differ", "30"),
        (["exp=mirror_effect", "heads.detector=induction"], "masking its induction heads", "retrieval"),
        (["exp=mirror_effect"], "as many other heads that hurt ordinary text as much", "same layers"),
        (["exp=head_evolution_pythia", "proxy.repo=EleutherAI/pythia-70m"], "training of pythia-70m", "160m"),
        (["exp=proxy_size"], "ranks highest with qwen2.5-coder-0.5b-instruct", "20%"),
        (["exp=score_corpus", "exp.arms.attention_influence.select=length"], "rank highest by", "AttentionInfluence"),
        (["exp=pilot", "exp.question=What of {this}?"], "What of {this}?", "random"),
    ],
)  # fmt: skip
def test_questions_follow_the_settings(arguments, says, never):
    question = compose(arguments).exp.question
    assert says in question and never not in question
