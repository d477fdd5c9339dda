"""Several real processes at one scoring: killed, stopped and woken up, every shard is there once with the right bytes."""

import errno
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from repro.errors import SettingError
from repro.influence import claiming, claims

ROOT = Path(claims.__file__).parents[2]
WORKER = """
import os, sys, time
from pathlib import Path
from repro.influence.claiming import Worker
from repro.influence.claims import Closed

def content(shard, wait):
    time.sleep(wait)
    if shard == "bad.parquet":
        raise ValueError("bad shard")
    return (shard * 100).encode()

partial, wait, aloud = Path(sys.argv[1]), float(sys.argv[2]), len(sys.argv) > 3
try:
    with Worker(partial) as worker:
        while True:
            claim = worker.claim()
            if claim is None:
                state = worker.board.look()
                if not state.held and not state.free:
                    break
                time.sleep(0.02)
                continue
            if aloud:
                print(claim.shard, flush=True)
            try:
                data = content(claim.shard, wait)
            except ValueError as error:
                worker.failed(claim, error)
                continue
            worker.moved(claim, 50)
            if not worker.publish(claim, data):
                print("late", flush=True)
except Closed:
    pass
"""


def opened(folder, names, lease=30.0, **settings):
    partial = folder / "score" / "x-00000000.partial"
    claims.open_job(
        partial, {"tokens": dict.fromkeys(names, 100), "lease_seconds": lease, "settings": settings}
    )
    return partial


def joinable(folder):
    """A scoring of one shard as ``--join`` finds it; its model is nowhere."""
    from repro.influence import stage

    job = {"tokens": {"a.parquet": 1}, "lease_seconds": 30.0, "version": stage.VERSION, "heads": []}
    settings = {"dtype": "float32", "mask": "uniform", "window": 8, "max_tokens": None, "threads": 1}
    job |= {"model": "m", "means": None, "settings": settings | {"tokens_per_batch": 8}}
    return claims.open_job(folder / "artifacts/score/x-00000000.partial", job)


def start(partial, wait, *more):
    command = [sys.executable, "-c", WORKER, str(partial), str(wait), *more]
    return subprocess.Popen(
        command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True
    )


def results(partial):
    return {path.name: path.read_bytes() for path in (partial / "scores").iterdir()}


def expected(names):
    return {name: (name * 100).encode() for name in names}


def test_workers_killed_at_random_moments_leave_every_shard_once(tmp_path):
    names = [f"a-{i:05}.parquet" for i in range(60)]
    partial, rng = opened(tmp_path, names), random.Random(0)
    workers, kills = [start(partial, 0.02) for _ in range(3)], 0
    until = time.monotonic() + 300
    while len(results(partial)) < len(names):
        assert time.monotonic() < until
        time.sleep(rng.uniform(0.0, 0.3))
        if kills < 12:
            victim = workers.pop(rng.randrange(len(workers)))
            victim.kill()
            victim.communicate()
            workers.append(start(partial, 0.02))
            kills += 1
    for worker in workers:
        worker.communicate(timeout=60)
        assert worker.returncode == 0
    assert kills > 3 and results(partial) == expected(names)
    claims.close_job(partial)
    assert [path.name for path in partial.iterdir()] == ["scores"]


