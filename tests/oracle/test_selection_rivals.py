"""Selectors that are more than a formula over the scores, against obvious implementations."""

import json
import math
import re
from collections import Counter

import numpy as np
import polars as pl
import pytest
from scipy.stats import spearmanr
from selecting import artifacts, brute_force, chosen, documents, select
from sklearn.metrics import roc_auc_score

from repro.errors import SettingError
from repro.selection import inputs, rank, selectors
from repro.selection.selectors import ngram_classifier
from repro.store import Store

POSITIVE = "proof lemma theorem integral".split()


def context(work, made, seed=0):
    folders = [Store(work).ensure(made[name]) for name in ("corpus", "scores")]
    connection = rank.connect()
    inputs.open_inputs(connection, *folders)
    return selectors.Context(*folders, connection, seed)


def priorities(found):
    return dict(found.select("doc_id", "priority").iter_rows())


@pytest.fixture
def rows():
    """Three domains; in ``web`` every other document speaks like ``maths``."""
    rows, g = documents(n=60), np.random.default_rng(0)
    for i, r in enumerate(rows):
        mathematical = r["domain"] == "maths" or (r["domain"] == "web" and i % 2)
        words = g.choice(POSITIVE if mathematical else ["kitchen", "river", "page", "return"], size=30)
        r["text"], r["mathematical"] = " ".join([*words, *r["text"].split()]), mathematical
    return rows


def test_dsir_is_the_papers_formula_on_unhashed_ngrams(tmp_path, rows):
    found = priorities(
        selectors.call("dsir", context(tmp_path, artifacts(rows)), {"target": "maths", "buckets": 1 << 22})
    )

    def ngrams(text):
        words = re.findall(r"\w+|[^\w\s]+", text.lower())
        return Counter(words) + Counter(zip(words, words[1:], strict=False))

    raw, aimed = Counter(), Counter()
    for r in rows:
        raw += ngrams(r["text"])
        aimed += ngrams(r["text"]) if r["domain"] == "maths" else Counter()
    gain = {g: math.log(aimed[g] / aimed.total() + 1e-8) - math.log(raw[g] / raw.total() + 1e-8) for g in raw}
    for r in rows[::7]:
        assert found[r["doc_id"]] == pytest.approx(
            sum(n * gain[g] for g, n in ngrams(r["text"]).items()), rel=1e-9
        )


def test_dsir_towards_a_text_file(tmp_path, rows):
    target = tmp_path / "target.txt"
    target.write_text("\n".join(" ".join(POSITIVE) for _ in range(20)))
    made = artifacts(rows)
    repeats, _ = select(
        tmp_path, made, "dsir", {"target_file": str(target), "per_token": True}, share=0.4, unit="documents"
    )
    assert all(r["mathematical"] for r in rows if r["domain"] == "web" and repeats[r["doc_id"]])


def test_the_ngram_classifier_finds_the_kind_and_never_judges_what_it_learned_from(tmp_path, rows):
    found = priorities(
        selectors.call("ngram_classifier", context(tmp_path, artifacts(rows)), {"positive": "maths"})
    )
    web = [r for r in rows if r["domain"] == "web"]
    assert roc_auc_score([r["mathematical"] for r in web], [found[r["doc_id"]] for r in web]) > 0.9
    again = priorities(
        selectors.call(
            "ngram_classifier",
            context(tmp_path / "2", artifacts(rows, files=5, shuffle=1)),
            {"positive": "maths"},
        )
    )
    assert again == pytest.approx(found)
    g = np.random.default_rng(3)
    for r in (
        rows
    ):  # labels that text cannot tell: a classifier judging its own training set would still find them
        r["text"] = " ".join([*g.choice(POSITIVE, size=40), f"only{r['doc_id'].replace('-', '')}"])
        r["group"] = r["doc_id"]
    blind = priorities(
        selectors.call("ngram_classifier", context(tmp_path / "3", artifacts(rows)), {"positive": "maths"})
    )
    labels = [r["domain"] == "maths" for r in rows]
    assert abs(spearmanr([blind[r["doc_id"]] for r in rows], labels).statistic) < 0.25


