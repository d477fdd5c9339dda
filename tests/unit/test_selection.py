"""Determinism, mixtures, matched controls, strata, and what is written beside a selection."""

from collections import Counter

import numpy as np
import polars as pl
import pytest
from selecting import artifacts, chosen, documents, select

from repro.errors import SettingError
from repro.selection import selectors
from repro.selection.outcome import frozen
from repro.selection.settings import Budget, Mixture, Select
from repro.selection.stage import heads_behind, stage
from repro.settings.files import options, read_option
from repro.store import Store, write_json


def tokens(rows, ids):
    found = Counter()
    for r in rows:
        found[r["domain"]] += r["n_tokens_doc"] * (r["doc_id"] in ids)
    return found


@pytest.mark.parametrize("selector", ["attention_influence", "random", "all"])
def test_files_and_their_order_do_not_matter(tmp_path, selector):
    rows = documents(ties=True)
    one = select(tmp_path / "1", artifacts(rows, files=1), selector, share=0.3)
    many = select(tmp_path / "2", artifacts(rows, files=7, shuffle=1), selector, share=0.3)
    assert one[0] == many[0]
    assert one[1]["domains"] == many[1]["domains"]


def test_random_is_redrawn_per_seed_and_only_random(tmp_path):
    made = artifacts(documents())
    first, again, other = (
        chosen(select(tmp_path / str(i), made, "random", seed=s)[0]) for i, s in enumerate((0, 0, 1))
    )
    assert first == again != other
    both = [
        stage(Select("attention_influence"), Mixture(), Budget(), s, made["corpus"], made["scores"])
        for s in (0, 1)
    ]
    assert both[0].fingerprint == both[1].fingerprint


def test_random_is_uniform(tmp_path):
    made = artifacts(documents(n=400, domains=("web",)))
    counts = Counter()
    for seed in range(20):
        counts.update(chosen(select(tmp_path, made, "random", seed=seed, share=0.25, unit="documents")[0]))
    times = np.array([counts[f"web-{i:04d}"] for i in range(400)])
    assert times.sum() == 20 * 100
    assert abs(times.var() - 20 * 0.25 * 0.75) < 1.2  # binomial: 3.75, its own deviation .27


def test_all_takes_every_document_scored_or_not(tmp_path):
    rows = documents()
    rows[3]["score"] = None
    option = read_option("select", "all")
    repeats, record = select(tmp_path, artifacts(rows), "all", **option["budget"])
    assert set(repeats.values()) == {1} and record["unranked"] == 0


def test_mixtures_say_how_often_each_document_is_read(tmp_path):
    rows = documents()
    alone, _ = select(tmp_path / "a", artifacts(rows))
    added, record = select(tmp_path / "b", artifacts(rows), mixture=Mixture("add"))
    twice, _ = select(tmp_path / "c", artifacts(rows), mixture=Mixture("add", 2))
    weighted, _ = select(tmp_path / "d", artifacts(rows), mixture=Mixture("add", 2, 3))
    assert weighted == {k: 2 * v + 3 for k, v in alone.items()}
    assert set(alone.values()) == {0, 1} and chosen(alone) == chosen(added, 1) == chosen(twice, 1)
    assert added == {k: v + 1 for k, v in alone.items()}
    assert twice == {k: 2 * v + 1 for k, v in alone.items()}
    web = record["domains"]["web"]
    assert web["repeats"] == {
        "1": web["documents"] - web["selected_documents"],
        "2": web["selected_documents"],
    }
    assert web["read_tokens"] == sum(
        added[r["doc_id"]] * r["n_tokens_doc"] for r in rows if r["domain"] == "web"
    )


