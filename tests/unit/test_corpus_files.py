"""A user's own files: what becomes a document, what is dropped and counted, what stops the run in one line."""

import gzip
import hashlib
import json
import os
import re
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from repro.corpus import files
from repro.corpus.documents import Document, Drop, read
from repro.corpus.settings import Corpus
from repro.corpus.stage import stage
from repro.errors import SettingError
from repro.store import Store, read_json

WORDS = "the quick brown fox jumps over the lazy dog while seven wise owls look on from an old oak tree in the yard".split()


def text(i, n=60):
    """Distinct text: no five words in a row stand in two of them."""
    return " ".join(f"{WORDS[(i + j) % len(WORDS)]}{(i * 7919 + j * 104729) % 9973}" for j in range(n))


def line(i, **fields):
    return json.dumps({"id": f"d{i}", "domain": "web", "group": f"g{i % 12}", "text": text(i), **fields})


def save(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(x if isinstance(x, bytes) else x.encode() + b"\n" for x in lines))
    return path


def settings(*paths, **fields):
    return Corpus(kind="files", paths=[str(p) for p in paths], **fields)


def found(*paths, **fields):
    rows = list(files.stream(settings(*paths, **fields)))
    return [r for r in rows if isinstance(r, Document)], [r for r in rows if isinstance(r, Drop)]


def build(tmp_path, given):
    folder = Store(tmp_path / "work").ensure(stage(given, None))
    return folder, read_json(folder / "counts.json")


def test_bad_lines_are_dropped_with_reason_and_line(tmp_path):
    path = save(
        tmp_path / "a.jsonl",
        line(1),
        b'{"id": "x", "domain": "web", "text": "caf\xe9"}\n',
        '{"id": "y", "text": ',
        "[1, 2]",
        "",
        line(2, text=None),
        line(3, text=7),
        '{"id": "z", "domain": "web", "text": "half \\ud800 pair"}',
        line(4, domain=None),
        line(5),
    )
    documents, drops = found(path)
    assert [d.id for d in documents] == ["d1", "z", "d5"]  # half a pair is found later, wherever it stands
    assert [(d.reason, d.where.rsplit(":", 1)[1]) for d in drops] == [
        ("invalid_utf8", "2"),
        ("broken_json", "3"),
        ("not_an_object", "4"),
        ("missing_text", "6"),
        ("text_not_a_string", "7"),
        ("missing_domain", "9"),
    ]


def test_line_separators_inside_a_document_do_not_break_it(tmp_path):
    whole = text(1) + "\u2028 next \u2029 and \x85 and \x0b\x0c end"
    path = save(
        tmp_path / "a.jsonl",
        json.dumps({"id": "a", "domain": "d", "text": whole}, ensure_ascii=False),
        line(2),
    )
    documents, drops = found(path)
    assert documents[0].text == whole and len(documents) == 2 and not drops


