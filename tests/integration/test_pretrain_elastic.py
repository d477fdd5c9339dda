"""A rank is lost, and the training goes on from its last checkpoint with as many ranks as are left."""

import multiprocessing
import os
import shutil
import signal
import socket
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pretraining import job, train_with, workspace

from repro.pretrain import checkpoint, loop
from repro.store import read_json, sha256_file
from repro.tracking import read_rows

forks = multiprocessing.get_context("forkserver")
forks.set_forkserver_preload(["pretraining", "deepspeed"])
DIE = "loop.stop_if_not_finite = lambda job, stream, step, *_: die() if step == {} else None"
RESULT = ("loss.jsonl", "reads.parquet", "model/model.safetensors")


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    return workspace(tmp_path_factory.mktemp("elastic"))


def of(this, ranks, **train):
    """The same training by so many ranks; the batch is the same."""
    return replace(this, train=replace(this.train, processes=ranks, micro_batch=8 // ranks, **train))


def run(this, hooks=("", "")):
    """Train with as many ranks as the job says, each its own process; returns their exit codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = this.train.processes
    Path(this.out).mkdir(exist_ok=True)
    started = []
    for rank in range(ranks):
        group = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "MASTER_PORT": port}
        where = {key: str(value) for key, value in group.items()} | {"MASTER_ADDR": "127.0.0.1"}
        hook = f"import os\nos.environ.update({where!r})\n{hooks[rank]}"
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
            started.append(forks.Process(target=train_with, args=(hook, this.to_json())))
            started[-1].start()
    for process in started:
        process.join(60)
    return [process.exitcode for process in started]


def losses(this):
    return [row["loss"] for row in read_rows(Path(this.out) / "loss.jsonl")]


@pytest.mark.parametrize(
    "dtype,zero_stage,tolerance",
    [("float32", 0, 1e-5), pytest.param("bfloat16", 1, 2e-3, marks=pytest.mark.slow)],
)
def test_ranks_are_lost_and_come_back(paths, tmp_path, dtype, zero_stage, tolerance):
    """Checkpoints at 4, 8 and 12: two ranks, one of them killed in step 6; one rank, killed in step 10; two.

    With two ranks all along, the outcome is that of a run that lost none, to the bit.
    """
    calm = of(job(paths, tmp_path / "calm", dtype=dtype, zero_stage=zero_stage), 2)
    assert run(calm) == [0, 0]
    this = replace(calm, out=str(tmp_path / "lost"))
    codes = run(this, ("", DIE.format(6)))
    assert codes[1] == -signal.SIGKILL and codes[0] != 0
    assert [path.name for path in checkpoint.listed(tmp_path / "lost/checkpoints")] == ["step-4"]
    shutil.copytree(tmp_path / "lost", tmp_path / "same")
    same = replace(calm, out=str(tmp_path / "same"))
    assert run(same) == [0, 0]
    for name in RESULT:
        assert sha256_file(tmp_path / "same" / name) == sha256_file(tmp_path / "calm" / name)
    assert run(of(this, 1), (DIE.format(10),)) == [-signal.SIGKILL]
    newest = checkpoint.listed(tmp_path / "lost/checkpoints")[-1]
    assert read_json(newest / "manifest.json")["setup"]["train.processes"] == 1 and newest.name == "step-8"
    assert run(this) == [0, 0]
    assert len(losses(this)) == 12 and losses(this)[:4] == losses(calm)[:4]
    np.testing.assert_allclose(losses(this), losses(calm), atol=tolerance, rtol=0)
    assert sha256_file(tmp_path / "lost/reads.parquet") == sha256_file(tmp_path / "calm/reads.parquet")
    assert not list(tmp_path.glob("**/*.tmp"))


def test_moments_of_lost_ranks_are_kept(paths, tmp_path, monkeypatch):
    """Split anew, the optimizer's state is the old one: without it the next losses would be others."""
    this = of(job(paths, tmp_path / "lost", dtype="float32", zero_stage=2), 2)
    assert run(this, ("", DIE.format(6)))[1] == -signal.SIGKILL
    one, seen = of(this, 1), {}
    original = loop.resume

    def resume(job, engine, stream):
        found = original(job, engine, stream)
        state = engine.optimizer.optimizer.state
        seen["steps"] = {int(value["step"]) for value in state.values()}
        seen["moments"] = min(float(value["exp_avg_sq"].abs().sum()) for value in state.values())
        return found

    monkeypatch.setattr(loop, "resume", resume)
    loop.train(one)
    assert seen["steps"] == {4} and seen["moments"] > 0
