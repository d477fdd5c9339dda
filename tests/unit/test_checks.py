"""What is refused before it has cost anything."""

import json
import shutil
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from repro.errors import SettingError
from repro.evaluate import tasks
from repro.experiments import build
from repro.fetch import assets, hub_commits
from repro.plan import checks
from repro.pretrain import cost
from repro.settings.compose import compose
from repro.store import Store


def planned(arguments):
    """Settings, and the stages that they mean."""
    settings = compose(arguments)
    return settings, build(settings)


@pytest.mark.parametrize("exp", ["selection_30pct", "mirror_effect"])
def test_a_misspelt_benchmark_is_found_before_the_first_stage(exp):
    with pytest.raises(SettingError, match="no task 'arc_esy'; did you mean 'arc_easy'"):
        checks.names(*planned([f"exp={exp}", "scale=smoke", "eval.tasks=[arc_easy,arc_esy]"]))
    with pytest.raises(SettingError, match="eval.text_tasks='drp' is not known; did you mean 'drop'"):
        checks.names(*planned([f"exp={exp}", "scale=smoke", "eval.text_tasks=[drp]"]))


def test_names_are_right_in_every_experiment_that_evaluates_and_of_no_matter_elsewhere():
    for scale in ("smoke", "laptop", "paper"):
        checks.names(*planned(["exp=selection_30pct", f"scale={scale}"]))
    settings, experiment = planned(["exp=score_corpus", "scale=smoke"])
    settings.eval.tasks = ["arc_esy"]  # of the scale's file: typed it would be refused
    checks.names(settings, experiment)


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("exp.arms.attention_influence.seeds=[7]", "attention_influence and random share no seed"),
        (
            "score.sample=0.5",
            "attention_influence ranks by scores, and could take none of the other documents",
        ),
    ],
)
def test_what_would_show_after_the_last_training_only_is_refused_before_the_first(argument, said):
    with pytest.raises(SettingError, match=said):
        checks.names(*planned(["exp=selection_30pct", "scale=smoke", argument]))
    arms = ["attention_influence", "perplexity_low"]
    learned = [f"exp.arms.{arm}.select=distilled" for arm in arms]
    checks.names(*planned(["exp=selection_30pct", "scale=smoke", "score.sample=0.5", *learned]))


def test_names_that_are_not_looked_for_in_lm_eval_are_there():
    known = {name for name in tasks.TASKS if "/" not in name} - tasks.OWN_NAMES
    assert known <= set(tasks.official())


def test_a_work_folder_that_cannot_be_made_and_a_device_that_is_not_there(tmp_path, monkeypatch):
    import torch

    (tmp_path / "file").write_text("")
    with pytest.raises(
        SettingError, match="work=.*file/below: cannot make the folder .Not a directory.; name another"
    ):
        checks.machine(*planned(["exp=score_corpus", f"work={tmp_path}/file/below"]))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(SettingError, match="device=cuda: PyTorch finds 0 CUDA devices here; use device=auto"):
        checks.machine(*planned(["exp=score_corpus", f"work={tmp_path}", "device=cuda"]))


def test_tracking_online_needs_a_login_before_the_first_training(tmp_path, monkeypatch):
    asked = ["scale=smoke", f"work={tmp_path}"]
    monkeypatch.setattr(checks, "logged_in", lambda: False)
    with pytest.raises(SettingError, match="tracking.wandb=online: there is no W&B login.*; wandb login, or"):
        checks.machine(*planned(["exp=selection_30pct", "tracking.wandb=online", *asked]))
    checks.machine(*planned(["exp=selection_30pct", *asked]))
    trains_nothing = planned(["exp=score_corpus", *asked])
    trains_nothing[0].tracking.wandb = "online"
    checks.machine(*trains_nothing)
    monkeypatch.setattr(checks, "logged_in", lambda: True)
    checks.machine(*planned(["exp=selection_30pct", "tracking.wandb=online", *asked]))


def corpus(folder, **documents):
    domains = {name: {"documents": n} for name, n in documents.items()}
    (folder / "counts.json").write_text(json.dumps({"domains": domains}))
    return folder


def test_a_domain_too_small_to_train_on_a_share_of_is_refused_behind_the_corpus(tmp_path):
    folder = corpus(tmp_path, web=500, tiny=2, none=0)
    with pytest.raises(
        SettingError, match=r"'tiny' \(2 documents\): arm 'random' .*corpus.domains=\[web,none\]"
    ):
        checks.domains(*planned(["exp=selection_30pct", "scale=smoke"]), folder)
    checks.domains(*planned(["exp=selection_30pct", "scale=smoke", "budget.share=0.5"]), folder)
    checks.domains(
        *planned(["exp=paper_mixture", "scale=smoke"]), folder
    )  # trained on every document, and some twice
    checks.domains(*planned(["exp=score_corpus", "scale=smoke"]), folder)


