"""Corpora from a stand-in of the hub: samples, refusals and cuts, gating, shared revisions, resuming, memory."""

import json
import os
import tracemalloc

import hub_server
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_server import Hub

from repro.corpus import hub, row_groups, spool
from repro.corpus.documents import read
from repro.corpus.settings import Corpus, HubData
from repro.corpus.stage import stage
from repro.errors import SettingError
from repro.experiments import build
from repro.fetch import hub_commits, retries
from repro.plan import checks
from repro.settings.root import Settings
from repro.store import Store, parquet

FILES, GROUPS, ROWS = 4, 5, 40  # of a data set: files, row groups in a file, rows in a group


def text(file, i):
    return " ".join(f"w{(file * 10_007 + i * 7919 + j * 104_729) % 99_991}" for j in range(60))


@pytest.fixture
def waits(monkeypatch):
    """Seconds waited, without waiting: of this project's tries and of the hub client's own."""
    found = []
    monkeypatch.setattr(retries, "sleep", found.append)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", found.append)
    return found


@pytest.fixture
def repo(tmp_path, monkeypatch, waits):
    """owner/name on the stand-in; the folder is also readable in place."""
    import datasets
    import huggingface_hub
    from huggingface_hub import constants

    folder = tmp_path / "root/owner/name"
    for k in range(FILES):
        path = folder / f"data/train-{k:05d}-of-{FILES:05d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = GROUPS * ROWS
        table = {"text": [text(k, i) for i in range(rows)], "id": [f"{k}-{i}" for i in range(rows)]}
        pq.write_table(pa.table(table), path, row_group_size=ROWS)
    Hub.root, Hub.gated, Hub.failures, Hub.sent = tmp_path / "root", False, [], 0
    Hub.asked.clear()
    server = hub_server.started()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    for place, name in ((constants, "ENDPOINT"), (datasets.config, "HF_ENDPOINT")):
        monkeypatch.setattr(place, name, url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0)
    monkeypatch.setattr(hub_commits, "_hub_away", False)
    monkeypatch.setattr(row_groups, "REQUEST_BYTES", 1 << 12)
    huggingface_hub.HfFileSystem.clear_instance_cache()
    yield folder
    server.shutdown()
    server.server_close()
    huggingface_hub.HfFileSystem.clear_instance_cache()


def settings(repo="owner/name", **fields):
    return Corpus(kind="hub", hub=[HubData(repo=str(repo), domain="d", id_field="id")], **fields)


def ids(corpus, position=None):
    return [found.id for found in hub.stream(corpus, position)]


