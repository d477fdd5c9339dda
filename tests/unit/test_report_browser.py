"""The page in a real browser: headless Chromium draws every plot and asks no network for anything."""

import json
import re
import subprocess

import browsing
import fabricated
import pytest
from browsing import CHROMIUM

from repro.report import build

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")


def opened(page, folder):
    """The page's document after its scripts ran, and the addresses that it (not the browser itself) asked the network for."""
    log = folder / f"{page.stem}.net.json"
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
               "--window-size=400,900", f"--user-data-dir={folder / page.stem}", f"--log-net-log={log}",
               "--virtual-time-budget=8000", "--dump-dom", page.as_uri()]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr[-2000:]
    asked = [event.get("params", {}) for event in json.loads(log.read_text())["events"]]
    asked = [params for params in asked if params.get("initiator", "not an origin") != "not an origin"]
    return done.stdout, {params["url"] for params in asked if params["url"].startswith(("http", "ws"))}


def test_every_plot_is_drawn_and_nothing_is_requested(tmp_path):
    settings, store, stages = fabricated.run(tmp_path / "work")
    build.build(tmp_path / "run", settings, store, stages)
    page = tmp_path / "run" / "report.html"
    document, requests = opened(page, tmp_path)
    wanted = page.read_text().count('<div class="plot" data-plot=')
    assert len(re.findall(r'<div class="plot js-plotly-plot"', document)) == wanted > 5
    assert requests == set()


CUT = """[...document.querySelectorAll("body *")].filter(e => !e.closest(".cards thead, details:not([open]) > :not(summary)")
  && (e.getBoundingClientRect().right > innerWidth + 1 || e.matches(".scroll") && e.scrollWidth > e.clientWidth + 1))
  .map(e => e.tagName + " " + e.textContent.slice(0, 60))"""
AXE = """axe.run(document, {resultTypes: ["violations"]}).then(found =>
  found.violations.filter(v => ["serious", "critical"].includes(v.impact)).map(v => v.id + " " + v.nodes[0].html))"""


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn")
    settings, store, stages = fabricated.run(folder / "work")
    build.build(folder / "run", settings, store, stages)
    return folder / "run" / "report.html"


@pytest.mark.parametrize(("width", "dark"), [(360, False), (800, True), (1600, False)])
def test_nothing_is_cut_and_axe_finds_nothing_serious(drawn, tmp_path, width, dark):
    scripts = [CUT, "document.querySelectorAll('td').length"]
    checked = browsing.axe()
    if checked:
        scripts += [checked.read_text() + ";0", AXE]
    cut, cells, *found = browsing.visit(drawn, tmp_path / "profile", scripts, width, dark)
    assert cut == [] and cells > 50
    assert not found or found[-1] == []
    if not checked:
        pytest.skip("widths were looked at; axe-core-python is not installed")


def test_a_request_would_have_been_seen(tmp_path):
    page = tmp_path / "asks.html"
    page.write_text('<img src="http://127.0.0.1:9/picture.png">')
    assert opened(page, tmp_path)[1] == {"http://127.0.0.1:9/picture.png"}
