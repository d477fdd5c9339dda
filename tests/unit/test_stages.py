"""A run whose arm fails: the others finish, the report says so, the exit code and the last lines too."""

import json
import os
from dataclasses import replace

import pytest
from trivial import in_world, world

from repro import experiments, run, store
from repro.errors import NoRoom, SettingError
from repro.execution import processes, stages
from repro.execution.schedule import KILLED
from repro.execution.stages import share
from repro.outcomes.collect import _portable
from repro.plan import checks
from repro.report import build, terminal
from repro.settings.compose import compose
from repro.settings.execution import Run
from repro.store import write_json

RUN = ["exp=selection_30pct", "scale=smoke", "exp.seeds=[0,1]", "exp.only=[full,random]"]
RUN += ["exp.contrasts=[{treatment: full, control: random, primary: true}]"]


@pytest.fixture
def start(tmp_path, monkeypatch, capsys):
    """Run it with ``trainings`` that fail; returns exit code, what the report was given, and the output."""
    seen = {}

    def report(folder, settings, _, found):
        seen.update(found)
        write_json(folder / "summary.json", {"failed": found["failed"]})

    monkeypatch.setattr(experiments, "build", world)
    monkeypatch.setattr(store, "provenance", dict)  # asking git for every stage takes seconds
    monkeypatch.setattr(checks, "names", lambda settings, experiment: None)
    monkeypatch.setattr(build, "build", report)
    monkeypatch.setattr(terminal, "render", lambda summary: "")
    monkeypatch.setattr(stages, "in_process", in_world)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    def once(trainings, *arguments):
        seen.clear()
        monkeypatch.setenv("TRAININGS", json.dumps(trainings))
        code = run.main([*RUN, f"work={tmp_path}", *arguments])
        return code, dict(seen), capsys.readouterr()

    return once


@pytest.mark.parametrize("how", [[], ["run.parallel=2", "run.threads=1"]])
def test_an_arm_that_fails_is_a_row_and_the_same_command_tries_it_again(start, tmp_path, how):
    code, seen, said = start({"random-1": "diverges", "full-0": "breaks"}, *how)
    assert code == 1 and {arm: list(by_seed) for arm, by_seed in seen["arms"].items()} == {
        "full": [1],
        "random": [0],
    }
    assert seen["failed"] == [
        {"arm": "full", "seed": 0, "stage": "training", "reason": "ZeroDivisionError: division by zero"},
        {"arm": "random", "seed": 1, "stage": "training", "reason": "the loss is not finite at step 3"},
    ]
    assert said.err.strip().split("\n")[-3:] == [
        "error: full, seed 0: training failed: ZeroDivisionError: division by zero",
        "error: random, seed 1: training failed: the loss is not finite at step 3",
        "2 models failed; the same command tries them again",
    ]
    assert said.out.strip().split("\n")[-1].startswith("run: ") and "left out: training failed" in said.out
    assert said.err.count("warning: random 0 was here") == 1
    (log,) = tmp_path.glob("artifacts/training/full-0-*.log")
    assert "ZeroDivisionError" in log.read_text() and "learn" in log.read_text()

    code, seen, said = start({}, *how)
    assert code == 0 and seen["failed"] == [] and said.out.count("  running\n") == 4
    assert not list(tmp_path.glob("artifacts/*/*.log")) and not list(tmp_path.glob("artifacts/*/*.progress"))


def test_a_report_in_between_names_what_is_not_there_and_runs_nothing(start, tmp_path):
    def at_work():
        return {p: p.stat().st_mtime_ns for p in tmp_path.glob("artifacts/**/*")}

    code, seen, said = start({}, "--so-far")
    assert code == 2 and "nothing to report yet: corpus" in said.err and not seen and not at_work()
    start({"random-1": "diverges", "full-0": "breaks"})
    before = at_work()
    code, seen, said = start({}, "--so-far")
    assert code == 0 and {a: list(of) for a, of in seen["arms"].items()} == {"full": [1], "random": [0]}
    assert seen["failed"] == [] and [(row["arm"], row["seed"], row["stage"]) for row in seen["absent"]] == [
        ("full", 0, "training"),
        ("random", 1, "training"),
    ]
    assert at_work() == before and any(p.suffix == ".log" for p in before), "logs of a run at work, too"
    start({})
    (file,) = tmp_path.glob("artifacts/training/full-1-*/threads")
    kept = file.read_text()
    file.write_text(
        kept + "9"
    )  # what does not fit its manifest is in no report, and stays for the run to mend
    code, seen, said = start({}, "--so-far")
    assert [(row["arm"], row["seed"], row["stage"]) for row in seen["absent"]] == [("full", 1, "training")]
    assert "damaged: the run makes it anew" in str(seen["absent"]) and file.read_text() == kept + "9"
    file.write_text(kept)
    code, seen, said = start({}, "--so-far")
    assert code == 0 and seen["absent"] == seen["failed"] == [] and len(seen["arms"]["full"]) == 2
    (folder,) = {line for line in said.out.split("\n") if line.startswith("run: ")}
    assert folder in start({})[2].out, "the run's own folder"


