"""Selections described and compared as stages of a store, against plain Python on the same documents."""

import json
import re
from collections import Counter

import numpy
import polars
import pytest
from scipy.stats import spearmanr

from repro.errors import SettingError
from repro.experiments.analyse import describe, judge, stages
from repro.experiments.analyse.pairs import SHARES
from repro.selection import stage as selection_stage
from repro.selection.settings import Mixture, Select
from repro.settings.analysis import Analysis, Judge
from repro.settings.compose import compose
from repro.settings.root import Settings
from repro.store import Stage, Store, read_json

TOPICS = ["graph node edge path", "proof lemma theorem axiom", "river bank water flood"]
NO_EMBEDDER = Analysis(embedder="none", top_words=8, clusters=3, documents=5)


def corpus_rows(n=60):
    rows = []
    for domain in ("a", "b"):
        for i in range(n):
            text = " ".join(f"{TOPICS[i % 3]} word{i % 7} the" for _ in range(2 + i))
            rows.append({"doc_id": f"{domain}{i:03}", "domain": domain, "group": f"g{i % 4}", "cluster": i, "source": "s", "license": "MIT",
                         "n_bytes": len(text), "text": text, "extra": "{}"})  # fmt: skip
    return polars.DataFrame(rows)


def put_corpus(context):
    for folder in ("documents", "heldout"):
        (context.out / folder).mkdir(exist_ok=True)
    rows = corpus_rows()
    for domain in ("a", "b"):
        part = rows.filter(polars.col("domain") == domain)
        part[:25].write_parquet(context.out / "documents" / f"{domain}-00000.parquet")
        part[25:].write_parquet(context.out / "documents" / f"{domain}-00001.parquet")


def put_scores(context):
    (context.out / "scores").mkdir(exist_ok=True)
    rows = corpus_rows()
    generator = numpy.random.default_rng(0)
    score = generator.gamma(2, 0.2, len(rows))
    base = 3 + generator.random(len(rows))
    rows.select("doc_id", "domain", "group", "n_bytes").with_columns(
        n_tokens_doc=polars.col("n_bytes") // 4, n_tokens=polars.col("n_bytes") // 4, loss_base=polars.Series(base), loss_ref=polars.Series(base * (1 + score)),
        score=polars.Series(score), score_error=0.01, compressibility=0.5, repetition=polars.col("n_bytes") / 1e4, loss_difference=polars.Series(base * score),
    ).write_parquet(context.out / "scores" / "all-00000.parquet")  # fmt: skip


CORPUS = Stage("corpus", "made", {}, put_corpus)
SCORES = Stage("score", "made", {}, put_scores, {"corpus": CORPUS})


def experiment(work, arms, analysis=NO_EMBEDDER, judge_settings=None, mixture=None):
    """Run the stages of selections named by arm; the store, the stages by arm and the pairs."""
    settings = compose(["exp=what_was_selected", "scale=smoke"])
    chosen = {name: Select(selector, params) for name, (selector, params) in arms.items()}
    settings.exp.arms = {
        name: type(next(iter(settings.exp.arms.values())))(select=select) for name, select in chosen.items()
    }
    settings.exp.contrasts, settings.analysis, settings.judge = [], analysis, judge_settings or Judge()
    selections = {
        name: selection_stage.stage(select, mixture or Mixture(), settings.budget, 0, CORPUS, SCORES)
        for name, select in chosen.items()
    }
    described, pairs = stages.of_selections(settings, selections)
    store = Store(work)
    for target in [*(s for of in described.values() for s in of.values()), *pairs.values()]:
        for stage in target.ancestors():
            store.ensure(stage)
    return store, selections, described, pairs


