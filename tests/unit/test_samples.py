"""What each arm keeps and drops, on the page: the documents a plain rule picks, nothing that a text could do to the
page, and a page of forty arms that stays small.
"""

import copy
import random
from pathlib import Path

import fabricated
import polars as pl
import pytest

from repro.outcomes import summary
from repro.outcomes.samples import DOMAINS, EXCERPT, samples
from repro.report import build
from repro.settings.experiment import Contrast
from repro.store import read_json, write_json

RESULT = Path(__file__).resolve().parents[2] / "results" / "selection_30pct_evening"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of three arms with its page."""
    folder = tmp_path_factory.mktemp("run")
    settings, store, stages = fabricated.run(folder / "work", seeds=(0, 1))
    build.build(folder / "run", settings, store, stages)
    return folder / "run", store, stages


def test_highest_median_and_lowest_of_what_is_kept_and_dropped(run):
    folder, store, stages = run
    found = read_json(folder / "samples.json")
    scores = pl.read_parquet(store.path(stages["score"]) / "scores" / "*.parquet")
    for arm, by_seed in stages["arms"].items():
        chosen = pl.read_parquet(store.path(by_seed[0]["selection"]) / "selection.parquet")
        rows = scores.join(chosen.select("doc_id", "repeats"), on="doc_id").to_dicts()
        for domain, sides in found["arms"][arm].items():
            for side, wanted in (("kept", True), ("dropped", False)):
                ranked = sorted(
                    (row for row in rows if row["domain"] == domain and (row["repeats"] > 0) == wanted),
                    key=lambda row: -row["score"],
                )
                names = [row["doc_id"] for row in ranked]
                expected = [names[0], names[(len(names) - 1) // 2], names[-1]] if names else []
                assert [ident for _, ident in sides[side]] == expected, (arm, domain, side)
                for row in ranked:
                    if row["doc_id"] in expected:
                        shown = found["documents"][row["doc_id"]]
                        assert shown["score"] == row["score"] and shown["n_tokens_doc"] == row["n_tokens_doc"]
    assert found["arms"]["full"]["code"]["dropped"] == []
    assert all(len(row["excerpt"]) <= EXCERPT + 2 for row in found["documents"].values())


def test_texts_on_the_page_are_text(run):
    page = (run[0] / "report.html").read_text()
    section = page[page.index('<section id="samples">') :].split("</section>")[0]
    assert section.count("<details>") == 3 and "<b>bold</b>" not in section
    assert "&lt;/script&gt;&lt;b&gt;bold&lt;/b&gt; &amp;" in section and "<h3>&lt;math&gt;</h3>" in section
    assert "dropped: nothing" in section and "no scores" not in section
    assert "script" not in section.replace("&lt;/script&gt;", "")


def test_without_scores_a_hash_of_the_ids_decides_and_a_mixture_keeps_what_it_adds(run, tmp_path):
    _, store, stages = run
    corpus = store.path(stages["corpus"])
    rows = pl.read_parquet(corpus / "documents" / "*.parquet").select("doc_id", "domain")
    mixed = rows.with_columns(repeats=pl.Series([1 + (n % 5 == 0) for n in range(len(rows))]))
    mixed.write_parquet(tmp_path / "selection.parquet")
    found = samples(corpus, None, {"added": (tmp_path, 1), "all": (tmp_path, 0)})
    assert found == samples(corpus, None, {"added": (tmp_path, 1), "all": (tmp_path, 0)})
    twice = set(mixed.filter(pl.col("repeats") == 2)["doc_id"])
    for sides in found["arms"]["added"].values():
        assert {ident for _, ident in sides["kept"]} <= twice and sides["kept"]
        assert not {ident for _, ident in sides["dropped"]} & twice and sides["dropped"]
    assert all(sides["dropped"] == [] for sides in found["arms"]["all"].values())
    assert not any("score" in row for row in found["documents"].values())


def test_a_report_of_forty_arms_is_below_ten_megabytes(run, tmp_path):
    """Synthetic: the arms of a committed result again and again, noise on their numbers, texts of full length."""
    found, draw = summary.read(RESULT), random.Random(0)
    first = list(found["arms"])
    names = [first[n] if n < len(first) else f"{first[n % len(first)]}_{n}" for n in range(40)]
    for n, name in enumerate(names):
        arm = copy.deepcopy(found["arms"][first[n % len(first)]])
        for row in arm["seeds"].values():
            for metric in row["metrics"].values():
                metric["value"] += draw.gauss(0, 0.01)
        found["arms"][name] = arm
    found["overlap"] = {a: {b: draw.random() for b in names if b != a} for a in names}
    control = next(row["control"] for row in found["comparisons"] if row["primary"])
    treatment = next(row["treatment"] for row in found["comparisons"] if row["primary"])
    contrasts = [Contrast(name, control, name == treatment) for name in names if name != control]
    document = {
        "domain": "d",
        "source": "s" * 40,
        "license": "MIT",
        "n_bytes": 4096,
        "excerpt": "<text> " * 43,
    }
    idents = {
        f"{n:02}" + "x" * 60: {**document, "score": draw.random(), "n_tokens_doc": 1024} for n in range(6)
    }
    sides = [[place, ident] for place, ident in zip(("highest", "middle", "lowest") * 2, idents, strict=True)]
    by_domain = {f"domain {n}": {"kept": sides[:3], "dropped": sides[3:]} for n in range(DOMAINS)}
    write_json(
        tmp_path / "samples.json",
        {"documents": idents, "arms": dict.fromkeys(names, by_domain), "domains": DOMAINS + 1},
    )
    build.draw(tmp_path, summary.write(tmp_path / "summary.json", build.judged(found, contrasts)))
    page = tmp_path / "report.html"
    assert page.read_text().count("<article") == 40 * 6 * DOMAINS
    assert f"The first {DOMAINS} of {DOMAINS + 1} domains." in page.read_text()
    rows = 40 * len(found["arms"][treatment]["seeds"]) * 30
    assert f"The first 1,500 of {rows:,} rows" in page.read_text()  # nothing is left out without a word
    assert (tmp_path / "tables" / "seeds.csv").read_text().count("\n") == rows + 1
    assert page.stat().st_size < 10_000_000
