"""The local JSONL is the truth: a resumed run has every step once, and W&B offline runs can be read back."""

import os
import re
import struct
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy
import pytest
import wandb
from pretraining import job, workspace

from repro import tracking
from repro.errors import first_line
from repro.pretrain import log
from repro.report import wandb_log
from repro.tracking import Tracker, Tracking, read_rows


def test_rewind_drops_later_rows_and_a_line_cut_off_by_a_kill(tmp_path):
    path = tmp_path / "metrics.jsonl"
    tracker = Tracker(path, Tracking(wandb="disabled"), "arm-0", "exp")
    for step in range(5):
        tracker.log({"loss": step / 2}, step)
    tracker.finish()
    with open(path, "a") as handle:
        handle.write('{"step": 5, "lo')
    tracker = Tracker(path, Tracking(wandb="disabled"), "arm-0", "exp")
    tracker.rewind(2)
    tracker.log({"loss": 9.0}, 3)
    tracker.finish()
    assert [(r["step"], r["loss"]) for r in read_rows(path)] == [(0, 0.0), (1, 0.5), (2, 1.0), (3, 9.0)]


def test_an_offline_wandb_run_holds_the_rows_of_the_local_log(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    tracker = Tracker(
        tmp_path / "metrics.jsonl", Tracking(wandb="offline"), "arm-0", "exp", config={"lr": 0.1}
    )
    tracker.log({"loss": 1.5}, 1)
    tracker.log({"loss": 1.25}, 2)
    tracker.finish({"final": 1.25})

    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    losses: list[float] = []
    for _ in range(
        100
    ):  # on a busy machine W&B's own process writes the file a moment after finish() is back
        losses = [float(value) for key, value in history(file) if key == "loss"]
        if len(losses) == 2:
            break
        time.sleep(0.2)
    assert losses == [row["loss"] for row in read_rows(tmp_path / "metrics.jsonl")] == [1.5, 1.25]


def test_wandb_runs_of_artifacts_lie_at_the_top_of_the_work_folder(tmp_path):
    assert tracking.wandb_folder(tmp_path / "w/artifacts/pretrain/x.partial") == (tmp_path / "w").resolve()
    assert tracking.wandb_folder(tmp_path) == tmp_path


def test_the_offline_runs_of_an_artifact_are_found_by_its_name(tmp_path):
    for name in ("mini-seed0-0123abcd", "mini-seed0-0123abcd", "mini-seed0-0123abcd-x", "a" * 200):
        out = tmp_path / f"artifacts/pretrain/{name}.partial"
        Tracker(out / "metrics.jsonl", Tracking(), "arm", "exp", [], {"artifact": name}).finish()
    found = [
        tracking.offline_runs(tmp_path, name) for name in ("mini-seed0-0123abcd", "a" * 200, "mini-seed0")
    ]
    assert [len(runs) for runs in found] == [2, 1, 0] and all(run.is_dir() for runs in found for run in runs)


@pytest.mark.parametrize("key", ["", "0" * 40])
def test_a_login_is_found_without_asking_anybody(key, tmp_path, monkeypatch):
    """In a process of its own, for the library remembers."""
    environment = os.environ | {
        "HOME": str(tmp_path),
        "NETRC": str(tmp_path / "netrc"),
        "WANDB_MODE": "offline",
    }
    environment |= {
        "WANDB_API_KEY": key,
        "WANDB_CONFIG_DIR": str(tmp_path),
        "WANDB_BASE_URL": "http://127.0.0.1:9",
    }
    code = "from repro.tracking import logged_in; print(logged_in())"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout.split()[-1] == str(bool(key)), done.stderr


def test_without_a_terminal_progress_is_whole_lines(capsys, monkeypatch):
    clock = [1e9]
    monkeypatch.setattr("tqdm.std.time", lambda: clock[0])
    for total, left in (
        (2_000_000, " of 2.00M tokens, .*, 00:12 gone, 00:48 left"),
        (None, " tokens, .*, 00:12 gone"),
    ):
        with tracking.progress(total, "tokens", "scoring") as bar:
            for _ in range(12):
                bar.update(100_000)
                clock[0] += 4.0
        first, second, end = capsys.readouterr().err.split(
            "\n"
        )  # none before ten seconds, none within thirty of the first
        assert (
            "\r" not in first + second and end == "" and "?" not in first + second and "00:44 gone" in second
        )
        assert re.fullmatch(rf"    scoring: [\d.]+[kM]{left}", first), first
    with tracking.progress(10, "tokens", "short") as bar:
        bar.update(10)
    assert not capsys.readouterr().err


def history(path):
    """(key, JSON value) of every logged metric: LevelDB's log format after a 7-byte header, protobuf records inside."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, position, parts = path.read_bytes(), 7, b""
    while position + 7 <= len(data):
        if 32768 - position % 32768 < 7:  # the tail of a block is padding
            position += 32768 - position % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        if position + 7 + length > len(data):
            return  # still being written
        parts += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # a whole record, or its last part
            for item in Record.FromString(parts).history.item:
                yield item.key or "/".join(item.nested_key), item.value_json
            parts = b""


def test_a_stage_that_several_models_share_is_no_single_ones():
    def seeds(*names):
        return {
            "seeds": {
                str(n): {"artifacts": {"selection": {"fingerprint": name}}} for n, name in enumerate(names)
            }
        }

    found = wandb_log._owners(
        {"arms": {"a": seeds("shared", "shared"), "b": seeds("one", "all"), "c": seeds("x", "all")}}
    )
    assert found == {
        "shared": {"arm": "a"},
        "one": {"arm": "b", "seed": 0},
        "all": {"seed": 1},
        "x": {"arm": "c", "seed": 0},
    }
    assert wandb_log._tags({"scale": "s"}, found["shared"]) == ["s", "a"]


@pytest.mark.parametrize("error", [ConnectionError(), TimeoutError("\n"), OSError("no https://me:pw@route")])
def test_an_outage_of_wandb_stops_nothing_whatever_it_says(error, tmp_path, monkeypatch, capsys):
    def init(**_):
        raise error

    monkeypatch.setattr(wandb, "init", init)
    tracker = Tracker(tmp_path / "metrics.jsonl", Tracking(wandb="offline"), "arm-0", "exp")
    tracker.log({"loss": 1.0}, 1)
    tracker.finish()
    said = "no https://***@route" if str(error).strip() else type(error).__name__
    assert first_line(error) == said and f"W&B is off for arm-0: {said};" in capsys.readouterr().err


def test_a_training_says_in_wandb_which_artifact_it_becomes(tmp_path, monkeypatch):
    """Its report takes no runs of another scale, which are of the same experiment and arms."""
    told = []
    monkeypatch.setattr(log, "Tracker", lambda *given: told.append(given[-1]) or SimpleNamespace(rewind=str))
    stream = SimpleNamespace(tokens_read=lambda _: numpy.zeros(0, int))
    monkeypatch.setattr(log.np, "bincount", lambda *_, **__: None)
    log.Log(job(workspace(tmp_path), tmp_path / "mini-seed0-0123abcd.partial"), stream, 0)
    assert told[0]["artifact"] == "mini-seed0-0123abcd"
