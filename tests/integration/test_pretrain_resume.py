"""SIGKILL anywhere, then the same command: loss curve, weights and reads to the bit, finished steps not redone."""

import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from dataclasses import replace
from functools import cache

import pytest
import torch
from pretraining import job, train_with, workspace

from repro.errors import SettingError
from repro.execution.processes import Terminated, termination_noted
from repro.pretrain import checkpoint, log, loop
from repro.store import sha256_file
from repro.tracking import read_rows

STEPS = 12  # checkpoints at 4, 8 and 12
RESULT = ("loss.jsonl", "reads.parquet", "model/model.safetensors")

forks = multiprocessing.get_context("forkserver")
forks.set_forkserver_preload(["pretraining", "deepspeed"])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Settings and files of a run nobody killed, by dtype: float32 is ZeRO 0, bfloat16 ZeRO 1 with its own optimizer.

    A second word is the optimizer.
    """
    root = tmp_path_factory.mktemp("undisturbed")
    paths = workspace(root)

    @cache
    def run(kind):
        dtype, _, optimizer = kind.partition(" ")
        this = job(paths, root / kind, dtype=dtype, optimizer=optimizer or "adamw")
        loop.train(this)
        return this, {name: sha256_file(root / kind / name) for name in RESULT}

    return run


def worker(this, hook=""):
    """Start a training in another process; ``hook`` is Python that runs before it."""
    with (
        pytest.MonkeyPatch.context() as patch
    ):  # the fork server is a fresh Python that has to find its preload
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        process = forks.Process(target=train_with, args=(hook, this.to_json()))
        process.start()
    return process


def killed(this, hook):
    """Run with a hook that ends in SIGKILL."""
    process = worker(this, hook)
    process.join()
    assert process.exitcode == -signal.SIGKILL


def steps_done(this, monkeypatch, restored):
    """Finish ``this`` here; returns how many steps that took."""
    monkeypatch.setattr(log.Log, "step", counting(log.Log.step, done := []))
    loop.train(this)
    assert len(done) == STEPS - restored
    return done


def counting(original, calls):
    def step(self, *arguments):
        calls.append(arguments[0])
        original(self, *arguments)

    return step


IN_STEP = "loop.stop_if_not_finite = lambda job, stream, step, *_: die() if step == {step} else None"
IN_WRITE = """
import torch
original, count = torch.save, []
def save(value, file, *arguments, **options):
    count.append(1)
    if len(count) == 3:  # a checkpoint has two files
        open(file, "wb").write(b"half of a check")
        die()
    original(value, file, *arguments, **options)
torch.save = save
"""
BEFORE_RENAME = """
original, count = checkpoint.write_json, []
def write(path, value):
    count.append(1)
    original(path, value)
    if len(count) == {checkpoint}:
        die()
