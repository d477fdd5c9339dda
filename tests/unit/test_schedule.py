"""Several stages at once: order, what a failure takes with it, a process that is killed, and the end of a run."""

import functools
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import duckdb
import pytest

from repro import environment
from repro.errors import SettingError
from repro.execution import processes
from repro.execution.schedule import KILLED, Here, attempt, finish, workers
from repro.store import Stage, Store, read_json

SECONDS = 60  # that something may take before it counts as not happening


class Heard:
    """Everything that was told, in order."""

    def __init__(self):
        self.said = []

    def __getattr__(self, word):
        return lambda about, *_: word == "look" or self.said.append((word, about.label))

    def labels(self, word):
        return [label for said, label in self.said if said == word]


def seen(path):
    """Wait for a file that another process writes."""
    until = time.monotonic() + SECONDS
    while not path.exists():
        assert time.monotonic() < until, f"{path.name} never came"
        time.sleep(0.02)


def behave(work, label, context):
    """What a stage does is in its label."""
    assert all((path / "log").is_file() for path in context.inputs.values())  # never before what it reads
    (context.out / "log").open("a").write(f"{label}\n")
    (work / f"{label}.pid").write_text(str(os.getpid()))
    if label.startswith("meet"):  # until the other one is at work, too
        seen(work / f"{'meet-b' if label == 'meet-a' else 'meet-a'}.pid")
    if label == "broken":
        raise ValueError("no such thing\nand more of it")
    if label == "refused":
        raise SettingError("refused: set something else")
    if label == "deadly" or label == "fatal-once" and (context.out / "log").read_text().count("\n") == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if label == "endless":
        time.sleep(600)
    (context.out / "threads").write_text(os.environ.get("OMP_NUM_THREADS", ""))


def chain(work, *labels):
    """A shared stage, and a first and a second stage on it for each label."""
    made = [Stage("shared", "shared", {}, functools.partial(behave, work, "shared"))]
    for label in labels:
        first = Stage(
            "first", label, {"of": label}, functools.partial(behave, work, label), {"shared": made[0]}
        )
        made += [
            first,
            Stage(
                "second",
                f"{label}+",
                {"of": label},
                functools.partial(behave, work, f"{label}+"),
                {"first": first},
            ),
        ]
    return made


def call(work, labels, fingerprint):
    """As ``repro.execution.stages.in_process``, for the stages of ``chain``."""
    stage = next(stage for stage in chain(work, *labels) if stage.fingerprint == fingerprint)
    return attempt(lambda: Store(work).ensure(stage), work / f"{stage.label}.log")


def carried(work, labels, places, run_now=None):
    heard, failed, stages = Heard(), {}, chain(work, *labels)
    run_now = {stage.fingerprint for stage in stages} if run_now is None else run_now
    finish(stages, run_now, places, functools.partial(call, work, labels), failed, heard)
    return heard, {stage.label: failed[stage.fingerprint] for stage in stages if stage.fingerprint in failed}


def test_what_fails_takes_what_reads_it_and_nothing_else(tmp_path):
    heard, failed = carried(tmp_path, ["a", "broken", "refused", "b"], [Here()])
    assert heard.labels("ended") == ["shared", "a", "a+", "b", "b+"]
    assert heard.labels("failed") == ["broken", "refused"] and heard.labels("skipped") == [
        "broken+",
        "refused+",
    ]
    assert (failed["broken"].reason, failed["broken"].mistake) == ("ValueError: no such thing", False)
    assert (failed["refused+"].reason, failed["refused+"].mistake) == ("refused: set something else", True)
    assert failed["refused+"].stage.label == "refused" and isinstance(failed["broken"].error, ValueError)
    assert (
        "behave" in (tmp_path / "broken.log").read_text()
        and "and more of it" in (tmp_path / "broken.log").read_text()
    )

    store = Store(tmp_path)
    again, _ = carried(
        tmp_path,
        ["a", "broken"],
        [Here()],
        {s.fingerprint for s in chain(tmp_path, "a", "broken") if not store.has(s)},
    )
    assert again.labels("cached") == ["shared", "a", "a+"] and again.labels("started") == ["broken"]


