"""Grids of arms, seeds of their own, the choice of some of them, and values of an experiment at one scale."""

import pytest

from repro.errors import SettingError
from repro.experiments import build
from repro.experiments.arms import budget_of
from repro.pretrain.settings import Train
from repro.selection.settings import Budget
from repro.settings import arms, files
from repro.settings.compose import compose
from repro.sweep import members

GRID = {
    "arms": {"full": {"select": "all"}},
    "contrasts": [{"treatment": "random_20", "control": "full", "primary": True}],
    "grid": [
        {
            "select": ["length"],
            "share": [0.05, 0.2],
            "budgets": ["tokens", "passes"],
            "against": ["random", "full"],
        },
        {
            "select": ["random"],
            "share": [0.05, 0.2],
            "budgets": ["tokens", "passes"],
            "against": ["random", "full"],
        },
    ],
}


def test_a_grid_is_the_product_of_its_lists_with_each_arm_against_those_of_its_share_and_budget():
    made = arms.expand(GRID, "here")
    expected = {"full": {"select": "all"}}
    pairs = {("random_20", "full")}
    for select in ("length", "random"):
        for label, share in (("05", 0.05), ("20", 0.2)):
            for end, equal in (("", {}), ("_passes", {"equal_passes": True})):
                expected[f"{select}_{label}{end}"] = {"select": select, "budget": {"share": share}, **equal}
                pairs.add((f"{select}_{label}{end}", "full"))
                if select == "length":
                    pairs.add((f"length_{label}{end}", f"random_{label}{end}"))
    assert made["arms"] == expected and "grid" not in made and "grid" in GRID
    told = [(c["treatment"], c["control"]) for c in made["contrasts"]]
    assert set(told) == pairs and len(told) == len(pairs)
    assert made["contrasts"][0]["primary"] and not any(c.get("primary") for c in made["contrasts"][1:])


@pytest.mark.parametrize(
    ("block", "says"),
    [
        ({"select": ["lenght"], "share": [0.1]}, "'lenght' is not known; did you mean 'length'"),
        ({"select": ["length"], "share": [1.0]}, "everything is the arm full"),
        ({"select": ["length"], "share": [0.125]}, "whole number of per cent"),
        ({"select": ["length"], "share": [0.1], "budgets": ["steps"]}, "did you mean 'tokens'"),
        ({"select": ["length"], "shares": [0.1]}, "shares"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(block, says):
    with pytest.raises(SettingError, match=r"file: exp.grid: .*") as error:
        arms.expand({"grid": [block]}, "file")
    assert says in str(error.value)


def test_the_names_of_the_first_curve_are_still_there_and_all_arms_can_be_asked_for_at_any_scale():
    exp = compose(["exp=accuracy_vs_data", "scale=smoke", "exp.only=['*']"]).exp
    for name in ("attention_influence_05", "random_30_passes", "perplexity_low_50", "full"):
        assert name in exp.arms
    assert exp.arms["random_30_passes"].equal_passes and exp.arms["random_30_passes"].budget == {"share": 0.3}
    assert all(c.treatment in exp.arms and c.control in exp.arms for c in exp.contrasts)


def test_only_some_arms_run_with_the_contrasts_between_them_and_those_added():
    added = ["exp.arms.mine.select=dsir", "exp.arms.mine.budget.share=0.2"]
    exp = compose(
        ["exp=accuracy_vs_data", "scale=smoke", "exp.only=[full,'random_2*',attention_influence_20]", *added]
    ).exp
    assert list(exp.arms) == ["full", "attention_influence_20", "random_20", "random_20_passes", "mine"]
    assert {(c.treatment, c.control) for c in exp.contrasts} == {
        ("attention_influence_20", "random_20"),
        ("attention_influence_20", "full"),
        ("random_20", "full"),
        ("mine", "random_20"),
    }


def test_an_added_arm_is_compared_with_the_control_unless_it_is_said_with_what():
    base = ["exp=selection_30pct", "scale=smoke", "exp.arms.mine.select=length"]

    def against(*arguments):
        return [c.control for c in compose([*base, *arguments]).exp.contrasts if c.treatment == "mine"]

    assert against() == ["random"]
    said = "exp.contrasts=[{treatment: random, control: full, primary: true}"
    assert against(f"{said}]") == []
    assert against(f"{said},{{treatment: mine, control: full}}]") == ["full"]
    arena = compose(["exp=arena", "scale=smoke", "exp.arms.mine.select=bottom"]).exp
    ours = [(c.treatment, c.control) for c in arena.contrasts if c.treatment.startswith("mine")]
    assert sorted(ours) == [("mine_mini", "random_mini"), ("mine_tiny", "random_tiny")]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["exp.only=[fulll]"], "no arm fits 'fulll'; did you mean 'full'"),
        (["exp.only=[full]"], "the primary contrast"),
        (["exp.arms.random_50.seeds=[0]"], "exp.only leaves this arm out"),
        (["exp.arms.random_20.seeds=[1,1]"], "name a seed twice"),
        (["exp.seeds=[0,-1]"], "names a seed below 0"),
        (
            ["exp.contrasts=[{treatment: full, control: full, primary: true}]"],
            "compares full with full; name two",
        ),
        (
            ["exp.contrasts=[{treatment: full, control: random_20},{treatment: full, control: random_20}]"],
            "compares full with random_20 twice",
        ),
        (["train.beta2=1"], "train.beta2=1.0 must be in [0, 1)"),
        (["hardware.devices=0"], "hardware.devices=0 must be at least 1"),
        (["run.threads=0"], "run.threads=0 must be at least 1"),
        (["eval.max_length=-1"], "eval.max_length=-1 must be at least 1"),
        (["exp.smallest_effect=0"], "above 0"),
        (["exp.conclusions.beter=x"], "did you mean 'better'"),
        (["exp.empty_domains=drop"], "did you mean"),
        (["train.keep_at=[25]"], "shares of train.tokens"),
    ],
)
def test_mistakes_with_arms_are_refused_in_one_line(arguments, says):
    with pytest.raises(SettingError) as error:
        compose(["exp=accuracy_vs_data", "scale=smoke", *arguments])
    assert says in str(error.value) and "\n" not in str(error.value)