checkpoint.write_json = write
"""
IN_EXPORT = "loop.export = die"
AT_THE_END = "original = loop.write_json\nloop.write_json = lambda *a: (original(*a), die())"  # its checkpoints about to go
KILLS = {
    "first step": (IN_STEP.format(step=0), 0),
    "before the first checkpoint": (IN_STEP.format(step=random.Random(0).randrange(1, 4)), 0),
    "between checkpoints": (IN_STEP.format(step=random.Random(1).randrange(4, 8)), 4),
    "in the first file of the second checkpoint": (IN_WRITE, 4),
    "before the rename of the second checkpoint": (BEFORE_RENAME.format(checkpoint=2), 4),
    "in the export": (IN_EXPORT, 12),
    "behind the last line": (AT_THE_END, 12),
}


@pytest.mark.parametrize(
    "kind,kill",
    [("bfloat16", kill) for kill in KILLS]
    + [("float32", "between checkpoints"), ("float32", "in the export")]
    + [("float32 muon", "between checkpoints"), ("bfloat16 muon", "between checkpoints")],
)
def test_a_killed_run_ends_as_if_nothing_had_been(undisturbed, tmp_path, monkeypatch, kind, kill):
    settings, expected = undisturbed(kind)
    this = replace(settings, out=str(tmp_path / "out"))
    (tmp_path / "out").mkdir()
    hook, restored = KILLS[kill]
    killed(this, hook)
    assert (tmp_path / "out" / "model").exists() == (kill == "behind the last line")
    steps_done(this, monkeypatch, restored)
    assert {name: sha256_file(tmp_path / "out" / name) for name in RESULT} == expected
    assert not (tmp_path / "out" / "checkpoints").exists()
    rows = [row["step"] for row in read_rows(tmp_path / "out" / "metrics.jsonl") if "loss" in row]
    assert rows == sorted(set(rows))
    assert not list((tmp_path / "out").glob("**/*.tmp"))


def test_killed_again_and_again_at_any_moment(undisturbed, tmp_path):
    """Kills by the clock: whatever the process is doing just then."""
    settings, expected = undisturbed("bfloat16")
    slow = "import time; original = loop.learning_rate\nloop.learning_rate = lambda *a: time.sleep(0.1) or original(*a)"
    this = replace(settings, out=str(tmp_path))
    chance = random.Random(5)
    for _ in range(2):
        process = worker(this, slow)
        deadline = time.time() + 60
        seen = len(read_rows(tmp_path / "loss.jsonl"))
        while (
            len(read_rows(tmp_path / "loss.jsonl")) in (0, seen)
            and process.is_alive()
            and time.time() < deadline
        ):
            time.sleep(0.02)
        time.sleep(chance.uniform(0, 0.5))
        process.kill()
        process.join()
    loop.train(this)
    assert {name: sha256_file(tmp_path / name) for name in RESULT} == expected


def half_way(settings, out, monkeypatch):
    """A run that stopped behind step 9, with checkpoints at 4 and 8."""
    this = replace(settings, out=str(out))
    out.mkdir(exist_ok=True)
    original = loop.stop_if_not_finite

    def stop(job, stream, step, *others):
        if step == 9:
            raise KeyboardInterrupt
        original(job, stream, step, *others)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "stop_if_not_finite", stop)
        with pytest.raises(KeyboardInterrupt):
            loop.train(this)
    return this


@pytest.mark.parametrize("harm", ["cut", "gone", "flipped", "manifest"])
def test_a_damaged_checkpoint_is_passed_over(undisturbed, tmp_path, monkeypatch, capfd, harm):
    settings, expected = undisturbed("bfloat16")
    this = half_way(settings, tmp_path, monkeypatch)
    newest = tmp_path / "checkpoints" / "step-8"
    state = next(newest.glob("state/*model_states.pt"))
    if harm == "cut":
        state.write_bytes(state.read_bytes()[:-100])
    elif harm == "gone":
        state.unlink()
    elif harm == "flipped":
        content = bytearray(state.read_bytes())
        content[len(content) // 2] ^= 1
        state.write_bytes(content)
    else:
        (newest / "manifest.json").write_text("{")
    steps_done(this, monkeypatch, 4)
    assert "step-8 is damaged" in capfd.readouterr().err
    assert {name: sha256_file(tmp_path / name) for name in RESULT} == expected


def test_another_setup_and_a_second_run_are_refused(undisturbed, tmp_path, monkeypatch):
    settings, _ = undisturbed("float32")
    this = half_way(settings, tmp_path, monkeypatch)
    with pytest.raises(
        SettingError, match=r"step-8 was written with train\.zero_stage=\d, this run has train\.zero_stage=2"
    ):
        loop.train(replace(this, train=replace(this.train, zero_stage=2)))
    lines = (tmp_path / "loss.jsonl").read_text()
    (tmp_path / "loss.jsonl").write_text("")
    with pytest.raises(SettingError, match=r"loss\.jsonl does not reach the checkpoint at step 8"):
        loop.train(this)
    (tmp_path / "loss.jsonl").write_text(lines)
    with loop.only_run_in(tmp_path), pytest.raises(SettingError, match="another process is training in"):
        loop.train(this)
    loop.train(this)


def test_the_last_checkpoints_are_kept(undisturbed, tmp_path, monkeypatch):
    settings, _ = undisturbed("float32")
    settings = replace(settings, train=replace(settings.train, checkpoint_every_steps=1, keep_checkpoints=3))
    this = half_way(settings, tmp_path, monkeypatch)
    folder = tmp_path / "checkpoints"
    assert [path.name for path in checkpoint.listed(folder)] == ["step-7", "step-8", "step-9"]
    assert all(checkpoint.damage(path) is None for path in checkpoint.listed(folder))
    manifest = json.loads((folder / "step-9" / "manifest.json").read_text())
    assert manifest["step"] == 9 and len(manifest["files"]) >= 1
    shutil.rmtree(this.out)


def test_a_full_disk_is_said_and_harms_nothing(undisturbed, tmp_path, monkeypatch):
    settings, expected = undisturbed("bfloat16")
    this = replace(settings, out=str(tmp_path / "out"))
    (tmp_path / "out").mkdir()

    class Full:
        free = 0

    def failing(*_, **__):
        raise RuntimeError(
            "[enforce fail at inline_container.cc:672] . unexpected pos 3137728 vs 3137616"
        )  # torch's words

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", failing)
        with pytest.raises(RuntimeError, match="inline_container"):
            loop.train(this)
        patch.setattr(checkpoint.shutil, "disk_usage", lambda _: Full)
        with pytest.raises(OSError, match="the disk is full") as full:
            loop.train(this)
    assert full.value.errno == 28  # which the store turns into one line
    loop.train(this)
    assert {name: sha256_file(tmp_path / "out" / name) for name in RESULT} == expected


def test_sigterm_leaves_a_checkpoint_of_the_step_it_came_in(undisturbed, tmp_path, monkeypatch):
    """The grace of a batch system: not one finished step is done again, and the outcome is the same to the bit."""
    other, expected = undisturbed("float32")
    this = replace(other, out=str(tmp_path / "again"))
    (tmp_path / "again").mkdir()
    original = loop.stop_if_not_finite
    with monkeypatch.context() as patch:

        def ask(job, stream, step, *rest):
            original(job, stream, step, *rest)
            if step == 5:
                signal.raise_signal(signal.SIGTERM)

        patch.setattr(loop, "stop_if_not_finite", ask)
        with pytest.raises(Terminated):
            loop.train(this)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert steps_done(this, monkeypatch, 6)[0] == 7
    assert {name: sha256_file(tmp_path / "again" / name) for name in RESULT} == expected


def test_a_second_sigterm_does_not_wait():
    with pytest.raises(Terminated), termination_noted() as ending:
        assert not ending()
        signal.raise_signal(signal.SIGTERM)
        assert ending()
        signal.raise_signal(signal.SIGTERM)