def test_one_process_runs_stages_in_their_order_and_says_so_as_they_come(tmp_path):
    heard, failed = carried(tmp_path, ["a", "b"], [Here()])
    order = ["shared", "a", "a+", "b", "b+"]
    assert heard.said == [(word, label) for label in order for word in ("started", "ended")] and not failed


def test_stages_run_at_once_each_in_a_process_with_its_share_of_threads(tmp_path):
    with environment.variables({"OMP_NUM_THREADS": "1"}), workers([{}, {"OMP_NUM_THREADS": "3"}]) as places:
        labels = ["meet-a", "meet-b", "broken"]
        heard, failed = carried(tmp_path, labels, places)  # each of two waits for the other
    assert sorted(heard.labels("ended")) == ["meet-a", "meet-a+", "meet-b", "meet-b+", "shared"]
    assert set(failed) == {"broken", "broken+"}
    assert (
        failed["broken"].reason == "ValueError: no such thing" and failed["broken"].error is None
    )  # not all can be sent
    threads = [
        Store(tmp_path).path(s).joinpath("threads").read_text()
        for s in chain(tmp_path, *labels)
        if s.label[:4] == "meet" and len(s.label) == 6
    ]
    assert sorted(threads) == ["1", "3"]


def test_a_process_that_is_killed_costs_its_stage_a_second_try_and_nobody_else_anything(tmp_path):
    with workers([{}, {}]) as places:
        heard, failed = carried(tmp_path, ["fatal-once", "deadly", "a"], places)
    assert sorted(heard.labels("again")) == ["deadly", "fatal-once"] and heard.labels("failed") == ["deadly"]
    assert {"fatal-once+", "a+"} <= set(heard.labels("ended")) and failed["deadly+"].reason == KILLED
    once = next(s for s in chain(tmp_path, "fatal-once") if s.label == "fatal-once")
    assert (Store(tmp_path).path(once) / "log").read_text() == "fatal-once\n" * 2  # it went on where it was


SCRIPT = """
import sys
import threading
from pathlib import Path
from test_schedule import carried
from repro.execution import processes
from repro.execution.schedule import workers
if __name__ == "__main__":
    with processes.terminable(), workers([{}, {}]) as places:
        carried(Path(sys.argv[1]), ["endless", "a"], places)
"""


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_its_run(tmp_path, how):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])])
    run = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)],
        env=os.environ | {"PYTHONPATH": paths},
        stderr=subprocess.DEVNULL,
        # a shell that started the tests in the background had them, and so this, ignore Ctrl-C
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    seen(tmp_path / "endless.pid")
    seen(Store(tmp_path).path(chain(tmp_path, "a")[2]) / "manifest.json")
    at_work = [int((tmp_path / f"{label}.pid").read_text()) for label in ("endless", "a+")]
    run.send_signal(how)
    assert run.wait(SECONDS) != 0
    until = time.monotonic() + SECONDS
    while any(map(alive, at_work)):
        assert time.monotonic() < until
        time.sleep(0.05)
    assert (
        read_json(Store(tmp_path).path(chain(tmp_path, "a")[1]) / "manifest.json")["label"] == "a"
    )  # what was done is kept


@pytest.mark.parametrize(
    ("number", "stopped"), [(signal.SIGTERM, processes.Terminated), (signal.SIGINT, KeyboardInterrupt)]
)
def test_a_signal_that_ends_a_query_is_no_failure_of_the_stage(number, stopped, tmp_path, monkeypatch):
    """DuckDB answers with an error of its own, whatever the handler raised."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    query = "SELECT count(*) FROM range(300000000) a WHERE a.range % 7 = hash(a.range) % 11"
    timer = threading.Timer(0.2, os.kill, (os.getpid(), number))
    try:
        with processes.terminable(), pytest.raises(stopped) as raised:
            timer.start()
            attempt(lambda: duckdb.sql(query).fetchall(), tmp_path / "log")
    finally:
        timer.cancel()
        signal.signal(signal.SIGINT, before)
    assert raised.type is stopped and not (tmp_path / "log").exists()
    failed = attempt(lambda: duckdb.sql("SELECT nothing").fetchall(), tmp_path / "log")
    assert failed is not None and "nothing" in failed.reason