def test_values_for_one_scale_reach_that_scale_only_and_yield_to_the_command_line(tmp_path, monkeypatch):
    for group in files.CONFIGS.iterdir():
        (tmp_path / group.name).symlink_to(group) if group.name != "exp" else (tmp_path / "exp").mkdir()
    text = (files.CONFIGS / "exp" / "selection_30pct.yaml").read_text()
    file = tmp_path / "exp" / "mine.yaml"
    file.write_text(
        text
        + "scales: {smoke: {exp: {seeds: [7, 8], arms: {random: {seeds: [9]}}}, train: {tokens: 20480}}}\n"
    )
    monkeypatch.setattr(files, "CONFIGS", tmp_path)
    smoke, laptop = (compose(["exp=mine", f"scale={scale}"]) for scale in ("smoke", "laptop"))
    assert (smoke.exp.seeds, smoke.exp.arms["random"].seeds, smoke.train.tokens) == ([7, 8], [9], 20480)
    assert (laptop.exp.seeds, laptop.exp.arms["random"].seeds) == ([0, 1, 2], [])
    assert compose(["exp=mine", "scale=smoke", "train.tokens=40960"]).train.tokens == 40960
    for wrong, says in (
        ("{smok: {}}", "did you mean 'smoke'"),
        ("{smoke: {exp: {arms: {randm: {}}}}}", "no arm 'randm'"),
    ):
        file.write_text(f"{text}scales: {wrong}\n")
        with pytest.raises(SettingError, match=says):
            compose(["exp=mine", "scale=smoke"])


def test_an_arm_has_the_seeds_of_its_own_or_those_of_the_experiment():
    settings = compose(["exp=selection_30pct", "scale=smoke", "exp.arms.random.seeds=[0,1,2,3]"])
    made = build(settings).arms
    assert {name: list(by_seed) for name, by_seed in made.items()} == {
        "full": [0, 1], "random": [0, 1, 2, 3], "attention_influence": [0, 1], "perplexity_low": [0, 1]
    }  # fmt: skip


