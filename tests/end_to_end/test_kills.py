"""Signals at random moments of a whole job, by the script that does it 200 times (benchmarks/kills.py)."""

import os
import random
import shutil
import signal
import subprocess
import time

import pytest

from benchmarks import kills
from repro.store import read_json

JOB = (
    "exp=selection_30pct",
    "scale=smoke",
    "exp.seeds=[0]",
    "exp.only=[attention_influence,random]",
    "tracking.wandb=disabled",
)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    work = tmp_path_factory.mktemp("undisturbed")
    done = subprocess.run(
        kills.command(work, JOB), cwd=kills.ROOT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return work


@pytest.mark.slow
def test_a_sample_of_ten_kills(undisturbed, tmp_path):
    rows, number = [], 0
    while sum(row["stage"] != "ended" for row in rows) < 10:
        rows += kills.trial(number, 0, tmp_path, undisturbed, JOB)
        number += 1
    assert [row["faults"] for row in rows if row["faults"]] == []


@pytest.mark.slow
def test_the_comparison_sees_every_file_and_what_was_left(undisturbed, tmp_path):
    work = tmp_path / "work"
    shutil.copytree(undisturbed, work)
    assert kills.differences(work, undisturbed) == []
    generator = random.Random(0)
    for kind in sorted((work / "artifacts").iterdir()):
        folder = next(iter(sorted(kind.glob("*/manifest.json")))).parent
        path = generator.choice([folder / name for name in read_json(folder / "manifest.json")["files"]])
        whole = path.read_bytes()
        path.write_bytes(whole[:-2] + b"?" + whole[-1:])
        assert kills.differences(work, undisturbed) != [] or path.name in kills.TIMED, path
        path.write_bytes(whole)
    (work / "artifacts" / "score" / "x.partial").mkdir()
    assert kills.differences(work, undisturbed) == ["left over: artifacts/score/x.partial"]


@pytest.mark.slow
def test_stopped_and_continued_then_terminated_and_started_again(undisturbed, tmp_path):
    process = subprocess.Popen(kills.command(tmp_path, JOB), cwd=kills.ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True, start_new_session=True)  # fmt: skip
    while "pretrain" not in process.stdout.readline():
        pass
    os.killpg(process.pid, signal.SIGSTOP)
    time.sleep(2)
    os.killpg(process.pid, signal.SIGCONT)
    process.terminate()
    _, said = process.communicate(timeout=120)
    assert process.returncode == 143 and said.rstrip().endswith(
        "interrupted; the same command goes on from here"
    )
    assert "Traceback" not in said
    again = subprocess.run(
        kills.command(tmp_path, JOB), cwd=kills.ROOT, capture_output=True, text=True, timeout=600
    )
    assert again.returncode == 0 and kills.differences(tmp_path, undisturbed) == []
