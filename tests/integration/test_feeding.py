"""Shards are read ahead of the model and finished behind it: the same bytes, whoever is killed meanwhile."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import pytest
import scoring_corpus as given

from repro.influence import claims, statistics, workers
from repro.influence.scorer import batches
from repro.influence.settings import Score
from repro.store import Context, Store, sha256_file

SCORE = Score(window=64, max_tokens=160, tokens_per_batch=512, processes=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store with everything but scores, and the scores of a process that has no tokenizers beside it."""
    store = Store(tmp_path_factory.mktemp("work"))
    found = given.stages(SCORE, documents=given.corpus(per_shard=4, shards=4))
    for stage in found["score"].ancestors()[:-1]:
        store.ensure(stage)
    return store, found, files(scored(store, found, SCORE, tmp_path_factory.mktemp("calm")))


def scored(store, found, score, folder, lease=60.0):
    """Score by a worker of this process; returns its folder, the scoring still open."""
    context = Context(folder, {k: store.path(s) for k, s in found["score"].inputs.items()}, "cpu")
    job = workers.Job.of(score, "float32", context)
    corpus = store.path(found["corpus"])
    sources = sorted((corpus / "documents").glob("*.parquet"))
    claims.open_job(
        folder,
        {
            "tokens": {path.name: 100 for path in sources},
            "lease_seconds": lease,
            "settings": {},
            "corpus": os.path.relpath(corpus, folder),
            "digests": {path.name: sha256_file(path) for path in sources},
        },
    )
    workers.work(folder, job)
    return folder


def files(folder):
    return {path.name: path.read_bytes() for path in (folder / "scores").iterdir()}


def test_tokenizers_ahead_give_the_same_bytes_and_one_that_is_killed_costs_a_try(made, tmp_path):
    store, found, expected = made
    others, killed = set(active_children()), []

    def kill_one():
        while not (there := set(active_children()) - others):
            time.sleep(0.01)
        killed.append(there.pop().pid)
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    folder = scored(store, found, replace(SCORE, tokenizers=1), tmp_path)
    killer.join()
    assert len(expected) == 4 and files(folder) == expected
    errors = [path.read_text() for path in (folder / "claims").glob("*.error")]
    assert killed and all("BrokenProcessPool" in error for error in errors)
    assert set(active_children()) == others


def test_tokenizers_leave_with_their_process(made):
    store, found, _ = made
    model = store.path(found["proxy"]) / "model"
    script = (
        "import sys, time\nfrom multiprocessing import active_children\nfrom repro.influence.feeding import Feed\n"
        f"if __name__ == '__main__':\n    feed = Feed({str(model)!r}, 2)\n"
        "    print(*(child.pid for child in active_children()), flush=True)\n    time.sleep(60)\n"
    )
    path = model.parent.parent / "feed.py"
    path.write_text(script)
    root = Path(given.__file__).parents[2]
    run = subprocess.Popen(
        [sys.executable, path], stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(root)}
    )
    pids = [int(pid) for pid in run.stdout.readline().split()]
    run.kill()
    run.wait()
    assert len(pids) == 2
    deadline = time.monotonic() + 60
    while any(claims._runs(pid) for pid in pids):
        assert time.monotonic() < deadline, "a tokenizer outlived its process"
        time.sleep(0.05)


def test_a_shard_that_cannot_be_read_leaves_the_others_alone(made, tmp_path):
    """Ahead of the model as in the model's own process."""
    store, found, expected = made
    corpus = store.path(found["corpus"]) / "documents"
    bad = corpus / "c-00000.parquet"
    bad.write_bytes(b"no parquet")
    try:
        for tokenizers in (0, 1):
            folder = scored(store, found, replace(SCORE, tokenizers=tokenizers), tmp_path / str(tokenizers))
            assert files(folder) == expected
            assert list(claims.Board(folder).look().failed) == [bad.name]
    finally:
        bad.unlink()


def test_batches_of_many_windows_are_filled():
    lengths = np.minimum(np.exp(np.random.default_rng(0).normal(7, 1, 4096)).astype(int) + 2, 2048)
    found = batches(lengths.tolist(), 131072, padding=0.5)
    assert sorted(i for batch in found for i in batch) == list(range(4096))
    assert all(len(batch) * lengths[batch].max() <= 131072 for batch in found)
    assert lengths.sum() / len(found) / 131072 >= 0.95
    assert lengths.sum() / sum(len(batch) * lengths[batch].max() for batch in found) >= 0.95


def test_padding_changes_no_score_beyond_rounding(made, tmp_path):
    import polars

    store, found, _ = made
    tables = []
    for padding in (0.0, 0.04, 0.5):
        folder = scored(store, found, replace(SCORE, padding=padding), tmp_path / str(padding))
        tables.append(polars.read_parquet(sorted((folder / "scores").glob("*.parquet"))))
    for other in tables[1:]:
        assert other["doc_id"].equals(tables[0]["doc_id"])
        for name in ("loss_base", "loss_ref"):
            np.testing.assert_allclose(other[name].to_numpy(), tables[0][name].to_numpy(), rtol=1e-5)
    plain = given.stages(Score())["score"].fingerprint
    assert given.stages(Score(padding=0.5))["score"].fingerprint != plain
    assert given.stages(Score(padding=0.04, tokenizers=3))["score"].fingerprint == plain


@pytest.mark.parametrize("hashed", [statistics._hashes, lambda tokens: np.zeros(len(tokens) - 12, np.uint64)])
def test_repetition_is_counted_exactly_whatever_the_hashes_say(monkeypatch, hashed):
    monkeypatch.setattr(statistics, "_hashes", hashed)
    rng = np.random.default_rng(1)
    documents = [rng.integers(0, 3, n).tolist() for n in (0, 1, 12, 13, 14, 40)]
    documents += [[5] * 100, list(range(13)) * 3, rng.integers(0, 2, 5000).tolist()]
    documents += [list(range(60_000, 60_050)) * 2 + list(range(70))]
    for ids in documents:
        grams = [tuple(ids[i : i + 13]) for i in range(len(ids) - 12)]
        assert statistics.repetition(ids) == (1 - len(set(grams)) / len(grams) if grams else 0.0)


@pytest.mark.parametrize(("device", "processes", "tokenizers"), [("cuda", 8, 1), ("cuda:1", 1, 8)])
def test_a_gpu_that_is_named_has_one_process_and_all_cores(
    device, processes, tokenizers, made, tmp_path, monkeypatch
):
    """Beside eight GPUs, 16 cores; a process of several is given one of the GPUs."""
    import torch

    class Asked(Exception):
        """How many tokenizers a worker would start."""

    def feed(model, count):
        raise Asked(count)

    store, found, _ = made
    context = Context(tmp_path, {k: store.path(s) for k, s in found["score"].inputs.items()}, device)
    job = workers.Job.of(SCORE, "float32", context)
    claims.open_job(tmp_path, {"tokens": {}, "lease_seconds": 60.0})
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr(workers, "cores", lambda: 16)
    monkeypatch.setattr(workers, "Feed", feed)
    assert workers.automatic(job) == processes
    with pytest.raises(Asked) as asked:
        workers.work(tmp_path, job, "cuda:1" if device == "cuda" else None)
    assert asked.value.args == (tokenizers,)