def test_a_line_of_fifty_megabytes_is_dropped_without_being_held(tmp_path):
    import tracemalloc

    path = tmp_path / "a.jsonl"
    with open(path, "wb") as handle:
        handle.write(line(1).encode() + b"\n" + b'{"id": "huge", "domain": "web", "text": "')
        for _ in range(50):
            handle.write(b"word " * 200_000)
        handle.write(b'"}\n' + line(2).encode() + b"\n")
    tracemalloc.start()
    documents, drops = found(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [d.id for d in documents] == ["d1", "d2"]
    assert [(d.reason, d.where) for d in drops] == [("line_too_long", f"{path}:2")]
    assert peak < 25e6


def test_last_line_without_newline_is_read(tmp_path):
    path = save(tmp_path / "a.jsonl", line(1), line(2).encode())
    assert len(found(path)[0]) == 2


def test_every_format_gives_the_same_documents(tmp_path):
    lines = [line(i, stars=i, tags=["a", "b"]) for i in range(20)]
    raw = "".join(x + "\n" for x in lines).encode()
    half = "".join(x + "\n" for x in lines[:10]).encode()
    save(tmp_path / "plain.jsonl", raw)
    (tmp_path / "one.jsonl.gz").write_bytes(gzip.compress(raw))
    frames = zstandard.ZstdCompressor().compress(half) + zstandard.ZstdCompressor().compress(raw[len(half) :])
    (tmp_path / "two.jsonl.zst").write_bytes(frames)  # two frames, as parallel compressors write them
    pq.write_table(
        pa.Table.from_pylist([json.loads(x) for x in lines]), tmp_path / "three.parquet", row_group_size=7
    )
    expected, drops = found(tmp_path / "plain.jsonl")
    assert len(expected) == 20 and expected[3].extra == {"stars": 3, "tags": ["a", "b"]} and not drops
    for name in ("one.jsonl.gz", "two.jsonl.zst", "three.parquet"):
        assert found(tmp_path / name) == (expected, [])


def test_parquet_with_invalid_utf8_drops_the_row(tmp_path):
    column = pa.array([b"good " * 60, b"bad \xff\xfe", b"fine " * 60], pa.binary()).cast(pa.large_binary())
    strings = pa.Array.from_buffers(pa.large_string(), 3, column.buffers())
    table = pa.table({"text": strings, "domain": ["d"] * 3, "id": ["a", "b", "c"]})
    pq.write_table(table, tmp_path / "a.parquet")
    documents, drops = found(tmp_path / "a.parquet")
    assert [d.id for d in documents] == ["a", "c"]
    assert [(d.reason, d.where.endswith("row 2")) for d in drops] == [("invalid_utf8", True)]


def test_folder_of_text(tmp_path):
    save(tmp_path / "in/law/one.txt", text(1))
    save(tmp_path / "in/law/deep/two.md", text(2))
    save(tmp_path / "in/art/three.rst", text(3))
    save(tmp_path / "in/art/bad.txt", b"\xff\xfe")
    save(tmp_path / "in/art/picture.png", b"not text")
    documents, drops = found(tmp_path / "in", domain_from="folder")
    assert {(d.id, d.domain, d.group) for d in documents} == {
        ("law/one.txt", "law", "law"),
        ("law/deep/two.md", "law", "law/deep"),
        ("art/three.rst", "art", "art"),
    }
    assert [d.reason for d in drops] == ["invalid_utf8"]


def test_domain_from_folder_constant_and_named_fields(tmp_path):
    save(tmp_path / "in/law/a.jsonl", json.dumps({"key": 5, "body": text(1), "repo": "r", "licence": "MIT"}))
    fields = {"text_field": "body", "id_field": "key", "group_field": "repo", "license_field": "licence"}
    (document,), _ = found(tmp_path / "in", domain_from="folder", **fields)
    assert (document.id, document.domain, document.group, document.license) == ("5", "law", "r", "MIT")
    (document,), _ = found(tmp_path / "in", domain_from="constant", domain="mine", **fields)
    assert document.domain == "mine"


def test_a_pattern_and_several_folders_keep_the_folders_that_tell_domains_apart(tmp_path):
    for domain in ("web", "law"):
        for part in range(2):
            save(tmp_path / f"data/{domain}/part-{part}.jsonl", line(part, domain=None))
            save(tmp_path / f"text/{domain}/{part}.txt", text(part))

    def domains(*paths):
        documents, drops = found(*paths, domain_from="folder")
        assert not drops
        return Counter(document.domain for document in documents)

    for pattern in ("data", "data/*", "data/*/*.jsonl", "data/**/*.jsonl"):
        assert domains(tmp_path / pattern) == {"web": 2, "law": 2}, pattern
    assert domains(tmp_path / "data/web", tmp_path / "data/law") == {"web": 2, "law": 2}
    one, other = tmp_path / "data/web/part-0.jsonl", tmp_path / "data/law/part-0.jsonl"
    assert domains(one, other) == {"web": 1, "law": 1}
    documents, _ = found(tmp_path / "text/web", tmp_path / "text/law")
    assert sorted(document.id for document in documents) == [
        "law/0.txt",
        "law/1.txt",
        "web/0.txt",
        "web/1.txt",
    ]
    assert {document.group for document in documents} == {"web", "law"}
    documents, _ = found(tmp_path / "text", tmp_path / "text/web")  # one holds the other: nothing twice
    assert len(documents) == 4


def test_two_texts_of_one_name_are_refused_and_named(tmp_path):
    for language in ("en", "de"):
        save(tmp_path / language / "law/a.txt", text(1))
    with pytest.raises(SettingError, match="both have the id law/a.txt; give a folder that holds both"):
        found(tmp_path / "en/law", tmp_path / "de/law")


@pytest.mark.parametrize(
    "name, content, told",
    [
        ("missing.jsonl", None, "missing.jsonl does not exist"),
        ("notes.docx", b"x", "no known kind"),
        ("broken.parquet", b"PAR1 but no more", "broken.parquet"),
        ("broken.jsonl.gz", gzip.compress(os.urandom(5000))[:3000], "broken.jsonl.gz"),
        ("broken.jsonl.zst", b"\x28\xb5\x2f\xfd garbage", "broken.jsonl.zst"),
        ("no.jsonl.gz", b"plain text", "no.jsonl.gz"),
        (
            "other.jsonl",
            b'{"body": "x", "domain": "d"}\n',
            "no document has the field 'text', this one has body, domain; .*text_field",
        ),
        ("nodomain.jsonl", b'{"text": "x"}\n', "this one has text; .*domain_from"),
        ("none.jsonl", b"", "empty"),
    ],
)
def test_file_that_cannot_be_read_is_one_line(tmp_path, name, content, told):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingError, match=told) as error:
        list(files.stream(settings(path)))
    assert "\n" not in str(error.value)


