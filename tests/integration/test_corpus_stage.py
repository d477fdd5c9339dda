"""The corpus stage from source to shards."""

import json
import random
from functools import partial
from pathlib import Path

import pytest

from repro import items
from repro.corpus import installed
from repro.corpus.documents import Document, read, sampling_key, shards
from repro.corpus.settings import Corpus
from repro.corpus.stage import stage
from repro.items.settings import Items
from repro.store import Store, read_json

MINI = Path(__file__).resolve().parents[2].parent / "shared/data/corpus/mini"
WORDS = [f"word{i}" for i in range(3000)]


def make_documents(n, seed=0):
    draw = random.Random(seed)
    made = []
    for i in range(n):
        body = " ".join(draw.choices(WORDS, k=draw.randint(60, 120)))
        made.append({"id": f"d{i:04d}", "domain": "ab"[i % 2], "group": f"g{i % 30}", "text": body})
        if i % 10 == 0:  # a near copy in another group
            made.append(
                {
                    "id": f"n{i:04d}",
                    "domain": "ab"[i % 2],
                    "group": f"g{(i + 1) % 30}",
                    "text": body + " more",
                }
            )
    return made


def save(folder, documents, n_files):
    folder.mkdir(parents=True)
    for k in range(n_files):
        lines = [json.dumps(d) + "\n" for d in documents[k::n_files]]
        (folder / f"part{k}.jsonl").write_text("".join(lines))
    return Corpus(
        kind="files", paths=[str(folder)], max_documents_per_domain=80, heldout_share=0.1, shard_documents=16
    )


def everything(folder):
    return {split: [p.name for p in shards(folder, split)] for split in ("documents", "heldout")}, [
        read(folder, split).to_dicts() for split in ("documents", "heldout")
    ]


def test_order_and_number_of_files_do_not_matter(tmp_path):
    documents = make_documents(200)
    documents += [{**d, "id": d["id"] + "-copy"} for d in documents[:60:2]]
    documents += [{**d, "text": "changed " + d["text"] * 2} for d in documents[1:40:2]]
    first = Store(tmp_path / "w1").ensure(stage(save(tmp_path / "one", documents, 1), None))
    random.Random(5).shuffle(documents)
    second = Store(tmp_path / "w2").ensure(stage(save(tmp_path / "many", documents, 5), None))
    assert everything(first) == everything(second)
    one, two = (read_json(folder / "counts.json") for folder in (first, second))
    assert {**one, "examples": 0} == {**two, "examples": 0}
    assert (
        one["dropped"]["beyond_the_size_asked_for"] > 0
        and one["domains"]["a"]["in_near_duplicate_clusters"] > 0
    )


def test_of_one_text_in_two_groups_the_same_stays_whatever_the_files_are_called(tmp_path):
    bodies = [" ".join(f"w{i}x{j}" for j in range(60)) for i in range(20)]
    kept = []
    for folder, names in (("x", "ab"), ("y", "ba")):
        (tmp_path / folder).mkdir()
        for name, group in zip(names, ("one", "two"), strict=True):
            rows = [json.dumps({"domain": "d", "group": group, "text": body}) + "\n" for body in bodies]
            (tmp_path / folder / f"{name}.jsonl").write_text("".join(rows))
        made = stage(Corpus(kind="files", paths=[str(tmp_path / folder)], heldout_share=0), None)
        kept.append((made.fingerprint, everything(Store(tmp_path / f"w{folder}").ensure(made))))
    assert kept[0] == kept[1]


def test_fingerprint_follows_content_not_place(tmp_path):
    documents = make_documents(20)
    prints = [stage(save(tmp_path / place, documents, 1), None).fingerprint for place in ("here", "there")]
    assert prints[0] == prints[1]
    documents[0]["text"] += " changed"
    assert stage(save(tmp_path / "changed", documents, 1), None).fingerprint != prints[0]


def test_shards_hold_the_documented_columns_and_at_most_the_rows_asked_for(tmp_path):
    folder = Store(tmp_path / "w").ensure(stage(save(tmp_path / "in", make_documents(200), 2), None))
    counts = read_json(folder / "counts.json")
    for split, key in (("documents", "documents"), ("heldout", "heldout_documents")):
        frame = read(folder, split)
        assert frame.columns == [
            "doc_id",
            "domain",
            "group",
            "cluster",
            "source",
            "license",
            "n_bytes",
            "text",
            "extra",
        ]
        assert {d: c[key] for d, c in counts["domains"].items()} == {
            d: frame.filter(frame["domain"] == d).height for d in counts["domains"]
        }
    import pyarrow.parquet as pq

    assert all(0 < pq.read_metadata(path).num_rows <= 16 for path in shards(folder))
    assert counts["kept"] == sum(c["documents"] + c["heldout_documents"] for c in counts["domains"].values())
    train, held = read(folder), read(folder, "heldout")
    assert not set(train["group"]) & set(held["group"]) and not set(train["cluster"]) & set(held["cluster"])
    assert held.height > 0 and not (folder / "spool").exists()


