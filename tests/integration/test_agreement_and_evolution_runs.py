"""Both experiments at ``scale=smoke`` from settings to the page; what their arms share."""

import json

import pytest

from repro.errors import SettingError
from repro.experiments import build
from repro.plan.table import describe, estimate_stage
from repro.run import run
from repro.settings.compose import compose

AGREEMENT = ["exp=score_agreement", "scale=smoke"]
EVOLUTION = ["exp=head_evolution", "scale=smoke"]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("work")


def read(folder, text):
    summary = json.loads((folder / "summary.json").read_text())
    page = (folder / "report.html").read_text()
    assert summary["verdict"]["words"] == "none" and summary["verdict"]["sentence"] in " ".join(text.split())
    return summary, page


def stages(arms):
    return {name: by_seed[0] for name, by_seed in arms.items()}


def test_scores_are_compared_end_to_end(work, capsys):
    settings = compose([*AGREEMENT, f"work={work}"])
    wanted = ("attention_influence", "difference", "window_128", "length")
    settings.exp.arms = {name: settings.exp.arms[name] for name in wanted}
    folder = run(settings)
    text = capsys.readouterr().out
    summary, page = read(folder, text)
    assert list(summary["agreement"]) == [f"{name} | attention_influence" for name in wanted[1:]]
    for pair, domains in summary["agreement"].items():
        assert set(domains) == set(summary["corpus"]["domains"])
        for domain, found in domains.items():
            assert found["documents"] + found["dropped"] == summary["corpus"]["domains"][domain]["documents"]
            low, high = found["spearman"]["low"], found["spearman"]["high"]
            assert low is high is None if found["units"] < 5 else low <= found["spearman"]["value"] <= high
            assert pair.startswith("length") or found["spearman"]["value"] > 0.5
    assert "Spearman" in text and "length " in text and "top 20 % shared" in text
    assert 'id="agreement"' in page and "figure-agreement" in page
    rows = (folder / "tables" / "agreement.md").read_text()
    assert "1 of 1" in rows and (folder / "figures" / "agreement.svg").is_file()
    assert describe(settings).count(" cached ") == len(build(settings).order())


def test_heads_are_followed_end_to_end(work, capsys):
    settings = compose([*EVOLUTION, f"work={work}", "heads.probes=2"])
    folder = run(settings)
    text = capsys.readouterr().out
    summary, page = read(folder, text)
    assert list(summary["evolution"]) == ["retrieval", "induction"]
    for found in summary["evolution"].values():
        rows = found["checkpoints"]
        assert [row["tokens"] for row in rows] == [2048, 4096, 10240, 20480, 40960]  # 20 steps, geometric
        assert all(len(row["scores"]) == 2 and len(row["scores"][0]) == 2 for row in rows)
        assert found["probe"]["probe_tokens"] == 256  # as far as the models read
        assert rows[-1]["shared_with_last"] in (1.0, None)
    assert "highest score" in text and "40,960 tokens" in text
    assert (
        'id="evolution"' in page
        and "figure-evolution_retrieval" in page
        and "figure-evolution_induction" in page
    )
    assert (folder / "tables" / "evolution.csv").is_file() and (folder / "figures" / "learning.svg").is_file()
    assert not list(work.glob("artifacts/score/*everything*"))


def test_arms_share_what_they_do_not_change(work):
    arms = stages(build(compose([*AGREEMENT, f"work={work}"])).arms)
    reference = arms["attention_influence"]

    def same(name, stage):
        return arms[name][stage].fingerprint == reference[stage].fingerprint

    def detection(name):
        return arms[name]["heads"].inputs["detection"].fingerprint

    for name in ("mask_zero", "mask_mean", "window_128"):
        assert same(name, "heads") and not same(name, "score")
    for name in ("share_1_percent", "share_10_percent", "random_same_layers", "random_same_layers_again"):
        assert detection(name) == detection("attention_influence") and not same(name, "heads")
    for name in ("difference", "perplexity_low", "length", "compressibility", "random_documents"):
        assert same(name, "score") and not same(name, "ranking")
    for name in ("probe_seed_1", "induction_heads"):
        assert detection(name) != detection("attention_influence")
    scores = {arm["score"].fingerprint for arm in arms.values()}
    assert len(scores) == 12  # float32 is what the proxy of this scale computes in anyway
    assert (
        arms["random_same_layers"]["heads"].fingerprint
        != arms["random_same_layers_again"]["heads"].fingerprint
    )


def test_contrasts_name_the_pairs():
    settings = compose([*AGREEMENT, "exp.contrasts=[{treatment: mask_zero, control: mask_mean}]"])
    assert list(build(settings).pairs) == ["mask_zero | mask_mean"]
    settings.exp.arms = {"length": settings.exp.arms["length"]}
    settings.exp.contrasts = []
    with pytest.raises(SettingError, match="needs two arms"):
        build(settings)
    with pytest.raises(SettingError, match="did you mean exp.params.draws"):
        build(compose([*AGREEMENT, "exp.params.drawss=5"]))


def test_published_checkpoints_are_one_series(tmp_path):
    """The arms of the Pythia experiment, with local folders for the hub's revisions; planned with their own sizes."""
    from repro.proxy.built import build as built

    model, tokenizer = built()
    revisions = ("step1000", "step2000")
    for name in revisions:
        model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    settings = compose(
        ["exp=head_evolution_pythia", "scale=smoke", f"work={tmp_path / 'work'}", "proxy.dtype=float32"]
    )
    settings.exp.arms = {name: settings.exp.arms[name] for name in revisions}
    for name, arm in settings.exp.arms.items():
        assert arm.proxy == {"revision": name}
        arm.proxy = {"kind": "folder", "path": str(tmp_path / name)}
    experiment = build(settings)
    assert list(experiment.pairs) == ["retrieval", "induction"]
    series = experiment.pairs["retrieval"]
    assert series.settings["checkpoints"] == [["step1000", 2_097_152_000], ["step2000", 4_194_304_000]]
    assert not {"pretrain", "score", "tokens"} & {stage.name for stage in experiment.order()}
    detection = next(stage for stage in experiment.order() if stage.name == "detection")
    parameters = sum(p.numel() for p in model.parameters())
    assert estimate_stage(detection, 1e6).flops == 2 * parameters * 8 * 1024
    # one with less room: all are asked the same probes
    model.config.max_position_embeddings = 512
    model.config.save_pretrained(tmp_path / revisions[1])
    detections = [stage for stage in build(settings).order() if stage.name == "detection"]
    assert len(detections) == 4
    assert {stage.settings["probe_tokens"] for stage in detections} == {512}


def test_a_plan_knows_whose_checkpoints_they_are(work):
    settings = compose([*(a for a in EVOLUTION if a != "scale=smoke"), "scale=laptop", f"work={work}"])
    stages = build(settings).order()
    detection = next(stage for stage in stages if stage.name == "detection")
    assert estimate_stage(detection, 1e6).flops == pytest.approx(
        2 * 1.3e6 * settings.heads.probes * 256, rel=0.1
    )
    assert all(estimate_stage(stage, 1e6).disk_bytes == 0 for stage in stages if stage.name == "proxy")
    pretrain = next(stage for stage in stages if stage.name == "pretrain")
    assert pretrain.settings["train"]["keep_at_tokens"] == [4096, 8192, 16384, 32768, 65536]
    assert "model 1m" in describe(settings)