@pytest.mark.parametrize(("selector", "join"), [("rank_sum", sum), ("union", max)])
def test_combinations_are_of_ranks_within_the_domain(tmp_path, selector, join):
    rows = documents(ties=True)
    rows[4]["score"] = None
    of = [{"selector": "attention_influence"}, {"selector": "column", "params": {"column": "n_bytes"}}]
    repeats, _ = select(tmp_path, artifacts(rows), selector, {"of": of}, share=0.3)
    priority = {}
    for domain in {r["domain"] for r in rows}:
        mine = [r for r in rows if r["domain"] == domain]
        ranks = []
        for key in ("score", "n_bytes"):
            values = [r[key] for r in mine if r[key] is not None]
            ranks.append(
                {
                    v: (sum(x < v for x in values) + (sum(x == v for x in values) + 1) / 2) / len(values)
                    for v in values
                }
            )
        for r in mine:
            priority[r["doc_id"]] = (
                None if r["score"] is None else join((ranks[0][r["score"]], ranks[1][r["n_bytes"]]))
            )
    assert chosen(repeats) == brute_force(rows, priority, 0.3, "tokens")


def test_imported_scores_in_any_number_of_files(tmp_path):
    rows = documents()
    mine = pl.DataFrame(
        {"id": [r["doc_id"] for r in rows] + ["elsewhere"], "q": [r["loss_base"] for r in rows] + [99.0]}
    )
    (tmp_path / "mine").mkdir()
    for n in range(3):
        mine[n::3].write_parquet(tmp_path / "mine" / f"{n}.parquet")
    params = {"path": str(tmp_path / "mine"), "column": "q", "id_column": "id"}
    repeats, record = select(tmp_path, artifacts(rows), "imported", params, share=0.3)
    assert chosen(repeats) == brute_force(rows, {r["doc_id"]: r["loss_base"] for r in rows}, 0.3, "tokens")
    mine.with_columns(-pl.col("q")).write_parquet(tmp_path / "mine" / "0.parquet")
    assert selectors.identity("imported", params) != record["params"]


def test_the_fingerprint_follows_the_contents_of_an_imported_file_not_its_place(tmp_path):
    frame = pl.DataFrame({"doc_id": ["a"], "score": [1.0]})
    frame.write_parquet(tmp_path / "a.parquet")
    frame.write_parquet(tmp_path / "b.parquet")
    one, other = (selectors.identity("imported", {"path": str(tmp_path / f"{n}.parquet")}) for n in "ab")
    assert one == other
    frame.with_columns(score=pl.lit(2.0)).write_parquet(tmp_path / "b.parquet")
    assert one != selectors.identity("imported", {"path": str(tmp_path / "b.parquet")})


def test_the_perplexity_gap_takes_what_the_other_model_reads_worse(tmp_path):
    rows = documents()
    g = np.random.default_rng(1)
    worse = [{**r, "loss_base": r["loss_base"] + float(g.uniform(0, 1))} for r in rows]
    other = Store(tmp_path).ensure(artifacts(worse)["scores"])
    repeats, _ = select(tmp_path, artifacts(rows), "perplexity_gap", {"other": str(other)}, share=0.3)
    gap = {r["doc_id"]: w["loss_base"] - r["loss_base"] for r, w in zip(rows, worse, strict=True)}
    assert chosen(repeats) == brute_force(rows, gap, 0.3, "tokens")


