"""The curve: one line for what differs in its share only, points for single shares, chance drawn, whiskers whole."""

import math

import pytest
from scipy import stats

from repro.outcomes.compare import interval
from repro.report import curve, interactive, still
from repro.report.plots import Panel, Plot


def arm(selector, share, values, passes=False, **strata):
    """Two checkpoints and the end of each seed; accuracy stays at .3."""
    cells = lambda x: {"bits_per_byte": {"value": x}, "blimp/acc": {"value": 0.6, "chance": 0.5}}  # noqa: E731
    seeds = {
        str(n): {
            "metrics": cells(x),
            "checkpoints": {"10": cells(x + 1), "20": cells(x + 0.5)},
            "loss": [[40 * share if passes else 40, 1.0]],
        }
        for n, x in enumerate(values)
    }
    return {
        "select": {"selector": selector, "params": {}},
        "share": share,
        "equal_passes": passes,
        "strata": strata,
        "seeds": seeds,
    }


@pytest.fixture
def summary():
    arms = {
        "full": arm("all", 1.0, [2.0, 2.2, 2.1]),
        "random_05": arm("random", 0.05, [3.0, 3.1, 3.3]),
        "random_20": arm("random", 0.2, [2.5, 2.6, 2.4]),
        "random_20_passes": arm("random", 0.2, [2.9, 3.0, 2.8], passes=True),
        "attention_influence_20": arm("attention_influence", 0.2, [2.3, 2.4]),
        "attention_influence_within_source_20": arm(
            "attention_influence", 0.2, [2.2, 2.3], within_group=True
        ),
        "length_20": arm("column", 0.2, [4.0, 4.2]),
    }
    contrasts = [{"treatment": "attention_influence_20", "control": "random_20", "primary": True}]
    return {
        "endpoint": "bits_per_byte",
        "averaged": [],
        "arms": arms,
        "settings": {"exp": {"contrasts": contrasts}},
    }


def test_one_line_a_selector_and_budget_with_intervals_of_its_seeds(summary):
    panels = curve.by_share(summary).panels
    by_name = {s.name: s for s in panels[0].series}
    assert list(by_name) == [
        "random",
        "random, equal passes",
        "attention influence",
        "attention influence within source",
        "length",
    ]
    line = by_name["random"]
    assert line.x == [5, 20, 100] and line.y == pytest.approx([3.133333, 2.5, 2.1])
    assert (line.low[1], line.high[1]) == pytest.approx(stats.t.interval(0.95, 2, 2.5, 0.1 / math.sqrt(3)))
    assert by_name["length"].x == [20] and all(s.marks for s in by_name.values())
    assert (
        panels[0].level is None
        and panels[-1].level == 0.5
        and panels[-1].ylabel == "blimp/acc (higher is better)"
    )


def test_without_two_shares_of_one_selector_there_is_no_curve(summary):
    del summary["arms"]["random_05"]
    assert curve.by_share(summary) is None


def test_the_other_axis_is_the_tokens_read(summary):
    bits, blimp = curve.performance(summary).panels
    ends = {s.name: s.x for s in bits.series}
    assert ends["random_20"] == [10, 20, 40] and ends["random_20_passes"] == [8, 10, 20]
    assert blimp.level == 0.5 and all(s.marks for s in bits.series)  # seven bands would cover each other
    for name in list(summary["arms"])[5:]:
        del summary["arms"][name]
    assert not any(s.marks for s in curve.performance(summary).panels[0].series)


def test_of_too_many_arms_those_of_the_primary_share_are_drawn_over_the_tokens(summary):
    summary["arms"] |= {f"random_{n}": arm("random", n / 100, [2.0, 2.1]) for n in range(30, 40)}
    assert {s.name for s in curve.performance(summary).panels[0].series} == {
        "full", "random_20", "random_20_passes", "attention_influence_20", "attention_influence_within_source_20", "length_20"
    }  # fmt: skip


def test_the_average_accuracy_has_the_mean_chance_of_its_tasks(summary):
    for row in summary["arms"].values():
        for seed in row["seeds"].values():
            seed["metrics"] |= {
                "a/acc": {"value": 0.5, "chance": 0.25},
                "b/acc": {"value": 0.5, "chance": 0.5},
                "c/em": {"value": 1.0},
            }
    summary["averaged"] = ["a/acc", "b/acc"]
    assert curve.chance(summary, "accuracy_average") == 0.375
    summary["averaged"] = ["a/acc", "c/em"]
    assert curve.chance(summary, "accuracy_average") is None


def test_points_and_chance_are_inside_the_drawn_axes_and_on_the_page(summary, tmp_path, monkeypatch):
    import matplotlib.figure

    seen = []
    save = matplotlib.figure.Figure.savefig
    monkeypatch.setattr(
        matplotlib.figure.Figure,
        "savefig",
        lambda figure, *a, **k: (seen.append(figure), save(figure, *a, **k)),
    )
    plot = curve.by_share(summary)
    still.write(plot, tmp_path)
    figure = seen[0]
    for axis, panel in zip(figure.axes, plot.panels, strict=False):
        (left, right), (bottom, top) = axis.get_xlim(), axis.get_ylim()
        assert all(left < x < right for s in panel.series for x in s.x)
        assert all(bottom <= y <= top for s in panel.series for y in (*s.low, *s.high))
    drawn = interactive.to_plotly(plot)
    assert [shape["y0"] for shape in drawn["layout"]["shapes"]] == [0.5]
    whiskers = next(t for t in drawn["data"] if t["name"] == "random")["error_y"]
    assert whiskers["array"][1] == pytest.approx(plot.panels[0].series[0].high[1] - 2.5)


