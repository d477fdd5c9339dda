"""A folder of runs as static pages."""

import re

import browsing
import fabricated
import pytest

from repro.outcomes import summary
from repro.outcomes.collect import collect
from repro.report import __main__ as door
from repro.report import build


@pytest.fixture
def results(tmp_path):
    settings, store, stages = fabricated.run(tmp_path / "work", kind="score", seeds=(0,))
    found = build.judged(collect(settings, store, stages), settings.exp.contrasts)
    for name, scale in (("one", "smoke"), ("two", "evening")):
        summary.write(tmp_path / "results" / name / "summary.json", {**found, "scale": scale})
    (tmp_path / "results" / "old").mkdir()
    (tmp_path / "results" / "old" / "summary.json").write_text("{}")
    return tmp_path / "results"


def test_the_site_has_a_page_a_run_and_an_index_that_filters(results, tmp_path, capsys):
    assert door.main([str(results), "--out", str(tmp_path / "site")]) == 0
    index = tmp_path / "site" / "index.html"
    assert str(index) in capsys.readouterr().out
    text = index.read_text()
    links = re.findall(r'href="([^"]+report\.html)"', text)
    assert links == ["one/report.html", "two/report.html"] and "not read" in text
    assert all((index.parent / link).is_file() for link in links)
    assert (index.parent / "one" / "tables").is_dir() and not (results / "one" / "tables").exists()
    if browsing.CHROMIUM is None:
        pytest.skip("the filter needs Chromium")
    choose = """(() => { const one = document.querySelector("select[name=scale]"); one.value = "evening";
      one.dispatchEvent(new Event("change", {bubbles: true}));
      return [...document.querySelectorAll("li")].filter(row => !row.hidden).map(row => row.querySelector("b").textContent); })()"""
    assert browsing.visit(index, tmp_path / "profile", [choose], 360) == [["two"]]


def test_what_cannot_be_written_is_one_line(results, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert door.main([str(results), "--out", str(tmp_path / "file")]) == 2
    (results / "one" / "tables").write_text("mine")
    assert door.main([str(results / "one")]) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"error: --out {tmp_path}/file: cannot make the folder (File exists); name another",
        f"error: {results}/one/tables: cannot make the folder (File exists); draw a copy of the run",
    ]


def test_an_interrupt_is_one_line(results, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(build, "draw", interrupted)
    assert door.main([str(results)]) == 130
    assert capsys.readouterr().err == "interrupted; the same command draws it whole\n"


def test_a_folder_without_runs_is_one_line(tmp_path, capsys):
    assert door.main([str(tmp_path)]) == 2
    assert "holds no summary.json" in capsys.readouterr().err
