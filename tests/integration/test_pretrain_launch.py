"""Ranks under a launcher, the stages through the store, branch points and models kept on the way."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from filelock import FileLock
from pretraining import DOMAINS, QUICK, TINY, job, workspace, write_documents, write_selection
from safetensors.torch import load_file

from repro.errors import SettingError
from repro.execution import processes
from repro.pretrain import launch, loop, source, stage
from repro.pretrain.settings import Train
from repro.store import Stage, Store, sha256_file
from repro.tracking import Tracking, read_rows


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    return workspace(tmp_path_factory.mktemp("launch"))


def losses(out):
    return [row["loss"] for row in read_rows(Path(out) / "loss.jsonl")]


@pytest.mark.parametrize("optimizer,zero_stage", [("adamw", 2), ("muon", 0)])
def test_two_ranks_train_what_one_trains(paths, tmp_path, capfd, optimizer, zero_stage):
    """gloo through torchrun, accumulation; float32, so only the order of sums differs."""
    one = job(paths, tmp_path / "one", optimizer=optimizer)
    loop.train(one)
    many = dict(launcher="torchrun", processes=2, micro_batch=2, zero_stage=zero_stage, log_every_steps=4)
    two = job(paths, tmp_path / "two", optimizer=optimizer, **many)
    facts = launch.launch(two)
    assert facts["ranks"] == 2 and facts["logits_difference"] <= 1e-5
    np.testing.assert_allclose(losses(two.out), losses(one.out), atol=1e-5, rtol=0)
    assert sha256_file(tmp_path / "two" / "reads.parquet") == sha256_file(tmp_path / "one" / "reads.parquet")
    validations = [
        next(row for row in read_rows(Path(run.out) / "metrics.jsonl") if "validation/loss/code" in row)
        for run in (one, two)
    ]
    for domain in DOMAINS:
        key = f"validation/bits_per_byte/{domain}"
        assert validations[0][key] == pytest.approx(validations[1][key], abs=1e-4)
    assert {path.name for path in (tmp_path / "two").iterdir()} == {
        path.name for path in (tmp_path / "one").iterdir()
    }


def test_an_error_of_a_rank_is_one_line_here(paths, tmp_path):
    other = write_selection(tmp_path / "selection", write_documents(tmp_path / "corpus", documents=7))
    wrong = job(
        {**paths, "selection": other}, tmp_path / "out", launcher="torchrun", processes=2, micro_batch=4
    )
    with pytest.raises(SettingError, match="does not match the tokens") as refused:
        launch.launch(wrong)
    assert "\n" not in str(refused.value)


def test_launchers_that_cannot_start(paths, tmp_path, monkeypatch):
    with pytest.raises(
        SettingError, match=r"train\.processes=2 needs a launcher; set train\.launcher=torchrun"
    ):
        launch.launch(job(paths, tmp_path, processes=2, micro_batch=4))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SettingError, match=r"train\.launcher=slurm needs 'sbatch'"):
        launch.launch(job(paths, tmp_path, launcher="slurm", processes=2, micro_batch=4))
    with pytest.raises(SettingError, match="must be a multiple of train.ranks_per_node=8"):
        launch.launch(job(paths, tmp_path, launcher="slurm", processes=12, micro_batch=2, batch_sequences=24))
    many = dict(processes=256, micro_batch=1, batch_sequences=256, tokens=2**20)
    for launcher in ("torchrun", "deepspeed"):
        with pytest.raises(
            SettingError, match="processes=256 is more than the .* train.hostfile=FILE, or .*=slurm"
        ):
            launch.launch(job(paths, tmp_path, launcher=launcher, **many))
    hosts = tmp_path / "hosts"
    hosts.write_text("one slots=8\n# two slots=8\n")
    with pytest.raises(SettingError, match="processes=256 but .*hosts has 8 slots"):
        launch.launch(job(paths, tmp_path, launcher="deepspeed", hostfile=str(hosts), **many))
    hosts.write_text("one\n")
    with pytest.raises(SettingError, match="must hold lines like: worker-1 slots=8"):
        launch.launch(job(paths, tmp_path, launcher="deepspeed", hostfile=str(hosts), **many))
    hosts.write_text("".join(f"worker-{i} slots=8\n" for i in range(32)))
    launch.must_start(Train(launcher="deepspeed", hostfile=str(hosts), **many), "cuda")
    launch.must_start(Train(launcher="slurm", **many), "cuda")
    with pytest.raises(SettingError, match="device=cuda:1 is one device; .* set device=cuda"):
        launch.must_start(Train(launcher="slurm", **many), "cuda:1")


def test_the_slurm_script_starts_every_rank(paths, tmp_path, monkeypatch):
    """The generated script is run, on two nodes that are processes of this machine."""
    stand_ins = {
        "sbatch": 'echo "7;here"; SLURM_JOB_NODELIST=a,b SLURM_JOB_ID=7 SLURM_CPUS_ON_NODE=1 exec bash "$3"',
        "scontrol": "echo 127.0.0.1; echo other",
        "srun": 'shift; "$@" & "$@"; code=$?; wait; exit $code',  # --cpus-per-task=1 and the command, once a node
    }
    for name, text in stand_ins.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    this = job(
        paths,
        tmp_path / "two",
        launcher="slurm",
        processes=2,
        ranks_per_node=1,
        micro_batch=4,
        tokens=8 * 64 * 2,
    )
    assert launch.launch(this)["ranks"] == 2
    assert not list(Path(this.out).glob("job.*"))
    big = job(paths, tmp_path, launcher="slurm", processes=16, micro_batch=1, batch_sequences=16)
    line = launch.command(big, tmp_path / "job.json")
    assert line[:3] == ["sbatch", "--parsable", "--wait"]
    script = Path(line[3]).read_text()
    assert "--nodes=2" in script and "--gpus-per-node=8" in script and "--nproc-per-node=8" in script
    hosts = replace(big.train, launcher="deepspeed", hostfile="hosts")
    assert "--hostfile" in launch.command(replace(big, train=hosts), tmp_path / "job.json")


def test_a_job_in_the_queue_is_cancelled_with_its_run(paths, tmp_path, monkeypatch):
    """An answer that never comes is waited for; what interrupts that takes the job out of the queue."""
    scripts = {"sbatch": "echo 4711; exec sleep 600", "scancel": f'echo "$@" > {tmp_path}/cancelled'}
    for name, text in scripts.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    this = job(paths, tmp_path / "out", launcher="slurm", processes=2, ranks_per_node=1, micro_batch=4)

    class Interrupted(subprocess.Popen):
        """SIGTERM comes while the job is waited for."""

        waited = False

        def wait(self, timeout=None):
            if self.args[0] == "sbatch" and not self.waited:
                self.waited = True
                raise processes.Terminated
            return super().wait(timeout)

    monkeypatch.setattr(launch.subprocess, "Popen", Interrupted)
    with pytest.raises(processes.Terminated):
        launch.launch(this)
    assert (tmp_path / "cancelled").read_text() == "4711\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_ranks_end_with_their_run_however_it_ends(paths, tmp_path, number):
    """torchrun puts its ranks into sessions of their own; the same command must not find them at work."""
    endless = job(
        paths,
        tmp_path / "out",
        launcher="torchrun",
        processes=2,
        micro_batch=4,
        tokens=2**28,
        log_every_steps=1,
    )
    (tmp_path / "this.json").write_text(endless.to_json())
    code = (
        "import sys; from pathlib import Path; from repro.execution.processes import terminable\n"
        "from repro.pretrain.job import Job; from repro.pretrain.launch import launch\n"
        "with terminable(): launch(Job.from_json(Path(sys.argv[1]).read_text()))"
    )
    run = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "this.json")])
    rows = tmp_path / "out" / "loss.jsonl"
    while not (rows.is_file() and rows.stat().st_size):
        assert run.poll() is None
        time.sleep(0.2)
    run.send_signal(number)
    run.wait()
    lock = FileLock(tmp_path / "out" / ".training.lock")
    with lock.acquire(timeout=20):
        size = rows.stat().st_size
        time.sleep(1)
        assert rows.stat().st_size == size


def test_nodes_that_are_started_by_hand(paths, tmp_path, capsys, monkeypatch):
    """The line that is printed, typed on two nodes, trains; the run that waited takes the answer."""
    monkeypatch.setattr(launch, "POLL_SECONDS", 0.2)
    this = job(
        paths,
        tmp_path / "two",
        launcher="manual",
        processes=2,
        ranks_per_node=1,
        micro_batch=4,
        tokens=8 * 64 * 2,
    )
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(launch.launch, this)
        while "--node-rank R" not in (said := capsys.readouterr().out):
            time.sleep(0.1)
        line = said.strip().split("\n")[-1].replace("HEAD", "127.0.0.1")
        nodes = [
            subprocess.Popen(["bash", "-c", line.replace("--node-rank R", f"--node-rank {r}")])
            for r in (0, 1)
        ]
        assert [node.wait() for node in nodes] == [0, 0]
        assert waiting.result()["ranks"] == 2
    assert launch.launch(this)["ranks"] == 2  # and the same command finds it finished


def test_a_rank_too_few_is_refused(paths, tmp_path):
    with pytest.raises(SettingError, match=r"train\.processes=2 but the launcher started 1 ranks"):
        loop.train(job(paths, tmp_path, processes=2, micro_batch=4))


def test_what_cannot_fit_is_refused_before_it_starts(paths, tmp_path, monkeypatch):
    class Full:
        free = 1000

    monkeypatch.setattr(launch.shutil, "disk_usage", lambda _: Full)
    with pytest.raises(SettingError, match=r"GB of disk and 1e-06 GB are free"):
        launch.launch(job(paths, tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_models_on_the_way_and_several_decays_of_one_stable_run(paths, tmp_path):
    """A run from a branch point equals, to the bit, the run that had this decay from the start."""
    batch = 8 * 64
    settings = dict(decay=0.5, branch_at_decay=True, keep_at_tokens=[3 * batch, 12 * batch])
    stable = job(paths, tmp_path / "stable", **settings)
    loop.train(stable)
    kept = sorted(path.name for path in (tmp_path / "stable" / "models").iterdir())
    assert kept == sorted(
        [str(12 * batch), str(3 * batch), str(6 * batch)]
    )  # the last is the one before the decay
    final = load_file(tmp_path / "stable" / "model" / "model.safetensors")
    for name, value in load_file(
        tmp_path / "stable" / "models" / str(12 * batch) / "model.safetensors"
    ).items():
        assert value.equal(final[name])
    early = job(paths, tmp_path / "early", tokens=3 * batch, decay=0.0)
    loop.train(early)
    weights = "model.safetensors"
    assert sha256_file(tmp_path / "early/model" / weights) == sha256_file(
        tmp_path / f"stable/models/{3 * batch}" / weights
    )

    cosine = dict(decay=0.5, decay_shape="cosine")
    whole = job(paths, tmp_path / "whole", **cosine)
    loop.train(whole)
    branched = job(paths, tmp_path / "branched", branch_from=str(tmp_path / "stable"), **cosine)
    loop.train(branched)
    assert losses(branched.out) == losses(whole.out) != losses(stable.out)
    assert losses(branched.out)[:6] == losses(stable.out)[:6]
    for name in ("model/model.safetensors", "reads.parquet", "loss.jsonl"):
        assert sha256_file(tmp_path / "branched" / name) == sha256_file(tmp_path / "whole" / name)

    for change, message in (
        (dict(seed=1), "written with order of the documents="),
        (
            dict(learning_rate=1e-2),
            r"written with train\.learning_rate=0\.003, this run has train\.learning_rate=0\.01",
        ),
        (
            dict(weight_decay=0.5),  # the optimizer's state would bring the former run's without a word
            r"written with train\.weight_decay=0\.1, this run has train\.weight_decay=0\.5",
        ),
        (dict(beta2=0.5), r"written with train\.beta2=0\.95"),
        (dict(clip=0.5), r"written with train\.clip=1\.0"),
        (dict(attend_across_documents=False), r"written with train\.attend_across_documents=True"),
        (
            dict(keep_at_tokens=[6 * batch, 12 * batch]),
            r"models at \[3072\] tokens, which lie before the branch",
        ),
        (dict(decay=0.75), "lies behind step 3, where this run's decay starts"),
    ):
        with pytest.raises(SettingError, match=message):
            loop.train(
                job(
                    paths,
                    tmp_path / "refused",
                    **{"branch_from": str(tmp_path / "stable"), **cosine, **change},
                )
            )
    with pytest.raises(SettingError, match="holds no branch point"):
        source.branch_point(tmp_path / "whole")


def stages(tmp_path, train, seed=0, arm="arm", tracking=None, proxy=None, model=TINY):
    """The stages of one training, with a corpus and a selection made here."""

    def corpus(ctx):
        write_documents(ctx.out)

    def selection(ctx):
        folder = ctx.inputs["corpus"] / "documents"
        frame = pl.concat(
            [pl.read_parquet(path, columns=["doc_id", "domain"]) for path in sorted(folder.glob("*"))]
        )
        frame.with_columns(pl.lit(1).alias("repeats")).write_parquet(ctx.out / "selection.parquet")

    source = Stage("corpus", "made", {}, corpus)
    chosen = Stage("selection", "all", {}, selection, {"corpus": source})
    ids = stage.tokens_stage(model, source, proxy)
    return stage.stage(
        model, train, seed, ids, chosen, tracking or Tracking(wandb="disabled"), "group", arm, proxy
    )


def test_the_stages_through_the_store(tmp_path):
    store = Store(tmp_path)
    trained = stages(tmp_path, Train(**QUICK))
    for each in trained.ancestors():
        store.ensure(each)
    folder = store.path(trained)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["facts"]["tokens"] == QUICK["tokens"]
    assert {"model/model.safetensors", "loss.jsonl", "metrics.jsonl", "reads.parquet"} <= set(
        manifest["files"]
    )
    assert not any("checkpoint" in name or "lock" in name for name in manifest["files"])
    rows = [row for row in read_rows(folder / "metrics.jsonl") if "loss" in row]
    last = rows[-1]
    assert last["tokens/code"] + last["tokens/prose"] == last["tokens"] == QUICK["tokens"]
    by_domain = pl.read_parquet(folder / "reads.parquet").group_by("domain").agg(pl.col("tokens_read").sum())
    assert dict(by_domain.iter_rows()) == {domain: last[f"tokens/{domain}"] for domain in DOMAINS}
    assert {
        "learning_rate",
        "grad_norm",
        "tokens_per_second",
        "mfu",
        "memory_gb",
        "waiting_share",
        "spike",
    } <= last.keys()
    assert 0 < last["mfu"] < 1 and not last["spike"]


def test_the_fingerprint_holds_what_changes_the_result(tmp_path):
    plain = stages(tmp_path, Train(**QUICK)).fingerprint
    for how in (
        dict(checkpoint_every_steps=1),
        dict(micro_batch=2),
        dict(log_every_steps=3),
        dict(processes=2, micro_batch=4),
    ):
        assert stages(tmp_path, Train(**{**QUICK, **how})).fingerprint == plain, how
    assert stages(tmp_path, Train(**QUICK), arm="other", tracking=Tracking(project="p")).fingerprint == plain
    for what in (
        dict(tokens=2**15),
        dict(learning_rate=1e-3),
        dict(dtype="bfloat16"),
        dict(keep_at_tokens=[512]),
    ):
        assert stages(tmp_path, Train(**{**QUICK, **what})).fingerprint != plain, what
    assert stages(tmp_path, Train(**QUICK), seed=1).fingerprint != plain
    assert stages(tmp_path, Train(**QUICK), model=replace(TINY, layers=3)).fingerprint != plain


def test_the_proxys_tokenizer_and_a_model_to_continue(paths, tmp_path):
    store = Store(tmp_path)

    def proxy(ctx):
        loop.train(job(paths, ctx.out / "made"))
        (ctx.out / "made" / "model").rename(ctx.out / "model")

    source = Stage("proxy", "made", {}, proxy)
    store.ensure(source)
    with_proxy = stages(tmp_path, Train(**QUICK), proxy=source, model=replace(TINY, tokenizer="proxy"))
    assert "proxy" in with_proxy.inputs["tokens"].inputs
    folder = store.path(source) / "model"
    continued = stages(tmp_path, Train(**QUICK), model=replace(TINY, init_from=str(folder)))
    for each in (*with_proxy.ancestors(), *continued.ancestors()):
        store.ensure(each)
    tokenizers = [
        store.path(s.inputs["tokens"]) / "tokenizer" / "tokenizer.json" for s in (with_proxy, continued)
    ]
    assert {sha256_file(path) for path in tokenizers} == {sha256_file(folder / "tokenizer.json")}
    assert losses(store.path(continued))[0] < losses(store.path(with_proxy))[0] - 0.2
    with pytest.raises(SettingError, match="is not a Hugging Face model folder"):
        stages(tmp_path, Train(**QUICK), model=replace(TINY, init_from=str(tmp_path)))


def test_the_runs_own_proxy_is_continued(paths, tmp_path):
    """Its weights, its sizes and its tokenizer, as from its folder; what the settings say of sizes does not matter."""
    store = Store(tmp_path)

    def proxy(ctx):
        loop.train(job(paths, ctx.out / "made"))
        (ctx.out / "made" / "model").rename(ctx.out / "model")

    source, other = (Stage("proxy", name, {"name": name}, proxy) for name in ("made", "other"))
    store.ensure(source)
    start = replace(TINY, layers=1, hidden=64, vocabulary=999, init_from="proxy")
    continued = stages(tmp_path, Train(**QUICK), proxy=source, model=start)
    same = stages(tmp_path, Train(**QUICK), proxy=source, model=replace(start, layers=5))
    assert continued.fingerprint == same.fingerprint
    assert continued.fingerprint != stages(tmp_path, Train(**QUICK), proxy=other, model=start).fingerprint
    by_folder = replace(TINY, init_from=str(store.path(source) / "model"))
    from_folder = stages(tmp_path, Train(**QUICK), model=by_folder)
    for each in (*continued.ancestors(), *from_folder.ancestors()):
        store.ensure(each)
    assert losses(store.path(continued)) == losses(store.path(from_folder))
    weights = [
        sha256_file(store.path(each) / "model" / "model.safetensors") for each in (continued, from_folder)
    ]
    assert weights[0] == weights[1]
    assert losses(store.path(continued))[0] < losses(store.path(source) / "made")[0] - 0.2


def test_a_model_of_the_hub_is_continued(paths, tmp_path, monkeypatch):
    """A plan fetches its configuration alone; the run downloads the commit that was found then, without pickles or code."""
    import huggingface_hub

    from repro.fetch import hub_commits

    loop.train(job(paths, tmp_path / "made"))
    local, commit, asked = tmp_path / "made" / "model", "0123456789" * 4, []

    def config(repo, name, revision):
        asked.append((repo, name, revision))
        return local / name

    def snapshot(repo, revision, allow_patterns):
        asked.append((repo, "snapshot", revision))
        assert "*.safetensors" in allow_patterns and not any(
            p.endswith((".bin", ".py", ".pt")) for p in allow_patterns
        )
        return local

    monkeypatch.setenv("REPRO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", config)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    monkeypatch.setattr(hub_commits, "_ask_hub", lambda repo, revision, kind: commit)
    model = replace(TINY, layers=1, init_from="owner/name")
    planned = stages(tmp_path, Train(**QUICK), model=model)
    assert planned.settings["model"]["layers"] == TINY.layers  # of the configuration
    assert planned.settings["init_from"] == {"repo": "owner/name", "revision": commit}
    assert {name for _, name, _ in asked} == {"config.json"}
    pinned = stages(tmp_path, Train(**QUICK), model=replace(model, init_from=f"owner/name@{commit}"))
    assert pinned.fingerprint == planned.fingerprint
    store = Store(tmp_path / "w")
    for each in planned.ancestors():
        store.ensure(each)
    assert ("owner/name", "snapshot", commit) in asked
    assert {revision for _, _, revision in asked} == {commit}
    assert losses(store.path(planned))[0] < losses(tmp_path / "made")[0] - 0.2
    monkeypatch.setattr(hub_commits, "_ask_hub", lambda repo, revision, kind: None)
    with pytest.raises(SettingError, match="cannot be reached to find the commit of owner/other@v2"):
        hub_commits.hub_commit("owner/other", "v2", "model")


def test_pickled_weights_are_not_continued(tmp_path):
    from repro.pretrain import source

    for name in ("config.json", "pytorch_model.bin", "tokenizer.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(SettingError, match="model.init_from=.* has pickled weights only"):
        source.folder(str(tmp_path))
