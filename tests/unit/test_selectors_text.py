"""Selectors that read text: one stage for all budgets, mixtures and combinations, resumed shard by shard."""

import sys
from types import ModuleType

import polars as pl
import pytest
from selecting import artifacts, documents, select

from repro.errors import SettingError
from repro.selection import selectors
from repro.selection.settings import Budget, Mixture, Select
from repro.selection.stage import stage
from repro.store import Store


@pytest.fixture
def counting(monkeypatch):
    """A selector that wants long words, and the shards it was asked about; it dies at the shard named in ``dies_at``."""
    module = ModuleType("repro.selection.selectors.long_words")
    module.__file__ = __file__
    module.READS_TEXT, module.seen, module.dies_at = True, [], None

    def priority(context: selectors.Context, power: float = 1.0) -> pl.DataFrame:
        def judge(shard):
            name = shard["doc_id"][0]
            if len(module.seen) == module.dies_at:
                raise KeyboardInterrupt
            module.seen.append(name)
            return shard["text"].str.len_chars() ** power

        return context.judged(judge)

    module.priority = priority
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(
        selectors, "here", lambda: ["attention_influence", "long_words", "rank_sum", "random"]
    )
    return module


def test_budgets_mixtures_and_seeds_share_one_reading(tmp_path, counting):
    made = artifacts(documents(), files=3)  # nine shards
    for share in (0.1, 0.5):
        select(tmp_path, made, "long_words", share=share)
    select(tmp_path, made, "long_words", mixture=Mixture("add"), seed=3)
    both = {"of": [{"selector": "long_words"}, {"selector": "attention_influence"}]}
    select(tmp_path, made, "rank_sum", both)
    assert len(counting.seen) == 9
    select(tmp_path, made, "long_words", {"power": 2.0})
    assert len(counting.seen) == 18


def test_finished_shards_survive_a_kill_and_the_choice_is_the_same(tmp_path, counting):
    made = artifacts(documents(), files=3)
    undisturbed, _ = select(tmp_path / "a", made, "long_words")
    counting.seen.clear()
    counting.dies_at = 4
    with pytest.raises(KeyboardInterrupt):
        select(tmp_path / "b", made, "long_words")
    counting.dies_at = None
    resumed, _ = select(tmp_path / "b", made, "long_words")
    assert resumed == undisturbed
    assert len(counting.seen) == len(set(counting.seen)) == 9


def test_it_takes_what_it_says(tmp_path, counting):
    rows = documents()
    chosen, record = select(tmp_path, artifacts(rows), "long_words", share=0.2, unit="documents")
    for domain in record["domains"]:
        lengths = {r["doc_id"]: len(r["text"]) for r in rows if r["domain"] == domain}
        kept = [length for ident, length in lengths.items() if chosen[ident]]
        assert min(kept) >= max(length for ident, length in lengths.items() if not chosen[ident])


def test_the_stage_reads_the_corpus_only_and_leaves_nothing_but_the_priorities(tmp_path, counting):
    made = artifacts(documents())
    other = artifacts(documents(), scored=[r | {"score": 1.0} for r in documents()])
    both = [
        stage(Select("long_words"), Mixture(), Budget(), 0, corpus_and["corpus"], scores, None)
        for corpus_and, scores in ((made, made["scores"]), (made, other["scores"]))
    ]
    readings = [next(s for name, s in b.inputs.items() if name.startswith("priority ")) for b in both]
    assert readings[0].fingerprint == readings[1].fingerprint and both[0].fingerprint != both[1].fingerprint
    select(tmp_path, made, "long_words")
    folder = Store(tmp_path).path(readings[0])
    assert sorted(p.name for p in folder.iterdir()) == ["manifest.json", "priorities.parquet"]


def test_a_mistaken_parameter_is_refused_before_anything_runs(counting):
    made = artifacts(documents())
    with pytest.raises(SettingError, match="power"):
        stage(Select("long_words", {"pwer": 1.0}), Mixture(), Budget(), 0, made["corpus"], made["scores"])


def test_the_classifier_takes_safetensors_only_and_a_hub_that_is_away_is_said(tmp_path, monkeypatch):
    from repro.fetch import hub_commits

    made = artifacts(documents())
    folder = tmp_path / "classifier"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "pytorch_model.bin").write_bytes(b"pickled")
    with pytest.raises(SettingError, match="no \\*.safetensors"):
        stage(
            Select("educational", {"model": str(folder)}),
            Mixture(),
            Budget(),
            0,
            made["corpus"],
            made["scores"],
        )
    monkeypatch.setattr(hub_commits, "hub_revision", lambda repo, revision, kind: revision)
    with pytest.raises(SettingError, match="the hub cannot be reached"):
        select(tmp_path, made, "educational")
    monkeypatch.setattr(hub_commits, "hub_revision", lambda repo, revision, kind: "a" * 40)
    assert selectors.identity("educational", {})["revision"] == "a" * 40