def test_random_control_matches_the_tokens_of_a_selection_of_documents(tmp_path):
    rows = documents(n=300)
    for r in rows:
        r["score"] += r["n_tokens_doc"] / 200  # selected documents are longer, as in the paper
    made = artifacts(rows)
    treatment = stage(
        Select("attention_influence"),
        Mixture("add"),
        Budget(0.2, "documents"),
        0,
        made["corpus"],
        made["scores"],
    )
    ours, _ = select(tmp_path, made, mixture=Mixture("add"), share=0.2, unit="documents")
    control, record = select(
        tmp_path,
        made,
        "random",
        None,
        Mixture("add"),
        reference=treatment,
        match="x",
        share=0.2,
        unit="documents",
    )
    wanted, got = tokens(rows, chosen(ours, 1)), tokens(rows, chosen(control, 1))
    plain = tokens(rows, chosen(select(tmp_path, made, "random", share=0.2, unit="documents")[0]))
    for domain, n in wanted.items():
        assert 0 <= n - got[domain] < 400  # within one document, from below
        assert n - plain[domain] > 2000  # the same share of documents is far fewer tokens
        assert record["domains"][domain]["shortfall"] == n - got[domain]
    assert record["matched_tokens"] == wanted
    assert set(control.values()) == set(ours.values()) == {1, 2}


def test_length_bins_take_the_same_share_of_every_bin(tmp_path):
    rows = documents(n=400, domains=("web",))
    for r in rows:
        r["score"] = r["n_tokens_doc"] / 10
    flat, _ = select(tmp_path, artifacts(rows), share=0.3, unit="documents")
    binned, record = select(tmp_path, artifacts(rows), share=0.3, unit="documents", length_bins=4)
    by_length = sorted(rows, key=lambda r: (r["n_tokens_doc"], r["doc_id"]))
    for lot in range(4):
        part = by_length[100 * lot : 100 * (lot + 1)]
        assert sum(binned[r["doc_id"]] for r in part) == 30
        best = sorted(part, key=lambda r: -r["score"])[:25]
        assert all(binned[r["doc_id"]] for r in best)
    assert sum(flat[r["doc_id"]] for r in by_length[:200]) == 0
    assert record["domains"]["web"]["selected_documents"] == 120


def test_within_group_a_source_with_a_style_of_its_own_does_not_take_everything(tmp_path):
    rows = documents(n=330, domains=("web",), seed=2)
    for r in rows:
        r["score"] += 50 * (r["group"] == "style0")
    _, flat = select(tmp_path, artifacts(rows), share=0.05, unit="documents")
    _, record = select(tmp_path, artifacts(rows), share=0.05, unit="documents", within_group=True)
    of = {name: g["selected_documents"] for name, g in flat["domains"]["web"]["groups"].items()}
    assert of["style0"] == flat["selected_documents"] == 16
    for name, group in record["domains"]["web"]["groups"].items():
        assert abs(group["selected_documents"] - 0.05 * group["documents"]) <= 1.5, name
    assert record["selected_documents"] == 16


def test_sources_of_few_documents_are_ranked_together(tmp_path):
    rows = documents(n=200, domains=("web",))
    for i, r in enumerate(rows):
        r["group"] = "large" if i < 100 else f"single{i}"
    repeats, record = select(tmp_path, artifacts(rows), share=0.2, unit="documents", within_group=True)
    for part in (rows[:100], rows[100:]):
        best = sorted(part, key=lambda r: -r["score"])[:20]
        assert chosen(repeats) & {r["doc_id"] for r in part} == {r["doc_id"] for r in best}


def test_of_near_duplicates_the_best_one_may_be_selected(tmp_path):
    rows = documents(n=100, domains=("web",))
    for i, r in enumerate(rows):
        r["cluster"] = i // 2
    rows[0]["score"], rows[1]["score"] = None, 9.0
    repeats, record = select(tmp_path, artifacts(rows), share=0.4, unit="documents", one_per_cluster=True)
    better = [max(pair, key=lambda r: r["score"]) for pair in zip(rows[2::2], rows[3::2], strict=True)] + [
        rows[1]
    ]
    expected = sorted(better, key=lambda r: -r["score"])[:40]
    assert chosen(repeats) == {r["doc_id"] for r in expected}
    assert record["domains"]["web"]["near_duplicates"] == 49 and record["unranked"] == 1


def test_length_bins_sources_and_clusters_combine(tmp_path):
    rows = documents(n=400, domains=("web", "code"))
    for i, r in enumerate(rows):
        r["cluster"] = i // 3
    settings = {"length_bins": 3, "within_group": True, "one_per_cluster": True}
    repeats, record = select(tmp_path, artifacts(rows), share=0.1, **settings)
    clusters = Counter(r["cluster"] for r in rows if repeats[r["doc_id"]])
    assert max(clusters.values()) == 1
    for d in record["domains"].values():
        assert 0 <= d["shortfall"] < 400 and d["selected_sources"] == d["sources"]
    again, _ = select(tmp_path / "again", artifacts(rows, files=5, shuffle=2), share=0.1, **settings)
    assert again == repeats