def test_a_share_of_less_than_one_document_is_refused_before_anything_is_scored(tmp_path):
    asked = ["exp=score_corpus", "scale=smoke", "budget.unit=documents"]
    with pytest.raises(
        SettingError, match="less than one of 3 documents; raise budget.share to 0.34 or more"
    ):
        checks.domains(*planned(asked), corpus(tmp_path, web=3, code=2))
    for more in (["budget.share=0.34"], ["budget.scope=global"], ["budget.unit=tokens"]):
        own = [setting for setting in asked if setting.partition("=")[0] != more[0].partition("=")[0]]
        checks.domains(*planned([*own, *more]), corpus(tmp_path, web=3, code=2))


def sized(arguments, tmp_path, device="cpu"):
    settings = compose(["exp=selection_30pct", "scale=smoke", *arguments])
    checks.sizes(settings, build(settings).order(), Store(tmp_path), device)


def test_trainings_that_cannot_be_are_refused_before_anything_is_scored(tmp_path, monkeypatch):
    sized([], tmp_path)
    many = ["train.processes=64", "train.batch_sequences=64", "train.micro_batch=1"]
    with pytest.raises(SettingError, match="train.processes=64 is more than .* train.launcher=slurm"):
        sized([*many, "train.launcher=torchrun"], tmp_path)
    with pytest.raises(SettingError, match=r"model=7b needs \d+\.\d GB on each of 1 ranks"):
        sized(["model=7b"], tmp_path)


def test_an_arm_is_checked_by_its_own_settings(tmp_path, monkeypatch):
    """Its batch with its micro-batch, its model with its memory."""
    sized(["exp.arms.random.train={batch_sequences: 2, micro_batch: 2}"], tmp_path)
    monkeypatch.setattr("repro.pretrain.launch.memory_of_rank", lambda train, device: 3e9)
    with pytest.raises(SettingError, match=r"needs [\d.]+ GB on each of 1 ranks"):
        sized(["exp.arms.random.model={layers: 32, hidden: 4096, heads: 32, ffn: 8192}"], tmp_path)


def test_what_trains_at_once_shares_the_memory(tmp_path, monkeypatch):
    settings = compose(["exp=selection_30pct", "scale=smoke"])
    one = cost.rank_bytes(settings.model, settings.train)
    monkeypatch.setattr("repro.pretrain.launch.memory_of_rank", lambda train, device: 2.5 * one)
    sized(["run.parallel=2"], tmp_path)
    with pytest.raises(SettingError, match="3 trainings of model=.* lower run.parallel"):
        sized(["run.parallel=3"], tmp_path)


def test_ranks_on_other_machines_do_not_train_on_a_cpu_unasked(tmp_path):
    away = ["train.launcher=manual", "train.processes=2", "train.ranks_per_node=1", "train.micro_batch=4"]
    with pytest.raises(SettingError, match="device=auto finds no GPU on this one"):
        sized(away, tmp_path)
    sized([*away, "device=cpu"], tmp_path)
    sized(away, tmp_path, "cuda")


def test_the_disk_must_hold_every_model_and_one_trainings_checkpoints(tmp_path, monkeypatch):
    settings = compose(["exp=selection_30pct", "scale=smoke"])
    pretrains = [stage for stage in build(settings).order() if stage.name == "pretrain"]
    n = cost.parameters(settings.model)
    needed = n * (len(pretrains) * 4 + 3 * 14)  # float32 models; two checkpoints and the one that is written
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda _: SimpleNamespace(free=needed))
    sized([], tmp_path)
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda _: SimpleNamespace(free=needed - 1))
    with pytest.raises(SettingError, match=f"{len(pretrains)} trainings of model=.* GB are free"):
        sized([], tmp_path)
    for at_once in (2, len(pretrains) + 5):  # checkpoints of what runs at once lie side by side
        there = n * (len(pretrains) * 4 + 3 * 14 * min(at_once, len(pretrains)))
        for free, fits in ((there, True), (there - 1, False)):
            monkeypatch.setattr(checks.shutil, "disk_usage", lambda _, free=free: SimpleNamespace(free=free))
            with nullcontext() if fits else pytest.raises(SettingError, match="GB are free"):
                sized([f"run.parallel={at_once}"], tmp_path)
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda _: SimpleNamespace(free=needed - 1))
    partial = Store(tmp_path).path(pretrains[0])
    partial = partial.with_name(partial.name + ".partial")
    partial.mkdir(parents=True)
    (partial / "checkpoint").write_bytes(b"x")  # what is there already is written over
    sized([], tmp_path)


