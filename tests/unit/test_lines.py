"""What is told of stages at work elsewhere: one line that is drawn over on a terminal, one every half minute without."""

import sys

import pytest

from repro import tracking
from repro.execution import lines
from repro.execution.lines import Lines
from repro.execution.running import About, recorded
from repro.store import Stage, Store


@pytest.fixture
def told(tmp_path, monkeypatch):
    """(the lines, two stages, a clock); the first stage has written how far it is."""
    stages = [Stage("pretrain", name, {"of": name}, lambda context: None) for name in ("a", "b")]
    store, clock = Store(tmp_path), [100.0]
    monkeypatch.setattr(lines.time, "monotonic", lambda: clock[0])
    found = Lines(store, stages, lambda stage: f"arm {stage.label}")
    for stage in stages:
        found.started(stage)
    path = store.beside(stages[0], ".progress")
    path.parent.mkdir(parents=True)
    path.write_text("a: 3 of 9 tokens")
    return found, stages, clock


def test_without_a_terminal_there_is_a_line_every_half_minute(told, capsys):
    found, stages, clock = told
    capsys.readouterr()
    found.started(stages[1])
    assert capsys.readouterr().out == "[2/2] pretrain  arm b  running\n"
    for _ in range(70):
        clock[0] += 1
        found.look(stages)
    assert capsys.readouterr().err.split("\n") == [
        "    a: 3 of 9 tokens | pretrain arm b: 30.0 s",
        "    a: 3 of 9 tokens | pretrain arm b: 1 min 00 s",
        "",
    ]


def test_what_a_stage_warns_of_stands_in_the_log_of_the_run_that_ran_it_and_of_one_that_finds_it(
    tmp_path, capsys
):
    stage, store = Stage("corpus", "a", {}, lambda context: context.warn("two are alike")), Store(tmp_path)
    about: About = {"experiment": "e", "scale": "smoke", "command": []}
    with recorded(tmp_path, about) as record:
        for tell in (Lines.ended, Lines.cached):
            found = Lines(store, [stage], lambda stage: "a", record)
            found.started(stage)
            store.ensure(stage)
            tell(found, stage)
            assert record.log.read_text().count("warning: two are alike") == 1
            assert capsys.readouterr().err.count("warning: two are alike") == 1
            record.log.unlink()


def test_a_terminal_has_one_line_that_never_wraps_and_makes_way(told, capsys, monkeypatch):
    found, stages, clock = told
    capsys.readouterr()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "30")
    clock[0] += 1
    found.look(stages)
    assert capsys.readouterr().err == "\r\033[K    a: 3 of 9 tokens | pretrai"[: 4 + 29]
    found.say("done")
    said = capsys.readouterr()
    assert (said.out, said.err) == ("done\n", "\r\033[K")
    found.say("more")
    assert capsys.readouterr().err == ""


def test_progress_goes_to_the_file_it_is_given_while_it_lasts(tmp_path, capsys, monkeypatch):
    clock, path = [1e9], tmp_path / "x.progress"
    monkeypatch.setattr("tqdm.std.time", lambda: clock[0])
    with tracking.progress_in(path), tracking.progress(2_000_000, "tokens", "scoring") as bar:
        for _ in range(5):
            clock[0] += 2.0
            bar.update(100_000)
        said = path.read_text()
    assert said.startswith("scoring: ") and "of 2.00M tokens" in said and "\n" not in said
    assert not list(tmp_path.iterdir()) and not capsys.readouterr().err


def test_how_long_it_takes_is_not_told_by_the_first_item_alone(tmp_path, monkeypatch):
    """It may have waited for processes to start: one document in 28 seconds, of 60,000."""
    clock, path = [1e9], tmp_path / "x.progress"
    monkeypatch.setattr("tqdm.std.time", lambda: clock[0])
    with tracking.progress_in(path), tracking.progress(60_000, "documents", "cleaning") as bar:
        clock[0] += 28
        bar.update(1)
        assert "1.00 of 60.0k documents" in path.read_text() and "left" not in path.read_text()
        for _ in range(2):
            clock[0] += 2
            bar.update(1000)
        assert path.read_text().endswith(" left")
