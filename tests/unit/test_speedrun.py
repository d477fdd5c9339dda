"""The speedrun's passages are none that a comparison draws, and its page shows the record."""

import importlib.util
import json
from pathlib import Path

import pyarrow as pa
import pytest

from repro.corpus import select, spool
from repro.corpus.settings import Corpus
from repro.errors import SettingError

spec = importlib.util.spec_from_file_location(
    "speedrun", Path(__file__).parents[2] / "benchmarks" / "speedrun.py"
)
speedrun = importlib.util.module_from_spec(spec)
spec.loader.exec_module(speedrun)


def test_passages_are_behind_those_that_comparisons_draw(tmp_path, monkeypatch):
    monkeypatch.setattr(speedrun, "COMPARED", 5)
    monkeypatch.setattr(speedrun, "TAKEN", 3)
    rows = [
        {"id": f"{domain}{i}", "domain": domain, "group": "g", "text": f"{domain} {i}\u2028 text " * 30}
        for domain in ("a", "b")
        for i in range(20)
    ]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    (tmp_path / "a-0.jsonl.zst").write_bytes(pa.compress(lines, "zstd", asbytes=True))
    taken = [
        json.loads(line) for line in speedrun.passages(tmp_path, tmp_path).read_text().split("\n") if line
    ]
    assert all(row in rows for row in taken)
    settings = Corpus(kind="files", paths=[str(tmp_path / "a-0.jsonl.zst")], max_documents_per_domain=5)
    found = select.unique(spool.spool(settings, tmp_path / "spool", tally := select.Tally()), tally)
    compared = select.sample(settings, found, tally)
    for domain in ("a", "b"):
        own = {row["id"] for row in taken if row["domain"] == domain}
        assert len(own) == 3 and not own & {document.id for document in compared}
    with pytest.raises(SettingError, match="holds no"):
        speedrun.passages(tmp_path / "spool", tmp_path)


def test_the_record_is_the_lowest_within_the_time():
    row = {
        "rung": "1m",
        "settings": ["x"],
        "seed": 1000,
        "parameters": 1e6,
        "tokens": 10,
        "tokens_per_core_second": 5,
    }
    row |= {"cpu": "some", "train": {"validate_tokens": 8192}}
    times = [(3.0, 100.0), (2.5, 200.0), (2.0, speedrun.CORE_SECONDS + 1)]
    rows = [row | {"bits_per_byte": bits, "core_seconds": seconds} for bits, seconds in times]
    other_text = rows[0] | {"bits_per_byte": 1.0, "train": {"validate_tokens": 100}}
    page = speedrun.page([*rows, other_text, rows[0] | {"rung": "10m"}])
    assert [line.count("**") for line in page.split("\n") if line.startswith("| `")] == [0, 2, 0, 0, 2]
    assert "**2.5000**" in page and page.index("## 1m") < page.index("## 10m")