def test_what_came_out_is_written_beside(tmp_path):
    rows = documents()
    repeats, record = select(tmp_path, artifacts(rows), share=0.3)
    for domain, found in record["domains"].items():
        mine = [r for r in rows if r["domain"] == domain]
        kept = [r for r in mine if repeats[r["doc_id"]]]
        assert found["documents"] == len(mine) and found["selected_documents"] == len(kept)
        assert found["tokens"] == sum(r["n_tokens_doc"] for r in mine)
        assert found["selected_tokens"] == sum(r["n_tokens_doc"] for r in kept)
        assert found["budget"] == found["tokens"] * 3 // 10
        assert 0 <= found["shortfall"] == found["budget"] - found["selected_tokens"] < 400
        assert found["threshold"] == found["cut"]["priority"] == min(r["score"] for r in kept)
        assert found["mean_tokens"] == pytest.approx(found["selected_tokens"] / len(kept))
        assert sum(g["selected_documents"] for g in found["groups"].values()) == len(kept)
        assert sum(g["tokens"] for g in found["groups"].values()) == found["tokens"]


def test_many_sources_are_folded_into_one_row(tmp_path):
    rows = documents(n=200, domains=("web",))
    for i, r in enumerate(rows):
        r["group"] = f"site{i}"
    _, record = select(tmp_path, artifacts(rows))
    groups = record["domains"]["web"]["groups"]
    assert len(groups) == 51 and groups["150 others"]["documents"] == 150
    assert record["domains"]["web"]["sources"] == 200


def test_the_cut_can_be_frozen_for_new_shards(tmp_path):
    rows = documents(ties=True)
    made = artifacts(rows, files=1)
    repeats, record = select(tmp_path, made, share=0.3)
    shards = Store(tmp_path).path(made["scores"]) / "scores" / "*.parquet"
    again = frozen(record, shards)
    assert dict(again.select("doc_id", "selected").iter_rows()) == {k: bool(v) for k, v in repeats.items()}
    new = pl.DataFrame({"doc_id": ["x", "y"], "domain": ["web", "web"], "score": [9.0, -9.0]})
    new.write_parquet(tmp_path / "new.parquet")
    assert frozen(record, tmp_path / "new.parquet")["selected"].to_list() == [True, False]
    new.with_columns(domain=pl.lit("news")).write_parquet(tmp_path / "news.parquet")
    with pytest.raises(ValueError, match="no cut for domain news"):
        frozen(record, tmp_path / "news.parquet")
    _, binned = select(tmp_path, made, length_bins=2)
    with pytest.raises(ValueError, match="no threshold"):
        frozen(binned, shards)


def test_new_shards_are_cut_at_the_thresholds_of_an_earlier_run(tmp_path, capsys):
    rows = documents()
    old = artifacts(rows[::2])
    first = stage(Select("attention_influence"), Mixture(), Budget(0.3), 0, old["corpus"], old["scores"])
    _, record = select(tmp_path, old, share=0.3)
    frozen_at = Store(tmp_path).path(first) / "selection.json"
    for domain in record["domains"].values():
        assert domain["shortfall"] >= 0
    new = artifacts(rows[1::2])
    repeats, again = select(tmp_path, new, frozen=str(frozen_at))
    for domain, found in record["domains"].items():
        lowest = found["cut"]["priority"]
        expected = {r["doc_id"] for r in rows[1::2] if r["domain"] == domain and r["score"] > lowest}
        assert {ident for ident in chosen(repeats) if ident.startswith(domain)} == expected
        assert again["domains"][domain]["cut"] == found["cut"] and again["domains"][domain]["shortfall"] == 0
    assert again["formula"] == record["formula"]  # it can be frozen again
    assert dict(frozen(record, Store(tmp_path).path(new["scores"]) / "scores" / "*.parquet").select("doc_id", "selected").iter_rows()) \
        == {ident: bool(times) for ident, times in repeats.items()}  # fmt: skip

    def refused(message, selector="attention_influence", made=new, **budget):
        with pytest.raises(SettingError, match=message):
            select(tmp_path / "refused", made, selector, **budget)

    refused("cannot read it", frozen=str(tmp_path / "gone.json"))
    (tmp_path / "other.json").write_text("{}")
    refused("is no selection.json", frozen=str(tmp_path / "other.json"))
    refused("select as the earlier run did", "perplexity", frozen=str(frozen_at))
    refused(
        "no cut for domain news; .*corpus.domains",
        made=artifacts(documents(domains=("news",))),
        frozen=str(frozen_at),
    )
    refused("one cut per domain", length_bins=2, frozen=str(frozen_at))


