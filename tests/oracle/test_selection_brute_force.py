"""Selection against a plain sort in Python: budgets, ties, scopes, the bracketed path for large corpora."""

import math

import numpy as np
import pytest
from selecting import artifacts, brute_force, chosen, documents, select

from repro.selection import rank


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("unit", ["tokens", "documents"])
@pytest.mark.parametrize("scope", ["domain", "global"])
@pytest.mark.parametrize("share", [0.05, 0.29, 0.3, 1.0])
def test_equals_a_plain_sort(tmp_path, ties, unit, scope, share):
    rows = documents(ties=ties)
    expected = brute_force(rows, {r["doc_id"]: r["score"] for r in rows}, share, unit, scope)
    repeats, record = select(tmp_path, artifacts(rows), share=share, unit=unit, scope=scope)
    assert chosen(repeats) == expected
    assert set(repeats) == {r["doc_id"] for r in rows}
    assert record["selected_documents"] == len(expected)
    assert record["selected_tokens"] == sum(r["n_tokens_doc"] for r in rows if r["doc_id"] in expected)


@pytest.mark.parametrize(
    ("selector", "params", "key"),
    [
        ("attention_influence", {"form": "difference"}, lambda r: r["loss_ref"] - r["loss_base"]),
        ("attention_influence", {"order": "bottom"}, lambda r: -r["score"]),
        ("perplexity", {"keep": "low"}, lambda r: -r["loss_base"]),
        ("perplexity", {"keep": "high"}, lambda r: r["loss_base"]),
        ("column", {"column": "n_tokens_doc"}, lambda r: r["n_tokens_doc"]),
        ("column", {"column": "compressibility", "keep": "low"}, lambda r: -r["compressibility"]),
        ("column", {"column": "repetition"}, lambda r: r["repetition"]),
    ],
)
def test_formulas(tmp_path, selector, params, key):
    rows = documents(seed=3)
    repeats, _ = select(tmp_path, artifacts(rows), selector, params, share=0.4)
    assert chosen(repeats) == brute_force(rows, {r["doc_id"]: key(r) for r in rows}, 0.4, "tokens")


def test_middle_perplexity_is_nearest_to_the_median_of_the_domain(tmp_path):
    rows = documents(seed=4)
    middle = {
        d: float(np.median([r["loss_base"] for r in rows if r["domain"] == d]))
        for d in {r["domain"] for r in rows}
    }
    repeats, _ = select(tmp_path, artifacts(rows), "perplexity", {"keep": "middle"}, share=0.3)
    priority = {r["doc_id"]: -abs(r["loss_base"] - middle[r["domain"]]) for r in rows}
    assert chosen(repeats) == brute_force(rows, priority, 0.3, "tokens")


def test_documents_without_finite_priority_are_never_taken_but_counted(tmp_path, capsys):
    rows = documents(seed=5)
    for r, value in zip(rows[::9], [None, math.nan, math.inf, -math.inf] * 10, strict=False):
        r["score"] = value
    repeats, record = select(tmp_path, artifacts(rows), share=0.5)
    bad = [r for r in rows if r["score"] is None or not math.isfinite(r["score"])]
    assert chosen(repeats) == brute_force(rows, {r["doc_id"]: r["score"] for r in rows}, 0.5, "tokens")
    assert record["unranked"] == len(bad) > 20
    assert record["domains"]["web"]["unranked"] == sum(r["domain"] == "web" for r in bad)
    assert "no finite priority" in capsys.readouterr().err


@pytest.mark.parametrize("unit", ["tokens", "documents"])
@pytest.mark.parametrize("sample", [40, 4000])
def test_bracketed_cut_is_exact_even_if_the_sample_is_poor(tmp_path, monkeypatch, unit, sample):
    rows = documents(n=900, domains=("a", "b'c"), seed=6, ties=True)
    for r in rows[::2]:
        r["score"] += 1e-6 * len(r["text"])
    monkeypatch.setattr(rank, "SORTED_WHOLE", 50)
    monkeypatch.setattr(rank, "SAMPLE", sample)
    for share in (0.003, 0.2, 0.77, 0.999):
        repeats, _ = select(tmp_path / f"{share}", artifacts(rows), share=share, unit=unit)
        assert chosen(repeats) == brute_force(rows, {r["doc_id"]: r["score"] for r in rows}, share, unit), (
            share
        )