def test_a_stopped_worker_loses_its_shard_and_its_late_result_does_no_harm(tmp_path):
    partial = opened(tmp_path, ["one.parquet"], lease=0.6)
    stuck = start(partial, 0.3, "aloud")
    assert stuck.stdout.readline() == "one.parquet\n"
    os.kill(stuck.pid, signal.SIGSTOP)
    try:
        assert claims.Board(partial).look().held
        start(partial, 0).communicate(timeout=60)  # waits for the lease, takes the shard, ends
        assert results(partial) == expected(["one.parquet"])
        before = (partial / "scores" / "one.parquet").stat()
    finally:
        os.kill(stuck.pid, signal.SIGCONT)
    assert stuck.communicate(timeout=60)[0] == "late\n" and stuck.returncode == 0
    after = (partial / "scores" / "one.parquet").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_worker_that_lives_but_does_not_move_is_taken_for_lost(tmp_path, monkeypatch):
    monkeypatch.setattr(claiming, "STUCK", 1)
    partial = opened(tmp_path, ["one.parquet"], lease=0.3)
    with claiming.Worker(partial) as stuck:
        assert stuck.claim() == claiming.Claim("one.parquet", 1)
        until = time.monotonic() + 30
        while not claims.Board(partial).look().free:
            assert time.monotonic() < until
            time.sleep(0.05)
        with claiming.Worker(partial) as other:
            assert other.claim() == claiming.Claim("one.parquet", 2)
            assert not stuck.publish(claiming.Claim("one.parquet", 1), b"late")
            assert other.publish(claiming.Claim("one.parquet", 2), b"right")
    assert results(partial) == {"one.parquet": b"right"}


def test_of_two_that_see_a_free_shard_at_once_one_takes_it(tmp_path, monkeypatch):
    partial = opened(tmp_path, ["one.parquet"])
    with claiming.Worker(partial) as slow, claiming.Worker(partial) as fast:
        look, taken = slow.board.look, []

        def overtaken():
            state = look()
            taken.append(fast.claim())
            return state

        monkeypatch.setattr(slow.board, "look", overtaken)
        assert slow.claim() is None and taken == [claiming.Claim("one.parquet", 1)]
        assert fast.publish(taken[0], b"whole")


def test_a_bad_shard_is_tried_again_then_given_up_and_the_rest_is_done(tmp_path):
    partial = opened(tmp_path, ["bad.parquet", "good.parquet", "other.parquet"])
    start(partial, 0).communicate(timeout=60)
    assert results(partial) == expected(["good.parquet", "other.parquet"])
    state = claims.Board(partial).look()
    assert state.failed == {"bad.parquet": "3 tries, the last: ValueError: bad shard"} and not state.free
    claims.open_job(partial, claims.Board(partial).job)  # the same command again
    assert claims.Board(partial).look().free == {"bad.parquet": 4}


def test_whoever_leaves_in_order_was_not_lost(tmp_path):
    partial = opened(tmp_path, ["one.parquet"])
    for number in range(1, claims.DEATHS + 3):
        with pytest.raises(KeyboardInterrupt), claiming.Worker(partial) as stopped:
            assert stopped.claim() == claiming.Claim("one.parquet", number)
            raise KeyboardInterrupt
    assert not claims.Board(partial).look().failed


