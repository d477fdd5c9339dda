"""Composition of settings: precedence, and one line for every mistake."""

import pytest

from repro import device
from repro.errors import SettingError
from repro.fetch import hub_commits
from repro.plan import table as plan
from repro.settings.compose import compose
from repro.settings.files import CONFIGS, options
from repro.settings.root import Settings, as_dict, to_yaml


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
        ("exp.arms.random.select.budget.shar=1", "did you mean exp.arms.random.select.budget.share?"),
        ("exp.arms.random.mixture.weight=many", "exp.arms.random.mixture.weight"),
        ("exp.arms.random.mixture=3", "mixture=3 is not known; did you mean"),
        ("exp.arms.random.mixture=null", "must name an option"),
        ("corpus=files", "corpus.paths"),
        ("corpus=wide", "need corpus.folder=DIR: a folder of books-00000.jsonl.zst and 21 more"),
        (
            "corpus=git",
            "corpus.kind=git needs corpus.git=[{repositories: {owner/name: COMMIT}, domain: NAME}]",
        ),
        ("corpus.git_url=ext::sh{}", "must start with https://, ssh:// or file://"),
        ("corpus.git_url=https://host/", "have one {} for owner/name"),
        ("corpus.sample=end", "corpus.sample='end' is not known; did you mean 'last'"),
        ("exp=", "name an experiment: exp=NAME with one of accuracy_vs_data"),
        ("scale=../scale/smoke", "is not known"),
        ("budget=0.3", "did you mean budget.<key>=0.3?"),
        ("budget.share=30%", "budget.share=30% must be a number; write 0.3"),
        ("heads.share=abc", "heads.share=abc must be a number"),
        ("heads.probes=3.5", "heads.probes=3.5 must be a whole number"),
        ("train.compile=maybe", "train.compile=maybe must be true or false"),
        ("corpus.paths=x.jsonl", "corpus.paths=x.jsonl must be a list: write corpus.paths=[x.jsonl]"),
        ("exp.only=null", "exp.only=null must be a list: write exp.only=[]"),
        ("exp.seeds=[a]", "exp.seeds=[a] must be a list of whole numbers"),
        ("corpus.paths=[x.jsonl", "a bracket, brace or quote left open"),
        ("exp.seeds=[]", "exp.seeds=[0]"),
        ("exp.arms={}", "leaves no arm"),
        ("exp.arms.atention_influence.select=random", "did you mean the arm 'attention_influence'"),
        ("exp.arms.random.budget.share=abc", "exp.arms.random.budget.share=abc must be a number"),
        (
            "exp.arms.random.select.budget.share=abc",
            "exp.arms.random.select.budget.share=abc must be a number",
        ),
        ("exp.arms.random.train.tokens=abc", "exp.arms.random.train.tokens=abc must be a whole number"),
        (
            "exp.arms.random.select.params.x=.nan",
            "exp.arms.random.select.params.x=nan is not a finite number",
        ),
        ("train.learning_rate=.nan", "train.learning_rate=nan must be above 0"),
        ("train.learning_rate=.inf", "train.learning_rate=inf is not a finite number"),
        ("train.learning_rate=0", "must be above 0"),
        ("train.clip=-1", "must be above 0"),
        ("train.batch_sequences=0", "train.batch_sequences=0 must be at least 1"),
        ("train.context=0", "train.context=0 must be at least 1"),
        ("train.warmup=-0.1", "train.warmup=-0.1 must be at least 0"),
        ("train.processes=0", "train.processes=0 must be at least 1"),
        ("model.hidden=0", "model.hidden=0 must be at least 1"),
        ("model.heads=0", "model.heads=0 must be at least 1"),
        ("model.vocabulary=100", "model.vocabulary=100 must be at least 257"),
        ("heads.shots=-1", "heads.shots=-1 must be at least 0"),
        ("heads.value_tokens=0", "heads.value_tokens=0 must be at least 1"),
        ("score.tokens_per_batch=0", "score.tokens_per_batch=0 must be at least 1"),
        ("corpus.max_bytes=0", "corpus.max_bytes=0 must be at least 1"),
        ("corpus.max_documents_per_domain=0", "must be at least 1"),
        ("corpus.minhash_threshold=1.5", "corpus.minhash_threshold=1.5 must be in (0, 1]"),
        ("corpus.minhash_permutations=0", "corpus.minhash_permutations=0 must be at least 2"),
        ("eval.text_bytes=0", "eval.text_bytes=0 must be at least 1"),
        ("device=gpu", "valid: auto, cpu, cuda"),
        ("work=", "work= must be text"),
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
def test_every_experiment_composes_and_plans_at_every_scale_without_the_hub(
    exp, scale, tmp_path, monkeypatch
):
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hub_commits, "_hub_away", True)
    monkeypatch.setattr(
        device, "measured", lambda: {"float32": 1e11, "bfloat16": 2e11, "measured": "2026-01-01"}
    )
    settings = compose([f"exp={exp}", f"scale={scale}", f"work={tmp_path / 'w'}"])
    assert isinstance(settings, Settings) and settings.exp.name == exp and settings.exp.question
    assert to_yaml(settings)
    assert "to run: " in plan.describe(settings)
    assert not list(tmp_path.iterdir())


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
            "corpus/wide": ["corpus.folder=x"],
            "corpus/git": ["corpus.git=[{repositories: {a/b: " + "1" * 40 + "}, domain: d}]"],
            "items/folder": ["items.folder=x"],
            "proxy/folder": ["proxy.path=x"],
            "proxy/gguf": ["proxy.path=x.gguf"],
            "proxy/hub": ["proxy.repo=owner/name"],
        }
        extra = needs.get(f"{group}/{option}", [])
        compose(["exp=selection_30pct", f"{group}={option}", *extra])


def test_a_resolved_config_has_no_unresolved_option_names():
    arms = as_dict(compose(["exp=paper_mixture", "scale=smoke"]))["exp"]["arms"]
    assert all(isinstance(arm["select"], dict) and isinstance(arm["mixture"], dict) for arm in arms.values())


def test_an_arms_own_numbers_have_the_type_of_the_setting():
    """1 and 1.0 would be two fingerprints; a number in quotes is a number."""
    arm = compose(
        ["exp=selection_30pct", "exp.arms.random.budget.share=1", "exp.arms.random.train.tokens='999424'"]
    ).exp.arms
    assert (arm["random"].budget, type(arm["random"].budget["share"])) == ({"share": 1.0}, float)
    assert arm["random"].train == {"tokens": 999424}


def test_a_new_arm_may_differ_from_another_in_a_number():
    assert "random2" in compose(["exp=selection_30pct", "exp.arms.random2.select=random"]).exp.arms
