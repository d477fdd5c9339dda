"""Whole jobs whose surroundings fail: a disk that is full, a store that may not be written, two runs at once, a
clock that was set back.
"""

import contextlib
import os
import shutil
import subprocess
import time

import pytest

from benchmarks import full_disk, kills

JOB = full_disk.JOB
pytestmark = pytest.mark.slow
OPTIONS = {"cwd": kills.ROOT, "text": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}


def job(work, *more):
    return subprocess.run([*kills.command(work, JOB), *more], timeout=900, **OPTIONS)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    work = tmp_path_factory.mktemp("undisturbed")
    done = job(work)
    assert done.returncode == 0, done.stderr[-3000:]
    return work


@pytest.fixture
def store(undisturbed, tmp_path):
    """A copy of the finished job."""
    shutil.copytree(undisturbed, tmp_path / "work")
    return tmp_path / "work"


def test_a_quota_that_runs_full_is_one_line_and_the_job_goes_on_with_room(undisturbed, tmp_path):
    rows = full_disk.trial("quota", 0, tmp_path / "quota", undisturbed, growth=(12, 12))
    assert len(rows) > 3 and rows[-1]["stage"] == "ended"
    assert [row for row in rows if row["faults"]] == []


@contextlib.contextmanager
def read_only(folder):
    """A store that nobody may write: a mount where one is root, whom no mode of a file stops."""
    if os.geteuid() == 0:
        if subprocess.run(["mount", "--bind", folder, folder], capture_output=True).returncode:
            pytest.skip("neither a user whom modes stop nor one who may mount")
        subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)
        try:
            yield
        finally:
            subprocess.run(["umount", folder], check=True)
    else:
        for path in [folder, *folder.rglob("*")]:
            path.chmod(path.stat().st_mode & ~0o222)
        yield
        for path in [folder, *folder.rglob("*")]:
            path.chmod(path.stat().st_mode | 0o200)


def test_a_store_that_may_not_be_written_is_one_line(store):
    with read_only(store):
        done = job(store, "budget.share=0.2")
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr[-3000:]
    (line,) = [line for line in done.stderr.split("\n") if line.startswith("error: ")]
    assert "not writable" in line or "read-only" in line


def test_two_runs_at_once_make_one_store(undisturbed, tmp_path):
    both = [subprocess.Popen(kills.command(tmp_path / "work", JOB), **OPTIONS) for _ in range(2)]
    said = [run.communicate(timeout=900) for run in both]
    assert [run.returncode for run in both] == [0, 0], said
    assert kills.differences(tmp_path / "work", undisturbed) == []


def test_a_clock_that_was_set_back_changes_nothing(store, undisturbed):
    """All that is in the store was written tomorrow, a part of a training among it."""
    trained = sorted(store.glob("artifacts/pretrain/*/manifest.json"))[0].parent
    (trained / "manifest.json").unlink()
    trained.rename(trained.with_name(trained.name + ".partial"))
    later = time.time() + 86_400
    for path in store.rglob("*"):
        os.utime(path, (later, later))
    done = job(store)
    assert done.returncode == 0, done.stderr[-3000:]
    assert kills.differences(store, undisturbed) == []
