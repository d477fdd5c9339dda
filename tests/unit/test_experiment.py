"""From settings to stages: what an arm overrides, and what is shared."""

import pytest

from repro.errors import SettingError
from repro.experiments import build
from repro.pretrain.settings import Train
from repro.settings.compose import compose


def test_a_shorter_arm_keeps_the_models_up_to_its_end():
    every = [
        "exp=accuracy_vs_data",
        "scale=smoke",
        "exp.only=['*']",
        "train.tokens=40960",
        "train.keep_at=[]",
    ]
    settings = compose([*every, "train.keep_at_tokens=[4096,12288,40960]"])
    arms = build(settings).arms
    kept = {name: arms[name][0]["pretrain"].settings["train"]["keep_at_tokens"] for name in arms}
    assert kept["random_30"] == [4096, 12288, 40960] and kept["random_30_passes"] == [4096, 12288]
    assert kept["random_20_passes"] == [4096]
    with pytest.raises(SettingError, match="keep_at_tokens"):
        compose([*every, "train.keep_at_tokens=[40961]"])


def test_a_model_kept_at_the_end_is_that_of_the_last_step():
    """The token budget need not be a whole number of batches."""
    train = Train(
        tokens=8 * 64 * 12 + 500, context=64, batch_sequences=8, keep_at_tokens=[8 * 64 * 12 + 500, 600, 1]
    )
    assert train.kept_steps == [1, 12]


def test_planted_documents_are_scored_with_the_heads_of_the_arm_found_in_the_corpus_as_it_is():
    own = [
        "exp.arms.dsir.heads.share=0.5",
        "exp.arms.random.score.mask=zero",
        "exp.arms.length.proxy.dtype=bfloat16",
    ]
    plain, changed = (build(compose(["exp=planted_truth", "scale=smoke", *more])) for more in ([], own))
    found = {name: by_seed[0]["found"] for name, by_seed in changed.arms.items()}
    for name, before in plain.arms.items():
        same = found[name].fingerprint == before[0]["found"].fingerprint
        assert same == (name not in ("dsir", "random", "length")), name
    score = found["dsir"].inputs["scores"]
    assert score.inputs["heads"].settings["share"] == 0.5
    assert (
        score.inputs["corpus"].name == "planted" and score.inputs["heads"].inputs["corpus"].name == "corpus"
    )
    assert found["random"].inputs["scores"].settings["mask"] == "zero"
    assert found["length"].inputs["scores"].settings["dtype"] == "bfloat16"
    assert plain.shared["score"].fingerprint == plain.arms["random"][0]["found"].inputs["scores"].fingerprint


def test_damage_is_matched_for_the_mask_that_documents_are_scored_with():
    control = "exp.arms.b.heads.detector=random_matched_damage"
    base = ["exp=score_agreement", "scale=smoke", "exp.arms.b.select=attention_influence", control]
    build(compose(base))
    with pytest.raises(SettingError, match="matches what the uniform mask does, and score.mask=zero"):
        build(compose([*base, "exp.arms.b.score.mask=zero"]))


def test_scores_that_are_written_out_are_those_of_the_arm():
    experiment = build(
        compose(["exp=score_corpus", "scale=smoke", "exp.arms.attention_influence.heads.share=0.5"])
    )
    selection = experiment.arms["attention_influence"][0]["selection"]
    assert experiment.shared["score"].fingerprint == selection.inputs["scores"].fingerprint
    assert experiment.shared["heads"].settings["share"] == 0.5
    assert sum(stage.name == "score" for stage in experiment.order()) == 1
    with pytest.raises(SettingError, match="writes one set of scores, and its arms have 2"):
        build(
            compose(
                ["exp=score_corpus", "scale=smoke", "exp.arms.b.select=bottom", "exp.arms.b.heads.share=0.5"]
            )
        )


def test_every_model_is_there_before_hours_of_work_on_another():
    """A second proxy that cannot be had would end a run after the first one's scoring."""
    second = "exp.arms.large.proxy={kind: gguf, name: qwen2.5-coder-0.5b-instruct, parameters: 6.3e8}"
    arguments = ["exp=score_agreement", "scale=smoke", "exp.arms.large.select=attention_influence", second]
    order = [
        stage.name for stage in build(compose([*arguments, "exp.only=[attention_influence,large]"])).order()
    ]
    assert order.count("proxy") == 2 and order.count("score") == 2
    assert order.index("corpus") > len(order) - 1 - order[::-1].index("proxy")