def test_heads_behind_a_selection_and_behind_scores_are_found_through_the_manifests(tmp_path):
    for name, inputs in (
        ("selection/a", {"scores": "score/a"}),
        ("score/a", {"heads": "heads/a"}),
        ("heads/a", {}),
    ):
        (tmp_path / name).mkdir(parents=True)
        write_json(
            tmp_path / name / "manifest.json", {"inputs": {key: {"folder": f} for key, f in inputs.items()}}
        )
    write_json(tmp_path / "heads/a/heads.json", {"selected": [[1, 0]]})
    assert heads_behind(tmp_path / "selection/a") == heads_behind(tmp_path / "score/a") == [[1, 0]]
    assert heads_behind(tmp_path / "elsewhere") is None


def test_a_cut_that_took_everything_is_no_threshold_for_others(tmp_path):
    rows = documents()
    few = [row | ({} if i % 10 == 0 else {"score": None}) for i, row in enumerate(rows)]
    made = artifacts(few)
    _, record = select(tmp_path, made, share=0.3)
    assert all(domain["shortfall"] > 0 for domain in record["domains"].values())
    first = stage(Select("attention_influence"), Mixture(), Budget(0.3), 0, made["corpus"], made["scores"])
    frozen_at = str(Store(tmp_path).path(first) / "selection.json")
    with pytest.raises(SettingError, match="took every document that had a priority"):
        select(tmp_path / "new", artifacts(rows), frozen=frozen_at)


def test_a_frozen_cut_counts_by_its_content_and_none_of_it_without(tmp_path):
    """Selections that were made before there were frozen cuts keep their fingerprints."""
    made = artifacts(documents())
    plain = stage(Select("attention_influence"), Mixture(), Budget(), 0, made["corpus"], made["scores"])
    assert "frozen" not in plain.settings["budget"]
    select(tmp_path, made, share=0.3)
    one = Store(tmp_path).path(plain) / "selection.json"
    (tmp_path / "copy.json").write_bytes(one.read_bytes())
    both = [
        stage(
            Select("attention_influence"),
            Mixture(),
            Budget(frozen=str(path)),
            0,
            made["corpus"],
            made["scores"],
        )
        for path in (one, tmp_path / "copy.json")
    ]
    assert both[0].fingerprint == both[1].fingerprint != plain.fingerprint


def test_a_new_selector_is_one_file(tmp_path, monkeypatch):
    (tmp_path / "shortest.py").write_text(
        '"""Short documents first."""\n\n\ndef priority(context, column="n_bytes"):\n    return "-" + column\n'
    )
    monkeypatch.setattr(selectors, "__path__", [*selectors.__path__, str(tmp_path)])
    rows = documents()
    repeats, _ = select(
        tmp_path / "work",
        artifacts(rows),
        "shortest",
        {"column": "n_tokens_doc"},
        share=0.1,
        unit="documents",
    )
    web = sorted((r for r in rows if r["domain"] == "web"), key=lambda r: r["n_tokens_doc"])
    assert all(repeats[r["doc_id"]] for r in web[:5]) and not any(repeats[r["doc_id"]] for r in web[7:])
    with pytest.raises(SettingError, match="did you mean 'shortest'"):
        select(tmp_path / "work", artifacts(rows), "shortst")


@pytest.mark.parametrize("name", options("select"))
def test_every_shipped_option_names_a_selector_with_its_parameters(name):
    option = read_option("select", name)
    selectors.check(option["selector"], option.get("params", {}))
    Budget(**option.get("budget", {}))


@pytest.mark.parametrize("name", options("mixture"))
def test_every_shipped_mixture_is_valid(name):
    Mixture(**read_option("mixture", name))
