"""Inputs in a bucket of a real S3 server (moto's, started here), and in fsspec's memory."""

import gzip
import io
import json

import pyarrow as pa
import pytest

from repro.corpus import files
from repro.corpus.documents import read
from repro.corpus.settings import Corpus
from repro.corpus.stage import stage
from repro.errors import SettingError
from repro.fetch import remote, retries
from repro.settings.compose import compose
from repro.settings.execution import Run
from repro.store import Store

pytest.importorskip("s3fs")


def rows(k, n=40):
    return [
        {
            "id": f"{k}-{i}",
            "domain": "ab"[i % 2],
            "text": " ".join(f"w{(k * 101 + i * 7 + j * j) % 997}" for j in range(60)),
        }
        for i in range(n)
    ]


def contents():
    """Files of every kind, by name."""
    lines = ["".join(json.dumps(row) + "\n" for row in rows(k)).encode() for k in range(4)]
    table, sink = pa.Table.from_pylist(rows(5)), io.BytesIO()
    import pyarrow.parquet as pq

    pq.write_table(table, sink, row_group_size=10)
    return {
        "in/a.jsonl": lines[0],
        "in/deep/b.jsonl.gz": gzip.compress(lines[1]),
        "in/c.jsonl.zst": pa.compress(lines[2], "zstd", asbytes=True),
        "in/d.parquet": sink.getvalue(),
        "in/notes.docx": b"?",
    }


@pytest.fixture(scope="module")
def server():
    moto = pytest.importorskip("moto.server")
    found = moto.ThreadedMotoServer(port=0, verbose=False)
    found.start()
    yield "http://{}:{}".format(*found.get_host_and_port())
    found.stop()


@pytest.fixture
def bucket(server, tmp_path, monkeypatch):
    import boto3
    import s3fs

    values = {"AWS_ENDPOINT_URL": server, "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}
    for key, value in (
        values | {"AWS_DEFAULT_REGION": "us-east-1", "REPRO_CACHE": str(tmp_path / "cache")}
    ).items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(retries, "sleep", lambda seconds: None)
    s3fs.S3FileSystem.clear_instance_cache()
    client = boto3.client("s3")
    client.create_bucket(Bucket="corpora")
    for name, content in contents().items():
        client.put_object(Bucket="corpora", Key=name, Body=content)
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    yield client
    s3fs.S3FileSystem.clear_instance_cache()


def corpus(*paths, **fields):
    return Corpus(kind="files", paths=[str(path) for path in paths], near_duplicates="off", **fields)


def everything(folder):
    return read(folder).vstack(read(folder, "heldout"))


def test_the_same_corpus_from_a_bucket_as_from_disk(bucket, tmp_path):
    near = Store(tmp_path / "w1").ensure(stage(corpus(tmp_path / "in"), None))
    away = Store(tmp_path / "w2").ensure(stage(corpus("s3://corpora/in"), None))
    assert len(everything(near)) == 160
    assert everything(away).equals(everything(near))
    facts = Store(tmp_path / "w2").facts(stage(corpus("s3://corpora/in"), None))
    assert facts["files"] == {"read": 4, "skipped": {".docx": 1}, "examples": ["notes.docx"]}
    named = [str(path) for path, _ in files.files(corpus("s3://corpora/in/*.jsonl", "s3://corpora/in/deep/"))]
    assert named == ["s3://corpora/in/a.jsonl", "s3://corpora/in/deep/b.jsonl.gz"]
    tasks = Run(executor="local", cluster={"tasks": 2, "workers": 1})
    spread = Store(tmp_path / "w3").ensure(stage(corpus("s3://corpora/in"), None, tasks))
    assert everything(spread).equals(everything(near))


@pytest.mark.slow
def test_the_score_command_reads_a_bucket(bucket, tmp_path, capsys, monkeypatch):
    from repro import score
    from repro.proxy import stage as proxy
    from repro.proxy.settings import Proxy
    from repro.store import parquet

    model = Store(tmp_path / "model").ensure(proxy.stage(Proxy(kind="built"))) / "model"
    monkeypatch.chdir(tmp_path)
    words = ["s3://corpora/in/a.jsonl", "--model", str(model), "--heads", "[[1, 0]]", "--dtype", "float32"]
    assert score.main([*words, "--domain-field", "domain", "--set", "score.processes=1"]) == 0
    said = capsys.readouterr().out
    (scores,) = (tmp_path / "work/runs").glob("*/scores.parquet")
    assert set(parquet.read(scores)["doc_id"]) == {row["id"] for row in rows(0)}
    assert "40 documents scored" in said


def test_the_content_of_the_bucket_is_part_of_the_fingerprint(bucket):
    first = stage(corpus("s3://corpora/in"), None).fingerprint
    assert stage(corpus("s3://corpora/in"), None).fingerprint == first
    bucket.put_object(Bucket="corpora", Key="in/a.jsonl", Body=contents()["in/a.jsonl"].replace(b"w1", b"w2"))
    assert stage(corpus("s3://corpora/in"), None).fingerprint != first
    bucket.put_object(Bucket="corpora", Key="in/a.jsonl", Body=contents()["in/a.jsonl"])
    assert stage(corpus("s3://corpora/in"), None).fingerprint == first


def test_a_read_that_fails_is_tried_again(bucket, monkeypatch):
    ((path, _),) = remote.found("s3://corpora/in/a.jsonl")
    piece, failures = remote._Patient._piece, [ConnectionResetError("cut")] * 3

    def failing(self, length):
        if failures:
            raise failures.pop()
        return piece(self, length)

    monkeypatch.setattr(remote._Patient, "_piece", failing)
    assert path.read_bytes() == contents()["in/a.jsonl"] and not failures


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("s3://corpora/nothing", "no file is at|FileNotFoundError"),
        ("s3://no-such-bucket/in", "no file is at|no-such-bucket"),
        ("s3://corpora/in/notes.docx", "no file of a known kind"),
        ("xyz://corpora/in", "fsspec knows no xyz://"),
        ("gs://corpora/in", "pip install gcsfs"),
    ],
)
def test_what_is_not_there_is_one_line(bucket, place, message):
    with pytest.raises(SettingError, match=message) as error:
        files.files(corpus(place))
    assert "\n" not in str(error.value)


def test_a_server_that_is_away_is_one_line(bucket, monkeypatch):
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr("asyncio.sleep", _at_once)
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(SettingError, match="s3://corpora/in.*127.0.0.1:9"):
        files.files(corpus("s3://corpora/in"))


async def _at_once(*a, **k):
    return None


def test_memory_is_read_too(tmp_path):
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe({f"/{name}": content for name, content in contents().items()})
    assert len(everything(Store(tmp_path / "w").ensure(stage(corpus("memory://in"), None)))) == 160


def test_what_must_be_a_folder_is_refused_in_one_line():
    settings = compose(["exp=score_corpus", "scale=smoke", "work=s3://corpora/work"])
    with pytest.raises(SettingError, match="work=s3://corpora/work: only corpus.paths may be in a bucket"):
        remote.refuse(settings, ("corpus.paths",))
