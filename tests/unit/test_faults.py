"""Inputs and surroundings that ended in a traceback or a stall once: each is one line now, or works."""

import csv
import io
import os
import subprocess
import sys
from pathlib import Path

import fabricated
import pytest

from repro.errors import SettingError
from repro.evaluate.reading import _rows
from repro.influence import api
from repro.items.settings import Items
from repro.items.stage import stage as items
from repro.report import build, plots, still
from repro.report.cells import Interval, Number
from repro.report.plots import MOST_PANELS, MOST_ROWS, Panel, Plot, Series
from repro.report.table import Table
from repro.settings.compose import compose
from repro.store import Store
from repro.store.disk import room_on

ROOT = Path(__file__).resolve().parents[2]
SMOKE = ("exp=selection_30pct", "scale=smoke")

# Settings


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("exp.arms=[a,b]", "exp.arms must hold settings"),
        ("exp.arms.random=[1]", "must hold settings"),
        ("exp.arms.random.select.params=[1]", "exp.arms.random.select.params must hold settings"),
        ("exp.arms.random.select.budget=[1]", "budget must hold settings"),
        ("exp.arms.random.mixture=[1]", "must hold settings"),
        ("corpus.checksums=[1]", "corpus.checksums must hold settings"),
        ("exp.seeds={a: 1}", "exp.seeds must be a list"),
        ("exp.seeds.0=3", "exp.seeds must be a list"),
        ("exp.contrasts={a: 1}", "exp.contrasts must be a list"),
        ("corpus.paths={a: 1}", "corpus.paths must be a list"),
        ("heads.given={1: 2}", "heads.given must be a list"),
        ("exp.name=???", "a value is missing"),
        ("exp.arms.random={select: {selector: '???'}}", "a value is missing"),
        ("corpus.hub=[{repo: '???', domain: a}]", "a value is missing"),
    ],
)
def test_a_list_for_settings_and_settings_for_a_list_are_one_line(argument, says):
    with pytest.raises(SettingError, match=says) as error:
        compose([*SMOKE, argument])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("model", ["/nowhere/model", "./model", "../model", "~/model", "a/b/c", "a b"])
def test_a_model_that_is_no_folder_is_not_asked_of_the_hub(model, monkeypatch):
    monkeypatch.setattr("repro.proxy.stage.download", lambda *_: pytest.fail("asked the hub"))
    with pytest.raises(SettingError, match="no such folder, and no name of the hub"):
        api.AttentionInfluence(model)


# Items and tables


def test_half_a_surrogate_pair_in_an_item_arrives_as_it_is_and_other_items_keep_their_bytes(tmp_path):
    folder = tmp_path / "items" / "mine"
    folder.mkdir(parents=True)
    (folder / "test.jsonl").write_text('{"q": "\\ud800x"}\n{"q": "日本"}\n')
    made = Store(tmp_path).ensure(items(Items(kind="folder", folder=str(folder.parent))))
    path = made / "mine" / "test.jsonl"
    assert [row["q"] for row in _rows(path)] == ["\ud800x", "日本"]
    assert "日本".encode() in path.read_bytes()


def test_no_cell_is_a_formula_to_a_spreadsheet_and_numbers_are_numbers():
    formulas = ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", " =1", "\n=1", "＝1"]
    rows = [
        [text, Number(-1.5), Interval(-1.0, -2.0, 3.0), -7, "-1e-05", "+ selection", None]
        for text in formulas
    ]
    table = Table("t", "", ["=h", "n", "i", "k", "s", "p", "e"], rows)
    header, *read = csv.reader(io.StringIO(table.csv()))
    assert header[0] == "'=h" and [row[0] for row in read] == ["'" + text for text in formulas]
    assert read[0][1:] == ["-1.5", "-1.0", "-2.0", "3.0", "-7", "-1e-05", "+ selection", ""]


def test_a_report_of_hundreds_of_domains_draws_the_first_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(fabricated, "DOMAINS", tuple(f"domain{i:03}" for i in range(90)))
    monkeypatch.setattr(plots, "MOST_PANELS", 2)
    drawn = []
    monkeypatch.setattr(still, "_draw", lambda axis, panel, *_: drawn.append(panel))
    settings, store, stages = fabricated.run(tmp_path, documents=3, seeds=(0, 1))
    folder = tmp_path / "run"
    folder.mkdir()
    build.build(folder, settings, store, stages)
    page = (folder / "report.html").read_text()
    assert (
        len(drawn) < 20
        and "Influence scores by domain (the first 2 of 90 panels; all are in the tables)" in page
    )
    assert "<details><summary>" in page and "The first 24 of 90 domains; examples.json has all." in page
    assert "domain089" in (folder / "tables" / "selection.csv").read_text()


def test_figures_have_a_largest_size():
    labels = [f"group{i}" for i in range(5000)]
    values = [float(i) for i in range(5000)]
    series = [
        Series("a", values, labels, "interval", values, values, dots=[[v] for v in values]),
        Series("l", [1], [2]),
    ]
    plot = Plot("p", "Title", "", [Panel(str(i), series=series) for i in range(MOST_PANELS)])
    assert plot.panels[0].labels == labels[:MOST_ROWS] and len(plot.panels[0].series[0].dots) == MOST_ROWS
    assert plot.title == f"Title ({MOST_ROWS} rows of up to 5000; all are in the tables)" and plot.panels[
        0
    ].series[1].x == [1]
    small = Plot("p", "Title", "", [Panel(series=[Series("a", [1.0], ["x"], "bars")])])
    assert small.title == "Title" and small.panels[0].labels == ["x"]


# A store of two users

SHARED = """
import os, sys
from pathlib import Path
os.umask(int(sys.argv[2], 8))
from repro.errors import SettingError
from repro.store import Stage, Store, room_on, provenance
import filelock, repro.store
provenance()
def write(ctx):
    (ctx.out / "f").write_text("1")
work = Path(sys.argv[1])
for user, name in ((1001, "first"), (1002, "second")):
    if child := os.fork():
        assert os.waitpid(child, 0)[1] == 0
        continue
    os.setgroups([]); os.setgid(2000); os.setuid(user)
    try:
        with room_on(work):
            Store(work).ensure(Stage("corpus", name, {}, write))
        print(name, "done", flush=True)
    except SettingError as error:
        print(name, "refused", error, flush=True)
    os._exit(0)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")
@pytest.mark.parametrize(("umask", "second"), [("002", "second done"), ("022", "second refused")])
def test_a_store_of_two_users_is_shared_by_their_group_or_refused_in_words(umask, second, tmp_path):
    for folder in [tmp_path, *tmp_path.parents]:  # as deep as pytest made them, with workers or without
        if folder.stat().st_uid == 0 and folder.name.startswith(("test_", "popen-", "pytest-")):
            folder.chmod(0o755)
    work = tmp_path / "work"
    work.mkdir()
    os.chown(work, 1001, 2000)
    work.chmod(0o775)
    done = subprocess.run(
        [sys.executable, "-c", SHARED, str(work), umask], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and lines[0] == "first done" and lines[1].startswith(second), done.stderr
    assert "refused" not in lines[1] or "chmod -R g+rwX" in lines[1]


def test_only_what_lies_in_the_store_is_blamed_on_it(tmp_path):
    for number in (1, 13, 30):
        with pytest.raises(SettingError, match="read-only, or another user's"), room_on(tmp_path):
            raise OSError(number, "no", str(tmp_path / "artifacts" / "x"))
        with pytest.raises(OSError, match="elsewhere"), room_on(tmp_path):
            raise OSError(number, "no", "/elsewhere/x")