ARMS = {
    "ours": ("attention_influence", {}),
    "long": ("column", {"column": "n_tokens_doc"}),
    "draw": ("random", {}),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return experiment(tmp_path_factory.mktemp("selected"), ARMS)


def chosen(run, arm):
    store, selections, *_ = run
    found = polars.read_parquet(store.path(selections[arm]) / "selection.parquet")
    return set(found.filter(polars.col("repeats") > 0)["doc_id"])


def tables(run):
    store, *_ = run
    scores = polars.read_parquet(store.path(SCORES) / "scores" / "*.parquet")
    return corpus_rows().join(scores.drop("domain", "group", "n_bytes"), on="doc_id")


def test_every_two_arms_are_compared_unless_contrasts_say_otherwise(run):
    assert set(run[3]) == {"ours | long", "ours | draw", "long | draw"}
    settings = compose(["exp=what_was_selected", "scale=smoke"])
    selections = {
        n: selection_stage.stage(a.select, a.mixture, settings.budget, 0, CORPUS, SCORES)
        for n, a in settings.exp.arms.items()
    }
    assert list(stages.of_selections(settings, selections)[1]) == [
        f"attention_influence | {x}" for x in ("ngram_classifier", "perplexity_low", "length", "random")
    ]


def test_sizes_and_correlations_are_those_of_the_scores(run):
    store, _, described, _ = run
    rows = tables(run)
    for arm, column in (("ours", "score"), ("long", "n_tokens_doc")):
        profile = read_json(store.path(described[arm]["describe"]) / "profile.json")
        for domain in ("a", "b"):
            part = rows.filter(polars.col("domain") == domain)
            taken = part.filter(polars.col("doc_id").is_in(sorted(chosen(run, arm))))
            found = profile[domain]
            assert (found["documents"], found["selected"], found["ranked"]) == (60, 12, 60)
            assert found["selected_tokens"] == taken["n_tokens_doc"].sum()
            assert found["selected_mean_tokens"] == pytest.approx(taken["n_tokens_doc"].mean())
            assert found["spearman"]["base_loss"] == pytest.approx(
                spearmanr(part[column], part["loss_base"]).statistic
            )
            assert "compressibility" not in found["spearman"]  # constant here: no correlation, not NaN
            length = found["quantities"]["length"]
            assert sum(length["all"]["counts"]) == 60 and sum(length["selected"]["counts"]) == 12
            assert length["selected"]["quantiles"]["0.5"] == pytest.approx(taken["n_tokens_doc"].median())


def test_shared_documents_are_those_of_set_arithmetic(run):
    store, _, _, pairs = run
    found = read_json(store.path(pairs["ours | long"]) / "pair.json")
    rows = tables(run)
    for domain in ("a", "b"):
        ours, long = ({d for d in chosen(run, arm) if d[0] == domain} for arm in ("ours", "long"))
        d = found[domain]["documents"]
        assert (d["left"], d["right"], d["both"]) == (12, 12, len(ours & long))
        assert d["jaccard"] == pytest.approx(len(ours & long) / len(ours | long))
        assert (
            d["both_tokens"]
            == rows.filter(polars.col("doc_id").is_in(sorted(ours & long)))["n_tokens_doc"].sum()
        )
        part = rows.filter(polars.col("domain") == domain)
        assert d["spearman"] == pytest.approx(spearmanr(part["score"], part["n_tokens_doc"]).statistic)


@pytest.mark.parametrize("share", SHARES)
def test_overlap_of_words_is_that_of_counting_the_top_documents(run, share):
    store, _, _, pairs = run
    found = read_json(store.path(pairs["ours | long"]) / "pair.json")
    rows = tables(run)
    for domain in ("a", "b"):
        sets = []
        for column in ("score", "n_tokens_doc"):
            part = rows.filter(polars.col("domain") == domain).sort(column, descending=True)[
                : round(share * 60)
            ]
            counts = Counter(w for text in part["text"] for w in re.findall(r"[^\W\d_]\w+", text.lower()))
            sets.append(
                {w for w, _ in sorted(counts.items(), key=lambda p: (-p[1], p[0]))[: NO_EMBEDDER.top_words]}
            )
        expected = len(sets[0] & sets[1]) / min(map(len, sets))
        assert found[domain]["overlap"]["documents"][str(share)]["tf"] == pytest.approx(expected)


def test_a_selection_agrees_with_itself(tmp_path):
    store, _, _, pairs = experiment(
        tmp_path, {"one": ARMS["ours"], "two": ("attention_influence", {"form": "relative"})}
    )
    [pair] = pairs.values()
    for found in read_json(store.path(pair) / "pair.json").values():
        assert found["documents"]["jaccard"] == 1.0 and found["documents"]["spearman"] == pytest.approx(1.0)
        assert all(
            value == 1.0
            for reading in found["overlap"].values()
            for share in reading.values()
            for value in share.values()
        )
        assert found["clouds"] == {"left": [], "right": []}
        assert "topics" not in found  # no embedding model was named


def test_of_the_full_corpus_plus_a_selection_the_selection_is_described(tmp_path, run):
    store, _, described, _ = experiment(
        tmp_path, {"ours": ARMS["ours"], "long": ARMS["long"]}, mixture=Mixture(kind="add")
    )
    alone = read_json(run[0].path(run[2]["ours"]["describe"]) / "profile.json")
    assert read_json(store.path(described["ours"]["describe"]) / "profile.json") == alone


def test_bands_split_the_ranking(run):
    store, _, described, _ = run
    profile = read_json(store.path(described["long"]["describe"]) / "profile.json")
    assert list(profile["a"]["words"]) == list(describe.BANDS)
    longest = corpus_rows().filter(polars.col("domain") == "a").sort("n_bytes", descending=True)["text"][0]
    assert (
        set(profile["a"]["words"]["0-1 %"]) <= set(longest.split())
        and "the" not in profile["a"]["words"]["0-1 %"]
    )
    words = polars.read_parquet(store.path(described["long"]["describe"]) / "words.parquet")
    total = sum(len(re.findall(r"[^\W\d_]\w+", text)) for text in corpus_rows()["text"])
    assert words["tf"].sum() == total and words["band"].null_count() == 0


def test_samples_are_bounded_selected_and_overlap_as_the_selections_do(run):
    store, _, described, _ = run
    samples = {
        arm: polars.read_parquet(store.path(of["describe"]) / "sample.parquet")
        for arm, of in described.items()
    }
    for arm, sample in samples.items():
        assert set(sample["doc_id"]) <= chosen(run, arm)
        assert sample.group_by("domain").len()["len"].to_list() == [5, 5]


def test_topics_and_map_from_embeddings(tmp_path, monkeypatch):
    from repro.experiments.analyse import embeddings

    def encode(texts, max_tokens):  # stands for a model: the topic's direction and a little of the length
        base = numpy.eye(4)[[next(i for i, t in enumerate(TOPICS) if text.startswith(t)) for text in texts]]
        return (base + 0.01 * numpy.array([[len(t) % 7] for t in texts])).astype(numpy.float32)

    monkeypatch.setattr(embeddings, "load", lambda *_: encode)
    analysis = Analysis(embedder="minilm", top_words=8, clusters=3, documents=12)
    store, _, _, pairs = experiment(tmp_path, {"ours": ARMS["ours"], "long": ARMS["long"]}, analysis)
    found = read_json(store.path(pairs["ours | long"]) / "pair.json")["a"]
    topics = found["topics"]["clusters"]
    assert len(topics) == 3 and sum(t["left"] for t in topics) == sum(t["right"] for t in topics) == 12
    assert {next(i for i, t in enumerate(TOPICS) if row["name"].split(", ")[0] in t) for row in topics} == {
        0,
        1,
        2,
    }
    points = found["map"]["points"]
    assert len(points["left"]) + len(points["both"]) == 12 and sum(
        found["map"]["explained"]
    ) == pytest.approx(1.0, abs=0.01)


def test_the_judge_is_a_stage_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path / "cache"))

    def answer(texts, s, cache):
        answers = [{"education": "graph" in t, "reasoning": None if "proof" in t else False} for t in texts]
        lost = sum(a["reasoning"] is None for a in answers)
        return judge.Outcome(
            answers, requests=2 * len(texts), failures=Counter({"timed out": lost}), prompt_tokens=100
        )

    monkeypatch.setattr(judge, "judge", answer)
    s = Judge(url="http://127.0.0.1:9/v1", model="m", documents=12)
    store, selections, described, _ = experiment(
        tmp_path, {"ours": ARMS["ours"], "long": ARMS["long"]}, judge_settings=s
    )
    found = read_json(store.path(described["ours"]["judge"]) / "judged.json")
    picked = polars.read_parquet(store.path(selections["ours"]) / "selection.parquet").filter(
        polars.col("repeats") > 0
    )["doc_id"]
    texts = corpus_rows().filter(polars.col("domain") == "a", polars.col("doc_id").is_in(picked.implode()))[
        "text"
    ]
    row = found["domains"]["a"]
    assert row["documents"] == row["education"]["answered"] == 12
    assert row["education"]["yes"] == sum("graph" in t for t in texts)
    assert row["reasoning"] == {"answered": sum("proof" not in t for t in texts), "yes": 0}
    assert found["failures"]["timed out"] > 0


