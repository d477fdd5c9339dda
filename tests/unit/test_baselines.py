"""Word frequencies and Kneser-Ney against the textbook's formulas, written out with dictionaries over a hand-made text."""

import json
import math
from collections import Counter, defaultdict

import polars as pl
import pytest

from repro.corpus import documents
from repro.evaluate import baselines, minimal_pairs, ngrams
from repro.items import builtin
from repro.store import Context

TEXTS = [
    "The cat sat. The cat ran! A dog sat on the cat.",
    "the dog ran. The dog sat on a mat",
    "A cat sat on the mat.",
] * 2


def textbook(texts, order):
    """p(word | history) of interpolated Kneser-Ney, by the definition (Chen and Goodman 1999)."""
    sentences = []
    for text in texts:
        sentence = ["<s>"]
        for word in ngrams.words(text):
            sentence.append(word)
            if word in ".!?":
                sentences.append(sentence)
                sentence = ["<s>"]
        sentences.append(sentence)
    raw = defaultdict(Counter)
    for s in sentences:
        for end in range(1, len(s)):
            for n in range(1, min(order, end + 1) + 1):
                raw[n][tuple(s[end - n + 1 : end + 1])] += 1
    counts = {order: raw[order]}
    for n in range(1, order):
        counts[n] = Counter()
        for gram in raw[n + 1]:
            counts[n][gram[1:]] += 1
        counts[n].update({gram: c for gram, c in raw[n].items() if gram[0] == "<s>"})
    discounts = {}
    for n, found in counts.items():
        ones, twos = (sum(c == k for c in found.values()) for k in (1, 2))
        discounts[n] = ones / (ones + 2 * twos) if ones and twos else 0.5
    words = {gram[0] for gram in raw[1]} | {"<unk>"}

    def p(word, history, n):
        if n == 0:
            return 1 / len(words)
        history = history[max(0, len(history) - n + 1) :] if n > 1 else ()
        if len(history) < n - 1:
            return p(word, history, len(history) + 1)
        following = {gram: c for gram, c in counts[n].items() if gram[:-1] == history}
        lower = p(word, history[1:], n - 1)
        if not following:
            return lower
        total = sum(following.values())
        kept = max(counts[n][(*history, word)] - discounts[n], 0)
        return (kept + discounts[n] * len(following) * lower) / total

    return p, words


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_kneser_ney_is_the_textbooks(order):
    p, words = textbook(TEXTS, order)
    model = ngrams.KneserNey(ngrams.Counted(TEXTS), order)
    for sentence in ("The cat sat on the mat.", "A mat ran on the unheard dog!", "dog", "sat sat sat"):
        told = [w if w in words else "<unk>" for w in ngrams.words(sentence)]
        expected = sum(math.log(p(w, ("<s>", *told[:i]), order)) for i, w in enumerate(told))
        assert model.score([sentence])[0] == pytest.approx(expected, abs=1e-9)


def test_probabilities_of_all_words_sum_to_one():
    counted = ngrams.Counted(TEXTS)
    model = ngrams.KneserNey(counted, 3)
    for history in ("the", "the cat", "nowhere cat", "on the"):
        starts = [[ngrams.START, *counted.encode(history), word] for word in range(1, model.size)]
        import numpy

        ends = numpy.cumsum([len(s) for s in starts]) - 1
        assert model.probabilities(numpy.array(sum(starts, [])))[ends].sum() == pytest.approx(1)


def test_word_frequency_knows_no_order_to_the_last_bit():
    counted = ngrams.Counted(TEXTS)
    one, other, rare = ngrams.word_frequency(
        counted, ["the cat sat on a dog", "dog a on sat cat the", "the zebra sat on a dog"]
    )
    assert one == other > rare
    total, size = (
        sum(Counter(w for t in TEXTS for w in ngrams.words(t)).values()),
        len(counted.vocabulary) - 1,
    )
    cats = sum(ngrams.words(t).count("cat") for t in TEXTS)
    assert ngrams.word_frequency(counted, ["cat"])[0] == pytest.approx(math.log((cats + 1) / (total + size)))


@pytest.fixture
def inputs(tmp_path):
    for task, split, rows in builtin.read(lambda task: task.startswith("blimp")):
        (tmp_path / "items" / task).mkdir(parents=True)
        (tmp_path / "items" / task / f"{split}.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in rows)
        )
    made = [{"doc_id": f"d{i}", "domain": "web", "group": "g", "cluster": i, "source": "s", "license": "l", "text": text,
             "n_bytes": len(text), "extra": "{}"} for i, text in enumerate(["Ada cleans herself. He lifts this mirror."] * 400)]  # fmt: skip
    documents.write(tmp_path / "corpus" / "documents" / "web-00000.parquet", made)
    return tmp_path


def test_the_stage_leaves_rows_that_give_its_accuracies(inputs):
    ctx = Context(inputs / "out", {"items": inputs / "items", "corpus": inputs / "corpus"}, "cpu")
    ctx.out.mkdir()
    baselines.run(ctx, {"blimp": 20})
    found = json.loads((inputs / "out" / "baselines.json").read_text())
    assert list(found["baselines"]) == ["word_frequency", "ngram"]
    for name, row in found["baselines"].items():
        table = pl.read_parquet(inputs / "out" / f"{name}.parquet")
        assert len(table) == 20 * len(builtin.PAIRS)
        again = minimal_pairs.metrics("blimp", table)
        assert row["metrics"]["blimp/acc"]["value"] == again["blimp/acc"]["value"]
    anaphor = found["baselines"]["ngram"]["metrics"]["blimp_acc/anaphor_agreement"]
    assert anaphor["value"] == 1.0  # the text says "herself", never "himself"
    assert found["trained_on"]["documents"] == 400


def test_a_large_corpus_is_sampled_the_same_way_each_time(inputs):
    total = sum(len(text.encode()) for text in baselines.sample(inputs / "corpus", 10**9))
    drawn = [list(baselines.sample(inputs / "corpus", total // 4)) for _ in range(2)]
    assert drawn[0] == drawn[1]
    assert 0.15 < len(drawn[0]) / 400 < 0.35


def test_without_pairs_the_stage_says_why(inputs, tmp_path):
    (tmp_path / "none").mkdir()
    ctx = Context(tmp_path / "out", {"items": tmp_path / "none", "corpus": inputs / "corpus"}, "cpu")
    ctx.out.mkdir(exist_ok=True)
    baselines.run(ctx, {"blimp": 20})
    found = json.loads((tmp_path / "out" / "baselines.json").read_text())
    assert found["baselines"] == {}
    assert "DIR/blimp/<paradigm>/train.jsonl" in found["missing"]["blimp"]