def test_an_average_that_knows_no_items_has_the_interval_of_its_seeds(summary):
    from repro.report import levels

    for row in summary["arms"].values():
        row["at_chance"] = []
        for n, seed in enumerate(row["seeds"].values()):
            seed["metrics"]["accuracy_average"] = {"value": 0.3 + 0.01 * n}
    summary["averaged"] = ["a/acc", "b/acc"]
    table = levels.table(summary)
    found = next(row for row in table.rows if row[0] == "random_20")
    cell = found[table.columns.index("accuracy_average ↑")]
    expected = stats.t.interval(0.95, 2, 0.31, 0.01 / math.sqrt(3))
    assert (cell.value, cell.low, cell.high) == pytest.approx((0.31, *expected))


@pytest.mark.parametrize("names", [["a", "b", "c"], ["x" * 40] * 5, ["a"] * 9 + ["y" * 60]])
def test_a_legend_is_as_wide_as_the_figure_allows(names):
    columns = still._legend_columns(names, 7.0)
    size = math.ceil(len(names) / columns)
    widths = [max(map(len, names[i : i + size])) for i in range(0, len(names), size)]
    assert 1 <= columns <= 4 and (columns == 1 or sum(widths) * 0.075 < 7.0)


def test_of_many_arms_one_row_each_with_the_intervals_of_their_seeds(summary):
    from repro.report import levels

    for row in summary["arms"].values():
        row["at_chance"] = ["blimp/acc"] if row["share"] == 0.05 else []
    table = levels.table(summary)
    rows = {row[0]: row for row in table.rows}
    assert list(rows) == list(summary["arms"])
    assert table.columns == [
        "arm",
        "share kept",
        "training tokens",
        "bits_per_byte ↓",
        "blimp/acc ↑",
        "seeds",
    ]
    assert rows["random_20_passes"][1:3] == ["20 %", 8] and rows["full"][1:3] == ["100 %", 40]
    found = rows["random_20"][3]
    expected = stats.t.interval(0.95, 2, 2.5, 0.1 / math.sqrt(3))
    assert (found.value, found.low, found.high) == pytest.approx((2.5, *expected))
    assert str(rows["length_20"][3]) == "4.100"  # two seeds without items' errors have no interval
    assert "(chance)" in str(rows["random_05"][4]) and "(chance)" not in str(rows["random_20"][4])


def test_whiskers_at_one_place_stand_beside_one_another_and_say_where_they_belong(summary):
    plot = curve.by_share(summary)
    panel = plot.panels[0]
    assert panel.aside == [-2, -1, 0, 1, 2] and curve.Panel("", "", "", []).aside == []
    traces = interactive.to_plotly(plot)["data"]
    at_20 = [
        x
        for t in traces
        if t["xaxis"] == "x"
        for x, said in zip(t["x"], t["text"], strict=True)
        if said == "20"
    ]
    assert len(set(at_20)) == len(panel.series) == 5 and all(abs(x - 20) < 0.02 * 95 for x in at_20)


def test_whiskers_over_a_logarithmic_axis_stay_where_they_are(summary):
    plot = curve.by_share(summary)
    for panel in plot.panels:
        panel.log_x = True
    line = interactive.to_plotly(plot)["data"][0]
    assert line["x"] == [5, 20, 100]


def test_one_arm_of_few_and_scattered_models_hides_no_other():
    """Whiskers are cut where they reach far beyond every single value, and the dotted line stays in view."""
    close, scattered = [2.30, 2.31, 2.32], [2.33, 2.35, 2.65]
    close, scattered = ([{"value": value} for value in values] for values in (close, scattered))
    series = [curve.whiskers(n, [30.0], [v], "bits_per_byte") for n, v in (("a", close), ("b", scattered))]
    low, high = curve.span(series, [close, scattered])
    assert (low, high) == pytest.approx((series[1].low[0], 2.65 + 0.35)) and series[1].high[
        0
    ] > 2 * high - low
    bottom, top = Panel(series=series, level=1.0, span=(low, high)).shown
    assert bottom < 1.0 and top > high
    assert curve.span(series[:1], [close]) is None and curve.span(series[:1], [[{"value": 2.0}]]) is None
    plot = Plot("p", "", "", [Panel("", "x", "y", series, span=(low, high))])
    assert (
        interactive.to_plotly(plot)["layout"]["yaxis"]["range"]
        == Panel(series=series, span=(low, high)).shown
    )


def test_figures_have_the_intervals_of_the_tables(summary):
    """Over the items, too, at every checkpoint; what knows of none says so."""
    assert "95 % intervals over seeds alone;" in curve.by_share(summary).alt
    for row in summary["arms"].values():
        for seed in row["seeds"].values():
            for cells in (seed["metrics"], *seed["checkpoints"].values()):
                cells["blimp/acc"] |= {"stderr": 0.03, "clusters": 67}
    plot = curve.by_share(summary)
    line = next(s for s in plot.panels[-1].series if s.name == "random")
    whole = interval(summary["arms"]["full"], "blimp/acc")
    assert (line.y[-1], line.low[-1], line.high[-1]) == pytest.approx(whole) and whole[1] < 0.6
    assert "95 % intervals over seeds and items (over seeds alone: bits per byte)" in plot.alt
    for line in curve.performance(summary, ["blimp/acc"]).panels[0].series:
        of_table = interval(summary["arms"][line.name], "blimp/acc")[1:]
        assert (line.low[0], line.high[0]) == (line.low[-1], line.high[-1]) == pytest.approx(of_table)
