"""Artifacts: identity by what changes the result, whole or absent, one writer at a time."""

import errno
import subprocess
import sys

import pytest

from repro.config import SettingError
from repro.store import Stage, Store, atomic, digest, read_json


def make(settings=None, inputs=None, run=None, version=1):
    def write(ctx):
        (ctx.out / "value.txt").write_text("done")
        ctx.facts["n"] = 1

    return Stage("score", "tiny", settings or {"a": 1}, run or write, inputs or {}, version)


def test_fingerprint_covers_settings_inputs_and_version_but_not_key_order():
    assert make({"a": 1, "b": 2}).fingerprint == make({"b": 2, "a": 1}).fingerprint
    base = make()
    assert base.fingerprint != make({"a": 2}).fingerprint
    assert base.fingerprint != make(version=2).fingerprint
    assert base.fingerprint != make(inputs={"x": make({"a": 3})}).fingerprint


@pytest.mark.parametrize("value", [{1, 2}, float("nan"), object()])
def test_hashing_something_without_a_stable_form_raises(value):
    with pytest.raises((TypeError, ValueError)):
        digest({"x": value})


def test_a_stage_runs_once_and_its_manifest_names_every_file(tmp_path):
    store, runs = Store(tmp_path), []

    def run(ctx):
        runs.append(1)
        (ctx.out / "f.bin").write_bytes(b"abc")

    stage = make(run=run)
    folder = store.ensure(stage)
    assert store.ensure(stage) == folder and len(runs) == 1
    assert list(read_json(folder / "manifest.json")["files"]) == ["f.bin"]
    assert store.verify(stage) == []
    (folder / "f.bin").write_bytes(b"abd")
    assert store.verify(stage) == ["f.bin"]


def test_a_failed_stage_leaves_no_artifact_and_finds_its_own_files_again(tmp_path):
    store, attempts = Store(tmp_path), []

    def run(ctx):
        attempts.append((ctx.out / "shard").exists())
        (ctx.out / "shard").write_text("kept")
        if len(attempts) == 1:
            raise RuntimeError("killed")

    stage = make(run=run)
    with pytest.raises(RuntimeError):
        store.ensure(stage)
    assert not store.has(stage) and not store.path(stage).exists()
    store.ensure(stage)
    assert attempts == [False, True]


def test_a_full_disk_is_one_line_and_no_artifact(tmp_path):
    def run(ctx):
        raise OSError(errno.ENOSPC, "No space left on device")

    store, stage = Store(tmp_path), make(run=run)
    with pytest.raises(SettingError, match="no space left"):
        store.ensure(stage)
    assert not store.has(stage)


def test_an_atomic_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "f.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


RACE = """
import sys, time
from pathlib import Path
from repro.store import Stage, Store
work = Path(sys.argv[1])
def run(ctx):
    with open(work / "ran", "a") as handle: handle.write("x")
    time.sleep(0.5)
    (ctx.out / "f").write_text("1")
Store(work).ensure(Stage("s", "race", {}, run))
"""


def test_two_processes_on_one_artifact_do_the_work_once(tmp_path):
    processes = [subprocess.Popen([sys.executable, "-c", RACE, str(tmp_path)]) for _ in range(3)]
    assert [p.wait(60) for p in processes] == [0, 0, 0]
    assert (tmp_path / "ran").read_text() == "x"


def test_what_a_killed_writer_left_is_no_part_of_the_artifact(tmp_path):
    """SIGKILL inside ``atomic`` leaves a temporary file; the process that finishes the stage must not publish it."""

    def run(ctx):
        (ctx.out / "scores").mkdir()
        (ctx.out / "scores" / ".a.parquet.4711.tmp").write_bytes(b"half")
        (ctx.out / "scores" / "a.parquet").write_bytes(b"whole")

    folder = Store(tmp_path).ensure(make(run=run))
    assert list(read_json(folder / "manifest.json")["files"]) == ["scores/a.parquet"]
    assert [p.name for p in (folder / "scores").iterdir()] == ["a.parquet"]
