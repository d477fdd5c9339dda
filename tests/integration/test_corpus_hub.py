"""The hub source on local parquet of SmolLM-Corpus' and OpenWebMath's schemas, and a local stand-in for the bucket."""

import gzip
import hashlib
import http.server
import json
import threading
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from repro.corpus import blobs, hub
from repro.corpus.documents import Document, Drop, read
from repro.corpus.settings import Corpus, HubData
from repro.corpus.stage import stage
from repro.errors import SettingError
from repro.fetch import hub_commits, retries
from repro.store import Store, read_json

CONFIG = Path(__file__).resolve().parents[2] / "configs/corpus/hub.yaml"
TIMESTAMP = pa.timestamp("ms")
METADATA = pa.struct(
    [
        ("dump", pa.string()),
        ("url", pa.string()),
        ("date", TIMESTAMP),
        ("file_path", pa.string()),
        ("language", pa.string()),
        ("language_score", pa.float64()),
        ("token_count", pa.int64()),
        ("score", pa.float64()),
        ("int_score", pa.int64()),
    ]
)
SCHEMAS = {
    "fineweb-edu-dedup": [("text", pa.string()), ("id", pa.string()), ("metadata", METADATA)],
    "cosmopedia-v2": [
        ("prompt", pa.string()),
        ("text", pa.string()),
        ("token_length", pa.int64()),
        ("audience", pa.string()),
        ("format", pa.string()),
        ("seed_data", pa.string()),
    ],
    "python-edu": [
        ("blob_id", pa.string()),
        ("repo_name", pa.string()),
        ("path", pa.string()),
        ("length_bytes", pa.int64()),
        ("score", pa.float64()),
        ("int_score", pa.int64()),
    ],
    "open-web-math": [
        ("url", pa.string()),
        ("text", pa.string()),
        ("date", TIMESTAMP),
        ("metadata", pa.string()),
    ],
}


def text(kind, i):
    return " ".join(f"{kind}{(i * 7919 + j * 104729) % 99991}" for j in range(60))


def blob(i):
    """Its sha1 or, of every second, git's, as Software Heritage has both."""
    content = text("code", i).encode()
    content = b"caf\xe9" if i == 6 else content
    return hashlib.sha1(content if i % 2 else b"blob %d\0" % len(content) + content).hexdigest()


NUMBER = {}  # of a blob by its id


def rows(kind, start, stop):
    for i in range(start, stop):
        url = f"https://www.host{i % 15}.org/page/{i}"
        yield {
            "fineweb-edu-dedup": {
                "text": text("web", i),
                "id": f"<urn:uuid:{i}>",
                "metadata": {"url": url, "token_count": 60},
            },
            "cosmopedia-v2": {
                "prompt": "Write",
                "text": text("book", i),
                "format": "story",
                "seed_data": "x",
            },
            "python-edu": {
                "blob_id": blob(i),
                "repo_name": f"owner/repo{i % 9}",
                "path": f"a/{i}.py",
                "int_score": 4,
            },
            "open-web-math": {"url": url, "text": text("math", i), "metadata": "{}"},
        }[kind]


@pytest.fixture
def repositories(tmp_path, monkeypatch):
    """SmolLM-Corpus with three configurations and OpenWebMath, two files each."""
    import datasets

    monkeypatch.setattr(
        datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0
    )  # five seconds for each data set
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path / "cache"))
    readme = ["---", "configs:"]
    for kind, schema in SCHEMAS.items():
        repo = tmp_path / ("open-web-math" if kind == "open-web-math" else "smollm-corpus")
        for k in range(2):
            path = repo / kind / f"train-{k:05d}-of-00002.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(
                pa.Table.from_pylist(list(rows(kind, 60 * k, 60 * k + 60)), schema=pa.schema(schema)), path
            )
        if kind != "open-web-math":
            readme += [
                f"- config_name: {kind}",
                "  data_files:",
                f"  - {{split: train, path: {kind}/train-*}}",
            ]
    (tmp_path / "smollm-corpus/README.md").write_text("\n".join([*readme, "---", ""]))
    return tmp_path


