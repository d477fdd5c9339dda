"""What docs/statistics.md computes from a pack without this project's code is what the result says."""

import re
import subprocess
import sys
from pathlib import Path

from repro.paper.committed import read_results
from repro.store.unpack import unpack

ROOT = Path(__file__).resolve().parents[2]


def test_the_interval_by_hand_is_the_one_of_the_result(tmp_path):
    unpack(ROOT / "results/curve/store.tar.zst", tmp_path / "work")
    (tmp_path / "results").symlink_to(ROOT / "results")
    text = (ROOT / "docs/statistics.md").read_text().split("## An interval by hand")[1]
    (code,) = re.findall(r"```python\n(.*?)```", text.split("\n## ")[0], re.S)
    assert "repro" not in code
    printed = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    [result] = [r for r in read_results(ROOT / "results") if r.name == "accuracy_vs_data_curve"]
    [row] = [r for r in result.summary["comparisons"] if r["primary"] and r["metric"] == "bits_per_byte"]
    assert (
        printed == f"{row['difference']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}], {row['seeds']} pairs\n"
    )
