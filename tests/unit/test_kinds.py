"""Kinds of experiments are folders: found by listing them, each with a docstring and its stages; a new one needs no line."""

import importlib
from dataclasses import replace

import pytest

from repro import experiments, kinds
from repro.errors import SettingError
from repro.settings.compose import compose
from repro.settings.experiment import Experiment
from repro.settings.files import options
from repro.store import Stage
from repro.store.cost import Cost

MINE = """
from repro.experiments import Experiment, arms


def stages(settings):
    return Experiment(arms.with_corpus(settings))
"""


@pytest.mark.parametrize("kind", kinds.NAMES)
def test_a_kind_says_what_it_is_and_some_experiment_is_of_it(kind):
    assert importlib.import_module(f"repro.experiments.{kind}").__doc__
    assert kind in {compose([f"exp={name}", "scale=smoke"]).exp.kind for name in options("exp")}


def test_a_folder_is_a_kind(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "stages.py").write_text(MINE)
    monkeypatch.setattr(experiments, "__path__", [*experiments.__path__, str(tmp_path)])
    monkeypatch.setattr(kinds, "NAMES", (*kinds.NAMES, "mine"))
    settings = compose(["exp=score_corpus", "scale=smoke", "exp.kind=mine"])
    assert [stage.name for stage in experiments.build(settings).order()] == ["items", "corpus"]


def test_a_kind_that_is_none_is_refused_with_the_nearest():
    with pytest.raises(SettingError, match="exp.kind='trian' is not known; did you mean 'train'"):
        Experiment(kind="trian")


def test_what_a_stage_costs_is_no_part_of_its_identity():
    plain = Stage("a", "b", {"x": 1}, lambda context: None)
    assert replace(plain, cost=lambda known: Cost(1.0)).fingerprint == plain.fingerprint