def test_an_arm_with_a_vocabulary_of_its_own_is_trained_on_its_own_token_ids():
    settings = compose(["scale=smoke", "exp=selection_30pct", "exp.arms.random.model={vocabulary: 512}"])
    experiment = build(settings)
    read = {name: by_seed[0]["pretrain"].inputs["tokens"] for name, by_seed in experiment.arms.items()}
    assert read["random"].settings["vocabulary"] == 512
    assert read["full"].settings["vocabulary"] == read["attention_influence"].settings["vocabulary"] == 1024
    assert sum(stage.name == "tokens" for stage in experiment.order()) == 2
    continued = build(
        compose(["scale=smoke", "exp=selection_30pct", "exp.arms.random.model={init_from: proxy}"])
    )
    assert continued.arms["random"][0]["pretrain"].inputs["tokens"].settings == {
        "tokenizer_of": "proxy",
        "starts_with": "its own prefix",
    }


def test_every_selection_is_made_before_the_first_training():
    names = [stage.name for stage in build(compose(["exp=selection_30pct", "scale=smoke"])).order()]
    assert max(i for i, name in enumerate(names) if name == "selection") < names.index("pretrain")


def test_models_are_kept_at_shares_of_the_arms_own_tokens():
    train = Train(tokens=40960, context=128, keep_at=[0.5, 0.25, 1.0], keep_at_tokens=[5000])
    assert (train.resolved().keep_at_tokens, train.resolved().keep_at) == ([5000, 10240, 20480], [])
    made = build(compose(["exp=accuracy_vs_data", "scale=smoke", "train.tokens=40960"])).arms
    kept = {name: made[name][0]["pretrain"].settings["train"]["keep_at_tokens"] for name in made}
    assert kept["random_20"] == [10240, 20480] and kept["random_20_passes"] == [2048, 4096]
    same = [compose(["exp=selection_30pct", "scale=smoke", "train.tokens=40960", given]) for given in
            ("train.keep_at=[0.25]", "train.keep_at_tokens=[10240]")]  # fmt: skip
    assert len({build(s).arms["random"][0]["pretrain"].fingerprint for s in same}) == 1


def test_what_is_typed_of_an_arms_budget_stands_above_its_selectors():
    arm = "exp.arms.attention_influence"
    for own, typed, wanted in (
        ("length_bins", "length_bins=10", 10),
        ("within_source", "within_group=false", False),
    ):
        given = [f"{arm}.select=attention_influence_{own}", f"{arm}.budget.{typed}"]
        budget = budget_of(compose(["exp=selection_30pct", *given]), "attention_influence")
        assert getattr(budget, typed.partition("=")[0]) == wanted
    with pytest.raises(SettingError, match="full.budget.share=0.5: the selector 'all' ranks nothing"):
        budget_of(compose(["exp=selection_30pct", "exp.arms.full.budget.share=0.5"]), "full")


def test_named_selections_rank_within_sources_and_within_length_bins():
    exp = compose(["exp=accuracy_vs_data", "scale=curve"]).exp
    budgets = {name: Budget(**arm.budget | arm.select.budget) for name, arm in exp.arms.items()}
    assert budgets["attention_influence_within_source_30"] == Budget(0.3, within_group=True)
    assert budgets["attention_influence_length_bins_20"] == Budget(0.2, length_bins=5)
    assert (
        len(exp.arms["attention_influence_within_source_30"].seeds) == len(exp.arms["random_30"].seeds) == 8
    )


def test_the_curve_compares_every_arm_it_trains():
    exp = compose(["exp=accuracy_vs_data", "scale=curve"]).exp
    assert {name for c in exp.contrasts for name in (c.treatment, c.control)} == set(exp.arms)
    primary = next(c for c in exp.contrasts if c.primary)
    assert (primary.treatment, primary.control) == ("attention_influence_30", "random_30")


def test_a_sweep_may_name_multiples_of_what_the_scale_sets():
    base = compose(["exp=selection_30pct", "scale=laptop"]).train.learning_rate
    made = members("learning_rate", ["scale=laptop"])
    assert [compose(a).train.learning_rate for a in made.values()] == pytest.approx(
        [base / 2, base, 2 * base]
    )
    assert set(compose(next(iter(made.values()))).exp.arms) == {"random", "attention_influence"}
