"""What stands against a verdict is said before the trainings, by what is in the store."""

import pytest

from repro.experiments import build
from repro.outcomes import verdict
from repro.plan import prospects
from repro.settings.compose import compose
from repro.store import Store, write_json

LARGE = {"documents": 1000, "groups": 9}


@pytest.fixture
def planned(tmp_path):
    settings = compose(["scale=smoke", "exp=selection_30pct", "exp.seeds=[0,1,2]", "budget.leave_out=[tiny]"])
    return settings, build(settings), Store(tmp_path)


def publish(store, stage, name, domains):
    folder = store.path(stage)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / name, {"domains": domains})
    write_json(folder / "manifest.json", {"facts": {}})


def corpus(planned, **domains):
    publish(
        planned[2],
        planned[1].shared["corpus"],
        "counts.json",
        {"tiny": {"documents": 1, "groups": 1}, **domains},
    )


def select(planned, arm, **kept):
    """``kept``: of a domain the documents that each seed keeps."""
    for number, stages in enumerate(planned[1].arms[arm].values()):
        publish(planned[2], stages["selection"], "selection.json",
                {domain: {"selected_documents": counts[number]} for domain, counts in kept.items()})  # fmt: skip


def test_nothing_is_said_before_the_corpus_is_there_and_where_it_is_enough(planned):
    assert prospects.lines(*planned) == []
    corpus(planned, web=LARGE, law=LARGE)
    assert prospects.lines(*planned) == []


def test_by_the_share_of_the_documents_until_they_are_selected(planned):
    corpus(planned, web=LARGE, law={"documents": 600, "groups": 9})
    assert [line.partition(": ")[2] for line in prospects.lines(*planned)] == [
        f"{arm} keeps about 180 documents in law; a verdict needs 200 in every domain"
        for arm in ("attention_influence", "random")
    ]


def test_a_share_of_tokens_may_be_few_documents_where_long_ones_lead(planned):
    corpus(planned, web=LARGE, law={"documents": 900, "groups": 9})
    assert prospects.lines(*planned) == [
        "there may be no verdict: attention_influence keeps about 270 documents in law, and down to 70% of that where"
        " long ones lead; a verdict needs 200 in every domain"
    ]  # not of random, whose documents are as long as all
    select(planned, "attention_influence", web=[300, 300, 300], law=[200, 200, 200])
    assert prospects.lines(*planned) == []
    planned[0].budget.unit = "documents"
    assert prospects.lines(*planned) == []


def test_a_share_of_documents_is_as_many_documents(planned):
    planned[0].budget.unit = "documents"
    corpus(planned, web=LARGE, law={"documents": 900, "groups": 9})
    assert prospects.lines(*planned) == []


def test_by_the_seed_that_keeps_fewest_once_they_are(planned):
    corpus(planned, web=LARGE, law={"documents": 600, "groups": 9})
    select(planned, "attention_influence", web=[300, 300, 300], law=[200, 200, 200])
    select(planned, "random", web=[300, 198, 300], law=[190, 197, 201])
    [line] = prospects.lines(*planned)
    assert (
        line
        == "there will be no verdict: random keeps 190 documents in law, 198 in web; a verdict needs 200 in every domain"
    )


def test_too_few_sources(planned):
    corpus(planned, web={"documents": 1000, "groups": 2})
    assert "2 sources in web" in prospects.lines(*planned)[0]


def test_the_bounds_are_those_of_the_verdict(planned, monkeypatch):
    corpus(planned, web={"documents": 1000, "groups": 3})
    assert prospects.lines(*planned) == []
    assert (prospects.DOCUMENTS, prospects.SOURCES) == (verdict.DOCUMENTS, verdict.SOURCES)
    monkeypatch.setattr(prospects, "DOCUMENTS", 301)
    assert "about 300" in prospects.lines(*planned)[0]


def test_a_run_that_compares_nothing_has_no_verdict_to_lose(tmp_path):
    settings = compose(["scale=smoke", "exp=score_corpus"])
    assert prospects.lines(settings, build(settings), Store(tmp_path)) == []
