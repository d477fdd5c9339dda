"""The README's numbers are those of results/: regenerated and compared, so that none can be typed."""

import re
import shlex
from pathlib import Path

import pytest

from repro.paper import readme
from repro.paper.committed import read_results
from repro.settings.compose import compose

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("page", ["README.md", "docs/speed.md"])
def test_the_blocks_are_what_repro_tables_writes(tmp_path, page):
    copy = tmp_path / "page.md"
    copy.write_bytes((ROOT / page).read_bytes())
    readme.rewrite(copy, read_results(ROOT / "results"), ROOT / "results" / "benchmarks")
    assert copy.read_text() == (ROOT / page).read_text(), "run python -m repro.tables"


def test_an_edited_number_is_put_right(tmp_path):
    copy = tmp_path / "README.md"
    copy.write_text(f"a\n{readme.BEGIN}\nwe gain 100 points\n{readme.END}\nb\n")
    readme.rewrite(copy, [])
    assert copy.read_text() == f"a\n{readme.BEGIN}\n{readme.END}\nb\n"


def test_benchmarks_are_what_the_scripts_left(tmp_path):
    copy = tmp_path / "README.md"
    copy.write_text(f"a\n{readme.MEASURED_BEGIN}\n100x faster\n{readme.MEASURED_END}\nb\n")
    (tmp_path / "two.md").write_text("second\n")
    (tmp_path / "one.md").write_text("first \\1\n")
    readme.rewrite(copy, [], tmp_path / "none")
    assert copy.read_text() == f"a\n{readme.MEASURED_BEGIN}\n{readme.MEASURED_END}\nb\n"
    copy.rename(tmp_path / "READ")
    readme.rewrite(tmp_path / "READ", [], tmp_path)
    assert (
        tmp_path / "READ"
    ).read_text() == f"a\n{readme.MEASURED_BEGIN}\nfirst \\1\n\nsecond\n\n{readme.MEASURED_END}\nb\n"


def test_every_command_of_the_readme_composes():
    pages = [ROOT / "README.md", ROOT / "docs/documents.md", ROOT / "docs/large.md"]
    text = "".join(page.read_text() for page in pages).replace("\\\n", " ")
    commands = re.findall(r"python -m repro\.run ([^`#\n]+)", text)
    assert len(commands) >= 4
    for command in commands:
        if "select=short" in command:  # the reader's own selector, which does not ship
            continue
        compose([argument for argument in shlex.split(command) if argument not in ("--plan", "--so-far")])


def test_every_link_of_the_readme_and_the_docs_leads_somewhere():
    def places(page):
        titles = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.S), re.M)
        return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}

    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
    links = [(page, link) for page in pages
             for link in re.findall(r"\]\(([^)\s]+)\)|srcset=\"([^\"]+)\"|src=\"([^\"]+)\"", page.read_text())]  # fmt: skip
    assert len(links) > 50
    for page, found in links:
        path, _, part = "".join(found).partition("#")
        if "://" in path:
            continue
        target = page.parent / path if path else page
        assert target.exists(), f"{page.name}: {path}"
        assert not part or part in places(target), f"{page.name}: {path}#{part}"


def test_the_first_screen_says_what_it_is_shows_one_picture_and_three_commands():
    screen = (ROOT / "README.md").read_text().split("**On this page")[0]
    assert screen.count("<img ") == 1 and "prefers-color-scheme: dark" in screen and "seeds" in screen
    (commands,) = re.findall(r"```bash\n(.*?)```", screen, re.S)
    assert [line.split("#")[0].split()[:2] for line in commands.strip().split("\n")] == [
        ["make", "demo"], [".venv/bin/repro", "score"], [".venv/bin/repro", "tables"]]  # fmt: skip
