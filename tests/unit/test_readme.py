"""The README's numbers are those of results/: regenerated and compared, so that none can be typed."""

import re
import shlex
from pathlib import Path

from repro.paper import readme
from repro.paper.tables import read_results
from repro.settings.compose import compose

ROOT = Path(__file__).resolve().parents[2]


def test_the_block_of_results_is_what_repro_tables_writes(tmp_path):
    copy = tmp_path / "README.md"
    copy.write_bytes((ROOT / "README.md").read_bytes())
    readme.rewrite(copy, read_results(ROOT / "results"), ROOT / "results" / "benchmarks")
    assert copy.read_text() == (ROOT / "README.md").read_text(), "run python -m repro.tables"


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
    commands = re.findall(
        r"python -m repro\.run ([^`#\n]+)", (ROOT / "README.md").read_text().replace("\\\n", " ")
    )
    assert len(commands) >= 4
    for command in commands:
        if "select=short" in command:  # the reader's own selector, which does not ship
            continue
        compose([argument for argument in shlex.split(command) if argument != "--plan"])