def test_a_sample_is_drawn_over_all_files_and_is_the_same_from_hub_and_disk(repo):
    drawn = ids(settings(max_documents_per_domain=100))
    assert drawn == ids(settings(repo, max_documents_per_domain=100))
    assert len(drawn) == 120 == len(set(drawn))
    groups = {(k, int(i) // ROWS) for k, i in (d.split("-") for d in drawn)}
    assert len(groups) > 0.8 * FILES * GROUPS  # by the old way: one
    places = np.array([int(d.split("-")[1]) % ROWS for d in drawn])
    assert 14 < places.mean() < 25  # anywhere in a group
    assert drawn != ids(settings(repo, max_documents_per_domain=100, seed=1))
    everything = ids(settings(repo, max_documents_per_domain=10_000))
    assert len(everything) == len(set(everything)) == FILES * GROUPS * ROWS
    assert sorted(everything) == sorted(ids(settings(repo)))


def test_one_refusal_or_cut_connection_ends_no_run(repo, waits, tmp_path, monkeypatch):
    monkeypatch.setenv(hub_commits.STORE_OF_REVISIONS, str(tmp_path / "work/revisions"))
    undisturbed = ids(settings(repo, max_documents_per_domain=100))
    Hub.failures = [
        ("/revision/", 500),
        ("/revision/", 429, {"ratelimit": '"api";r=0;t=55'}),
        ("README", 503),
        ("/tree/", 429, {"Retry-After": "7"}),
        ("00001-of", 500),
        *[("00002-of", "cut")] * 9,  # more than the client's own tries
        ("00003-of", 429, {"ratelimit": '"resolvers";r=0;t=33'}),
        ("00000-of", 502),
    ]
    assert ids(settings(max_documents_per_domain=100)) == undisturbed
    assert Hub.failures == []
    assert {56, 34} <= set(waits)  # as long as the headers say, and a second


def test_a_hub_that_stays_away_says_all_it_said(repo):
    Hub.failures = [("parquet", 503)] * 10_000
    with pytest.raises(SettingError, match="503.*too much at once.*check the network") as error:
        ids(settings())
    assert "\n" not in str(error.value)


def test_gating_is_found_before_the_first_stage(repo, tmp_path):
    corpus = stage(settings(), None)
    store = Store(tmp_path / "work")
    checks.sizes(Settings, [corpus], store, "cpu")
    Hub.gated = True
    with pytest.raises(
        SettingError, match="owner/name.*Access to this data set is restricted. Visit.*log in"
    ):
        checks.sizes(Settings, [corpus], store, "cpu")


def models(repo):
    """A stage of each kind that loads a model of the hub, here owner/name; ``repo`` is read as a corpus."""
    from repro.pretrain.settings import Model
    from repro.pretrain.stage import tokens_stage
    from repro.proxy import stage as proxy
    from repro.proxy.settings import Proxy
    from repro.selection import priority
    from repro.settings.compose import compose

    (repo / "config.json").write_text(json.dumps({"model_type": "llama", **proxy.SMOLLM2}))
    read = stage(settings(repo), None)
    (classified,) = priority.stages("educational", {"model": "owner/name"}, read).values()
    arguments = ["exp=what_was_selected", "scale=smoke", "analysis.embedder=owner/name"]
    described = next(one for one in build(compose(arguments)).order() if one.name == "describe")
    return {
        "proxy.repo": proxy.stage(Proxy(kind="hub", repo="owner/name")),
        "model.init_from": tokens_stage(Model(init_from="owner/name"), read),
        "params.model": classified,
        "analysis.embedder": described,
    }


@pytest.mark.parametrize("setting", ["proxy.repo", "model.init_from", "params.model", "analysis.embedder"])
def test_a_gated_model_is_found_before_the_first_stage_unless_it_is_here(repo, tmp_path, setting):
    """Its commit is told to everybody."""
    one, store = models(repo)[setting], Store(tmp_path / "work")
    checks.sizes(Settings, [one], store, "cpu")
    Hub.gated = True
    with pytest.raises(SettingError, match="owner/name.*data set is restricted.*accept its terms.*log in"):
        checks.sizes(Settings, [one], store, "cpu")
    Hub.failures = [("auth-check", 404)]
    with pytest.raises(
        SettingError, match=f"cannot read owner/name .*check the (name in|network and) {setting}"
    ):
        checks.sizes(Settings, [one], store, "cpu")
    here = tmp_path / "hub/models--owner--name/snapshots" / hub_server.COMMIT
    assert [path.name for path in here.iterdir()] == ["config.json"]  # of the plan
    (here / "model.safetensors").touch()
    checks.sizes(Settings, [one], store, "cpu")


def test_a_model_that_is_gated_only_as_it_is_loaded_says_what_to_do(repo):
    from repro.pretrained import config
    from repro.proxy.stage import download

    (repo / "config.json").write_text("{}")
    Hub.gated = True
    for load in (lambda: download("owner/name", "main"), lambda: config("owner/name")):
        with pytest.raises(SettingError, match="cannot read .*owner/name.*accept its terms.*log in") as error:
            load()
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "setting", ["proxy.repo", "model.init_from", "params.model", "analysis.embedder", "corpus.hub", "items"]
)
def test_an_outage_that_ends_as_a_run_starts_makes_nothing_of_a_branch(repo, tmp_path, monkeypatch, setting):
    from repro.items.settings import Items
    from repro.items.stage import stage as items_stage

    monkeypatch.setattr("repro.items.hub.TASKS", {"task": ("owner/name", None)})

    def named():
        if setting == "corpus.hub":
            return stage(settings(), None)
        return items_stage(Items(kind="hub")) if setting == "items" else models(repo)[setting]

    Hub.failures = [("/revision/", 503)] * 4
    branch, store = named(), Store(tmp_path / "work")
    assert "main" in json.dumps(branch.settings) and hub_server.COMMIT not in json.dumps(branch.settings)
    Hub.failures = []
    for _ in range(2):  # also when another process knows the commit by now
        with pytest.raises(SettingError, match=r"commit of owner/name@main.*run again"):
            checks.sizes(Settings, [branch], store, "cpu")
        assert hub_commits.hub_revision("owner/name", "main", "model") == hub_server.COMMIT
    again = named()
    assert hub_server.COMMIT in json.dumps(again.settings)
    checks.sizes(Settings, [again], store, "cpu")


def test_machines_of_a_store_share_one_commit(repo, tmp_path, monkeypatch):
    monkeypatch.setenv(hub_commits.STORE_OF_REVISIONS, str(tmp_path / "work/revisions"))
    assert hub_commits.hub_commit("owner/name", "main") == "c" * 40
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path / "another machine"))
    monkeypatch.setattr(hub_server, "COMMIT", "d" * 40)
    assert hub.identity(settings())["hub"][0]["revision"] == "c" * 40
    monkeypatch.delenv(hub_commits.STORE_OF_REVISIONS)
    assert hub_commits.hub_commit("owner/name", "main") == "d" * 40  # its cache knows another one now
    monkeypatch.setenv(hub_commits.STORE_OF_REVISIONS, str(tmp_path / "work/revisions"))
    assert hub_commits.hub_commit("owner/name", "main") == "c" * 40
    assert [p.suffix for p in (tmp_path / "work/revisions").iterdir()] == [".json"]


