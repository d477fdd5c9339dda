"""Every user's mistake is refused or counted, in one line that says what, where and how to mend it."""

import re

import polars as pl
import pytest
from selecting import artifacts, chosen, documents, select

from repro.errors import SettingError
from repro.selection.settings import Budget, Mixture, Select
from repro.selection.stage import stage
from repro.store import Store


def refused(pattern, *arguments, **settings):
    with pytest.raises(SettingError, match=pattern) as found:
        select(*arguments, **settings)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("share", [0, -0.1, 1.01, float("nan")])
def test_share_outside_its_range(share):
    with pytest.raises(SettingError, match=re.escape("(0, 1]")):
        Budget(share=share)


def test_an_id_that_stands_twice_is_named(tmp_path):
    rows = documents()
    refused(
        "'web-0003' stands twice in the scores",
        tmp_path / "1",
        artifacts(rows, [*rows, {**rows[3], "score": 9.0}], files=3),
    )
    refused(
        "'web-0005' stands twice in the corpus", tmp_path / "2", artifacts([*rows, rows[5]], rows, files=3)
    )


def test_scores_of_another_corpus(tmp_path):
    rows = documents()
    refused(
        "hold the document 'web-0059', which the corpus",
        tmp_path,
        artifacts([r for r in rows if r["doc_id"] != "web-0059"], rows),
    )


def test_missing_scores_are_counted_or_refused(tmp_path, capsys):
    rows = documents()
    scored = [r for i, r in enumerate(rows) if i % 10]
    made = artifacts(rows, scored)
    repeats, record = select(tmp_path, made, share=0.4)
    assert set(repeats) == {r["doc_id"] for r in rows}
    assert record["missing_scores"] == record["unranked"] == len(rows) - len(scored)
    assert chosen(repeats) == chosen(select(tmp_path / "only", artifacts(scored), share=0.4)[0])
    assert f"{len(rows) - len(scored)} of them no scores at all" in capsys.readouterr().err
    refused("have no finite priority.*budget.unranked=skip", tmp_path, made, share=0.4, unranked="refuse")
    everything, _ = select(tmp_path, made, "all", share=1.0, unit="documents")
    assert set(everything.values()) == {1}


def test_a_domain_with_fewer_documents_than_bins(tmp_path):
    refused(
        "domain 'web' has 6 documents, fewer than budget.length_bins=7",
        tmp_path,
        artifacts(documents(n=6)),
        length_bins=7,
    )


def test_nothing_fits_the_budget(tmp_path):
    refused(
        "takes no document of domain code, maths, web.*raise budget.share",
        tmp_path,
        artifacts(documents(n=8)),
        share=0.0001,
    )


def test_a_domain_without_any_score_is_left_empty_with_a_warning(tmp_path, capsys):
    rows = documents()
    for r in rows:
        r["score"] = None if r["domain"] == "web" else r["score"]
    repeats, record = select(tmp_path, artifacts(rows))
    assert record["empty_domains"] == ["web"] and record["domains"]["web"]["selected_documents"] == 0
    assert {ident.split("-")[0] for ident in chosen(repeats)} == {"maths", "code"}
    told = capsys.readouterr().err
    assert (
        "takes no document of domain web: no document of web has a priority" in told and "longer" not in told
    )


def test_a_domain_of_two_documents_does_not_cost_the_others_their_selection(tmp_path, capsys):
    rows = documents()
    tiny = [
        r | {"doc_id": f"tiny-{i}", "domain": "tiny"} for i, r in enumerate(documents(n=2, domains=("web",)))
    ]
    repeats, record = select(tmp_path, artifacts([*rows, *tiny]), unit="documents")
    assert record["empty_domains"] == ["tiny"] and len(chosen(repeats)) > 50
    assert "no document of domain tiny" in capsys.readouterr().err
    assert "empty_domains" not in select(tmp_path, artifacts(rows), unit="documents")[1]


def test_unknown_names_are_answered_with_the_nearest(tmp_path):
    made = artifacts(documents())
    refused("did you mean 'perplexity'", tmp_path, made, "perplexty")
    refused(
        "no params.forms; did you mean 'form'", tmp_path, made, "attention_influence", {"forms": "relative"}
    )
    refused(
        "params.form='realtive' is not known; did you mean 'relative'",
        tmp_path,
        made,
        "attention_influence",
        {"form": "realtive"},
    )
    refused("needs params.path", tmp_path, made, "imported")
    with pytest.raises(SettingError, match="budget has no setting 'shares'; did you mean 'share'"):
        Select("random", budget={"shares": 1})


