"""Words of selectors in any script; text that was split well before is split as before."""

import re

import pytest
from sklearn.feature_extraction.text import HashingVectorizer

from repro.selection.words import splitter

DSIR, CLASSIFIER = r"\w+|[^\w\s]+", r"\b\w\w+\b"
SPACED = [
    'def f(x): return x**2  # a_b, 3.5e-7 "quoted"\n\ttab',
    "Zażółć gęślą jaźń — “quoted” café, naïve; Straße 5² ½",
    "Съешь же ещё этих мягких французских булок",
    "a b c",
    "",
]


@pytest.mark.parametrize("text", SPACED)
@pytest.mark.parametrize(("pattern", "options"), [(DSIR, {"marks": True}), (CLASSIFIER, {"shortest": 2})])
def test_text_of_spaced_scripts_is_split_as_before(text, pattern, options):
    """And hashed as before: no result of such a corpus changes."""
    assert splitter(pattern, **options)(text) == re.findall(pattern, text)
    before = HashingVectorizer(n_features=512, ngram_range=(1, 2), token_pattern=pattern)
    after = HashingVectorizer(
        n_features=512, ngram_range=(1, 2), tokenizer=splitter(pattern, **options), token_pattern=None
    )
    assert (before.transform([text]) != after.transform([text])).nnz == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("机器学习 model。", ["机", "器", "学", "习", "model"]),
        ("日本語のテスト", list("日本語のテスト")),
        ("ภาษาไทย", ["ภ", "า", "ษ", "า", "ไ", "ท", "ย"]),
        ("हिन्दी में पाठ", ["हिन्दी", "में", "पाठ"]),
        ("العربيّة", ["العربيّة"]),
        ("cafe\u0301 noir", ["cafe\u0301", "noir"]),
    ],
)
def test_other_scripts_have_words(text, words):
    assert splitter(CLASSIFIER, shortest=2)(text) == words
    assert [w for w in splitter(DSIR, marks=True)(text) if w != "。"] == words


@pytest.mark.parametrize("selector", ["dsir", "ngram_classifier"])
def test_two_chinese_domains_are_told_apart(selector, tmp_path):
    """Sentences without a space: as one word each they have nothing in common with any other."""
    from selecting import artifacts, chosen, select

    maths, rest = "证明定理引理数学函数方程积分", "天气新闻城市河流厨房孩子音乐"
    rows = []
    for i in range(60):
        kind, letters = ("maths", maths) if i % 2 else ("web", rest)
        hidden = i >= 40 and not i % 2  # of web by name, maths by content
        text = "".join((maths if hidden else letters)[(i * 5 + j * 3) % 14] for j in range(40 + i))
        rows.append({"doc_id": f"{i:02}", "domain": kind, "text": text, "hidden": hidden, "i": i})
    from selecting import documents

    base = documents(n=1, domains=("web",))[0]
    rows = [
        base | {k: v for k, v in row.items() if k in base} | {"group": f"g{row['i']}", "cluster": row["i"]}
        for row in rows
    ]
    params = {"target": "maths"} if selector == "dsir" else {"positive": "maths"}
    if selector == "dsir":
        params["per_token"] = True
    repeats, _ = select(tmp_path, artifacts(rows), selector, params, share=1 / 3, unit="documents")
    taken = {ident for ident in chosen(repeats) if not int(ident) % 2}
    assert len(taken) >= 9 and taken <= {f"{i:02}" for i in range(40, 60, 2)}
