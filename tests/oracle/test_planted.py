"""AUROC against counting pairs, its intervals against simulation, and planted documents against what they promise."""

import itertools
import json
import random
import re

import numpy as np
import polars as pl
import pytest
from scipy import stats as scipy_stats
from selecting import artifacts, documents

from repro.corpus import documents as docs
from repro.corpus.settings import Corpus
from repro.errors import SettingError
from repro.experiments.planted import stages, texts
from repro.experiments.planted.auroc import auroc
from repro.selection.settings import Select
from repro.settings.typed import as_object
from repro.store import Stage, Store, read_json, write_json

TEXT = " ".join(
    f"The {adjective} {noun} number {i} was seen near the old {place}."
    for i, (adjective, noun, place) in enumerate(
        itertools.product(("red", "tall", "quiet"), ("house", "river", "engine"), ("harbour", "station"))
    )
)


def frame(values, domains=None, groups=None):
    n = len(values)
    return pl.DataFrame(
        {
            "priority": np.asarray(values, float),
            "domain": domains or ["d"] * n,
            "group": groups or [f"g{i}" for i in range(n)],
        }
    )


def test_the_area_is_the_share_of_pairs_in_each_domain():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 6, 30), rng.integers(0, 5, 50)  # with ties
    dx, dy = rng.choice(["a", "b"], 30).tolist(), rng.choice(["a", "b"], 50).tolist()
    shares = {}
    for d in ("a", "b"):
        pairs = [
            (p > q) + 0.5 * (p == q)
            for p, e in zip(x, dx, strict=True)
            for q, f in zip(y, dy, strict=True)
            if e == f == d
        ]
        shares[d] = np.mean(pairs)
    expected = sum(shares[d] * dx.count(d) for d in shares) / 30
    found = auroc(frame(x, dx), frame(y, dy))
    assert found.auroc == pytest.approx(expected, abs=1e-12)
    assert 0 <= found.low < found.auroc < found.high <= 1
    assert (found.wanted, found.others) == (30, 50)


def test_every_document_its_own_source_gives_the_variance_of_delong():
    rng = np.random.default_rng(1)
    x, y = rng.normal(0.7, 1, 40), rng.normal(0, 1, 60)
    v10 = np.array([np.mean(a > y) for a in x])
    v01 = np.array([np.mean(x > b) for b in y])
    variance = v10.var(ddof=1) / 40 + v01.var(ddof=1) / 60
    found = auroc(frame(x), frame(y, groups=[f"h{i}" for i in range(60)]))
    area = v10.mean()
    logit = lambda p: np.log(p / (1 - p))  # noqa: E731
    half = scipy_stats.t.ppf(0.975, 39) * np.sqrt(variance) / (area * (1 - area))
    assert logit(found.high) - logit(found.low) == pytest.approx(2 * half, rel=0.02)


@pytest.mark.parametrize(("sources", "alike"), [(40, 0.0), (10, 0.3), (8, 0.5)])
@pytest.mark.parametrize("areas", [(0.5,), (0.8,), (0.97,), (0.3, 0.9), (0.999, 0.001)])
def test_intervals_cover_the_truth(sources, alike, areas):
    """Binormal data, sources that are alike; 150 repetitions: fewer than 90 % hits has a chance below 1 % if 95 % is true."""
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(150):
        found = ([], [])
        for d, area in enumerate(areas):
            shift = scipy_stats.norm.ppf(area) * np.sqrt(2)
            for side, n in enumerate((40, 120)):
                of = np.arange(n) % (sources * (1 + 2 * side))
                common = rng.normal(size=of.max() + 1)[of] * np.sqrt(alike)
                values = common + rng.normal(size=n) * np.sqrt(1 - alike) + (shift if side == 0 else 0)
                found[side].append(frame(values, [str(d)] * n, [f"{side}-{s}" for s in of]))
        estimate = auroc(pl.concat(found[0]), pl.concat(found[1]))
        hits += estimate.low <= np.mean(areas) <= estimate.high
    assert hits / 150 >= 0.90


def test_alike_documents_of_few_sources_say_less_than_as_many_sources():
    rng = np.random.default_rng(3)
    common = rng.normal(size=8)
    x, y = 0.5 + common[np.arange(40) % 4], common[4 + np.arange(80) % 4]
    alone = auroc(frame(x), frame(y, groups=[f"h{i}" for i in range(80)]))
    shared = auroc(
        frame(x, groups=[f"a{i % 4}" for i in range(40)]), frame(y, groups=[f"b{i % 4}" for i in range(80)])
    )
    assert shared.auroc == alone.auroc
    assert shared.high - shared.low > 2 * (alone.high - alone.low)


def test_domains_that_are_wholly_apart_still_have_an_interval():
    x = frame([9.0] * 10 + [0.0] * 10, ["a"] * 10 + ["b"] * 10)
    y = frame([1.0] * 40, ["a"] * 20 + ["b"] * 20, [f"h{i}" for i in range(40)])
    found = auroc(x, y)  # 1 in one domain, 0 in the other, no spread in either
    assert found.auroc == 0.5 and found.low < 0.4 and found.high > 0.6
    one = auroc(x.filter(x["domain"] == "a"), y)
    assert one.auroc == one.high == 1 and one.low == pytest.approx(0.025 ** (1 / 10))


def test_too_few_documents_have_no_area():
    assert auroc(frame([1.0]), frame([0.0, 1.0])) is None
    assert auroc(frame([1.0, 2.0], ["a", "a"]), frame([0.0, 1.0], ["b", "b"])) is None