def test_matching_needs_the_other_selection_and_tokens_that_are_there(tmp_path):
    rows = documents()
    made = artifacts(rows)
    refused("match names the arm", tmp_path, made, "random", match="treatment")
    other = artifacts([{**r, "n_tokens_doc": 40 * r["n_tokens_doc"]} for r in rows])
    treatment = stage(
        Select("attention_influence"), Mixture(), Budget(0.5), 0, other["corpus"], other["scores"]
    )
    refused("tokens, fewer than the", tmp_path, made, "random", match="treatment", reference=treatment)
    refused(
        "leave out budget.length_bins",
        tmp_path,
        made,
        "random",
        match="t",
        reference=treatment,
        length_bins=2,
    )


def test_imported_scores(tmp_path):
    rows = documents()
    made, path = artifacts(rows), tmp_path / "mine.parquet"
    refused("no parquet or CSV file there", tmp_path, made, "imported", {"path": str(path)})
    pl.DataFrame({"id": [r["doc_id"] for r in rows], "quality": [1.0] * len(rows)}).write_parquet(path)
    refused(
        "no column 'qualty'; did you mean 'quality'",
        tmp_path,
        made,
        "imported",
        {"path": str(path), "column": "qualty", "id_column": "id"},
    )
    pl.DataFrame({"doc_id": ["a", "b"], "score": [1.0, 2.0]}).write_parquet(path)
    refused("no doc_id of .* is a doc_id of the corpus", tmp_path, made, "imported", {"path": str(path)})
    twice = pl.DataFrame({"doc_id": ["web-0001", "web-0001"], "score": [1.0, 2.0]})
    twice.write_parquet(path)
    refused("gave 'web-0001' more than one priority", tmp_path, made, "imported", {"path": str(path)})


def test_too_few_priorities_are_named_as_the_reason(tmp_path, capsys):
    rows, path = documents(), tmp_path / "mine.csv"
    some = [r["doc_id"] for r in rows if r["domain"] != "web" or r["doc_id"] < "web-0003"]
    pl.DataFrame({"doc_id": some, "score": [1.0] * len(some)}).write_csv(path)
    _, record = select(tmp_path, artifacts(rows), "imported", {"path": str(path)})
    told = capsys.readouterr().err
    assert record["domains"]["web"]["selected_documents"] == 3
    assert re.search(r"leaves \d+% of the budget of web unused: all documents that have a priority", told)
    assert "longer than what is left" not in told


def test_no_scores_at_all(tmp_path):
    refused("holds no scores", tmp_path, artifacts(documents(), []))


def test_selections_of_text_classifiers_need_their_domain(tmp_path):
    made = artifacts(documents())
    refused(
        "textbok must be one of several domains; did you mean 'web'",
        tmp_path,
        made,
        "ngram_classifier",
        {"positive": "textbok"},
    )
    refused("this corpus has code, maths, web", tmp_path, made, "dsir", {"target": ["prose", "books"]})
    refused("is not a file", tmp_path, made, "dsir", {"target_file": str(tmp_path / "no.txt")})


def test_combinations_of_selectors(tmp_path):
    made = artifacts(documents())
    refused("must list two selectors or more", tmp_path, made, "union", {"of": [{"selector": "random"}]})
    refused(
        "another one for every seed",
        tmp_path,
        made,
        "rank_sum",
        {"of": [{"selector": "random"}, {"selector": "all"}]},
    )


def test_the_other_score_artifact_of_a_gap(tmp_path):
    rows = documents()
    made = artifacts(rows)
    refused("is not a finished score artifact", tmp_path, made, "perplexity_gap", {"other": str(tmp_path)})
    elsewhere = artifacts([{**r, "n_tokens_doc": r["n_tokens_doc"] + 1} for r in rows])["scores"]
    other = Store(tmp_path).ensure(elsewhere)
    refused("the two models need one tokenizer", tmp_path, made, "perplexity_gap", {"other": str(other)})
    whole = Store(tmp_path).ensure(artifacts([{**r, "n_tokens": 500} for r in rows])["scores"])
    refused("were read further, or in other windows", tmp_path, made, "perplexity_gap", {"other": str(whole)})