def test_windows_longer_than_the_proxys_context_are_refused_as_soon_as_it_is_there(tmp_path):
    long = ["score.window=9999999", "score.max_tokens=9999999"]
    sized(long, tmp_path)
    settings = compose(["exp=selection_30pct", "scale=smoke"])
    Store(tmp_path).ensure(build(settings).shared["proxy"])
    sized([], tmp_path)
    with pytest.raises(
        SettingError,
        match=r"score.window=9999999 is longer than the proxy's context of (\d+); set score.window=\1",
    ):
        sized(long, tmp_path)
    with pytest.raises(SettingError, match=r"heads.probe_tokens=9999999 is longer than the proxy's context"):
        sized(["heads.probe_tokens=9999999"], tmp_path)


def test_a_hub_that_cannot_name_a_models_commit_is_found_out_first(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hub_commits, "_hub_away", "no network")
    own = "exp.arms.full_plus_large.proxy={kind: hub, name: smollm2-1.7b, repo: HuggingFaceTB/SmolLM2-1.7B}"
    with pytest.raises(
        SettingError, match="cannot be reached to find the commit of HuggingFaceTB/SmolLM2-1.7B@main"
    ):
        settings = compose(["exp=proxy_size", "scale=smoke", own])
        checks.sizes(settings, build(settings).order(), Store(tmp_path), "cpu")


@pytest.fixture
def checkpoint(tmp_path):
    """A model folder as somebody would continue it."""
    from repro.proxy import stage as proxy_stage
    from repro.proxy.settings import Proxy

    built = Store(tmp_path / "made").ensure(proxy_stage.stage(Proxy(kind="built"))) / "model"
    return shutil.copytree(built, tmp_path / "checkpoint")


def test_a_checkpoint_whose_tokenizer_is_anothers_is_refused_before_anything_is_scored(checkpoint, tmp_path):
    from transformers import AutoTokenizer

    continued = [f"model.init_from={checkpoint}", "train.context=64"]
    sized(continued, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    tokenizer.add_tokens(["one more", "and another"])
    tokenizer.save_pretrained(checkpoint)
    with pytest.raises(
        SettingError, match="its tokenizer has 1,026 entries and its model embeds 1,024: they do not belong"
    ):
        sized(continued, tmp_path)
    (checkpoint / "tokenizer.json").write_text("{")
    with pytest.raises(SettingError, match="model.init_from=.*: its tokenizer cannot be read"):
        sized(continued, tmp_path)
    (checkpoint / "model.safetensors").rename(checkpoint / "pytorch_model.bin")
    with pytest.raises(SettingError, match="has pickled weights only"):
        sized(continued, tmp_path)


def test_a_checkpoint_too_large_for_the_memory_is_refused_with_numbers(checkpoint, tmp_path):
    config = json.loads((checkpoint / "config.json").read_text())
    config |= {
        "hidden_size": 8192,
        "intermediate_size": 28672,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
    }
    (checkpoint / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        SettingError,
        match=r"model.init_from=.*checkpoint needs [\d.]+ GB on each of 1 ranks .* there are [\d.]+ GB",
    ):
        sized([f"model.init_from={checkpoint}"], tmp_path)


def test_an_embedding_model_is_fetched_before_hours_of_scoring(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(assets, "fetch", asked.append)
    for embedder in ("minilm", "none"):
        settings = compose(["exp=what_was_selected", "scale=smoke", f"analysis.embedder={embedder}"])
        checks.sizes(settings, build(settings).order(), Store(tmp_path), "cpu")
    assert asked == ["minilm"]


@pytest.mark.parametrize(
    ("proxy", "millions"),
    [("smollm2-135m", 134.5), ("qwen2.5-coder-0.5b-instruct", 630.1), ("gemma3-270m", 257)],
)
def test_a_proxy_that_is_continued_is_sized_before_it_is_here(proxy, millions, tmp_path, monkeypatch):
    """Of Gemma the estimate is low: its heads are wider than its width divided by their number."""
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path))
    settings = cost.sized(compose(["exp=micro_anneal", f"proxy={proxy}"]))
    assert cost.parameters(settings.model) / 1e6 == pytest.approx(millions, rel=0.002)
    assert settings.train.context == 512 and settings.train.decay == 1
    monkeypatch.setattr("repro.pretrain.launch.memory_of_rank", lambda train, device: 3e9)
    with pytest.raises(
        SettingError, match=r"model.init_from=proxy needs [\d.]+ GB on each of 1 ranks .* there are 3.0 GB"
    ):
        checks.sizes(settings, build(settings).order(), Store(tmp_path), "cpu")
