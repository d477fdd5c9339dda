"""What is refused before it has cost anything."""

import json

import pytest

from repro import checks
from repro.config import SettingError, compose
from repro.evaluate import tasks


@pytest.mark.parametrize("exp", ["selection_30pct", "mirror_effect"])
def test_a_misspelt_benchmark_is_found_before_the_first_stage(exp):
    with pytest.raises(SettingError, match="no task 'arc_esy'; did you mean 'arc_easy'"):
        checks.names(compose([f"exp={exp}", "scale=smoke", "eval.tasks=[arc_easy,arc_esy]"]))
    with pytest.raises(SettingError, match="eval.text_tasks='drp' is not known; did you mean 'drop'"):
        checks.names(compose([f"exp={exp}", "scale=smoke", "eval.text_tasks=[drp]"]))


def test_names_are_right_in_every_experiment_that_evaluates_and_of_no_matter_elsewhere():
    for scale in ("smoke", "laptop", "paper"):
        checks.names(compose(["exp=selection_30pct", f"scale={scale}"]))
    checks.names(compose(["exp=score_corpus", "scale=smoke", "eval.tasks=[arc_esy]"]))


def test_names_that_are_not_looked_for_in_lm_eval_are_there():
    known = {name for name in tasks.TASKS if "/" not in name} - tasks.OWN_NAMES
    assert known <= set(tasks.official())


def corpus(folder, **documents):
    domains = {name: {"documents": n} for name, n in documents.items()}
    (folder / "counts.json").write_text(json.dumps({"domains": domains}))
    return folder


def test_a_domain_too_small_to_train_on_a_share_of_is_refused_behind_the_corpus(tmp_path):
    folder = corpus(tmp_path, web=500, tiny=2, none=0)
    with pytest.raises(SettingError, match=r"'tiny' \(2 documents\): arm 'random' .*corpus.domains=\[web,none\]"):
        checks.domains(compose(["exp=selection_30pct", "scale=smoke"]), folder)
    checks.domains(compose(["exp=selection_30pct", "scale=smoke", "budget.share=0.5"]), folder)
    checks.domains(compose(["exp=paper_mixture", "scale=smoke"]), folder)  # trained on every document, and some twice
    checks.domains(compose(["exp=score_corpus", "scale=smoke"]), folder)
