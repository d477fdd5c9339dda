"""A path is a name: nothing that stands in it changes what is read from the file."""

import re
from pathlib import Path

import duckdb
import polars as pl
import pytest
import selecting

from repro.corpus import files
from repro.corpus.documents import Document
from repro.corpus.settings import Corpus
from repro.corpus.stage import stage as corpus_stage
from repro.heads import stage as heads
from repro.selection import outcome
from repro.store import Store, parquet, read_json

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = [
    "domain=web",
    "a [b] 'c'",
    "{d,e} *?",
    "doc_id=7/text=x",
    "[!a-z]",
    '$HOME & "q" ü 中',
    "%20;#~",
    "a:b",
]
OWN = r"read_parquet|scan_parquet|read_table|read_metadata|ParquetFile|read_parquet_schema|pyarrow\.dataset|ParquetDataset"


@pytest.fixture(params=FOLDERS)
def odd(request, tmp_path):
    folder = tmp_path / request.param
    folder.mkdir(parents=True)
    return folder


def test_every_reader_gives_what_was_written(odd):
    rows = [pl.DataFrame({"doc_id": [str(i)], "domain": ["own"], "text": ["t"]}) for i in range(2)]
    paths = [odd / f"part-{i} [x].parquet" for i in range(2)]
    for frame, path in zip(rows, paths, strict=True):
        frame.write_parquet(path)
    both = pl.concat(rows)
    assert parquet.read(paths).equals(both) and parquet.scan(paths).collect().equals(both)
    assert parquet.read(paths[0], columns=["domain"], n_rows=1).rows() == [("own",)]
    assert parquet.table(paths[1]).to_pylist() == rows[1].to_dicts()
    assert parquet.metadata(paths[0]).num_columns == 3
    with duckdb.connect() as connection:
        connection.execute(f"CREATE VIEW seen AS SELECT * FROM {parquet.sql(paths)}")
        assert connection.execute("SELECT * FROM seen ORDER BY doc_id").fetchall() == both.rows()
        assert connection.execute(
            f"SELECT filename FROM {parquet.sql(paths, filename=True)} ORDER BY 1"
        ).fetchall() == [(str(p),) for p in paths]
    assert parquet.matches(paths[0]) == [paths[0]] and parquet.matches(odd / "part-*") == paths


def test_a_selection_is_the_same_wherever_the_store_lies(odd, tmp_path):
    made = selecting.artifacts(selecting.documents(20))
    here, there = (
        selecting.select(work, made, "attention_influence", share=0.3) for work in (tmp_path / "plain", odd)
    )
    assert here == there
    gap = {"other": str(Store(odd).path(made["scores"]))}
    assert len(selecting.select(odd, made, "perplexity_gap", gap, share=0.3)[0]) == len(here[0])
    scores = Store(odd).path(made["scores"]) / "scores"
    assert len(
        selecting.select(odd, made, "imported", {"path": str(scores / "web*.parquet")}, share=0.3)[0]
    ) == len(here[0])
    frozen = outcome.frozen(here[1], scores / "*.parquet")
    assert set(frozen.filter("selected")["doc_id"]) == selecting.chosen(here[0])
    corpus = Store(odd).path(made["corpus"])
    assert len(heads._first_texts(corpus, "documents")) == 6


def test_a_corpus_is_the_same_wherever_files_and_store_lie(odd, tmp_path):
    rows = [
        {"id": f"d{i}", "domain": "code", "text": f"word{i} " * 30 + f"and more of {i}"} for i in range(12)
    ]
    plain = tmp_path / "plain"
    plain.mkdir()
    found = []
    for folder in (plain, odd):
        pl.DataFrame(rows).write_parquet(folder / "mine.parquet")
        for given in (folder, folder / "mine.parquet", folder / "mi*.parquet"):
            s = Corpus(kind="files", paths=[str(given)], id_field="id")
            assert sum(isinstance(d, Document) for d in files.stream(s)) == 12
        store = Store(folder / "work")
        found.append(read_json(store.ensure(corpus_stage(s, None)) / "manifest.json")["files"])
    assert found[0] == found[1]


def test_no_other_file_reads_parquet_by_itself():
    others = [p for p in (ROOT / "repro").rglob("*.py") if p != ROOT / "repro/store/parquet.py"]
    found = [f"{p.name}: {word}" for p in others for word in re.findall(rf"\b(?:{OWN})\b\(?", p.read_text())]
    assert len(others) > 100 and found == []
