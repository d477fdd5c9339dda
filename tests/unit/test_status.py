"""What a run leaves for others to see, and what repro status says of it."""

import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from filelock import FileLock
from test_stages import start  # noqa: F401

from repro import status, tracking
from repro.errors import SettingError
from repro.execution import notice, running
from repro.settings.compose import compose
from repro.store import Stage, read_json

ABOUT = {"experiment": "mine", "scale": "smoke", "command": ["run.py", "exp=mine"]}
STAGE = Stage("pretrain", "a", {}, lambda context: None)


@pytest.mark.parametrize("how", [[], ["run.parallel=2", "run.threads=1"]])
def test_a_run_leaves_how_it_ended_and_what_it_said(start, tmp_path, how):  # noqa: F811
    code, _, said = start({"random-1": "diverges"}, *how)
    (found,) = status.read(tmp_path)["runs"]
    assert code == 1 and found["state"] == "failed" and found["current"] == []
    assert (found["done"] + len(found["failed"]), found["stages"], found["cached"]) == (
        10,
        11,
        0,
    )  # one is left out
    assert (
        found["failed"][0]["reason"] == "the loss is not finite at step 3"
        and found["run"] == said.out.split()[-1]
    )
    log = (tmp_path / "running").glob("*.log").__next__().read_text().split("\n")
    lines = [line[21:] for line in log if line]
    assert lines and set(lines) <= set((said.out + said.err).split("\n"))
    text = status.render(status.read(tmp_path))
    assert (
        "nothing runs" in text and "FAILED training random, seed 1: the loss is not finite at step 3" in text
    )
    start({})
    again = status.read(tmp_path)["runs"][0]
    assert again["state"] == "done" and again["cached"] == 9 and again["done"] == 2


def test_a_run_at_work_is_told_from_one_that_was_killed(tmp_path):
    with running.recorded(tmp_path, ABOUT) as record:
        record.stages(4)
        record.started(STAGE, "a, seed 0")
        path = tmp_path / "artifacts" / f"{STAGE.folder}.progress"
        path.parent.mkdir(parents=True)
        path.write_text("a: 3 of 9 tokens, 00:05 left")
        (found,) = status.read(tmp_path)["runs"]
        assert found["state"] == "running" and "a: 3 of 9 tokens, 00:05 left" in status.render(
            {**status.read(tmp_path)}
        )
        copied = tmp_path / "killed"
        shutil.copytree(tmp_path / "running", copied / "running")  # nobody holds this lock
    (gone,) = status.read(copied)["runs"]
    assert gone["state"] == "killed" and "gone without a word" in status.render(status.read(copied))
    assert status.read(tmp_path)["runs"][0]["state"] == "done"


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (KeyboardInterrupt(), "stopped"),
        (SettingError("a mistake"), "failed"),
        (OSError(28, "full"), "failed"),
    ],
)
def test_what_ends_a_run_stands_in_its_record(error, state, tmp_path):
    with pytest.raises(type(error)), running.recorded(tmp_path, ABOUT) as record:
        record.started(STAGE, "a")
        raise error
    (found,) = status.read(tmp_path)["runs"]
    assert found["state"] == state and found["reason"] and state in record.log.read_text()


def test_forty_columns_are_enough(tmp_path):
    with running.recorded(tmp_path, ABOUT) as record:
        record.started(STAGE, "a long name of an arm that has many words, seed 0")
        text = status.render(status.read(tmp_path), 40)
    longest = max(len(word) for word in text.split())  # a path is not broken
    assert all(len(line) <= max(40, longest + 8) for line in text.split("\n")) and len(text.split("\n")) > 6


def test_old_records_go_and_those_of_runs_at_work_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(running, "KEPT", 2)
    with running.recorded(tmp_path, ABOUT | {"experiment": "first"}) as first:
        for number in range(5):
            with running.recorded(tmp_path, ABOUT | {"experiment": f"n{number}"}) as record:
                os.utime(first.path, (0, 0))
        names = {read_json(path)["experiment"] for path in (tmp_path / "running").glob("*.json")}
    assert "first" in names and f"n{number}" in names and "n0" not in names and record.log.parent.is_dir()


def test_what_a_kill_inside_a_write_left_goes_and_that_of_a_run_at_work_stays(tmp_path):
    folder = tmp_path / "running"
    folder.mkdir()
    for name in ("first-write", "later-write", "at-work"):
        (folder / f".{name}.json.77.tmp").write_text("{")
        (folder / f"{name}.lock").touch()
    for name in ("later-write", "at-work"):
        (folder / f"{name}.json").write_text("{}")
    with FileLock(str(folder / "at-work.lock")):
        running._forget(folder)
    left = {path.name for path in folder.iterdir()}
    assert left == {
        ".at-work.json.77.tmp",
        "at-work.json",
        "at-work.lock",
        "later-write.json",
        "later-write.lock",
    }


def test_the_door_answers_without_a_terminal_and_refuses_what_is_no_folder(tmp_path):
    with running.recorded(tmp_path, ABOUT):
        command = [sys.executable, "-m", "repro", "status", str(tmp_path)]
        done = subprocess.run([*command, "--json"], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert json.loads(done.stdout)["runs"][0]["state"] == "running"  # asked by another process
    done = subprocess.run([*command[:-1], "nowhere"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: nowhere is no folder")


def test_progress_stands_beside_the_stage_while_it_runs(tmp_path, capsys):
    path = tmp_path / "x.progress"
    with tracking.progress_beside(path):
        with tracking.progress(100, "tokens", "scoring") as bar:
            bar.update(40)
            assert (
                path.read_text().startswith("scoring: 40 of 100 tokens, ")
                and "?" not in path.read_text().split("tokens/s")[-1]
            )
        assert path.is_file()
    assert not path.exists()


def test_a_notice_reaches_a_webhook_and_a_dead_one_costs_nothing(monkeypatch, capsys):
    got = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        monkeypatch.setenv("REPRO_WEBHOOK", f"http://127.0.0.1:{server.server_port}/secret")
        notice.give("webhook", "it is done")
    assert got == [{"text": "it is done"}]
    notice.give("webhook", "again")
    said = capsys.readouterr().err
    assert said.startswith("warning: no notice was given") and "secret" not in said
    monkeypatch.delenv("REPRO_WEBHOOK")
    with pytest.raises(SettingError, match="needs a URL in"):
        compose(["exp=selection_30pct", "run.notice=webhook"])


@pytest.mark.parametrize(
    "record", ["{}", "[]", '{"state": "done"', '{"state": "running", "current": [{}]}', "3"]
)
def test_what_is_no_record_of_a_run_is_left_out_and_named(record, tmp_path, capsys):
    (tmp_path / "running").mkdir()
    (tmp_path / "running" / "odd.json").write_text(record)
    assert status.main([str(tmp_path)]) == 0
    found = capsys.readouterr()
    assert "nothing runs" in found.out and "odd.json is no record of a run and is left out" in found.err
