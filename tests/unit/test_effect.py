"""What was typed has an effect, or the run does not start."""

from dataclasses import fields

import pytest

from repro.effect import NEEDS
from repro.errors import SettingError
from repro.settings.compose import compose
from repro.settings.root import Settings

BASE = ["exp=selection_30pct", "scale=smoke"]


@pytest.mark.parametrize(
    ("typed", "mended"),
    [
        ("corpus.paths=[x.jsonl]", ["corpus=files"]),
        ("corpus.domain_field=topic", ["corpus=files", "corpus.paths=[x]"]),
        ("corpus.minhash_threshold=0.5", []),
        ("items.folder=DIR", ["items=folder"]),
        ("items.revisions={a/b: main}", ["items=hub"]),
        ("proxy.path=DIR", ["proxy=folder"]),
        ("proxy.repo=a/b", ["proxy=hub"]),
        ("judge.documents=3", ["judge.url=http://127.0.0.1/v1", "judge.model=m"]),
        ("train.hostfile=hosts", ["train.launcher=deepspeed"]),
        ("train.ranks_per_node=2", ["train.launcher=slurm"]),
        ("train.muon_learning_rate=0.01", ["train=muon"]),
        ("train.final_lr=0.2", ["train.decay=0.5"]),
        ("heads.draws=3", ["exp.arms.random.heads.detector=random_matched_damage"]),
        ("model.layers=2", []),
        ("tracking.project=mine", ["tracking.wandb=offline"]),
        ("exp.arms.random.train.hostfile=hosts", ["train.launcher=deepspeed"]),
    ],
)
def test_a_setting_without_effect_is_refused_and_beside_what_it_needs_taken(typed, mended):
    off = {"corpus.minhash_threshold=0.5": ["corpus.near_duplicates=off"], "model.layers=2": ["model.init_from=DIR"],
           "tracking.project=mine": ["tracking.wandb=disabled"], "train.final_lr=0.2": ["train.decay=0"],
           "corpus.domain_field=topic": ["corpus=files", "corpus.paths=[x]", "corpus.domain_from=constant"]}  # fmt: skip
    with pytest.raises(SettingError) as error:
        compose([*BASE, typed, *off.get(typed, [])])
    assert typed in str(error.value) and "has no effect" in str(error.value) and "\n" not in str(error.value)
    compose([*BASE, *mended, typed])


def test_the_table_names_settings_that_there_are():
    for group, needs in NEEDS.items():
        known = {f.name for f in fields(getattr(Settings(), group))}
        assert {name for (setting, _, _), needing in needs for name in (setting, *needing)} <= known


BESIDE = {
    "corpus=files": ["corpus.paths=[x.jsonl]"],
    "corpus=git": ["corpus.git=[{repositories: {owner/name: " + "a" * 40 + "}, domain: d}]"],
    "corpus=wide": ["corpus.folder=x"],
    "proxy=folder": ["proxy.path=x"],
    "proxy=gguf": ["proxy.path=x.gguf"],
    "proxy=hub": ["proxy.repo=owner/name"],
}


def test_an_option_chosen_by_hand_wins_over_scale_and_experiment():
    import yaml

    from repro.settings.files import CONFIGS, options
    from repro.settings.root import GROUPS

    for scale in ("laptop",):
        for group in GROUPS:
            for option in options(group):
                given = BESIDE.get(
                    f"{group}={option}", []
                )  # a path or a list without which the option is refused
                wanted = yaml.safe_load((CONFIGS / group / f"{option}.yaml").read_text()) or {}
                found = getattr(
                    compose(["exp=selection_30pct", f"scale={scale}", f"{group}={option}", *given]), group
                )
                for key, value in wanted.items():
                    if not isinstance(value, dict | list):
                        assert getattr(found, key) == value, (scale, group, option, key)


@pytest.mark.parametrize("twice", [["budget.share=0.2", "budget.share=0.3"], ["model=1m", "model=10m"]])
def test_one_setting_typed_twice_is_refused(twice):
    with pytest.raises(SettingError, match="would have no effect"):
        compose([*BASE, *twice])