def test_truncated_archive_is_noticed(tmp_path):
    body = "".join(line(i) + "\n" for i in range(8000)).encode()
    path = tmp_path / "cut.jsonl"
    for suffix, packed in ((".zst", zstandard.ZstdCompressor().compress(body)), (".gz", gzip.compress(body))):
        cut = path.with_suffix(".jsonl" + suffix)
        cut.write_bytes(packed[: len(packed) * 2 // 3])
        seen = []
        with pytest.raises(SettingError, match=f"cannot read .*cut.jsonl{suffix}"):
            for document in files.stream(settings(cut)):
                seen.append(document)
        assert len(seen) > 100  # the damage lies far inside


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file_is_one_line(tmp_path):
    path = save(tmp_path / "a.jsonl", line(1))
    path.chmod(0)
    with pytest.raises(SettingError, match="a.jsonl"):
        list(files.stream(settings(path)))


def test_empty_folder_and_glob_without_match_are_one_line(tmp_path):
    (tmp_path / "in").mkdir()
    for given, told in ((tmp_path / "in", "holds no file"), (tmp_path / "*.jsonl", "matches")):
        with pytest.raises(SettingError, match=told):
            stage(settings(given), None)


def test_every_document_is_counted_under_a_reason(tmp_path):
    path = save(
        tmp_path / "a.jsonl",
        *(line(i) for i in range(40)),
        line(3),  # the same again
        json.dumps(
            {"id": "copy", "domain": "web", "text": text(5).upper().replace(" ", "\n ")}
        ),  # the same but for case
        line(7, text=text(1000)),  # another text under a known id
        line(50, text=""),
        line(51, text="one"),
        line(52, text="x" * 20),  # one word
        line(53, text=text(53, 30_000)),
        "{broken",
        json.dumps({"id": "half", "domain": "web", "text": text(60) + "\ud800"}),
        json.dumps({"id": "half \ud800", "domain": "web", "text": text(61)}),
        line(62, half="\ud800"),  # passes through
    )
    folder, counts = build(tmp_path, settings(path, max_bytes=200_000))
    assert counts["dropped"] == {
        "broken_json": 1,
        "duplicate_id": 1,
        "empty": 1,
        "exact_duplicate": 2,
        "invalid_unicode": 2,
        "too_long": 1,
        "too_short": 2,
    }
    assert counts["in"] == 51 and counts["kept"] == 41
    both = [*read(folder)["doc_id"], *read(folder, "heldout")["doc_id"]]
    assert len(both) == 41 and len(set(both)) == 41
    assert counts["examples"]["broken_json"] == [f"{path}:48"]


def test_a_domain_of_two_documents_keeps_them_for_training(tmp_path):
    path = save(
        tmp_path / "a.jsonl", *(line(i) for i in range(40)), *(line(i, domain="tiny") for i in (90, 91))
    )
    folder, counts = build(tmp_path, settings(path))
    assert counts["domains"]["tiny"]["documents"] == 2
    assert counts["domains"]["tiny"]["heldout_by"].startswith("none: 2 documents")
    assert (folder / "documents/tiny-00000.parquet").is_file()


def test_nothing_left_is_one_line_and_no_artifact(tmp_path):
    path = save(tmp_path / "a.jsonl", line(1, text="short"), "{broken")
    with pytest.raises(
        SettingError, match="no document is left of 2: 1 broken_json, 1 too_short; .* JSON objects"
    ):
        build(tmp_path, settings(path))
    assert not list((tmp_path / "work").rglob("manifest.json"))


@pytest.mark.parametrize(
    ("lines", "mend"),
    [
        (["{broken", "{broken", line(1, text="short")], "one a line"),
        ([line(1, text=[1]), line(2, text=[1]), "{broken"], "corpus.text_field"),
        ([line(1, text="short"), line(2, text="brief"), "{broken"], "corpus.min_characters"),
        ([line(1, domain={"a": 1}), line(2, domain=["a"])], "corpus.domain_field"),
    ],
)
def test_the_mend_is_that_of_the_most_frequent_reason(tmp_path, lines, mend):
    path = save(tmp_path / "a.jsonl", *lines)
    with pytest.raises(SettingError, match=rf"{mend}.*\(such as .*\)"):
        build(tmp_path, settings(path))


def test_ids_and_domains_that_are_no_names_are_dropped_and_counted(tmp_path):
    path = save(
        tmp_path / "a.jsonl",
        line(1),
        line(2, domain={"a": 1}),
        line(3, domain=["web"]),
        line(4, id={"n": 4}),
        line(5, id=5),
    )
    documents, drops = found(path)
    assert [d.id for d in documents] == ["d1", "5"]
    assert [d.reason for d in drops] == ["domain_not_a_name", "domain_not_a_name", "id_not_a_name"]


def test_dotted_field_names(tmp_path):
    values = {"doc": {"body": text(1), "n": 3}, "meta": {"id": "x", "kind": "web"}}
    path = save(
        tmp_path / "a.jsonl",
        json.dumps(values),
        json.dumps({"doc.body": text(2), "meta": {"id": "y", "kind": "web"}}),
    )
    (one, two), drops = found(path, text_field="doc.body", id_field="meta.id", domain_field="meta.kind")
    assert (one.id, one.domain, one.text, one.extra) == ("x", "web", text(1), {"doc": {"n": 3}, "meta": {}})
    assert (two.id, two.text) == ("y", text(2)) and not drops


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path):
    mark = b"\xef\xbb\xbf"
    lines = save(tmp_path / "a.jsonl", mark + line(1).encode() + b"\n", line(2))
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines.read_bytes()))
    assert (
        [d.id for d in found(lines)[0]] == [d.id for d in found(tmp_path / "b.jsonl.gz")[0]] == ["d1", "d2"]
    )
    (plain,), _ = found(save(tmp_path / "a.txt", mark + b"Some text.\n"))
    assert plain.text == "Some text.\n"


