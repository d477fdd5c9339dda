"""Words of selections against counting by hand and against scikit-learn."""

import re
from collections import Counter

import numpy
import polars
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from repro.experiments.analyse import words

TEXTS = [
    "The proof uses the lemma; the lemma uses induction.",
    "def self_attn(x): return self_attn(x)  # the code 3x faster",
    "Über-graph: the GRAPH of graphs, naïve x y z2",
    "",
    "!!! 123 4 a",
]


def by_hand(text):
    return Counter(w.lower() for w in re.findall(r"[^\W\d_]\w+", text.lower()))


def counted(texts, **columns):
    return words.count(polars.DataFrame({"text": texts, **columns}), list(columns))


def test_counts_are_those_of_a_loop():
    found = {w: (tf, df) for w, tf, df in counted(TEXTS).iter_rows()}
    single = [by_hand(t) for t in TEXTS]
    assert found == {
        w: (sum(c[w] for c in single), sum(w in c for c in single)) for w in set().union(*single)
    }
    assert found["self_attn"] == (2, 1) and found["the"] == (5, 3) and "123" not in found and "x" not in found


def test_counts_of_parts_add_up_to_those_of_the_whole():
    parts = counted(TEXTS, domain=["a", "a", "b", "b", "b"])
    assert parts.filter(polars.col("domain") == "a").drop("domain").equals(counted(TEXTS[:2]))
    assert words.total([parts.filter(polars.col("domain") == d).drop("domain") for d in "ab"], []).equals(
        counted(TEXTS)
    )


def test_weights_are_those_of_scikit_learn():
    found = words.weigh(counted(TEXTS), counted(TEXTS), len(TEXTS))
    oracle = TfidfVectorizer(token_pattern=r"(?u)[^\W\d_]\w+", norm=None).fit(TEXTS)
    expected = dict(
        zip(oracle.get_feature_names_out(), numpy.asarray(oracle.transform(TEXTS).sum(0))[0], strict=True)
    )
    assert dict(found.select("word", "tfidf").iter_rows()) == pytest.approx(expected)


def test_the_domain_sets_the_weight_of_a_word_in_a_selection():
    domain = counted(["common rare", "common", "common", "common"])
    selection = words.weigh(counted(["common rare"]), domain, 4)
    assert words.top(selection, "tf", 2) == ["common", "rare"]  # a tie, in alphabetical order
    assert words.top(selection, "tfidf", 2) == ["rare", "common"]


def test_overlap():
    assert words.overlap(["a", "b", "c"], ["b", "c", "d"]) == pytest.approx(2 / 3)
    assert words.overlap(["a"], ["a", "b"]) == 1.0  # of the smaller set
    assert words.overlap([], ["a"]) is None


def test_naming_words_leaves_out_what_stands_in_most_documents():
    texts = ["the graph the graph node", "the proof the", "the of lemma", "the of"]
    weights = words.weigh(counted(texts[:1]), counted(texts), len(texts))
    assert words.naming(weights, len(texts), 5) == ["graph", "node"]


def test_clouds_leave_out_what_both_use_often():
    texts = ["graph graph the the the node", "proof proof the the the node lemma"]
    left, right = (words.weigh(counted([t]), counted(texts), 2) for t in texts)
    assert words.clouds(left, right, 3, 10) == ([("graph", 2), ("node", 1)], [("proof", 2), ("lemma", 1)])
    assert words.clouds(left, right, 4, 10) == ([("graph", 2)], [("proof", 2), ("lemma", 1)])
    assert words.clouds(left, right, 2, 10) == ([("graph", 2)], [("proof", 2)])
    assert words.clouds(left, left, 1, 10) == ([], [])


def test_encoded_data_is_no_word():
    assert counted(["a" * 64 + " " + "b" * 65])["word"].to_list() == ["a" * 64]