class Bucket(http.server.BaseHTTPRequestHandler):
    asked = Counter()
    denied = False

    def do_GET(self):
        ident = self.path.rsplit("/", 1)[1]
        Bucket.asked[ident] += 1
        i = NUMBER[ident]
        special = {
            3: (404, b""),
            4: (403, b""),
            5: (200, b"not gzip"),
            6: (200, gzip.compress(b"caf\xe9")),
            9: (200, gzip.compress(b"another text")),
        }
        status, body = special.get(i, (200, gzip.compress(text("code", i).encode())))
        if i == 7 and Bucket.asked[ident] <= 2:
            status, body = 503, b""
        if i == 8:
            status, body = 500, b""
        if Bucket.denied:
            status, body = 403, b"<Error><Code>AccessDenied</Code></Error>"
        self.send_response(status)
        cut = i == 10 and Bucket.asked[ident] == 1
        self.send_header("Content-Length", str(len(body) + 99 * cut))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *a):
        pass


@pytest.fixture
def bucket(monkeypatch):
    Bucket.asked, Bucket.denied = Counter(), False
    NUMBER.update({blob(i): i for i in range(120)})
    monkeypatch.setattr(retries, "sleep", lambda seconds: None)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Bucket)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/content/{{}}"
    server.shutdown()
    server.server_close()


def shipped(folder, blob_url, **fields):
    """The shipped configuration, pointed at the local repositories."""
    data = [HubData(**entry) for entry in yaml.safe_load(CONFIG.read_text())["hub"]]
    for entry in data:
        entry.repo = str(folder / entry.repo.split("/")[1])
    return Corpus(kind="hub", hub=data, blob_url=blob_url, **fields)


def without(folder, drop=(8,)):
    """Rewrite Python-Edu without the rows whose blobs stop the run."""
    for path in (folder / "smollm-corpus/python-edu").glob("*.parquet"):
        table = pq.read_table(path)
        pq.write_table(
            table.filter(pa.array([NUMBER[b] not in drop for b in table["blob_id"].to_pylist()])), path
        )


def test_shipped_configuration_reads_all_four_schemas(repositories, bucket):
    without(repositories)
    settings = shipped(repositories, bucket)
    folder = Store(repositories / "work").ensure(stage(settings, None))
    counts = read_json(folder / "counts.json")
    assert counts["in"] == 4 * 120 - 1
    assert counts["dropped"] == {"blob_damaged": 2, "blob_gone": 2, "invalid_utf8": 1}
    both = read(folder).vstack(read(folder, "heldout"))
    assert dict(both.group_by("domain").len().iter_rows()) == {
        "web": 120,
        "textbook": 120,
        "python": 114,
        "math": 120,
    }
    (one,) = both.filter(both["doc_id"] == blob(20)).to_dicts()
    assert (
        one["text"] == text("code", 20)
        and one["group"] == "owner/repo2"
        and one["source"].endswith("/python-edu")
    )
    assert json.loads(one["extra"])["path"] == "a/20.py"
    web = both.filter(both["domain"] == "web")
    assert set(web["group"]) == {f"www.host{i}.org" for i in range(15)}
    assert json.loads(web["extra"][0])["metadata"]["token_count"] == 60
    assert Bucket.asked[blob(7)] == 3  # two refusals, then the text
    assert Bucket.asked[blob(10)] == 2  # the first was cut off

    asked = Bucket.asked.total()
    again = Store(repositories / "again").ensure(stage(settings, None))
    assert read(again).equals(read(folder))
    assert Bucket.asked.total() - asked == 6  # all but the gone and (twice) the damaged come from the cache


def test_a_blob_that_stands_in_several_rows_is_read_by_all(repositories, bucket):
    for i in range(11, 31):  # all at once
        with blobs.Blobs(bucket) as found:
            assert list(found.texts([blob(i)] * 4)) == [text("code", i)] * 4


def test_bucket_that_fails_stops_the_run_in_one_line(repositories, bucket):
    with pytest.raises(SettingError, match=f"blob {blob(8)}.*HTTPError: 500") as error:
        list(hub.stream(shipped(repositories, bucket, domains=["python"])))
    assert "\n" not in str(error.value)
    with pytest.raises(SettingError, match="check the network"):
        list(hub.stream(shipped(repositories, "http://127.0.0.1:9/{}", domains=["python"])))
    with pytest.raises(SettingError, match="blob_url"):
        list(hub.stream(shipped(repositories, "http://127.0.0.1:9/", domains=["python"])))


def test_a_bucket_that_denies_is_an_error_and_not_a_corpus_without_python(repositories, bucket):
    Bucket.denied = True
    for few in ({}, {"max_documents_per_domain": 5}):
        with pytest.raises(SettingError, match="blobs were refused.*AccessDenied"):
            list(hub.stream(shipped(repositories, bucket, domains=["python"], **few)))
    without(repositories, {i for i in range(120) if i not in (3, 4)})
    with pytest.raises(SettingError, match="last 2 blobs were refused"):
        list(hub.stream(shipped(repositories, bucket, domains=["python"])))


