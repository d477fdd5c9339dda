"""What was typed has an effect, or the run does not start."""

from dataclasses import fields, replace

import pytest

from repro import experiments, kinds
from repro.errors import SettingError
from repro.settings.compose import compose
from repro.settings.effect import NEEDS, check
from repro.settings.overrides import OPTIONS
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
        ("train.hostfile=hosts", ["train.launcher=deepspeed"]),
        ("train.ranks_per_node=2", ["train.launcher=slurm"]),
        ("train.muon_learning_rate=0.01", ["train=muon"]),
        ("train.final_lr=0.2", ["train.decay=0.5"]),
        ("heads.draws=3", ["exp.arms.attention_influence.heads.detector=random_matched_damage"]),
        ("model.layers=2", []),
        ("tracking.project=mine", ["tracking.wandb=offline"]),
        ("exp.arms.random.train.hostfile=hosts", ["train.launcher=deepspeed"]),
        ("exp.arms.random.train={hostfile: hosts}", ["train.launcher=deepspeed"]),
        ("exp.arms.random.mixture.full=3", ["exp.arms.random.mixture=add"]),
        ("exp.arms.random.heads.share=0.5", ["exp.arms.random.select=attention_influence"]),
        ("exp.arms.random.heads={share: 0.5}", ["exp.arms.random.select=attention_influence"]),
        ("exp.arms.random.score.mask=zero", ["exp.arms.random.select=attention_influence"]),
        ("run.cluster.tasks=64", ["run.executor=local"]),
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


@pytest.mark.parametrize(
    "exp", ["selection_30pct", "pilot", "score_corpus", "mirror_effect", "what_was_selected"]
)
def test_params_of_a_kind_that_reads_none_are_refused(exp):
    with pytest.raises(SettingError, match="exp.params.nope has no effect: .* reads no exp.params"):
        compose([f"exp={exp}", "scale=smoke", "exp.params.nope=3"])


def test_what_a_judge_is_told_needs_a_judge():
    base = ["exp=what_was_selected", "scale=smoke", "judge.documents=3"]
    with pytest.raises(SettingError, match=r"judge.documents=3 has no effect: it needs judge.url=\.\.\."):
        compose(base)
    compose([*base, "judge.url=http://127.0.0.1/v1", "judge.model=m"])


def test_the_table_names_settings_that_there_are():
    for group, needs in NEEDS.items():
        known = {f.name for f in fields(getattr(Settings(), group, OPTIONS.get(group)))}
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


PROBES = {
    "train": {"learning_rate": 1.2e-3}, "model": {"layers": 3}, "judge": {"url": "http://127.0.0.1/v1", "model": "m"},
    "analysis": {"seed": 7}, "budget": {"share": 0.123}, "eval": {"batch_size": 3}, "heads": {"seed": 7},
    "score": {"mask": "zero"}, "proxy": {"dtype": "bfloat16"}, "corpus": {"seed": 5}, "items": {"tasks": ["sciq"]},
}  # fmt: skip
KINDS = {"train": "selection_30pct", "evolve": "head_evolution", "mirror": "mirror_effect", "planted": "planted_truth",
         "agree": "score_agreement", "score": "score_corpus", "analyse": "what_was_selected", "arena": "arena"}  # fmt: skip


@pytest.mark.parametrize(
    "arms", [[], ["exp.arms.mine.select=attention_influence"]], ids=["as it is", "selecting"]
)
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_group_is_refused_where_no_stage_of_the_kind_changes_with_it(kind, arms):
    """The table against the stages themselves, also with an arm more that selects; the arena's arms set their
    models' sizes themselves.
    """
    assert set(KINDS) == set(kinds.NAMES)
    settings = compose([f"exp={KINDS[kind]}", "scale=smoke", *arms])

    def fingerprints(settings):
        return [stage.fingerprint for stage in experiments.build(settings).order()]

    before = fingerprints(settings)
    for group, values in PROBES.items():
        other = replace(settings, **{group: replace(getattr(settings, group), **values)})
        key, value = next(iter(values.items()))
        typed = [f"{group}.{key}={value}"]
        if fingerprints(other) == before:
            with pytest.raises(SettingError, match=f"{group}.{key}=.*has no effect"):
                check(settings, typed)
        else:
            check(settings, typed)


@pytest.mark.parametrize(
    ("typed", "beside", "says"),
    [
        ("budget.share=0.2", ["budget.frozen=cuts.json"], "needs budget.no frozen"),
        ("model.vocabulary=999", ["model.tokenizer=proxy"], "needs model.tokenizer=bpe"),
        ("heads.probes=9", ["heads.given=[[0,0]]"], "needs heads.no given"),
        ("corpus.folder=DIR", [], "needs corpus.kind=files"),
        ("corpus.mirror=DIR", [], "needs corpus.kind=git"),
        ("eval.shots={arc_esy: 3}", [], "did you mean 'arc_easy'"),
        ("eval.limits.piqa=3", ["eval.tasks=[sciq]"], "did you mean 'sciq'"),
    ],
)
def test_further_settings_that_nothing_would_read(typed, beside, says):
    with pytest.raises(SettingError, match=says) as error:
        compose([*BASE, *beside, typed])
    assert "\n" not in str(error.value)