def test_a_sample_drawn_last_has_the_size_asked_for_and_is_the_head_of_the_cleaned_order(tmp_path):
    """Drawn first, some of the sample are near-duplicates and go; drawn last, the limit is reached exactly."""
    settings = save(tmp_path / "in", make_documents(400), 2)
    settings.near_duplicates, settings.max_documents_per_domain = "drop", 100
    first = read_json(Store(tmp_path / "w").ensure(stage(settings, None)) / "counts.json")["domains"]
    settings.sample = "last"
    limited = Store(tmp_path / "w").ensure(stage(settings, None))
    settings.max_documents_per_domain = None
    whole = Store(tmp_path / "w").ensure(stage(settings, None))
    size = {
        d: c["documents"] + c["heldout_documents"]
        for d, c in read_json(limited / "counts.json")["domains"].items()
    }
    assert size == {"a": 100, "b": 100} and any(
        c["documents"] + c["heldout_documents"] < 100 for c in first.values()
    )
    ids = {
        folder: {i for split in ("documents", "heldout") for i in read(folder, split)["doc_id"]}
        for folder in (limited, whole)
    }
    for domain in "ab":
        frames = [
            read(whole, split).filter(read(whole, split)["domain"] == domain)
            for split in ("documents", "heldout")
        ]
        order = sorted((i for frame in frames for i in frame["doc_id"]), key=lambda i: sampling_key(0, i))
        assert ids[limited] & set(order) == set(order[:100])
    train, held = read(limited), read(limited, "heldout")
    assert held.height and not set(train["group"]) & set(held["group"])


def test_near_duplicates_can_be_dropped_and_are_counted(tmp_path):
    settings = save(tmp_path / "in", make_documents(100), 1)
    settings.max_documents_per_domain, settings.near_duplicates = None, "drop"
    folder = Store(tmp_path / "w").ensure(stage(settings, None))
    counts = read_json(folder / "counts.json")
    assert counts["dropped"] == {"near_duplicate": 10} and counts["kept"] == 100


def test_minhash_on_disk_finds_the_same(tmp_path):
    pytest.importorskip("datatrove", reason="the extra 'cluster' is not installed")
    settings = save(tmp_path / "in", make_documents(100), 3)
    settings.max_documents_per_domain = None
    memory = Store(tmp_path / "w").ensure(stage(settings, None))
    settings.minhash = "datatrove"
    assert everything(Store(tmp_path / "w").ensure(stage(settings, None))) == everything(memory)


def test_benchmark_text_is_dropped_and_counted(tmp_path):
    benchmark = Store(tmp_path / "w").ensure(items.stage(Items("builtin")))
    passage = items.out_of_corpus_text(benchmark, ["lambada_openai"], 10_000)["lambada_openai"][0]
    documents = [d for d in make_documents(50) if d["id"].startswith("d")]
    documents[7]["text"] += " " + " ".join(passage.upper().split()[5:20]) + " " + documents[8]["text"]
    settings = save(tmp_path / "in", documents, 1)
    folder = Store(tmp_path / "w").ensure(stage(settings, items.stage(Items("builtin"))))
    counts = read_json(folder / "counts.json")
    assert counts["dropped"] == {"shares_text_with_a_benchmark": 1}
    assert counts["examples"]["shares_text_with_a_benchmark"] == ["d0007"]
    settings.decontaminate = False
    assert stage(settings, items.stage(Items("builtin"))).inputs == {}


def test_killed_in_the_middle_the_next_attempt_gives_the_same(tmp_path, monkeypatch):
    settings = save(tmp_path / "in", make_documents(200), 2)
    whole = Store(tmp_path / "w1").ensure(stage(settings, None))
    from repro.corpus import publish, sources, spool

    monkeypatch.setattr(spool, "SPOOL_BYTES", 20_000)
    calls, reads = [], []
    store = Store(tmp_path / "w2")
    stream = sources.stream

    def counted(settings, position):
        for found in stream(settings, position):
            reads.append(1)
            yield found

    monkeypatch.setattr(sources, "stream", counted)
    for module, name in ((spool, "write"), (publish, "write_shards")):  # while reading; while publishing
        inner, n = getattr(module, name), len(calls)

        def killed(*a, inner=inner, n=n):
            calls.append(inner(*a))
            if len(calls) > n + 1:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(module, name, killed)
            with pytest.raises(KeyboardInterrupt):
                store.ensure(stage(settings, None))
        assert not store.has(stage(settings, None))
    assert everything(store.ensure(stage(settings, None))) == everything(whole)
    # The second attempt read on behind what the first had written; the third did not read.
    written = read_json(store.path(stage(settings, None)) / "counts.json")["in"]
    assert written < len(reads) < 1.5 * written
    counts = [
        read_json(s.path(stage(settings, None)) / "counts.json") for s in (store, Store(tmp_path / "w1"))
    ]
    assert counts[0] == counts[1]