def test_the_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    save(tmp_path / "in" / "a.jsonl", line(1))
    assert len(found("~/in")[0]) == len(found("~/in/*.jsonl")[0]) == 1


def test_what_was_read_dropped_and_skipped_is_said_in_one_line(tmp_path):
    folder = tmp_path / "in"
    save(folder / "a.jsonl", *(line(i) for i in range(1200)), "{broken", line(1))
    for name in ("b.csv", "c.CSV", "d.jsonl.bz2", ".hidden.csv", ".git/config"):
        save(folder / name, b"x")
    (folder / "e.jsonl").symlink_to(folder / "gone.jsonl")
    given = settings(folder)
    assert files.facts(given)["files"]["skipped"] == {".csv": 2, ".bz2": 1, "broken link": 1}
    store, made = Store(tmp_path / "work"), stage(given, None)
    artifact = store.ensure(made)
    said = made.summary(store.facts(made))
    assert re.fullmatch(
        r"documents: 1,202 in, 1,200 kept \(\d+ of them held out\), 2 dropped: 1 broken json, 1 exact duplicate; "
        r"files: 1 read, 4 skipped: 2 \.csv, 1 \.bz2, 1 broken link \(b\.csv, c\.CSV, d\.jsonl\.bz2, \.\.\.\)",
        said,
    )
    assert "files" not in read_json(artifact / "counts.json")  # the artifact is a function of the documents


