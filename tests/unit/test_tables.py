"""The paper's tables beside ours: the committed files are the generated ones, and every number has a source."""

import csv
import io
import json
import re
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import fabricated
import pytest
from scipy import stats

from repro import tables
from repro.errors import SettingError
from repro.outcomes import summary
from repro.outcomes.collect import collect
from repro.paper import by_share, claims, committed, readme
from repro.paper import figures as paper_figures
from repro.paper import printed as paper
from repro.paper import tables as paper_tables
from repro.report import build
from repro.report.cells import Interval, Number
from repro.report.table import Table

ROOT = Path(__file__).resolve().parents[2]
RENAMED = {
    "paper_mixture": {"random": "full_plus_random", "attention_influence": "full_plus_attention_influence"},
    "accuracy_vs_data": {"random": "random_30", "attention_influence": "attention_influence_30"},
}


def commit(folder, name, experiment, demonstration=False, **kwargs):
    """A FABRICATED results folder: the fabricated run under the name of a real experiment. Returns its summary."""
    settings, store, stages = fabricated.run(folder / f"work-{name}", **kwargs)
    found = build.judged(collect(settings, store, stages), settings.exp.contrasts)
    names = RENAMED.get(experiment, {})
    found["arms"] = {names.get(arm, arm): row for arm, row in found["arms"].items()}
    for row in found["comparisons"]:
        row |= {side: names.get(row[side], row[side]) for side in ("treatment", "control")}
    found["experiment"] = experiment
    found["verdict"]["demonstration"] = demonstration
    return summary.write(folder / "results" / name / "summary.json", found)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    commit(folder, "b_alone", "selection_30pct")
    commit(folder, "a_mixture", "paper_mixture")
    return folder / "results"


def cells(table: Table) -> dict[str, list]:
    return {str(row[table.by]): row[table.by :] for row in table.rows}


