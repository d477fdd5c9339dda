"""Composition of settings: precedence, and one line for every mistake."""

import pytest

from repro.config import CONFIGS, SettingError, Settings, as_dict, compose, options, to_yaml


def test_precedence_is_option_then_scale_then_experiment_then_command_line():
    base = compose(["exp=selection_30pct", "scale=laptop"])
    assert base.score.window == 256  # the scale's value over the option's
    assert base.budget.share == 0.3  # the experiment's value over the default
    changed = compose(["exp=selection_30pct", "scale=laptop", "score.window=128", "budget.share=0.2"])
    assert (changed.score.window, changed.budget.share) == (128, 0.2)


def test_group_option_of_the_command_line_wins_over_the_scale():
    assert compose(["exp=selection_30pct", "scale=laptop", "model=10m"]).model.name == "10m"


def test_an_arm_takes_its_selector_from_its_option_file_and_from_the_command_line():
    settings = compose(["exp=selection_30pct", "exp.arms.attention_influence.select=perplexity_high"])
    assert settings.exp.arms["attention_influence"].select.selector == "perplexity"
    assert settings.exp.arms["full"].select.selector == "all"
    assert settings.exp.arms["full"].mixture.kind == "alone"


def test_values_below_an_arms_option_keep_the_option():
    arm = compose(["exp=selection_30pct", "exp.arms.attention_influence.select.budget.share=0.1"]).exp.arms[
        "attention_influence"
    ]
    assert arm.select.selector == "attention_influence" and arm.select.budget == {"share": 0.1}
    name = "full_plus_attention_influence"
    arm = compose(["exp=paper_mixture", f"exp.arms.{name}.mixture.weight=2"]).exp.arms[name]
    assert (arm.mixture.kind, arm.mixture.weight, arm.select.selector) == ("add", 2, "attention_influence")


def test_the_option_of_an_arm_comes_before_the_values_below_it():
    """As configs/select/imported.yaml says, in any order."""
    given = ["exp.arms.random.select.params.path=my.parquet", "exp.arms.random.select=imported"]
    for arguments in (given, given[::-1]):
        select = compose(["exp=selection_30pct", *arguments]).exp.arms["random"].select
        assert select.selector == "imported"
        assert (select.params["path"], select.params["id_column"]) == ("my.parquet", "doc_id")


def test_a_new_arm_begins_with_what_it_selects():
    new = ["exp.arms.new.mixture=add", "exp.arms.new.budget.share=0.1", "exp.arms.new.select=length"]
    settings = compose(["exp=selection_30pct", *new])
    arm = settings.exp.arms["new"]
    assert (arm.select.selector, arm.mixture.kind, arm.budget) == ("column", "add", {"share": 0.1})
    assert list(settings.exp.arms)[-1] == "new" and len(settings.exp.arms) == 5


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("scale=labtop", "'laptop'"),
        ("budjet.share=0.1", "budget"),
        ("budget.shar=0.1", "budget.share"),
        ("budget.share=30", "budget.share=0.3"),
        ("budget.share=many", "budget.share"),
        ("train.tokens=12", "below one batch"),
        ("train.micro_batch=3", "multiple"),
        ("score.window=1", "at least 2"),
        ("score.max_tokens=16", "score.window"),
        ("exp.seeds=[1,1]", "twice"),
        ("heads.share=0", "(0, 1]"),
        ("model.heads=5", "multiple"),
        ("share", "group=option"),
        ("exp.arms.random.select=randm", "'random'"),
        ("exp.arms.atention_influence.budget.share=0.1", "did you mean 'attention_influence'"),
        ("exp.arms.zzz.mixture=add", "has no arm 'zzz'"),
        ("exp.arms.random.select.prams.path=x", "exp.arms.random.select.params"),
        ("exp.arms.random.select.budget.shar=1", "'share'"),
        ("exp.arms.random.mixture.weight=many", "exp.arms.random.mixture.weight"),
        ("exp.arms.random.mixture=3", "must name an option"),
        ("corpus=files", "corpus.paths"),
    ],
)
def test_mistakes_are_refused_in_one_line_with_the_mend(argument, says):
    with pytest.raises(SettingError) as error:
        compose(["exp=selection_30pct", argument])
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_an_experiment_must_be_named():
    with pytest.raises(SettingError, match="selection_30pct"):
        compose(["scale=smoke"])


@pytest.mark.parametrize("scale", options("scale"))
@pytest.mark.parametrize("exp", options("exp"))
def test_every_experiment_composes_at_every_scale(exp, scale):
    settings = compose([f"exp={exp}", f"scale={scale}"])
    assert isinstance(settings, Settings) and settings.exp.name == exp and settings.exp.question
    assert to_yaml(settings)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*/*.yaml")), ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_every_shipped_yaml_composes(path, tmp_path):
    group, option = path.parent.name, path.stem
    if group == "select":
        compose(["exp=selection_30pct", f"exp.arms.attention_influence.select={option}"])
    elif group == "mixture":
        compose(["exp=selection_30pct", f"exp.arms.attention_influence.mixture={option}"])
    elif group == "sweep":
        from repro.sweep import members

        for overrides in members(option, []).values():
            compose(overrides)
    elif group not in ("exp", "scale"):
        needs = {
            "corpus/files": ["corpus.paths=[x.jsonl]"],
            "items/folder": ["items.folder=x"],
            "proxy/folder": ["proxy.path=x"],
            "proxy/hub": ["proxy.repo=owner/name"],
        }
        extra = needs.get(f"{group}/{option}", [])
        compose(["exp=selection_30pct", f"{group}={option}", *extra])


def test_a_resolved_config_has_no_unresolved_option_names():
    arms = as_dict(compose(["exp=paper_mixture", "scale=smoke"]))["exp"]["arms"]
    assert all(isinstance(arm["select"], dict) and isinstance(arm["mixture"], dict) for arm in arms.values())
