"""One name, one column: what stands twice is refused or counted, and a column nobody asked for harms nothing."""

import datetime
import json

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import selecting

from repro.corpus import files
from repro.corpus.documents import Document, Drop
from repro.corpus.settings import Corpus
from repro.errors import SettingError
from repro.items.stage import read_rows

TEXT = [f"words of document {i} and some more" for i in range(3)]


def stream(path, **fields):
    found = list(files.stream(Corpus(kind="files", paths=[str(path)], id_field="id", **fields)))
    return [d for d in found if isinstance(d, Document)], [d for d in found if isinstance(d, Drop)]


@pytest.mark.parametrize("twice", ["text", "domain", "other"])
def test_two_columns_of_one_name_are_refused(tmp_path, twice):
    columns = {"id": ["a", "b", "c"], "domain": ["web"] * 3, "text": TEXT, "other": [1, 2, 3]}
    names = [*columns, twice]
    arrays = [pa.array(columns[name]) for name in columns] + [pa.array(["second"] * 3)]
    pq.write_table(pa.Table.from_arrays(arrays, names=names), tmp_path / "mine.parquet")
    with pytest.raises(SettingError, match=f"mine.parquet has more than one column '{twice}'"):
        stream(tmp_path / "mine.parquet")


@pytest.mark.parametrize(
    "odd",
    [
        pa.array([0, 1, 2], pa.timestamp("us", tz="Nowhere/Atlantis")),
        pa.array([2**62, 1, 2], pa.timestamp("us")),
        pa.array([b"\xff", b"", None]),
        pa.array([datetime.date(2020, 1, 1)] * 3),
        pa.array([float("nan"), None, 1.0]),
        pa.array([None] * 3),
        pa.array([{"deep": [1]}, None, {"deep": []}]),
        pa.array(["a", "b", "a"]).dictionary_encode(),
    ],
    ids=lambda a: f"{a.type}",
)
def test_an_odd_type_in_a_column_nobody_asked_for_harms_nothing(tmp_path, odd):
    columns = {
        "id": pa.array(["a", "b", "c"]),
        "domain": pa.array(["web"] * 3),
        "text": pa.array(TEXT),
        "odd": odd,
    }
    pq.write_table(pa.table(columns), tmp_path / "mine.parquet")
    documents, dropped = stream(tmp_path / "mine.parquet")
    assert [d.text for d in documents] == TEXT and not dropped
    json.dumps(documents[0].extra, default=str)


def test_an_odd_type_in_a_column_that_is_asked_for_is_one_line(tmp_path):
    odd = pa.array([0, 1, 2], pa.timestamp("us", tz="Nowhere/Atlantis"))
    pq.write_table(pa.table({"id": odd, "domain": ["web"] * 3, "text": TEXT}), tmp_path / "mine.parquet")
    with pytest.raises(SettingError, match="'id' of type timestamp"):
        stream(tmp_path / "mine.parquet")


def test_json_with_a_key_twice_is_dropped_and_counted_in_a_corpus_and_refused_in_a_benchmark(tmp_path):
    good = json.dumps({"id": "a", "domain": "web", "text": TEXT[0]})
    bad = ['{"id": "b", "domain": "web", "text": "first text here", "text": "second text here"}',
           '{"id": "c", "domain": "web", "text": "some text here", "meta": {"x": 1, "x": 2}}']  # fmt: skip
    path = tmp_path / "mine.jsonl"
    path.write_text("\n".join([good, *bad]) + "\n")
    documents, dropped = stream(path)
    assert [d.id for d in documents] == ["a"] and [d.reason for d in dropped] == ["key_stands_twice"] * 2
    with pytest.raises(SettingError, match=r"mine.jsonl:2: .*'text' stands twice"):
        list(read_rows(path))


def test_imported_scores_of_several_types_and_kinds(tmp_path):
    made = selecting.artifacts(selecting.documents(20))
    ids = [r["doc_id"] for r in selecting.documents(20)]
    half = len(ids) // 2
    own = tmp_path / "own"
    own.mkdir()
    pl.DataFrame({"doc_id": ids[:half], "score": range(half)}).write_parquet(own / "a.parquet")
    pl.DataFrame({"doc_id": ids[half:], "score": [0.5] * (len(ids) - half), "more": "x"}).write_parquet(
        own / "b.parquet"
    )
    assert len(
        selecting.select(tmp_path / "work", made, "imported", {"path": str(own)}, share=0.3)[0]
    ) == len(ids)
    table = pa.Table.from_arrays([pa.array(ids), pa.array([1.0] * len(ids)), pa.array([2.0] * len(ids))],
                                 names=["doc_id", "score", "score"])  # fmt: skip
    pq.write_table(table, tmp_path / "twice.parquet")
    (tmp_path / "mine.csv").write_text("doc_id,score\na,1\n")
    pl.DataFrame({"doc_id": ids, "score": ["high"] * len(ids)}).write_parquet(tmp_path / "words.parquet")
    for name in ("twice.parquet", "mine.csv", "words.parquet"):
        with pytest.raises(SettingError, match=name):
            selecting.select(tmp_path / "work", made, "imported", {"path": str(tmp_path / name)}, share=0.3)


def test_a_column_whose_name_is_no_utf8_is_one_line(tmp_path):
    """Found by benchmarks/fuzz.py."""
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["a b"], "domain": ["d"]}), path)
    path.write_bytes(path.read_bytes().replace(b"domain", b"\x80omain"))
    with pytest.raises(SettingError, match="cannot read .*a.parquet") as error:
        list(files.stream(Corpus(kind="files", paths=[str(path)])))
    assert "\n" not in str(error.value)