def test_committed_tables_are_what_the_results_give(tmp_path):
    tables.write(ROOT / "results", tmp_path)
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == sorted(p.name for p in (ROOT / "paper_tables").iterdir()), "run python -m repro.tables"
    pinned = re.search(r"^matplotlib==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M)
    for name in names:
        if not name.endswith((".png", ".svg")) or (pinned and pinned[1] == version("matplotlib")):
            assert (tmp_path / name).read_bytes() == (ROOT / "paper_tables" / name).read_bytes(), (
                f"{name}: run python -m repro.tables"
            )


def test_writing_twice_gives_the_same_bytes(results, tmp_path):
    for out in ("one", "two"):
        tables.write(results, tmp_path / out)
    files = sorted((tmp_path / "one").iterdir())
    assert {"figure1.svg", "figure2.png", "table1.tex", "verdicts.md", "README.md"} <= {p.name for p in files}
    assert all(p.read_bytes() == (tmp_path / "two" / p.name).read_bytes() for p in files)


def test_without_results_every_cell_of_ours_says_not_run():
    for table in paper_tables.tables([]):
        if table.name != "table8":
            assert any("not run" in map(str, row) for row in table.rows), table.name
            assert all("not run" in map(str, row) or row[0] == "paper" for row in table.rows), table.name
    assert {row[-1] for row in claims.verdict_table([]).rows} == {"not run"}


def test_printed_numbers_stand_in_table_1():
    rows = cells(paper_tables.table1([]))
    assert len(rows) == 21
    assert [str(c) for c in rows["MMLU"][1:4]] == ["50.05", "51.48", "+1.43"]
    assert [str(c) for c in rows["Avg"][1:4]] == ["44.51", "45.26", "+0.75"]


def test_our_cells_of_table_1_against_a_paired_t_test(results):
    found = committed.read_results(results)
    assert [r.name for r in found] == ["a_mixture", "b_alone"]
    mixture = [r for r in found if r.summary["experiment"] == "paper_mixture"]
    row = cells(paper_tables.table1(mixture))["HellaSwag"]
    arms = mixture[0].summary["arms"]
    ours, base = (
        [s["metrics"]["hellaswag/acc_norm"]["value"] for s in arms[a]["seeds"].values()]
        for a in (paper_tables.TREATED, "full")
    )
    oracle = stats.ttest_rel(ours, base).confidence_interval(0.95)
    base_cell, treated_cell, gap, sees, seeds = row[4:9]
    assert base_cell.value == pytest.approx(100 * sum(base) / 3) and treated_cell.value == pytest.approx(
        100 * sum(ours) / 3
    )
    assert gap.value == pytest.approx(treated_cell.value - base_cell.value) and seeds == 3
    assert sees is None  # no pilot measured the noise
    assert gap.low <= 100 * oracle.low + 1e-9 and gap.high >= 100 * oracle.high - 1e-9  # items only widen it
    assert str(cells(paper_tables.table1(mixture))["MMLU"][6]) == "not run"


def test_the_interval_is_the_one_of_the_run_itself(results):
    result = committed.read_results(results)[0]
    gap = committed.difference(result, paper_tables.TREATED, "full", ["arc_easy/acc_norm"])
    row = next(
        r
        for r in result.summary["comparisons"]
        if r["control"] == "full" and r["metric"] == "arc_easy/acc_norm"
    )
    assert (gap.cell.low, gap.cell.high, gap.p) == pytest.approx((row["low"], row["high"], row["p"]))


def test_one_experiment_is_never_shown_as_the_other(results):
    found = {t.name: t for t in paper_tables.tables(committed.read_results(results))}
    assert not any("b_alone" in str(row[0]) for row in found["table1"].rows)
    assert all("a_mixture" not in str(row[0]) for row in found["selection_30pct"].rows)


def test_edited_results_are_refused(results, tmp_path, capsys):
    value = json.loads((results / "a_mixture" / "summary.json").read_text())
    value["comparisons"][0]["difference"] = 0.5
    (tmp_path / "r" / "x").mkdir(parents=True)
    (tmp_path / "r" / "x" / "summary.json").write_text(json.dumps(value))
    with pytest.raises(SettingError, match="edited"):
        tables.write(tmp_path / "r", tmp_path / "out")
    assert tables.main(["--results", str(tmp_path / "r"), "--out", str(tmp_path / "out")]) == 2
    assert "was edited" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_the_papers_own_arithmetic():
    notes = "\n".join(paper.average_notes())
    assert "ai-7b/before_lrd: mean of its 19 printed columns 41.66, printed 41.77, off by +0.11" in notes
    assert notes.count("off by") == 3 and notes.count("as printed") == 3
    assert paper.arc_notes() == []
    assert "238.3" in paper.corpus_note() and "30.3 %" in paper.corpus_note()
    assert "4.97 B" in paper.parameter_note() and "6.98 B without and 7.38 B with" in paper.parameter_note()


def verdict_of(folder, **kwargs) -> str:
    commit(folder, "run", "paper_mixture", **kwargs)
    [result] = committed.read_results(folder / "results")
    claim = next(c for c in claims.claims() if c.control == "full" and not c.columns and not c.shown)
    return claims.judge(claim, result).verdict


def test_verdicts_follow_the_interval_and_the_thresholds(tmp_path):
    assert verdict_of(tmp_path / "a", effect=0.05, documents=1000) == "replicated"
    assert verdict_of(tmp_path / "b", effect=-0.2, documents=1000) == "not replicated"
    assert verdict_of(tmp_path / "c", effect=0.0, documents=1000) == "undecided (not tested in its run)"
    assert verdict_of(tmp_path / "d", effect=0.05, demonstration=True) == "undecided (demonstration)"
    assert verdict_of(tmp_path / "e", effect=0.05, seeds=(0,)) == "undecided"


def test_a_claim_that_its_run_calls_a_difference_must_pass_the_correction_over_claims():
    found = [claims.Judged("", verdict=claims.REPLICATED, p=p) for p in (0.001, 0.03)] + [
        claims.Judged("", p=0.04),
        claims.Judged(""),
    ]
    assert claims.settle(found) == [
        "replicated",
        "undecided (not established after correction)",
        "not run",
        "not run",
    ]


def test_the_readme_says_which_difference_falls_to_the_correction_over_claims(monkeypatch):
    """Its answer and its row, where the table of claims says otherwise than the run does."""
    results = committed.read_results(ROOT / "results")
    [evening] = [r for r in results if r.name == "selection_30pct_evening"]
    told = claims._found(results)
    assert evening.summary["verdict"]["sentence"].startswith("attention_influence does worse")
    for p, falls in ((1e-6, False), (0.045, True)):
        found = [
            (c, n, replace(one, p=p) if n == evening.name and one.p is not None else one)
            for c, n, one in told
        ]
        monkeypatch.setattr(claims, "_found", lambda _, found=found: found)
        assert (evening.name in claims.not_established(results)) == falls
        assert (f"that of {evening.name} is not established" in readme.answer(results)) == falls
        assert ("worse; not after correction over all claims |" in readme.block(results)) == falls


@pytest.mark.parametrize("columns", [("ARC-E",), ("ARC-E", "HellaSwag")])
def test_a_claim_on_one_task_is_judged_as_one_on_several(tmp_path, columns):
    """Of one task of a contrast that is not the primary one the run has a row, and no word in it."""
    commit(tmp_path, "run", "paper_mixture", effect=0.05, documents=1000)
    [result] = committed.read_results(tmp_path / "results")
    rows = result.summary["comparisons"]
    claim = claims.Claim(
        "x", "y", "z", "paper_mixture", paper_tables.TREATED, paper_tables.BASELINE, columns=columns
    )
    metrics = [m for column in columns for m in committed.columns_of(result, column)]
    assert len(metrics) == len(columns)
    for arm in result.summary["arms"].values():
        arm["at_chance"] = []
    for row in (r for r in rows if r["metric"] in metrics and r["control"] == paper_tables.BASELINE):
        row |= {
            "difference": 0.1,
            "low": 0.09,
            "high": 0.11,
            "p": 1e-6,
            "verdict": "exploratory",
            "exploratory": True,
        }
        for seed, value in enumerate((0.5, 0.505, 0.51)):
            for arm, more in ((paper_tables.TREATED, 0.1 + 0.001 * seed), (paper_tables.BASELINE, 0)):
                result.summary["arms"][arm]["seeds"][str(seed)]["metrics"][row["metric"]]["value"] = (
                    value + more
                )
        row["item_variance"] = 1e-6
    assert claims.judge(claim, result).verdict == "replicated"


def test_the_answer_follows_the_intervals_of_what_is_no_demonstration(tmp_path):
    def answer(name, **kwargs):
        commit(tmp_path / name, "run", "selection_30pct", **kwargs)
        return readme.answer(committed.read_results(tmp_path / name / "results"))

    assert "was better than its control in run**" in answer("a", effect=0.05, documents=1000)
    assert "was worse than its control in run**" in answer("b", effect=-0.05, documents=1000)
    null = answer("c", effect=0.0, documents=1000)
    assert (
        null.startswith("**No difference")
        and "Not excluded are differences of up to 0." in null
        and "in 1 comparison of trained models" in null
        and "parameters" in null
    )
    assert "No evidence yet" in answer("d", effect=0.05, demonstration=True)


def test_what_is_undecided_is_named_beside_what_is_not(tmp_path):
    commit(tmp_path, "found", "selection_30pct", effect=-0.05, documents=1000)
    commit(tmp_path, "nothing", "selection_30pct", effect=0.0, documents=1000)
    results = committed.read_results(tmp_path / "results")
    answer, front = readme.answer(results), readme.front(results).replace("\n", " ")
    assert "was worse than its control in found and not shown to differ in nothing** (2 comparisons" in answer
    for result in results:
        assert f"{result.name}: {result.summary['verdict']['sentence']}" in front


def test_every_result_is_said_once_and_has_its_command(results):
    text = readme.block(committed.read_results(results))
    assert text.count("| [a_mixture]") == text.count("# a_mixture: ") == 1 and "**[a_mixture]" not in text
    assert text.count("python -m repro.run") == 2


def test_another_selector_in_the_methods_place_is_not_shown_as_the_method(tmp_path):
    commit(tmp_path, "run", "paper_mixture", effect=0.05)
    [result] = committed.read_results(tmp_path / "results")
    result.summary["arms"][paper_tables.TREATED]["select"]["selector"] = "length"
    found = {t.name: t for t in paper_tables.tables([result])}
    assert not any("run (" in str(row[0]) for row in found["table1"].rows)
    assert all(row[3] == "not run" for row in claims.verdict_table([result]).rows)


def test_the_curve_is_a_table_of_shares_kept_and_tokens_read(tmp_path):
    commit(tmp_path, "curve", "accuracy_vs_data", effect=0.05)
    [result] = committed.read_results(tmp_path / "results")
    arms, metric = result.summary["arms"], "hellaswag/acc_norm"
    for arm in arms.values():
        for seed in arm["seeds"].values():
            last = int(seed["loss"][-1][0])
            seed["checkpoints"] = {str(last // 2): {metric: {"value": 0.25}}}
    arms["at_random_20"] = {**arms["random_30"], "share": 0.2}  # no control of what keeps more
    rows = [row for row in by_share.table([result]).rows if row[1] == metric]
    assert [(row[2], row[4]) for row in rows] == [(arm, n) for arm in arms for n in (last // 2, last)]
    for name, arm in arms.items():
        halfway, end = (row for row in rows if row[2] == name)
        found = [seed["metrics"][metric]["value"] for seed in arm["seeds"].values()]
        assert end[5] == len(found) and end[6].value == pytest.approx(sum(found) / len(found))
        assert halfway[6].value == 0.25 and halfway[7] is None
        assert (end[7] is not None) == (name not in ("full", "random_30", "at_random_20"))
    own = committed.difference(result, "attention_influence_30", "random_30", [metric], digits=3).cell
    assert next(row[7] for row in rows if row[2:5:2] == ["attention_influence_30", last]) == own


def test_what_the_curve_says_of_the_selection_alone_is_a_verdict_on_that_claim(tmp_path):
    """Of 30 % by the method against a random 30 %, and of nothing else."""
    commit(tmp_path, "curve", "accuracy_vs_data", effect=0.05)
    [result] = committed.read_results(tmp_path / "results")

    def said():
        return [(row[3], row[-1]) for row in claims.verdict_table([result]).rows if "30 % alone" in row[0]]

    [[name, words]] = said()
    assert name == "curve" and words != "not run"
    method, random = (result.summary["arms"][arm] for arm in ("attention_influence_30", "random_30"))
    for arm, key, value in (
        (method, "share", 0.2),
        (random, "share", 0.2),
        (method, "strata", {"within_group": True}),
        (method, "heads", {"mask": "zero"}),
        (random, "select", {"selector": "length", "params": {}}),
    ):
        before, arm[key] = arm[key], value
        assert said() == [("not run", "not run")], (key, value)
        arm[key] = before
    assert said() == [(name, words)]


def test_larger_is_said_of_proxies_of_one_family_alone(tmp_path):
    commit(tmp_path, "sizes", "proxy_size")
    [result] = committed.read_results(tmp_path / "results")
    claim = next(c for c in claims.claims() if c.experiment == "proxy_size")
    settings = result.summary["settings"]
    settings["proxy"] |= {"name": "smollm2-135m", "parameters": 1.35e8}
    arms = settings["exp"]["arms"] = {claim.treatment: {}, claim.control: {}}
    for name, parameters, counted in (
        ("qwen2.5-coder-0.5b-instruct", 6.3e8, False),
        ("smollm2-1.7b", 1.7e9, True),
        ("smollm2-70m", 7e7, False),
    ):
        arms[claim.treatment]["proxy"] = {"name": name, "parameters": parameters}
        rows = [row for row in claims.verdict_table([result]).rows if row[0] == claim.text]
        assert [row[3].startswith("sizes") for row in rows] == [counted], name


def test_the_answer_speaks_of_the_methods_selection_and_of_models_from_nothing(tmp_path):
    commit(tmp_path, "run", "selection_30pct", effect=0.05, documents=1000)
    [result] = committed.read_results(tmp_path / "results")
    assert "was better than its control in run**" in readme.answer([result])
    summary = result.summary
    for place, key, value in (
        (summary["arms"]["attention_influence"]["select"], "selector", "length"),
        (summary["arms"]["random"]["select"], "selector", "length"),
        (summary["settings"].setdefault("model", {}), "init_from", "proxy"),
    ):
        before, place[key] = place.get(key), value
        assert "No evidence yet" in readme.answer([result]), key
        place[key] = before


def test_an_arena_is_two_tables(tmp_path):
    import test_arena

    made = {"scale": "curve", "verdict": {"demonstration": False}, **test_arena.summary(tmp_path)}
    results = [committed.Result("here", made)]
    rows = [(row[0].split(", ")[-1], row[1]) for row in paper_tables.arena(results).rows]
    assert sorted(rows) == [
        (size, name) for size in ("1m", "mini") for name in ("attention_influence", "length")
    ]
    assert paper_tables.decisions(results).rows[0][:3] == ["here (scale curve)", "mini", "bits_per_byte"]


def test_figures_9_and_10_show_one_proxy_each(tmp_path):
    commit(tmp_path, "sizes", "proxy_size")
    [result] = committed.read_results(tmp_path / "results")
    arms = result.summary["arms"]
    arms["full_plus_small"], arms["full_plus_large"] = arms.pop("random"), arms.pop("attention_influence")
    for arm in arms.values():
        for seed in arm["seeds"].values():
            seed["checkpoints"] = {"1000": {"hellaswag/acc_norm": {"value": 0.25}}}
    drawn = {
        plot.name: [s.name for s in plot.panels[0].series] for plot in paper_figures.paper_figures([result])
    }
    assert drawn["figure9"] == ["full", "full_plus_small"] and drawn["figure10"] == [
        "full",
        "full_plus_large",
    ]


def test_csv_holds_full_precision_and_three_columns_for_an_interval():
    table = Table(
        "t",
        "T",
        ["a", "b"],
        [["x & y_1", Interval(1 / 3, -0.1, 0.5)], ["z", "not run"], ["w", Number(2 / 3, 1, "*")]],
    )
    rows = list(csv.reader(io.StringIO(table.csv())))
    assert rows[0] == ["a", "b", "b low", "b high"]
    assert (
        [float(c) for c in rows[1][1:]] == [1 / 3, -0.1, 0.5]
        and rows[2] == ["z", "not run", "", ""]
        and float(rows[3][1]) == 2 / 3
    )


@pytest.mark.parametrize("folder", ["committed", "fabricated"])
def test_no_line_is_wider_than_a_terminal_and_no_cell_is_lost(folder, results, tmp_path):
    if folder == "fabricated":
        tables.write(results, tmp_path)
    pages = sorted((tmp_path if folder == "fabricated" else ROOT / "paper_tables").glob("*.*"))
    pages = [p for p in pages if p.suffix in (".md", ".tex")]
    assert len(pages) > 20
    for page in pages:
        for line in page.read_text().split("\n"):
            assert len(line) <= 110, f"{page.name}: {line}"


def test_a_wide_table_keeps_every_word_in_columns_that_fit():
    long = " ".join(f"word{n}" for n in range(60))
    wide = Table("t", "T", ["key", *(f"paper: column {n}" for n in range(12)), "ours"],
                 [["a", *(Number(n / 7) for n in range(12)), long],
                  ["b", *(Number(n / 7) for n in range(12)), "not run"]])  # fmt: skip
    text = wide.markdown()
    assert max(map(len, text.split("\n"))) <= 110
    assert all(f"word{n}" in text for n in range(60)) and all(f"{n / 7:.3f}" in text for n in range(12))
    assert text.count("| a |") > 1, "each part begins with the key"
    assert "Not run: b (the paper's numbers of these: t.csv)." in text and "not run" in wide.csv()


def test_each_part_of_a_wide_table_names_its_rows():
    columns = ["arm", "domain", *(f"a long name of column {n}" for n in range(9))]
    rows = [[arm, domain, *map(Number, range(9))] for arm in ("ours", "random") for domain in ("law", "web")]
    text = Table("t", "T", columns, rows).markdown()
    parts = text.count("| arm | domain |")
    assert parts > 1 and text.count("| random | web |") == parts


def test_blocks_have_a_heading_and_empty_ones_one_line():
    rows = [["x", "m", Interval(0.5, 0.1, 0.9)], ["x", "n", "not run"], ["y", "m", "not run"]]
    text = Table("t", "", ["claim", "metric", "gap"], rows, by=1).markdown()
    assert text.split("\n\n") == ["**x**", "| metric | gap |\n| --- | ---: |\n| m | +0.500 [+0.100, +0.900] |",
                                  "Not run: n.", "Not run:", "- y\n"]  # fmt: skip


def test_latex_is_escaped_and_ruled():
    text = Table("t", "T", ["a_b", "50 %"], [["x & y", Interval(-0.5, -1, 0.25, 2)]]).latex()
    assert r"a\_b & 50 \%" in text and r"x \& y & $-$0.50 [$-$1.00, +0.25] \\" in text
    assert text.count("rule") == 3 and r"\begin{tabular}{lr}" in text


def test_every_result_is_read_once(results, tmp_path, monkeypatch):
    """However many tables and figures there are: of two hundred results, reading is what takes long."""
    for i in range(20):
        (tmp_path / "r" / f"{i:03}").mkdir(parents=True)
        (tmp_path / "r" / f"{i:03}" / "summary.json").write_bytes(
            (results / "b_alone" / "summary.json").read_bytes()
        )
    read, original = [], summary.read
    monkeypatch.setattr(summary, "read", lambda path: read.append(path) or original(path))
    tables.write(tmp_path / "r", tmp_path / "out")
    assert len(read) == len(set(read)) == 20


def test_the_summary_of_a_run_is_a_result(tmp_path):
    settings, store, stages = fabricated.run(tmp_path / "work")
    (tmp_path / "results" / "mine").mkdir(parents=True)
    build.build(tmp_path / "results" / "mine", settings, store, stages)
    assert [r.name for r in committed.read_results(tmp_path / "results")] == ["mine"]


@pytest.mark.parametrize("made", [False, True])
def test_tables_of_no_results_are_refused_and_nothing_is_touched(tmp_path, capsys, made):
    out, none = tmp_path / "out", tmp_path / "none"
    out.mkdir()
    (out / "table1.md").write_text("before")
    if made:
        none.mkdir()
    assert tables.main(["--results", str(none), "--out", str(out)]) == 2
    assert str(none) in capsys.readouterr().err
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["table1.md"]
    assert (out / "table1.md").read_text() == "before"


def test_tables_are_not_written_into_a_file(results, tmp_path, capsys):
    out = tmp_path / "out"
    out.write_text("mine")
    for given, why in ((out, "is not a folder"), (out / "below", "cannot make the folder (File exists)")):
        assert tables.main(["--results", str(results), "--out", str(given)]) == 2
        (error,) = capsys.readouterr().err.splitlines()
        assert error.startswith(f"error: --out {out}") and why in error
    assert [p.name for p in tmp_path.iterdir()] == ["out"] and out.read_text() == "mine"


def test_an_interrupt_is_one_line(results, tmp_path, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(tables, "write", interrupted)
    assert tables.main(["--results", str(results), "--out", str(tmp_path / "out")]) == 130
    assert capsys.readouterr().err == "interrupted; the same command makes them whole\n"


def test_a_failure_half_way_leaves_the_old_tables(results, tmp_path, monkeypatch):
    from repro.report import still

    out = tmp_path / "out"
    out.mkdir()
    (out / "table1.md").write_text("before")
    monkeypatch.setattr(still, "write", lambda *_: (_ for _ in ()).throw(OSError("disk")))
    with pytest.raises(OSError):
        tables.main(["--results", str(results), "--out", str(out)])
    assert [(p.name, p.read_text()) for p in tmp_path.rglob("*") if p.is_file()] == [("table1.md", "before")]


def test_every_figure_names_the_experiment_that_makes_it():
    assert paper_figures.MADE_BY.keys() == paper_figures.WANTED.keys()
    assert all((ROOT / f"configs/exp/{name}.yaml").is_file() for name in paper_figures.MADE_BY.values())
