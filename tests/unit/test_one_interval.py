"""One contrast has one interval: every place that shows it shows the same numbers, the items' share taken in."""

import fabricated
import polars
import pytest
from scipy import stats

from repro import compare
from repro.outcomes import compare as outcomes
from repro.outcomes import summary
from repro.paper import claims, committed, readme
from repro.paper import tables as paper_tables
from repro.report import build, figures, sections, terminal, wandb_report
from repro.report.cells import Interval
from repro.report.sweep import collate
from repro.settings.experiment import Contrast

ARM, WHOLE, METRIC = "attention_influence", "full", "bits_per_byte"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A FABRICATED run whose primary contrast saves tokens, on texts that differ by different amounts."""
    work = tmp_path_factory.mktemp("one")
    settings, store, stages = fabricated.run(work, documents=900)
    settings.exp.name, settings.exp.contrasts = "selection_30pct", [Contrast(ARM, WHOLE, True)]
    settings.exp.arms[ARM].equal_passes = True
    for seed in (0, 1, 2):
        file = store.path(stages["arms"][ARM][seed]["evaluate"]) / "texts.parquet"
        texts = polars.read_parquet(file)
        own = [0.2 * (i % 5 - 2) * n for i, n in enumerate(texts["n_bytes"])]
        texts.with_columns(bits=texts["bits"] + polars.Series(own)).write_parquet(file)
        for arm in settings.exp.arms:
            manifest = store.path(stages["arms"][arm][seed]["pretrain"]) / "manifest.json"
            facts = '"facts": {"tokens": ' + ("300" if arm == ARM else "1000")
            manifest.write_text(manifest.read_text().replace('"facts": {', facts, 1))
    folder = work / "runs" / "mine"
    folder.mkdir(parents=True)
    return folder, build.build(folder, settings, store, stages)


def test_the_items_widen_the_interval_of_the_primary_contrast(run):
    row = outcomes.between(run[1], ARM, WHOLE, [METRIC])
    values = [list(outcomes.seed_values(run[1]["arms"][arm], METRIC).values()) for arm in (ARM, WHOLE)]
    alone = stats.ttest_rel(*values).confidence_interval(0.95)
    assert row["compared"] and row["high"] - row["low"] > 1.2 * (alone.high - alone.low)


def test_every_place_that_shows_the_primary_contrast_shows_the_same_numbers(run, tmp_path):
    folder, found = run
    row = outcomes.between(found, ARM, WHOLE, [METRIC])
    ends = row["difference"], row["low"], row["high"]
    four, three = (str(Interval(*ends, digits)) for digits in (4, 3))
    shown = {table.name: table for table in sections.tables(found)}
    for name, first in (
        ("outcome", f"{METRIC} ↓"),
        ("contrasts", f"{ARM} − {WHOLE} (primary)"),
        ("net_compute", ARM),
    ):
        cells = [cell for r in shown[name].rows if r[0] == first for cell in r if isinstance(cell, Interval)]
        assert [str(cell) for cell in cells] == [four], name
    for plot in (figures.contrasts(found), readme.figure([committed.Result("mine", found)])):
        series = plot.panels[0].series[0]
        assert (series.x[0], series.low[0], series.high[0]) == ends
    every = figures.benchmarks(found).panels[0].series[0]
    assert (every.x[0], every.low[0], every.high[0]) == ends
    assert four in terminal.render(
        found
    ) or f"{ends[0]:+.4f}  [{ends[1]:+.4f}, {ends[2]:+.4f}]" in terminal.render(found)
    assert (
        four in (folder / "report.html").read_text()
        and f"{ends[1]:+.4f} to {ends[2]:+.4f}" in found["verdict"]["sentence"]
    )
    assert four in str(wandb_report.build(found).blocks)
    assert four in collate(tmp_path, "one", {"mine": folder})
    result = committed.Result("mine", found)
    assert three in readme.block([result])
    own = {t.name: t for t in paper_tables.tables([result])}["selection_30pct"]
    assert [str(r[5]) for r in own.rows if r[1] == f"{ARM} − {WHOLE}" and r[2] == METRIC] == [four]
    claim = claims.Claim("x", "y", "z", "selection_30pct", ARM, WHOLE)
    assert str(claims.judge(claim, result).difference) == four


def test_turned_round_it_is_the_same_interval_and_arms_that_are_not_compared_have_none(run):
    found = run[1]
    row, turned = (outcomes.between(found, *sides, [METRIC]) for sides in ((ARM, WHOLE), (WHOLE, ARM)))
    assert (turned["difference"], turned["low"], turned["high"]) == (
        -row["difference"],
        -row["high"],
        -row["low"],
    )
    other = outcomes.between(found, ARM, "random", [METRIC])
    assert other["low"] is None and "does not compare" in outcomes.no_interval(other)
    assert outcomes.between(found, ARM, WHOLE, ["nothing"]) is None


def test_two_runs_side_by_side_take_in_the_items_while_they_are_in_the_store(run, tmp_path):
    folder, found = run
    other = summary.read(folder)
    other["arms"][ARM] = other["arms"][
        WHOLE
    ]  # as if run B were the control arm, evaluated on the very same items
    row = outcomes.between(found, WHOLE, ARM, [METRIC])

    def cell(folders):
        table = compare.outcomes(found, other, folders)
        return next(r[4] for r in table.rows if r[:2] == [ARM, METRIC]), table.notes

    both, notes = cell((folder, folder))
    assert (both.low, both.high) == pytest.approx((row["low"], row["high"])) and not notes
    alone, notes = cell((folder, tmp_path))
    assert (
        alone.high - alone.low < both.high - both.low
        and str(alone).endswith("(seeds alone)")
        and "items" in notes[0]
    )