def test_what_changes_a_fingerprint_and_what_does_not():
    selection = selection_stage.stage(
        Select("attention_influence"), Mixture(), Settings().budget, 0, CORPUS, SCORES
    )

    def asked(**kwargs):
        return stages.judge_stage(Judge(url="http://host/v1", model="m", **kwargs), 0, selection).fingerprint

    assert asked(workers=9, timeout=1.0, tries=2, key_variable="X", price_prompt=1.0) == asked()
    assert asked(attempt=1) != asked() != asked(documents=3)
    describe = stages.describe_stage(NO_EMBEDDER, Select("attention_influence"), 0, selection)
    assert (
        stages.describe_stage(NO_EMBEDDER, Select("attention_influence"), 5, selection).fingerprint
        == describe.fingerprint
    )
    assert (
        stages.describe_stage(NO_EMBEDDER, Select("random"), 5, selection).fingerprint != describe.fingerprint
    )
    assert "sk-" not in json.dumps(describe.settings)


def test_one_arm_cannot_be_compared():
    settings = compose(["exp=what_was_selected", "scale=smoke"])
    settings.exp.contrasts = []
    selection = selection_stage.stage(Select("random"), Mixture(), settings.budget, 0, CORPUS, SCORES)
    with pytest.raises(SettingError, match="two arms"):
        stages.of_selections(settings, {"random": selection})


def test_an_arm_may_be_ranked_by_another_proxy():
    from repro.experiments import build

    own = "exp.arms.attention_influence_large.proxy={kind: built, dtype: bfloat16}"
    built = build(compose(["exp=proxy_selections", "scale=smoke", "proxy.dtype=float32", own]))
    small, large = (built.arms[arm][0] for arm in ("attention_influence", "attention_influence_large"))
    assert small["selection"].inputs["scores"].fingerprint == built.shared["score"].fingerprint
    assert large["selection"].inputs["scores"].settings["dtype"] == "bfloat16"
    assert large["describe"].inputs["scores"] is large["selection"].inputs["scores"]
    [pair] = built.pairs.values()
    assert pair.inputs == {"left": large["describe"], "right": small["describe"]}
    assert len({stage.fingerprint for stage in built.order() if stage.name == "corpus"}) == 1


def test_an_arms_proxy_is_checked():
    with pytest.raises(SettingError, match="did you mean exp.arms.attention_influence.proxy.kind"):
        compose(["exp=proxy_selections", "exp.arms.attention_influence.proxy.kin=hub"])