def test_a_domain_of_several_folders_is_said(tmp_path):
    """The months of a domain are one, and so would be two domains whose files lie in folders called train."""
    for place in ("web/train", "code/train", "law"):
        save(tmp_path / "data" / place / "a.jsonl", *(line(len(place) * 10 + i) for i in range(6)))
    for paths in (["data"], ["data/web/train", "data/code/train", "data/law"]):
        given = settings(*(tmp_path / path for path in paths), domain_from="folder")
        store, made = Store(tmp_path / "work"), stage(given, None)
        store.ensure(made)
        said = made.summary(store.facts(made))
        assert said.endswith("; one domain, train, of 2 folders: code/train, web/train"), said
    assert "one domain" not in made.summary({**store.facts(made), **files.facts(settings(tmp_path / "data"))})


def test_ids_that_repeat_in_every_file_are_refused_with_the_mend(tmp_path):
    for name, start in (("a", 0), ("b", 1000)):
        save(tmp_path / f"{name}.jsonl", *(line(start + i, id=i) for i in range(100)))
    with pytest.raises(SettingError, match="corpus.id_field"):
        build(tmp_path, settings(tmp_path / "a.jsonl", tmp_path / "b.jsonl"))
    _, counts = build(tmp_path, settings(tmp_path / "a.jsonl", tmp_path / "b.jsonl", id_field="none"))
    assert counts["kept"] == 200
    for shard in range(3):  # of a few documents, too
        save(tmp_path / f"small/{shard}.jsonl", *(line(100 * shard + i, id=i) for i in range(12)))
    with pytest.raises(SettingError, match="24 of 36 documents share their id with another text"):
        build(tmp_path, settings(tmp_path / "small"))


def test_unknown_domain_names_the_nearest(tmp_path):
    path = save(tmp_path / "a.jsonl", *(line(i) for i in range(10)))
    with pytest.raises(SettingError, match="'web'"):
        build(tmp_path, settings(path, domains=["wep"]))


def test_fields_pass_through_to_parquet(tmp_path):
    path = save(tmp_path / "a.jsonl", *(line(i, url=f"u{i}", nested={"a": [1, "ü"]}) for i in range(10)))
    folder, _ = build(tmp_path, settings(path, heldout_share=0.0))
    for row in read(folder).iter_rows(named=True):
        i = int(row["doc_id"][1:])
        assert json.loads(row["extra"]) == {"url": f"u{i}", "nested": {"a": [1, "ü"]}}
        assert row["text"] == text(i) and row["n_bytes"] == len(text(i).encode())


def test_domain_names_that_are_no_file_names(tmp_path):
    path = save(tmp_path / "a.jsonl", *(line(i, domain=["a/b", "a b", "../c"][i % 3]) for i in range(9)))
    folder, counts = build(tmp_path, settings(path, heldout_share=0.0))
    assert len(list((folder / "documents").glob("*.parquet"))) == 3
    assert set(read(folder)["domain"]) == set(counts["domains"]) == {"a/b", "a b", "../c"}


def test_no_domain_is_hidden_from_those_who_read_the_folder(tmp_path):
    """pyarrow, pandas and ``datasets`` pass over files whose names begin with a dot or a low line."""
    import datasets
    import pandas

    names = ["a", ".net", "../c", "_private", "日本"]
    path = save(tmp_path / "a.jsonl", *(line(i, domain=names[i % 5]) for i in range(10)))
    folder, _ = build(tmp_path, settings(path, heldout_share=0.0))
    kept = folder / "documents"
    assert set(pandas.read_parquet(kept)["domain"]) == set(names)
    loaded = datasets.load_dataset("parquet", data_dir=str(kept), cache_dir=str(tmp_path / "cache"))
    assert set(loaded["train"]["domain"]) == set(names)


