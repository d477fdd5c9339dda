"""The page of every kind of run shows every table and every figure of its summary."""

import copy
import re
from pathlib import Path

import fabricated
import pytest
from markupsafe import escape
from test_report_agreement import PAIRS, arm, series

from repro import kinds
from repro.outcomes import summary
from repro.outcomes.collect import collect
from repro.report import build, page, plots, sections
from repro.report.table import Table

RESULTS = Path(__file__).resolve().parents[2] / "results"
COMMITTED = sorted(path.parent.name for path in RESULTS.glob("*/summary.json"))


@pytest.fixture(autouse=True)
def quick_stills(monkeypatch):
    """Nothing here looks at the pictures, which take the longest."""

    def write(plot, folder):
        folder.mkdir(exist_ok=True)
        (folder / f"{plot.name}.svg").write_text("<svg/>")

    monkeypatch.setattr("repro.report.still.write", write)


def estimate(value):
    return {"auroc": value, "low": value - 0.1, "high": value + 0.1, "wanted": 3, "others": 9, "sources": 4, "median": value,
            "median_of_others": 0.1}  # fmt: skip


def made(kind, work):
    """A FABRICATED summary of a run of ``kind``."""
    if kind == "mirror":
        settings, store, stages = fabricated.masked_run(work)
    else:
        settings, store, stages = fabricated.run(
            work, kind="score" if kind == "score" else "train", seeds=(0, 1, 2)
        )
    settings.exp.kind = kind
    found = collect(settings, store, stages)
    if kind not in ("train", "mirror"):
        settings.exp.contrasts = []
        for row in found["arms"].values():
            row["seeds"] = {seed: {k: v for k, v in one.items() if k not in ("metrics", "checkpoints", "loss")}
                            for seed, one in row["seeds"].items()}  # fmt: skip
    if kind == "agree":
        found |= {
            "agreement": {"a | ref": PAIRS["a | ref"]},
            "arms": {"ref": arm([[0, 1]]), "a": arm([[0, 1]])},
        }
        for row in found["arms"].values():
            row |= {"mixture": {"kind": "alone"}, "share": 0.3, "equal_passes": False, "heads": {}}
            row["select"] |= {"params": {}}
            row["seeds"]["0"]["artifacts"]["heads"] |= (
                found["artifacts"]["heads"] | row["seeds"]["0"]["artifacts"]["heads"]
            )
    if kind == "evolve":
        found |= {"evolution": {"retrieval": series(0.6)}}
    if kind == "planted":
        kinds = dict.fromkeys(
            ("facts", "facts_over_shuffled", "list", "repeated"), {"before": estimate(0.8), "after": None}
        )
        kinds["repeated"] = {"before": estimate(0.9), "after": estimate(0.5)}
        for row in found["arms"].values():
            row["seeds"]["0"]["found"] = {"all": kinds, "domains": {"code": kinds}}
    if kind == "analyse":
        found["pairs"] = {"attention_influence | random": fabricated.pair()}
        for row in found["arms"].values():
            row["seeds"]["0"] |= {"profile": fabricated.profile(), "judged": fabricated.judged(3, 9)}
    return build.judged(found, settings.exp.contrasts)


def missing_from_page(folder, found):
    """Names of the tables and figures that ``report.html`` does not show; each folder is drawn once."""
    sealed = summary.write(folder / "summary.json", found)
    build.draw(folder, sealed)
    page = (folder / "report.html").read_text()
    ids = re.findall(r'<section id="([^"]+)">', page)
    assert len(ids) == len(set(ids)) and set(re.findall(r'<a href="#([^"]+)">', page)) == set(ids)
    shown = re.findall(r"<caption>([^<]*) <a ", page)
    tables, plots = sections.tables(sealed), sections.plots(sealed)
    assert tables and {p.stem for p in (folder / "tables").iterdir()} == {t.name for t in tables}
    lost = [t.name for t in tables if shown.count(str(escape(t.title))) != 1]
    return lost + [p.name for p in plots if page.count(f'id="figure-{p.name}"') != 1]


@pytest.mark.parametrize("kind", kinds.NAMES)
def test_every_table_and_figure_of_a_kind_stands_on_its_page(kind, tmp_path):
    assert missing_from_page(tmp_path, made(kind, tmp_path / "work")) == []


@pytest.mark.parametrize("name", COMMITTED)
def test_every_table_and_figure_of_a_committed_result_stands_on_its_page(name, tmp_path):
    assert missing_from_page(tmp_path, summary.read(RESULTS / name)) == []


def test_what_a_kind_adds_to_its_sections_is_on_the_page_and_in_the_folder_without_another_word(
    tmp_path, monkeypatch
):
    found = made("train", tmp_path / "work")
    view = kinds.load("train", "view")
    known, table = view.sections, Table("new", "A new table", ["a"], [["b"]])
    monkeypatch.setattr(
        view, "sections", lambda s: [*known(s), sections.Section("new", "New", [table, None])]
    )
    assert missing_from_page(tmp_path, found) == []
    assert (tmp_path / "tables" / "new.md").is_file() and '<a href="#new">New</a>' in (
        tmp_path / "report.html"
    ).read_text()


def test_what_is_an_arms_own_of_its_training_is_said(tmp_path):
    found = made("train", tmp_path / "work")
    view = kinds.load("train", "view")
    assert view.sections(found)[0].blocks[-1].startswith("Every arm is trained for")
    found["settings"]["exp"]["arms"]["random"]["train"] = {"tokens": 7}
    assert (
        view.sections(found)[0]
        .blocks[-1]
        .startswith("But for what is their own of random (train.tokens=7), every arm is trained for")
    )


@pytest.mark.parametrize("more", [0, 6])
def test_of_many_arms_the_page_has_a_row_each_and_folds_what_has_a_column_each(tmp_path, more):
    found = made("train", tmp_path / "work")
    found["arms"] |= {f"another_{i}": copy.deepcopy(found["arms"]["random"]) for i in range(more)}
    assert missing_from_page(tmp_path, found) == []
    page = (tmp_path / "report.html").read_text()
    folded = set(re.findall(r"<details><summary>([^<(]*) \(\d+ rows\)</summary>", page))
    wide = {t.title for t in sections.tables(found) if t.name in ("outcome", "likelihoods", "blimp")}
    levels = "Where every arm stands"
    assert wide and wide & folded == (wide if more else set())
    assert levels not in folded and (f"<caption>{levels} " in page) == bool(more)


def test_long_words_of_a_plot_are_folded_but_for_the_sentence_that_says_what_is_drawn(tmp_path):
    assert page._caption("Short: a 0.1. b 2.") == ("Short: a 0.1. b 2.", "")
    numbers = ", ".join(f"arm_{i} 1.{i}" for i in range(99))
    assert page._caption(f"Means over seeds. At the end: {numbers}.") == (
        "Means over seeds.",
        f"Means over seeds. At the end: {numbers}.",
    )
    assert page._caption(f"{numbers}.") == ("", f"{numbers}.")


def test_a_plot_of_many_panels_is_folded():
    panels = [plots.Panel(str(i), "x", "y", [plots.Series("a", [0, 1], [0, 1])]) for i in range(9)]
    few, many = (plots.Plot("p", "P", "words", panels[:n]) for n in (8, 9))
    assert [page._shown(p)[0] for p in (few, many, sections.Folded(few))] == [
        "figure",
        "folded figure",
        "folded figure",
    ]
