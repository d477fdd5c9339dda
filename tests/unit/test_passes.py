"""How often each arm reads its documents, said before it does."""

from dataclasses import replace

import pytest

from repro.corpus.sources import expected_tokens
from repro.errors import SettingError
from repro.experiments import build
from repro.experiments.arms import train_of
from repro.plan import passes
from repro.settings.compose import compose
from repro.store import Store, write_json


def planned(tmp_path, *arguments, proxy_tokens=1e6):
    settings = compose(["scale=smoke", "exp=selection_30pct", "train.tokens=40960", *arguments])
    return settings, build(settings), Store(tmp_path)


def publish(store, stage, name, content):
    folder = store.path(stage)
    folder.mkdir(parents=True)
    write_json(folder / name, content)
    write_json(folder / "manifest.json", {"facts": {}})


def test_passes_are_training_tokens_over_the_tokens_of_a_pass(tmp_path):
    found = passes.passes(*planned(tmp_path), 15360)  # 61,440 bytes, 20,480 tokens of our own
    assert found["full"].passes == 2 and found["random"].passes == pytest.approx(2 / 0.3)
    assert not found["full"].counted
    added = compose(["scale=smoke", "exp=paper_mixture", "budget.unit=tokens", "train.tokens=40960"])
    found = passes.passes(added, build(added), Store(tmp_path), 15360)
    assert found["full_plus_attention_influence"].passes == pytest.approx(2 / 1.2)


@pytest.mark.parametrize("arm", ["budget={unit: documents}", "mixture=add"])
def test_equal_passes_are_refused_where_the_share_of_the_tokens_does_not_make_them(tmp_path, arm):
    """A share of the documents may be another of the tokens; a selection beside the corpus is read less often."""
    equal = "exp.arms.attention_influence.equal_passes=true"
    assert planned(tmp_path, equal)
    with pytest.raises(
        SettingError, match="equal_passes=true shortens .* state exp.arms.attention_influence.tr"
    ):
        planned(tmp_path, equal, f"exp.arms.attention_influence.{arm}")


def test_equal_passes_of_a_frozen_cut_are_refused(tmp_path):
    """It selects by the cut of another run, whatever budget.share says."""
    settings = compose(["exp=selection_30pct", "scale=smoke"])
    settings.exp.arms["attention_influence"].equal_passes = True
    assert train_of(settings, "attention_influence").tokens < settings.train.tokens
    frozen = replace(settings, budget=replace(settings.budget, frozen=str(tmp_path)))
    with pytest.raises(SettingError, match="budget.frozen="):
        train_of(frozen, "attention_influence")


def test_what_is_in_the_store_is_counted(tmp_path):
    settings, experiment, store = planned(tmp_path)
    publish(
        store,
        experiment.shared["tokens"],
        "tokens.json",
        {"tokens": {"documents": {"a": 60_000, "b": 40_000}}},
    )
    found = passes.passes(settings, experiment, store, 1.0)
    assert found["full"].reading == 100_000 and found["random"].reading == 30_000 and found["full"].counted
    domains = {"a": {"tokens": 5000, "read_tokens": 500}, "b": {"tokens": 5000, "read_tokens": 2000}}
    publish(store, experiment.arms["random"][0]["selection"], "selection.json", {"domains": domains})
    assert passes.passes(settings, experiment, store, 1.0)["random"].reading == 25_000


def test_repetition_and_contrasts_of_unequal_passes_are_warned_of(tmp_path):
    once, twice = ("\n".join(passes.lines(*planned(tmp_path), tokens)) for tokens in (30720, 15360))
    assert "reads every document 2.0 times by this estimate" in twice and "reads every document" not in once
    assert "random (3.3) − full (1.0)" in once and "attention_influence (3.3) − random" not in once
    alone = [
        "exp.arms.full.budget.share=1",
        "exp.contrasts=[{treatment: attention_influence, control: random, primary: true}]",
    ]
    assert "equal tokens, other passes" not in "\n".join(passes.lines(*planned(tmp_path, *alone), 30720))


def test_a_limit_of_documents_bounds_the_size_that_is_expected():
    """Of a thousand tokens each, or as long as the longest allowed."""
    whole, few, short = (
        expected_tokens(compose(["exp=selection_30pct", *more]).corpus)
        for more in (
            ["corpus.max_tokens_per_domain=null", "corpus.max_documents_per_domain=null"],
            ["corpus.max_documents_per_domain=10"],
            ["corpus.max_documents_per_domain=10", "corpus.max_bytes=400"],
        )
    )
    assert whole > few == 10 * short and few % 10_000 == 0