def test_linked_folders_are_read_once_and_hidden_ones_and_those_of_runs_are_not(tmp_path):
    my = tmp_path / "my"
    save(my / "code" / "a.jsonl", *(line(i) for i in range(5)))
    save(tmp_path / "data" / "web" / "b.jsonl", *(line(10 + i) for i in range(5)))
    (my / "web").symlink_to(tmp_path / "data" / "web")
    (my / "code" / "round").symlink_to(my)  # a loop
    save(my / ".ipynb_checkpoints" / "a.jsonl", *(line(20 + i) for i in range(5)))
    save(my / ".stale.jsonl", line(30))
    save(my / "work" / "runs" / "x" / "report.txt", "What a run of these files left. " * 20)
    save(my / "work" / "artifacts" / "score" / "x-1" / "manifest.json", "{}")
    wanted = {f"d{i}" for i in (*range(5), *range(10, 15))}
    for _ in range(2):
        documents, drops = found(my)
        assert {document.id for document in documents} == wanted and not drops
    save(my / "scripts" / "manifest.json", "{}")
    save(my / "scripts" / "c.jsonl", line(40))
    assert {document.id for document in found(my)[0]} == wanted | {"d40"}
    assert {document.id for document in found(my / ".stale.jsonl")[0]} == {"d30"}  # by its name


def test_nan_is_a_missing_value_and_not_the_name_nan(tmp_path):
    rows = [line(i, id=float("nan"), group=float("nan")) for i in range(20)]
    documents, drops = found(save(tmp_path / "a.jsonl", *rows, line(99, domain=float("nan"))))
    assert len({document.id for document in documents}) == 20
    assert {document.group for document in documents} <= {"", *(document.id for document in documents)}
    assert [drop.reason for drop in drops] == ["missing_domain"]


def test_long_text_without_white_space_is_not_too_short(tmp_path):
    rows = ["x" * 40, json.dumps({f"k{i}": i for i in range(200)}, separators=(",", ":")), "word"]
    path = save(tmp_path / "a.jsonl", *(line(i, text=text) for i, text in enumerate(rows)))
    folder, counts = build(tmp_path, settings(path, heldout_share=0.0, min_characters=1))
    assert counts["kept"] == 2 and counts["dropped"] == {"too_short": 1}


def test_chinese_is_not_too_short(tmp_path):
    body = "".join(chr(0x4E00 + (i * 37) % 5000) for i in range(400))
    path = save(tmp_path / "a.jsonl", json.dumps({"id": "zh", "domain": "d", "text": body}))
    assert build(tmp_path, settings(path))[1]["kept"] == 1


def pinned(folder, **fields):
    """Settings that say what the folder holds now."""
    found = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.glob("*.jsonl")}
    return Corpus(kind="files", folder=str(folder), checksums=found, **fields)


def test_a_folder_that_is_as_its_checksums_say_is_read_like_any_other(tmp_path):
    for name in ("web-00000", "math-00000"):
        save(
            tmp_path / "in" / f"{name}.jsonl",
            *(line(i, id=f"{name}{i}", text=name + text(i)) for i in range(20)),
        )
    save(tmp_path / "in/MANIFEST.json", "{}")  # of no kind that is read
    given = pinned(tmp_path / "in")
    assert build(tmp_path, given)[1]["kept"] == 40
    assert files.identity(given) == files.identity(settings(tmp_path / "in"))
    assert files.expected_tokens(given)[1] == 2


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda folder: save(folder / "b.jsonl", line(9)), "b.jsonl has another sha256"),
        (lambda folder: (folder / "a.jsonl").unlink(), "a.jsonl is missing"),
        (lambda folder: save(folder / "c.jsonl", line(9)), "c.jsonl does not belong there"),
        (lambda folder: (folder / "a.jsonl").rename(folder / "c.jsonl"), "a.jsonl is missing"),
        (
            lambda folder: [save(folder / name, line(9)) for name in ("a.jsonl", "b.jsonl")],
            "a.jsonl .* 1 more",
        ),
    ],
)
def test_a_damaged_missing_or_foreign_shard_is_one_line(tmp_path, change, told):
    for i, name in enumerate("ab"):
        save(tmp_path / "in" / f"{name}.jsonl", line(i))
    given = pinned(tmp_path / "in")
    change(tmp_path / "in")
    with pytest.raises(SettingError, match=told) as error:
        stage(given, None)
    assert "\n" not in str(error.value)
