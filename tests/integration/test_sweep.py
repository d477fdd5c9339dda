"""A sweep is ordinary runs over one store: shared stages, a member that fails, the same command again."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from repro import sweep
from repro.settings.compose import compose
from repro.settings.files import options


@pytest.fixture
def shares(monkeypatch):
    """Two shares that select something, and one of nothing."""
    grid = {"budget.share": [0.3, 0.5, 1e-9]}
    monkeypatch.setattr(
        sweep, "read_option", lambda group, name, schema: {"exp": "score_corpus", "grid": grid}
    )
    return ["scale=smoke", "tracking.wandb=disabled", "corpus.max_documents_per_domain=20"]


def test_members_share_a_scoring_and_one_that_fails_is_named_and_stops_nobody(shares, tmp_path, capsys):
    work = tmp_path / "w"
    folder, failed = sweep.run("shares", [*shares, f"work={work}"], jobs=2)
    assert failed == ["budget.share=1e-09"]
    said = capsys.readouterr().out
    assert "[budget.share=1e-09]  FAILED: error: " in said and "takes no document" in said
    runs = json.loads((folder / "sweep.json").read_text())
    assert runs["budget.share=1e-09"] is None and runs["budget.share=0.3"] != runs["budget.share=0.5"]
    for stage, count in (("score", 1), ("detection", 1), ("corpus", 1), ("selection", 2)):
        assert len(list(work.glob(f"artifacts/{stage}/*/manifest.json"))) == count, stage
    table = (folder / "tables" / "sweep.md").read_text()
    assert "budget.share=0.5" in table and "| budget.share=1e-09 | failed" in table

    made = {path: path.stat().st_mtime_ns for path in work.glob("artifacts/*/*/manifest.json")}
    again, failed = sweep.run("shares", [*shares, f"work={work}"], jobs=2)
    assert again == folder and failed == ["budget.share=1e-09"]
    assert {path: path.stat().st_mtime_ns for path in work.glob("artifacts/*/*/manifest.json")} == made
    log = (folder / "member-00.log").read_text()
    assert "cached" in log and "running" not in log


def test_members_that_run_at_once_have_a_gpu_each(shares, tmp_path, monkeypatch):
    seen = []

    def started(command, stdout, stderr, env):
        seen.append((command[-3:], env.get("CUDA_VISIBLE_DEVICES")))
        return SimpleNamespace(poll=lambda: 1, wait=lambda: 1)

    monkeypatch.setattr(subprocess, "Popen", started)
    monkeypatch.setattr(sweep, "gpus", lambda: ["4", "7"])
    for jobs, expected in ((1, {None}), (2, {"4", "7"}), (3, {"4", "7"})):
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        seen.clear()
        sweep.run("shares", [*shares, f"work={tmp_path / str(jobs)}"], jobs=jobs)
        assert len(seen) == 3 and {device for _, device in seen} <= expected
        assert jobs == 1 or len({device for _, device in seen}) == 2
    seen.clear()
    training = {"exp": "selection_30pct", "grid": {"budget.share": [0.3, 0.5]}}
    monkeypatch.setattr(sweep, "read_option", lambda group, name, schema: training)
    ranks = ["train.processes=2", "train.micro_batch=4", "train.launcher=torchrun"]
    sweep.run("shares", [*shares, *ranks, f"work={tmp_path / 'ranks'}"], jobs=2)
    assert {device for _, device in seen} == {None}  # a member of several ranks needs several


MEMBER = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended in order"))
print("Ctrl-C held:", signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []), flush=True)
time.sleep(30)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_ends_the_members_in_order_and_starts_no_more(
    number, code, shares, tmp_path, monkeypatch, capsys
):
    start, started = subprocess.Popen, []

    def member(command, **how):
        started.append(start([sys.executable, "-c", MEMBER], **how))
        return started[-1]

    def logs():
        return [path.read_text() for path in sorted(tmp_path.glob("sweeps/*/member-*.log"))]

    def interrupt():
        until = time.monotonic() + 20
        while sum("held" in log for log in logs()) < 2 and time.monotonic() < until:
            time.sleep(0.05)
        os.kill(os.getpid(), number)

    monkeypatch.setattr(subprocess, "Popen", member)
    sender = threading.Thread(target=interrupt)
    # a shell that started the tests in the background has them ignore Ctrl-C
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        sender.start()
        assert sweep.main(["sweep=shares", *shares, f"work={tmp_path}", "--jobs", "2"]) == code
        sender.join()
    finally:
        signal.signal(signal.SIGINT, before)
    assert logs() == ["Ctrl-C held: True\nended in order\n"] * 2
    assert len(started) == 2 and all(process.returncode == 1 for process in started)
    said = capsys.readouterr()
    assert said.err == "interrupted; the same command goes on from here\n" and "FAILED" not in said.out


def test_a_work_folder_in_a_bucket_is_refused(tmp_path, monkeypatch, capsys):
    """Its members would run there, and the sweep's own files would land in a folder called s3:."""
    monkeypatch.chdir(tmp_path)
    assert sweep.main(["sweep=select_share", "scale=smoke", "work=s3://bucket/work"]) == 2
    assert "needs a folder" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_gpus_that_were_given_are_kept_to(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert sweep.gpus() == ["2", "3"]


@pytest.mark.parametrize("name", options("sweep"))
def test_a_new_arm_is_what_its_member_compares(name):
    for label, arguments in sweep.members(name, ["scale=smoke"]).items():
        settings = compose(arguments)
        if "exp.arms.new.select" in label:
            primary = [c for c in settings.exp.contrasts if c.primary]
            assert [(c.treatment, c.control) for c in primary] == [("new", "random")]
            assert len(settings.exp.arms) == 5