def test_a_report_in_between_of_no_model_is_refused(start):
    start({f"{arm}-{seed}": "diverges" for arm in ("full", "random") for seed in (0, 1)})
    code, seen, said = start({}, "--so-far")
    assert code == 2 and "no model is there" in said.err and not seen


def test_a_worker_killed_by_the_kernel_is_a_row_and_the_others_finish(start):
    code, seen, said = start({"random-1": "killed"}, "run.parallel=2", "run.threads=1")
    assert code == 1 and {arm: list(by_seed) for arm, by_seed in seen["arms"].items()} == {
        "full": [0, 1],
        "random": [0],
    }
    assert seen["failed"] == [{"arm": "random", "seed": 1, "stage": "training", "reason": KILLED}]
    assert said.err.strip().split("\n")[-1] == "1 models failed; the same command tries them again"
    code, seen, _ = start({}, "run.parallel=2", "run.threads=1")
    assert code == 0 and seen["failed"] == []


def test_processes_have_the_threads_they_were_given_and_this_one_its_own_again(start, tmp_path):
    code, _, _ = start({}, "run.parallel=2")
    assert code == 0 and "OMP_NUM_THREADS" not in os.environ
    (threads,) = {path.read_text() for path in tmp_path.glob("artifacts/training/*/threads")}
    from repro.device import cores

    assert threads == str(max(1, cores() // 2))


@pytest.mark.parametrize("how", [[], ["run.parallel=2"]])
@pytest.mark.parametrize(
    ("trainings", "code", "says"),
    [
        ({"corpus": "none"}, 2, "error: there is no corpus"),  # the arms share it
        (
            {f"{arm}-{seed}": "diverges" for arm in ("full", "random") for seed in (0, 1)},
            2,
            "error: the loss is not finite",
        ),
        ({"full-0": "full"}, 2, "error: no space left"),  # nothing else would fare better
    ],
)
def test_a_run_ends_where_nothing_is_left_to_compare(start, how, trainings, code, says):
    found, seen, said = start(trainings, *how)
    assert found == code and says in said.err and not seen


def test_the_first_failure_ends_a_run_that_was_told_so(start, tmp_path):
    with pytest.raises(ZeroDivisionError):
        start({"full-0": "breaks"}, "run.keep_going=false")
    assert not list(tmp_path.glob("artifacts/training/*/manifest.json"))
    code, _, said = start({"full-0": "breaks"}, "run.keep_going=false", "run.parallel=2")
    assert code == 1 and "error: training: ZeroDivisionError" in said.err and ".log" in said.err


def test_what_runs_at_once_is_no_part_of_a_result():
    plain = compose([*RUN, "run.parallel=3", "run.threads=2", "run.keep_going=false"])
    assert [s.fingerprint for s in world(plain).order()] == [
        s.fingerprint for s in world(compose(RUN)).order()
    ]
    assert plain.run.parallel == 3 and "run" not in _portable(plain)


def test_the_share_of_each(monkeypatch):
    monkeypatch.setattr("repro.device.cores", lambda: 8)
    monkeypatch.setattr("repro.device.gpus", lambda: ["4", "7"])
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    settings = compose(RUN)

    def of(device, **how):
        found = share(replace(settings, run=Run(**how)), device)
        return (
            found.parallel,
            found.variables.get("OMP_NUM_THREADS"),
            [v.get("CUDA_VISIBLE_DEVICES") for v in found.own],
        )

    assert of("cpu") == (1, None, [None])
    assert of("cpu", parallel=3) == (3, "2", [None] * 3)
    assert of("cpu", parallel=0) == (8, "1", [None] * 8)
    assert of("cuda", parallel=3) == (3, "2", ["4", "7", "4"])
    assert of("cuda", parallel=0) == (2, "4", ["4", "7"])
    assert of("cuda:1", parallel=2) == (2, "4", [None, None])  # that one was asked for
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert of("cpu", parallel=3) == (3, None, [None] * 3)  # what the environment says is kept
    assert share(replace(settings, run=Run(threads=2)), "cpu").apart is False
    assert share(replace(settings, run=Run(threads=1)), "cpu").apart is True
    with pytest.raises(SettingError, match="manual"):
        share(replace(settings, run=Run(parallel=2), train=replace(settings.train, launcher="manual")), "cpu")


def test_sigterm_is_answered_as_ctrl_c_is(start, monkeypatch, capsys):
    monkeypatch.setattr(run, "_run", lambda *_: os.kill(os.getpid(), 15))
    code, _, said = start({})
    assert code == 143 and "the same command goes on" in said.err
    assert issubclass(processes.Terminated, KeyboardInterrupt) and issubclass(NoRoom, SettingError)
