"""Artifacts: identity by what changes the result, whole or absent, one writer at a time."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from repro.errors import SettingError
from repro.store import Stage, Store, atomic, digest, read_json
from repro.store.disk import room_on
from repro.store.soundness import damage


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
    assert damage(store, stage) == []
    (folder / "f.bin").write_bytes(b"abd")
    assert damage(store, stage) == ["f.bin"]


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


class SafetensorError(Exception):
    """As the library's own: neither an OSError nor a number."""


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError("IO Error: Could not write all bytes to file: No space left on device"),
        OSError("[Errno 28] Error writing bytes to file. Detail: [errno 28] No space left on device"),
    ],
)
def test_a_full_disk_is_one_line_and_no_artifact(tmp_path, error):
    def run(ctx):
        raise error

    store, stage = Store(tmp_path), make(run=run)
    with pytest.raises(SettingError, match="no space left"):
        store.ensure(stage)
    assert not store.has(stage)


def test_a_full_disk_is_seen_behind_the_error_it_caused():
    with pytest.raises(SettingError, match="no space left"), room_on(Path("work")):
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise ValueError("could not save") from error
    with pytest.raises(ValueError, match="28 rows"), room_on(Path("work")):
        raise ValueError("expected 28 rows")


def test_warnings_are_said_at_once_and_kept_with_the_facts(tmp_path, capsys):
    store, stage = Store(tmp_path), make(run=lambda ctx: ctx.warn("domain tiny is empty"))
    store.ensure(stage)
    assert capsys.readouterr().err == "warning: domain tiny is empty\n"
    assert store.facts(stage) == {"warnings": ["domain tiny is empty"]}


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


def test_what_told_of_the_progress_goes_when_the_stage_is_done(tmp_path):
    """Of this attempt, and of one that was killed while it wrote it."""
    store, stage = Store(tmp_path), Stage("a", "b", {}, lambda context: None)
    path = store.beside(stage, ".progress")
    path.parent.mkdir(parents=True)
    other = path.with_name(".c-00000000.progress.7.tmp")
    for left in (path, path.with_name(f".{path.name}.123.tmp"), other):
        left.write_text("half")
    store.ensure(stage)
    assert [p.name for p in path.parent.rglob("*") if "progress" in p.name] == [other.name]


def test_what_a_killed_writer_left_is_no_part_of_the_artifact(tmp_path):
    """SIGKILL inside ``atomic`` leaves a temporary file; the process that finishes the stage must not publish it."""

    def run(ctx):
        (ctx.out / "scores").mkdir()
        (ctx.out / "scores" / ".a.parquet.4711.tmp").write_bytes(b"half")
        (ctx.out / "scores" / "a.parquet").write_bytes(b"whole")

    folder = Store(tmp_path).ensure(make(run=run))
    assert list(read_json(folder / "manifest.json")["files"]) == ["scores/a.parquet"]
    assert [p.name for p in (folder / "scores").iterdir()] == ["a.parquet"]