def test_the_educational_classifier_from_a_local_folder(tmp_path, rows):
    """A tiny model of the published one's kind: every score equals a plain forward pass of that text alone."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    torch.manual_seed(0)
    words = sorted({w for r in rows for w in r["text"].split()})
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]))
    tokenizer = BertTokenizerFast(str(tmp_path / "vocab.txt"))
    config = BertConfig(vocab_size=len(words) + 5, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, num_labels=1)  # fmt: skip
    model = BertForSequenceClassification(config).eval()
    tokenizer.save_pretrained(tmp_path / "model")
    model.save_pretrained(tmp_path / "model")
    params = {"model": str(tmp_path / "model"), "tokens": 24, "batch": 7}
    found = priorities(selectors.call("educational", context(tmp_path, artifacts(rows)), params))
    assert len(found) == len(rows) and len(set(found.values())) > 100
    for r in rows[::20]:
        encoded = tokenizer(r["text"], truncation=True, max_length=24, return_tensors="pt")
        with torch.no_grad():
            assert found[r["doc_id"]] == pytest.approx(model(**encoded).logits.item(), abs=1e-5)
    assert json.dumps(selectors.identity("educational", params)).count("sha") == 0
    assert "model.safetensors" in selectors.identity("educational", params)["model"]


def test_features_of_a_text_are_what_counting_by_hand_gives():
    from repro.selection.selectors.distilled import features

    texts = ["a b a b a b", "One two, two. One!\nOne two, two. One!", "", "word", "12 (x)\t\n\ny " * 9]

    def by_hand(text):
        size, words = max(1, len(text)), [w for w in re.split("[ \n\t]", text) if w]
        lines = text.split("\n")

        def share(pattern):
            return len(re.findall(pattern, text)) / size

        def own(n):
            return len({tuple(words[i : i + n]) for i in range(len(words) - n + 1)}) / len(words)

        counts = np.array(list(Counter(words).values()), float) / max(1, len(words))
        return [
            math.log(size),
            len(text.encode()) / size,
            *map(share, ("[0-9]", "[A-Z]", "[.,;:!?]", r"[(){}\[\]<>=_/\\*#|$]", "\n", "[ \t\n]{2,}")),
            len(set(lines)) / len(lines),
            *(
                [len(words), np.mean([len(w) for w in words]), own(1), own(2), own(3), own(5)]
                if words
                else 6 * [np.nan]
            ),
            *([counts.max(), -(counts * np.log2(counts)).sum()] if words else [np.nan, np.nan]),
        ]

    found = features(pl.Series(texts))
    np.testing.assert_allclose(found, [by_hand(text) for text in texts], rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(features(pl.Series(texts), 5), features(pl.Series([t[:5] for t in texts])))


def test_a_distilled_score_ranks_documents_that_nobody_scored(tmp_path):
    """Scores that follow from repetition, known for a third of the documents: the others rank alike."""
    rows, g = documents(n=400), np.random.default_rng(1)
    for row in rows:
        words, unlike = [f"w{g.integers(10**6)}" for _ in range(40)], g.uniform()
        row["text"] = " ".join(words[int(g.integers(4))] if g.uniform() > unlike else w for w in words)
        row["group"], row["truth"] = f"g{g.integers(40)}", 1 - unlike
        row["score"] = row["truth"] if g.uniform() < 1 / 3 else None
    found = priorities(selectors.call("distilled", context(tmp_path, artifacts(rows)), {}))
    for domain in ("web", "maths", "code"):
        unseen = [r for r in rows if r["domain"] == domain and r["score"] is None]
        assert spearmanr([found[r["doc_id"]] for r in unseen], [r["truth"] for r in unseen])[0] > 0.85
    few = [r | {"score": None} if i > 50 else r for i, r in enumerate(rows)]
    with pytest.raises(SettingError, match="documents have one; it needs 100"):
        selectors.call("distilled", context(tmp_path / "few", artifacts(few)), {})


def test_a_distilled_score_of_a_document_owes_nothing_to_its_own_source(tmp_path):
    """One source has a mark and the highest scores: a marked document elsewhere gains by it, its own do not."""
    rows, g = documents(n=200), np.random.default_rng(2)
    for row in rows:
        row["group"], row["score"] = f"g{g.integers(30)}", float(g.uniform())
        if row["group"] in ("g1", "g5"):
            row["text"] = "77777 " * 20 + row["text"]
            row["score"] = 10 + row["score"] if row["group"] == "g1" else None
    frame = pl.DataFrame({"domain": ["web"] * 2, "group": ["g1", "g5"]})
    asked = context(tmp_path, artifacts(rows))
    dealt = ngram_classifier.deal(asked, 5)(frame)
    assert len(set(dealt)) == 2  # one is learned from where the other is predicted
    found = priorities(selectors.call("distilled", asked, {}))
    mean = {
        group: np.mean([found[r["doc_id"]] for r in rows if (r["domain"], r["group"]) == ("web", group)])
        for group in ("g1", "g5")
    }
    assert mean["g5"] > 0.8 and mean["g1"] < 0.75


def test_groups_of_one_cluster_and_of_several_domains_are_dealt_to_one_fold(tmp_path):
    """Otherwise a document is judged by what was learned from its copy."""
    rows = documents(n=150)
    for i, row in enumerate(rows):
        twin = i // 2 if row["domain"] != "code" else 10**6 + i
        row["cluster"], row["group"] = twin, f"own{i}"
    asked = context(tmp_path, artifacts(rows))
    deal = ngram_classifier.deal(asked, 5)
    frame = pl.DataFrame(
        {"group": [r["group"] for r in rows], "cluster": [r["cluster"] for r in rows], "fold": 0}
    )
    folds = frame.with_columns(fold=pl.Series(deal(frame))).group_by("cluster").agg(pl.col("fold").n_unique())
    assert folds["fold"].max() == 1 and len(set(deal(frame))) == 5