def test_killed_while_the_spool_is_removed(tmp_path, monkeypatch):
    """Whichever file goes first."""
    from killing import remove_one_and_die

    settings = save(tmp_path / "in", make_documents(60), 2)
    made = stage(settings, None)
    whole = Store(tmp_path / "whole").ensure(made)
    for number in range(4):
        store = Store(tmp_path / str(number))
        assert remove_one_and_die(monkeypatch, number, partial(store.ensure, made)) >= 2
        assert everything(store.ensure(made)) == everything(whole)


def test_a_killed_cleaning_goes_on_behind_the_last_file(tmp_path, monkeypatch):
    from repro.corpus import examined, spool

    benchmark = items.stage(Items("builtin"))
    settings = save(tmp_path / "in", make_documents(200), 2)
    monkeypatch.setattr(spool, "SPOOL_BYTES", 20_000)
    stores = Store(tmp_path / "w1"), Store(tmp_path / "w2")
    for store in stores:
        store.ensure(benchmark)
    whole = stores[0].ensure(stage(settings, benchmark))
    inner, calls = examined._one, []

    def killed(*a):
        calls.append(1)
        if len(calls) == 100:
            raise KeyboardInterrupt
        return inner(*a)

    with monkeypatch.context() as patch:
        patch.setattr(examined, "_one", killed)
        with pytest.raises(KeyboardInterrupt):
            stores[1].ensure(stage(settings, benchmark))
    again = []
    monkeypatch.setattr(examined, "_one", lambda *a: again.append(1) or inner(*a))
    folder = stores[1].ensure(stage(settings, benchmark))
    assert everything(folder) == everything(whole)
    assert 60 < len(again) < 100  # of the 160 that were drawn, those of the files that were not whole


@pytest.mark.skipif(not MINI.is_dir(), reason="../shared/data/corpus/mini is absent")
def test_mini_corpus(tmp_path):
    folder = Store(tmp_path / "w").ensure(stage(Corpus(kind="files", paths=[str(MINI)]), None))
    counts = read_json(folder / "counts.json")
    manifest = read_json(MINI / "MANIFEST.json")
    for domain, expected in manifest["domains"].items():
        own = counts["domains"][domain]
        assert own["documents"] + own["heldout_documents"] == expected["docs"]
        assert own["bytes"] + own["heldout_bytes"] == expected["text_bytes"]
        assert own["heldout_documents"] > 0
        assert own["heldout_bytes"] <= 0.1 * expected["text_bytes"]


def test_installed_source_is_deterministic_and_has_what_the_experiment_needs(tmp_path):
    settings = Corpus(max_documents_per_domain=40, max_tokens_per_domain=60_000)
    first, second = (Store(tmp_path / name).ensure(stage(settings, None)) for name in ("w1", "w2"))
    assert everything(first) == everything(second)
    both = read(first).vstack(read(first, "heldout"))
    assert set(both["domain"]) == {"code", "prose", "mathematics"}
    for _, frame in both.group_by("domain"):
        assert frame["group"].n_unique() >= 4 and frame["source"].n_unique() >= 3
        assert frame["n_bytes"].sum() <= 4 * 60_000
    assert "not stated" not in set(both["license"])


def test_installed_domains_are_large_enough():
    """What the packages of this project alone give, without reading all of it."""
    settings = Corpus(max_documents_per_domain=100)
    counts = {}
    for found in installed.stream(settings):
        if isinstance(found, Document) and len(found.text) >= settings.min_characters:
            ids, groups = counts.setdefault(found.domain, (set(), set()))
            assert found.id not in ids
            ids.add(found.id)
            groups.add(found.group)
    assert {domain: len(ids) >= 300 and len(groups) >= 4 for domain, (ids, groups) in counts.items()} == {
        "code": True,
        "mathematics": True,
        "prose": True,
    }


def test_modules_cut_into_parts_lose_nothing():
    source = Path(installed.__file__).read_text() * 5
    parts = installed._parts(source)
    assert "".join(parts) == source and len(parts) > 3
    assert all(len(part) >= 2_500 for part in parts)
