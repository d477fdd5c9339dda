"""docs/faults.md names tests that there are, for every line of the table."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")


def test_every_test_that_is_named_is_there():
    named = re.findall(r"`((?:tests|benchmarks)/[\w/]+\.py)(?:::(\w+))?`", PAGE)
    assert len(named) > 40
    lost = [
        f"{file}::{test}"
        for file, test in named
        if not (ROOT / file).is_file()
        or test
        and f"def {test}(" not in (ROOT / file).read_text(encoding="utf-8")
    ]
    assert lost == []


def test_every_line_of_a_table_names_one():
    rows = [line for line in PAGE.split("\n") if line.startswith("| ") and not line.startswith("| line")]
    assert [row for row in rows if "::" not in row and "tests/unit/" not in row] == []
    assert {f"A{i}" for i in range(1, 16)} == {
        row.split("|")[1].strip() for row in rows if row.startswith("| A")
    }