@pytest.mark.parametrize(
    ("device", "said"),
    [("cuda:1", "device=cuda:1: PyTorch finds 0 CUDA"), ("gpu", "device='gpu' is not known")],
)
def test_a_device_that_is_not_here_is_refused_before_a_shard_is_claimed(
    device, said, tmp_path, monkeypatch, capsys
):
    import torch

    from repro.influence import __main__ as door

    monkeypatch.setattr(door.environment, "prepare", lambda **_: None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    board = joinable(tmp_path)
    assert door.main(["--join", f"work={tmp_path}", f"device={device}", "score.processes=1"]) == 2
    line = capsys.readouterr().err.strip()
    assert line.startswith(f"error: {said}") and "\n" not in line
    assert board.look().free == {"a.parquet": 1}


def test_who_joins_leaves_in_order_where_a_batch_system_asks_for_it(tmp_path, monkeypatch, capsys):
    from repro.influence import __main__ as door

    monkeypatch.setattr(door.environment, "prepare", lambda **_: None)
    monkeypatch.setattr(door, "join", lambda *_: signal.raise_signal(signal.SIGTERM) or 0)
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        assert door.main(["--join", f"work={tmp_path}", "device=cpu"]) == 143
    finally:
        signal.signal(signal.SIGTERM, before)
    assert capsys.readouterr().err == "left; others go on\n"


def test_the_same_command_again_forgives_workers_that_were_lost_and_leaves_one_that_lives_alone(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(claims, "DEATHS", 2)
    partial = opened(tmp_path, ["one.parquet", "two.parquet"])
    with claiming.Worker(partial) as living:
        assert living.claim() == claiming.Claim("one.parquet", 1)
        for _ in range(2):
            killed = start(partial, 60, "aloud")
            assert killed.stdout.readline() == "two.parquet\n"
            killed.kill()
            killed.communicate()
        state = claims.Board(partial).look()
        assert state.failed == {"two.parquet": "2 workers were lost at it (out of memory?)"}
        state = claims.open_job(partial, claims.Board(partial).job).look()
        assert state.free == {"two.parquet": 3} and state.held == {"one.parquet": living.id}


def test_clocks_of_machines_do_not_matter(tmp_path, monkeypatch):
    partial = opened(tmp_path, ["one.parquet"])
    with claiming.Worker(partial) as worker:
        worker.claim()
        monkeypatch.setattr(time, "time", lambda: 4e9)
        assert claims.Board(partial).look().held
        old = partial / "claims" / f"worker-{worker.id}.json"
        worker._stop.set()
        worker._thread.join()
        os.utime(old, (old.stat().st_atime, old.stat().st_mtime - 31))
        assert claims.Board(partial).look().free == {"one.parquet": 2}


def test_progress_is_over_all_workers(tmp_path):
    partial = opened(tmp_path, ["a.parquet", "b.parquet", "c.parquet"])
    assert claims.progress(tmp_path) is None
    with claiming.Worker(partial) as one, claiming.Worker(partial) as two:
        first, second = one.claim(), two.claim()
        assert {first.shard, second.shard} == {"a.parquet", "b.parquet"}
        one.publish(first, b"x")
        two.moved(second, 50)
        two._beat()
        found = claims.progress(partial)
        assert (found.shards, found.finished, found.tokens, found.tokens_done) == (3, 1, 300, 150)
        assert len(found.workers) == 2 and found.tokens_per_second > 0
        assert found.seconds_left == pytest.approx(150 / found.tokens_per_second)
        assert "1 of 3 shards, 50% of about 300 tokens, 2 workers" in found.line()
    assert claims.waiting(tmp_path) == [partial]


def test_joining_with_other_settings_is_refused_in_one_line(tmp_path):
    partial = opened(tmp_path, ["a.parquet"], window=512, max_tokens=None)
    claims.joined(partial, {"window": "512", "max_tokens": "null"})
    with pytest.raises(
        SettingError, match=r"score.window=1024 is not what is being scored.*\(score.window=512\)"
    ) as refusal:
        claims.joined(partial, {"window": "1024"})
    assert "\n" not in str(refusal.value)


def test_joining_with_a_misspelt_setting_is_refused_at_once(tmp_path, capsys):
    from repro.influence import __main__ as door

    assert door.main(["--join", f"work={tmp_path}", "score.procceses=2"]) == 2
    assert "unknown setting score.procceses; did you mean score.processes?" in capsys.readouterr().err


@pytest.mark.parametrize(
    "number,said", [(errno.EROFS, "the store is read-only"), (errno.ENOSPC, "no space left")]
)
def test_a_store_that_cannot_be_written_is_one_line_to_who_joins(tmp_path, monkeypatch, capsys, number, said):
    from repro.influence import __main__ as door

    joinable(tmp_path)

    def refused(worker):
        raise OSError(number, os.strerror(number), str(worker.path))

    monkeypatch.setattr(claiming.Worker, "_beat", refused)
    monkeypatch.setattr(door.environment, "prepare", lambda **_: None)
    assert door.main(["--join", f"work={tmp_path}", "device=cpu", "score.processes=1"]) == 2
    line = capsys.readouterr().err.strip()
    assert line.startswith("error: ") and said in line and "\n" not in line
