"""A store in a bucket: what one machine made another finds, whole, whenever it was stopped."""

import json
from pathlib import Path

import pytest
from test_remote import bucket, server  # noqa: F401

from repro.errors import SettingError
from repro.fetch import hub_commits
from repro.store import Stage, Store, cached, read_json, write_json
from repro.store.bucket import RECORD, Bucket, at_home

pytest.importorskip("s3fs")
URL = "s3://corpora/store"


def machine(tmp_path, name):
    """A store on another disk before the same bucket."""
    (tmp_path / name).mkdir(exist_ok=True)
    write_json(tmp_path / name / RECORD, {"url": URL})
    return Store(tmp_path / name)


def made(runs, text="x", inputs=()):
    def run(context):
        runs.append(1)
        (context.out / "deep").mkdir(exist_ok=True)
        (context.out / "a.txt").write_text(text)
        (context.out / "deep/b.bin").write_bytes(b"b" * 100_000)

    return Stage("corpus", "made", {"n": 1}, run, dict(inputs))


@pytest.fixture
def empty(bucket):  # noqa: F811
    for found in bucket.list_objects_v2(Bucket="corpora", Prefix="store/").get("Contents", []):
        bucket.delete_object(Bucket="corpora", Key=found["Key"])
    return bucket


def keys(client):
    return [o["Key"] for o in client.list_objects_v2(Bucket="corpora", Prefix="store/").get("Contents", [])]


def test_another_machine_finds_what_one_has_made(empty, tmp_path):
    runs, found = [], []
    for name in ("one", "two", "two"):
        folder = machine(tmp_path, name).ensure(made(runs))
        assert (folder / "deep/b.bin").read_bytes() == b"b" * 100_000
        found.append(read_json(folder / "manifest.json"))
    assert runs == [1] and found[0] == found[1] == found[2]
    assert len(keys(empty)) == 3


def test_the_manifest_comes_last_and_a_stopped_publishing_is_nothing(empty, tmp_path, monkeypatch):
    put, runs = Bucket.put, []

    def stopped(self, name, source):
        if name.endswith("b.bin"):
            raise KeyboardInterrupt
        put(self, name, source)

    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "put", stopped)
        with pytest.raises(KeyboardInterrupt):
            machine(tmp_path, "one").ensure(made(runs))
    assert len(keys(empty)) == 1 and "manifest.json" not in keys(empty)[0]
    machine(tmp_path, "two").ensure(made(runs))  # finds nothing, makes it
    machine(tmp_path, "one").ensure(made(runs))  # has it, and sees that it is kept
    assert len(runs) == 2 and sum("manifest.json" in key for key in keys(empty)) == 1


def test_of_two_different_results_the_first_manifest_counts(empty, tmp_path, capsys):
    machine(tmp_path, "one").ensure(made([], "first"))
    two = machine(tmp_path, "two")
    two.bucket = None
    two.ensure(made([], "second"))  # as when both worked at once
    folder = machine(tmp_path, "two").ensure(made([]))
    assert (folder / "a.txt").read_text() == "first"
    assert "another machine finished" in capsys.readouterr().err


def test_damage_in_the_bucket_is_one_line(empty, tmp_path):
    machine(tmp_path, "one").ensure(made([]))
    (data,) = (key for key in keys(empty) if key.endswith("a.txt"))
    empty.put_object(Bucket="corpora", Key=data, Body=b"y")
    with pytest.raises(SettingError, match="a.txt is damaged"):
        machine(tmp_path, "two").ensure(made([]))


def test_a_work_folder_in_a_bucket_has_a_place_here(empty, tmp_path):
    work = at_home(URL + "/")
    assert Store(cached.cache().joinpath("buckets").iterdir().__next__()).bucket == Bucket(URL)
    assert work.startswith(str(tmp_path / "cache"))
    assert at_home("here") == "here"
    with pytest.raises(SettingError, match="work=s3://corpora/store: this command needs a folder"):
        Store(Path(URL))


def test_revisions_are_shared_in_the_bucket(empty, monkeypatch):
    monkeypatch.setenv(hub_commits.STORE_OF_REVISIONS, f"{URL}/revisions")
    monkeypatch.setattr(hub_commits, "_ask_hub", lambda repo, revision, kind: "a" * 40)
    assert hub_commits.hub_commit("owner/name", "main") == "a" * 40
    monkeypatch.setattr(hub_commits, "_ask_hub", lambda repo, revision, kind: "b" * 40)
    monkeypatch.setattr(cached, "recall", lambda name: {})
    assert hub_commits.hub_commit("owner/name", "main") == "a" * 40
    (key,) = keys(empty)
    assert json.loads(empty.get_object(Bucket="corpora", Key=key)["Body"].read())["commit"] == "a" * 40


@pytest.mark.slow
def test_a_whole_run_in_a_bucket(empty, tmp_path, monkeypatch):
    from repro import score
    from repro.proxy import stage as proxy
    from repro.proxy.settings import Proxy

    model = Store(tmp_path / "model").ensure(proxy.stage(Proxy(kind="built"))) / "model"
    monkeypatch.chdir(tmp_path)
    words = ["s3://corpora/in/a.jsonl", "--model", str(model), "--heads", "[[1, 0]]", "--dtype", "float32"]
    found = []
    for cache in ("one", "two"):
        monkeypatch.setenv("REPRO_CACHE", str(tmp_path / cache))
        assert score.main([*words, "--work", URL, "--set", "score.processes=1"]) == 0
        manifests = (tmp_path / cache / "buckets").glob("*/artifacts/*/*/manifest.json")
        found.append({path.parent.name: read_json(path) for path in manifests})
    assert found[0] == found[1] and len(found[0]) >= 4  # the second machine made nothing of its own
    assert not (tmp_path / "work").exists()
    runs = [key for key in keys(empty) if key.startswith("store/runs/")]
    assert any(key.endswith("/scores.parquet") for key in runs)
    assert any(key.endswith("/summary.json") for key in runs)
