"""A domain that a share is nothing of: refused before any training, or left out of every arm alike."""

import polars as pl
import pytest
from selecting import artifacts, documents, select

from repro import experiments, run
from repro.errors import SettingError
from repro.experiments import Experiment
from repro.plan import checks
from repro.plan.table import _empty_domains
from repro.pretrain.order import repeats_of
from repro.report import build, terminal
from repro.selection.settings import Mixture
from repro.settings.compose import compose
from repro.store import Stage, Store, write_json

RUN = ["exp=selection_30pct", "scale=smoke"]


def stages(tmp_path, settings, counts, empty, trained):
    """An experiment of trivial stages. Selections find ``empty[arm]`` domains empty unless the settings leave them out."""

    def publish(context):
        write_json(
            context.out / "counts.json",
            {"domains": {d: {"documents": n, "bytes": 9, "groups": 9} for d, n in counts.items()}},
        )

    corpus = Stage("corpus", "tiny", {}, publish)
    gone = settings.budget.leave_out

    def choose(arm):
        lacking = [domain for domain in empty.get(arm, []) if domain not in gone]

        def publish(context):
            kept = {
                domain: {"selected_documents": n // 3} for domain, n in counts.items() if domain not in gone
            }
            write_json(context.out / "selection.json", {"domains": kept})
            context.facts.update({"empty_domains": lacking} if lacking else {})

        return publish

    arms = {}
    for arm in settings.exp.arms:
        chosen = Stage("selection", arm, {"arm": arm, "gone": gone}, choose(arm), {"corpus": corpus})
        learnt = Stage(
            "training", arm, {}, lambda context, arm=arm: trained.append(arm), {"selection": chosen}
        )
        arms[arm] = {0: {"selection": chosen, "pretrain": learnt}}
    return Experiment({"corpus": corpus}, arms)


@pytest.fixture
def world(tmp_path, monkeypatch):
    """(run it, names of the trained arms) of a tiny world: ``start(counts, empty, *arguments)``."""
    trained, seen = [], {}

    def start(counts, empty, *arguments):
        settings = compose([*RUN, f"work={tmp_path}", *arguments])
        monkeypatch.setattr(experiments, "build", lambda s: stages(tmp_path, s, counts, empty, trained))
        monkeypatch.setattr(checks, "names", lambda s, experiment: None)
        monkeypatch.setattr(build, "build", lambda folder, s, *rest: seen.update(settings=s))
        monkeypatch.setattr(terminal, "render", lambda summary: "")
        run.run(settings)
        return seen["settings"]

    return start, trained


def test_by_default_a_domain_smaller_than_a_share_ends_the_run_before_any_selection(world, tmp_path):
    start, trained = world
    with pytest.raises(SettingError, match=r"domain 'tiny' \(2 documents\).*exp.empty_domains=leave_out"):
        start({"web": 500, "tiny": 2}, {})
    assert trained == [] and not (tmp_path / "artifacts" / "selection").exists()


def test_by_default_an_empty_selection_ends_the_run_before_the_first_training(world, tmp_path):
    start, trained = world
    with pytest.raises(
        SettingError, match="without a document of a domain: 'code' in random seed 0: .*leave_out"
    ):
        start({"web": 500, "code": 50}, {"random": ["code"]})
    assert trained == [] and len(list((tmp_path / "artifacts" / "selection").glob("*/manifest.json"))) == 4


def test_a_domain_may_be_left_out_of_every_arm_and_that_is_said(world, capsys):
    start, trained = world
    settings = start({"web": 500, "tiny": 2, "code": 50}, {"random": ["code"]}, "exp.empty_domains=leave_out")
    assert settings.budget.leave_out == ["code", "tiny"]
    assert sorted(trained) == sorted(settings.exp.arms)
    said = capsys.readouterr().out
    assert "left out of every arm: tiny;" in said and "left out of every arm: code, tiny;" in said
    [line] = [
        line for line in said.splitlines() if "keeps" in line and "random" in line
    ]  # once, of what is left
    assert (
        line
        == "there will be no verdict: random keeps 166 documents in web; a verdict needs 200 in every domain"
    )


def test_the_plan_knows_what_the_store_knows(tmp_path):
    settings = compose([*RUN, f"work={tmp_path}", "exp.empty_domains=leave_out"])
    made = stages(tmp_path, settings, {"web": 500, "tiny": 2}, {"full": ["web"]}, [])
    store = Store(tmp_path)
    assert [_empty_domains(settings, made, store, known) for known in ("corpus", "selections")] == [[], []]
    for stage in made.order():
        store.ensure(stage)
    assert [_empty_domains(settings, made, store, known) for known in ("corpus", "selections")] == [
        ["tiny"],
        ["web"],
    ]
    with pytest.raises(SettingError, match="'tiny'"):
        _empty_domains(compose([*RUN, f"work={tmp_path}"]), made, store, "corpus")


@pytest.mark.parametrize("selector", ["attention_influence", "random", "all"])
@pytest.mark.parametrize("mixture", [Mixture(), Mixture("add")])
def test_nothing_of_a_domain_left_out_is_read_and_the_others_are_as_before(tmp_path, selector, mixture):
    rows = documents()
    unscored = [r | {"doc_id": r["doc_id"] + "x", "domain": "code"} for r in documents(domains=("web",))]
    for made in (
        artifacts(rows),
        artifacts([*rows, *unscored], scored=rows),
    ):  # with every score, and with some missing
        whole, _ = select(tmp_path / "a", made, selector, None, mixture)
        part, record = select(tmp_path / "b", made, selector, None, mixture, leave_out=["code"])
        assert set(part) == set(whole) and record["left_out"] == ["code"] and "code" not in record["domains"]
        domains = {r["doc_id"]: r["domain"] for r in [*rows, *unscored]}
        assert part == {doc_id: 0 if domains[doc_id] == "code" else times for doc_id, times in whole.items()}


def test_an_unknown_domain_to_leave_out_is_refused(tmp_path):
    with pytest.raises(SettingError, match="budget.leave_out names cod; the corpus has code, maths, web"):
        select(tmp_path, artifacts(documents()), leave_out=["cod"])


def test_training_goes_without_a_domain_only_where_the_selection_says_so(tmp_path):
    index = {"doc_id": ["a", "b"], "domain": ["web", "code"], "split": ["documents"] * 2, "length": [3, 4]}
    pl.DataFrame(index).write_parquet(tmp_path / "index.parquet")
    pl.DataFrame({"doc_id": ["b", "a"], "domain": ["code", "web"], "repeats": [0, 2]}).write_parquet(
        tmp_path / "selection.parquet"
    )
    with pytest.raises(SettingError, match="no document of domain code"):
        repeats_of(tmp_path, tmp_path)
    write_json(tmp_path / "selection.json", {"left_out": ["code"]})
    assert repeats_of(tmp_path, tmp_path).tolist() == [2, 0]
    write_json(tmp_path / "selection.json", {"left_out": ["web"]})
    with pytest.raises(SettingError, match="no document of domain code"):
        repeats_of(tmp_path, tmp_path)