def test_answers_stand_earlier_in_facts_and_nowhere_in_the_shuffled_ones():
    for seed in range(5):
        kept, lost = (texts.facts(TEXT, random.Random(seed), kept=kept) for kept in (True, False))
        answers = [re.findall(r"\? ([\w ]+)\.", text) for text in (kept, lost)]
        assert len(answers[0]) == len(answers[1]) >= 2
        assert all(kept.index(a) < kept.rindex(a) for a in answers[0])
        assert all(lost.count(a) == 1 for a in answers[1])
        stated = re.findall(r"wrote [\w ]+ on the [\w ]+\.", kept)
        assert len(stated) == len(answers[0]) and re.findall(r"wrote [\w ]+ on the [\w ]+\.", lost) == stated
        assert abs(len(kept) - len(lost)) < 0.1 * len(kept)


def test_kinds_are_what_they_say_and_about_as_long():
    draw = random.Random(0)
    made = {kind: make(TEXT, draw) for kind, make in texts.KINDS.items()}
    for kind, text in made.items():
        assert 0.75 < len(text) / len(TEXT) < 1.25, kind
    assert sorted(made["shuffled_words"].split()) == sorted(TEXT.split()) and made["shuffled_words"] != TEXT
    lines = made["list"].split("\n")
    assert len(set(lines)) == len(lines) > 5
    assert made["repeated"].count(made["repeated"].split("\n\n")[0]) == 4


def test_deduplication_leaves_each_passage_once_and_other_text_alone():
    assert texts.deduplicated(TEXT) == TEXT
    once = texts.cut(TEXT, 200)
    assert texts.deduplicated("\n\n".join([once] * 4)) == once
    assert texts.deduplicated("yes.\nyes.\nyes.") == "yes.\nyes.\nyes."  # short lines may stand twice
    code = "def f(x):\n    return compute_the_value(x)\n\ndef g(x):\n    return compute_the_value(x)\n"
    assert texts.deduplicated(code).count("compute_the_value") == 1


def scored(tmp_path, score, hosts=60):
    """A planted corpus over a made one, and scores that ``score`` gives to (doc_id, kind, version)."""
    rows = documents(n=hosts, domains=("web", "code"))
    for i, r in enumerate(rows):
        r["text"] = f"Document {i} begins here. " + TEXT
        r["n_bytes"] = len(r["text"])
    made = artifacts(rows)["corpus"]

    def write(context):
        made.run(context)
        (context.out / "heldout").mkdir(exist_ok=True)
        write_json(context.out / "counts.json", {"domains": {"web": {}, "code": {}}})

    corpus = stages.planted_stage(
        Corpus(), {"documents": 12, "real": 30}, 200, Stage("corpus", "made", made.settings, write)
    )

    def give(context):
        about = docs.read(context.inputs["corpus"])
        extra = pl.DataFrame([json.loads(t) for t in about["extra"]])
        values = [score(*row) for row in zip(about["doc_id"], extra["kind"], extra["version"], strict=True)]
        (context.out / "scores").mkdir()
        about.select("doc_id", "domain", "group").with_columns(
            score=pl.Series(values, dtype=pl.Float64),
            n_tokens_doc=pl.lit(100),
            loss_base=pl.lit(2.0),
            loss_ref=pl.lit(2.0),
        ).write_parquet(context.out / "scores" / "x-00000.parquet")

    scores = Stage("score", "given", {}, give, {"corpus": corpus})
    store = Store(tmp_path)
    found = stages.found_stage(Select("attention_influence"), 0, corpus, scores)
    for stage in found.ancestors():
        store.ensure(stage)
    return read_json(store.path(found) / "found.json"), docs.read(store.path(corpus)), store


def test_a_selector_that_copies_finds_repeats_until_they_are_removed(tmp_path):
    rng = np.random.default_rng(0)

    def score(ident, kind, version):
        if kind == "random_characters":
            return None
        return rng.normal() + 20 * (kind == "repeated" and version == "as is") + 20 * (kind == "facts")

    found, corpus, _ = scored(tmp_path, score)
    assert set(found["domains"]) == {"code", "web"}
    for result in (found["all"], *found["domains"].values()):
        assert result["facts"]["before"]["auroc"] == result["facts_over_shuffled"]["before"]["auroc"] == 1
        assert result["repeated"]["before"]["auroc"] == 1
        assert result["repeated"]["after"]["low"] < 0.5 < result["repeated"]["after"]["high"]
        assert result["list"]["before"]["low"] < 0.5 < result["list"]["before"]["high"]
        assert result["random_characters"]["before"] is None
    assert found["all"]["list"]["before"]["wanted"] == 24 and found["all"]["list"]["before"]["others"] == 60
    assert found["all"]["repeated"]["before"]["median"] > 15 > found["all"]["repeated"]["after"]["median"]
    lengths = corpus.filter(~pl.col("doc_id").str.contains("deduplicated"))["text"].str.len_chars()
    assert lengths.max() < 1.3 * lengths.min()


def test_real_documents_are_no_hosts_and_the_same_settings_give_the_same_corpus(tmp_path):
    _, first, _ = scored(tmp_path / "1", lambda *_: 0.0)
    _, second, _ = scored(tmp_path / "2", lambda *_: 0.0)
    assert first.equals(second)
    extra = [json.loads(t) for t in first["extra"]]
    hosts = {e["host"] for e in extra if e["kind"] != "real"}
    assert hosts and not hosts & {e["host"] for e in extra if e["kind"] == "real"}
    assert not first["doc_id"].is_duplicated().any()


def test_a_domain_without_long_documents_and_an_unknown_parameter_are_refused(tmp_path):
    with pytest.raises(SettingError, match="15 are needed"):
        scored(tmp_path, lambda *_: 0.0, hosts=4)
    with pytest.raises(SettingError, match="exp.params.documents"):
        as_object(stages.Planted, {"document": 3}, "exp.params")