@pytest.mark.parametrize("limit", [None, 150])
def test_a_killed_reading_goes_on_and_fetches_little_twice(repo, tmp_path, monkeypatch, limit):
    corpus = settings(max_documents_per_domain=limit)
    whole = Store(tmp_path / "w1").ensure(stage(corpus, None))
    monkeypatch.setattr(spool, "SPOOL_BYTES", 20_000)
    part, fetched = row_groups.Table._part, []

    def noted(self, wanted, skip):
        fetched[-1].append((wanted.group, tuple(wanted.rows)[:1]))
        return part(self, wanted, skip)

    monkeypatch.setattr(row_groups.Table, "_part", noted)
    write, calls = spool.write, []

    def killed(path, rows):
        write(path, rows)
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    fetched.append([])
    with monkeypatch.context() as patch:
        patch.setattr(spool, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            Store(tmp_path / "w2").ensure(stage(corpus, None))
    fetched.append([])
    second = Store(tmp_path / "w2").ensure(stage(corpus, None))
    assert read(second).equals(read(whole)) and read(second, "heldout").equals(read(whole, "heldout"))
    both = set(fetched[0]) & set(fetched[1])  # what was read and not yet written, and the group it broke in
    assert 1 <= len(both) < 0.7 * len(fetched[0]) and set(fetched[1]) > both


def test_positions_are_json_and_any_of_them_resumes(repo):
    corpus = settings(repo, max_documents_per_domain=60)
    whole, position = [], {}
    at = {}
    for found in hub.stream(corpus, position):
        whole.append(found.id)
        at[len(whole)] = json.dumps(position)
    for had in (1, 17, 40, len(whole)):
        assert ids(corpus, json.loads(at[had])) == whole[had:]


def test_other_formats_are_read_file_by_file(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path / "cache"))
    repo = tmp_path / "lines"
    repo.mkdir()
    for k in range(3):
        rows = [json.dumps({"text": text(k, i), "id": f"{k}-{i}"}) for i in range(50)]
        (repo / f"train-{k}.jsonl").write_text("\n".join(rows) + "\n")
    everything = ids(settings(repo))
    assert len(everything) == len(set(everything)) == 150
    drawn = ids(settings(repo, max_documents_per_domain=30))
    assert len(drawn) == 36 and {d[0] for d in drawn} >= {"0", "1"}
    position = {}
    stream = hub.stream(settings(repo, max_documents_per_domain=30), position)
    had = [next(stream).id for _ in range(20)]
    assert had + ids(settings(repo, max_documents_per_domain=30), position) == drawn


def test_a_row_group_of_any_size_is_never_held(tmp_path):
    repo = tmp_path / "large"
    repo.mkdir()
    bare = [os.urandom(5_000).hex() for _ in range(6_000)]
    table = pa.table({"text": bare, "id": [str(i) for i in range(6_000)]})
    pq.write_table(
        table, repo / "train.parquet", row_group_size=6_000, use_dictionary=False, compression="none"
    )
    del bare, table
    import datasets  # noqa: F401  (not counted)

    peak, before = 0, pa.total_allocated_bytes()
    tracemalloc.start()  # what Python's file objects hand over is not in Arrow's pool
    for n, _ in enumerate(hub.stream(settings(repo))):
        if n % 50 == 0:
            peak = max(peak, pa.total_allocated_bytes() - before)
    peak += tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    with parquet.opened(repo / "train.parquet") as file:
        assert file.metadata.num_row_groups == 1 and file.metadata.row_group(0).total_byte_size > 59_000_000
    assert peak < 30_000_000, peak