def test_a_limit_ends_the_reading_early_and_draws_by_seed(repositories, bucket):
    def ids(seed):
        settings = shipped(repositories, bucket, domains=["web"], max_documents_per_domain=20, seed=seed)
        return [d.id for d in hub.stream(settings)]

    assert len(ids(0)) == 24 and ids(0) == ids(0) and set(ids(0)) != set(ids(1))
    settings = shipped(repositories, bucket, domains=["math"], max_tokens_per_domain=1000)
    assert sum(len(d.text) for d in hub.stream(settings)) < 4 * 1000 * 1.5


def test_any_other_data_set_by_its_fields(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path / "cache"))
    repo = tmp_path / "other"
    repo.mkdir()
    made = [{"body": {"plain": text("x", i)}, "key": i, "who": f"g{i % 3}"} for i in range(5)] + [
        {"body": {"plain": None}, "key": 9}
    ]
    pq.write_table(pa.Table.from_pylist(made), repo / "train.parquet")
    data = HubData(
        repo=str(repo),
        domain="mine",
        text_field="body.plain",
        id_field="key",
        group_field="who",
        license="MIT",
    )
    found = list(hub.stream(Corpus(kind="hub", hub=[data])))
    assert [(d.id, d.group, d.license) for d in found[:2]] == [("0", "g0", "MIT"), ("1", "g1", "MIT")]
    assert isinstance(found[5], Drop) and found[5].reason == "missing_text"
    assert isinstance(found[0], Document) and found[0].text == text("x", 0)
    wrong = HubData(repo=str(repo), domain="mine")
    with pytest.raises(SettingError, match="no field 'text'.*body, key, who"):
        list(hub.stream(Corpus(kind="hub", hub=[wrong])))


def test_a_local_folder_is_called_by_its_name_wherever_it_lies(tmp_path, monkeypatch):
    """What stands in the rows is published, and the same in two places."""
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path / "cache"))
    made = {}
    for place in ("one/data", "two/data", "two/other"):
        repo = tmp_path / place
        repo.mkdir(parents=True)
        lines = [json.dumps({"text": text("x", i), "id": str(i)}) for i in range(5)] + ['{"text": null}']
        (repo / "train.jsonl").write_text("\n".join(lines))
        settings = Corpus(kind="hub", hub=[HubData(repo=f"{repo}/", domain="d")])
        assert not [found for found in hub.stream(settings) if str(tmp_path) in str(found)]
        out = Store(tmp_path / "work" / place).ensure(stage(settings, None))
        (source,) = set(read(out)["source"])
        made[place] = stage(settings, None).fingerprint, source
    assert made["one/data"] == made["two/data"] and made["one/data"][1] == "data"
    assert made["two/other"][0] != made["two/data"][0] and made["two/other"][1] == "other"


def test_fingerprint_holds_the_commit(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path / "cache"))
    settings = Corpus(kind="hub", hub=[HubData(repo="owner/name", domain="d")])
    monkeypatch.setattr(hub_commits, "_ask_hub", lambda repo, revision, kind: "c" * 40)
    assert hub.identity(settings)["hub"][0]["revision"] == "c" * 40
    first = stage(settings, None).fingerprint
    monkeypatch.setattr(hub_commits, "_ask_hub", lambda repo, revision, kind: "d" * 40)
    assert stage(settings, None).fingerprint == first  # remembered, although the branch has moved on
    settings.hub[0].revision = "e" * 40
    assert stage(settings, None).fingerprint != first


def test_hub_away_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    def away(*a, **k):
        raise ConnectionError("Couldn't reach 'owner/name' on the Hub\nmore")

    monkeypatch.setattr(datasets, "load_dataset_builder", away)
    monkeypatch.setattr(retries, "sleep", lambda seconds: None)
    monkeypatch.setattr(hub_commits, "_ask_hub", lambda repo, revision, kind: None)
    with pytest.raises(SettingError, match="commit of owner/name@main"):
        list(hub.stream(Corpus(kind="hub", hub=[HubData(repo="owner/name", domain="d")])))
    monkeypatch.setattr(hub_commits, "_ask_hub", lambda repo, revision, kind: "a" * 40)
    with pytest.raises(SettingError, match="owner/name.*check the network") as error:
        list(hub.stream(Corpus(kind="hub", hub=[HubData(repo="owner/name", domain="d")])))
    assert "\n" not in str(error.value)
