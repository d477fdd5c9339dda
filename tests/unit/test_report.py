"""The report of a run, on fabricated artifacts: numbers against plain computations, the page against what it may not do."""

import copy
import json
import re
import struct
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import fabricated
import numpy
import polars
import pytest
from scipy import stats

from repro.errors import SettingError
from repro.experiments.train import compute
from repro.outcomes import collect, contents, documents, items, simulated, summary, verdict
from repro.outcomes import compare as outcomes
from repro.outcomes.command import command
from repro.outcomes.spent import artifacts
from repro.outcomes.statistics import limits, paired_item_variance
from repro.outcomes.words import DEMONSTRATION, EXPLORATORY, NOT_TESTED
from repro.report import build, curve, figures, interactive, page, run_tables, sections, still, terminal
from repro.report.__main__ import main
from repro.settings.compose import compose
from repro.store import Stage, digest, write_json


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    work = tmp_path_factory.mktemp("train")
    settings, store, stages = fabricated.run(work)
    folder = work / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text("exp: fabricated\n")
    return folder, build.build(folder, settings, store, stages), store, stages


def judged(work, **kwargs):
    settings, store, stages = fabricated.run(work, **kwargs)
    return build.judged(collect.collect(settings, store, stages), settings.exp.contrasts)


def test_the_run_folder_is_whole(run):
    folder, sealed, _, _ = run
    assert summary.read(folder) == sealed == json.loads((folder / "summary.json").read_text())
    for name in ("outcome", "contrasts", "seeds", "selection", "sources", "corpus", "heads", "cost"):
        assert all(
            (folder / "tables" / f"{name}.{suffix}").stat().st_size for suffix in ("md", "csv", "tex")
        ), name
    for name in ("contrasts", "benchmarks", "learning", "heads", "scores", "sources", "cost"):
        assert all((folder / "figures" / f"{name}.{suffix}").stat().st_size for suffix in ("png", "svg")), (
            name
        )


def test_primary_interval_is_the_paired_t_interval(run):
    _, sealed, _, _ = run
    row = next(r for r in sealed["comparisons"] if r["primary"] and r["metric"] == "bits_per_byte")
    values = {
        arm: [s["metrics"]["bits_per_byte"]["value"] for s in sealed["arms"][arm]["seeds"].values()]
        for arm in sealed["arms"]
    }
    found = stats.ttest_rel(values["attention_influence"], values["random"])
    interval = found.confidence_interval(0.95)
    d = numpy.subtract(values["attention_influence"], values["random"])
    longer = 40 / 9 * stats.skew(d) * (interval.high - d.mean())  # of three seeds; on the side of the skew
    expected = interval.low + min(longer, 0), interval.high + max(longer, 0)
    assert row["item_variance"] == pytest.approx(
        0, abs=1e-12
    )  # every text of the fabricated arms differs by the same
    assert (row["low"], row["high"]) == pytest.approx(expected, rel=1e-6)
    assert row["detectable"] is None  # no pilot


def test_the_points_stand_beside_their_interval(run):
    _, sealed, _, _ = run
    plot = figures.contrasts(sealed)
    [series] = plot.panels[0].series
    ours, theirs = (
        [s["metrics"]["bits_per_byte"]["value"] for s in sealed["arms"][a]["seeds"].values()]
        for a in ("attention_influence", "random")
    )
    assert series.dots[0] == pytest.approx(numpy.subtract(ours, theirs)) and len(series.dots) == len(series.y)
    drawn = [t for t in interactive.to_plotly(plot)["data"] if t.get("hoverinfo") == "x"]
    assert sorted(drawn[0]["x"]) == pytest.approx(sorted(x for values in series.dots for x in values))


def test_what_such_intervals_cover_is_said_with_them(run):
    _, sealed, _, _ = run
    found = simulated.record()
    notes = " ".join(run_tables.contrasts(sealed).notes)
    assert (
        f"{100 * found['outliers']['3']:.0f} % where one in ten is an outlier" in notes
        and "docs/statistics.md" in notes
    )
    assert "They do not cover another draw of the corpus" in notes
    assert simulated.sentence(2) is None and simulated.sentence(9) == simulated.sentence(
        8
    ) != simulated.sentence(10)


def test_holm_takes_in_every_secondary_metric_but_not_the_primary(run, tmp_path):
    assert all(r["p_holm"] is None for r in run[1]["comparisons"])  # a demonstration tests nothing
    sealed = judged(tmp_path, documents=1000, effect=0.05)
    rows = [r for r in sealed["comparisons"] if r["primary"]]
    others = [r for r in sealed["comparisons"] if not r["primary"] and r["metric"] == "bits_per_byte"]
    secondary = [r for r in rows if r["metric"] != "bits_per_byte" and not r["at_chance"]]
    family = sorted(secondary + others, key=lambda r: r["p"])
    assert len(others) == 1 and len(family) == len(rows)
    assert next(r for r in rows if r["metric"] == "bits_per_byte")["p_holm"] is None
    running = 0.0
    for rank, row in enumerate(family):
        running = max(running, min(1.0, row["p"] * (len(family) - rank)))
        assert row["p_holm"] == pytest.approx(running)


def test_metrics_at_chance_are_marked_and_enter_no_average(run):
    _, sealed, _, _ = run
    assert sealed["arms"]["random"]["at_chance"] == ["piqa/acc"]
    somewhere = [
        m for m in fabricated.METRICS if any(m in arm["at_chance"] for arm in sealed["arms"].values())
    ]
    assert not set(somewhere) & set(sealed["averaged"])
    assert "arc_easy/acc_norm" in sealed["averaged"] and "arc_easy/acc" not in sealed["averaged"]
    seed = sealed["arms"]["random"]["seeds"]["1"]["metrics"]
    assert seed["accuracy_average"]["value"] == pytest.approx(
        numpy.mean([seed[m]["value"] for m in sealed["averaged"]])
    )
    table = run_tables.outcome(sealed)
    row = next(r for r in table.rows if str(r[0]).startswith("piqa"))
    assert str(row[table.columns.index("random")]).endswith(" (chance)")


def test_copying_stands_at_the_end_of_the_outcome_and_other_parts_of_benchmarks_do_not(run):
    """From the cells of models to the row of the page: an interval, and no test."""
    _, sealed, _, _ = run
    found = copy.deepcopy(sealed)
    for number, arm in enumerate(found["arms"].values()):
        for seed, row in arm["seeds"].items():
            gain = {"value": number + (number + 1) * int(seed) ** 2 / 10, "stderr": 0.1, "n": 32}
            row["metrics"] |= {"copying_gain": gain, "blimp_acc/binding": gain}
    found = build.again(found)
    rows = [r for r in found["comparisons"] if r["metric"] == "copying_gain"]
    assert rows and all(r["exploratory"] and r["p_holm"] is None for r in rows)
    table = run_tables.outcome(found)
    assert (
        table.rows[-1][0] == "copying_gain ↑"
        and table.rows[-1][table.columns.index("verdict")] == "exploratory"
    )
    assert not any("binding" in str(row[0]) for row in table.rows)
    assert [row[0] for row in table.rows[:-1]] == [row[0] for row in run_tables.outcome(sealed).rows]


def test_a_task_at_chance_in_every_arm_leaves_average_and_holm(tmp_path):
    found = judged(tmp_path, effect=0.0)
    assert "piqa/acc" not in found["averaged"]
    assert [r["p_holm"] for r in found["comparisons"] if r["metric"] == "piqa/acc" and r["primary"]] == [None]


def test_below_the_thresholds_there_is_no_verdict(run):
    _, sealed, _, _ = run
    assert sealed["verdict"]["demonstration"] and sealed["verdict"]["words"] == "demonstration only"
    assert any("selected documents in code" in reason for reason in sealed["verdict"]["reasons"])
    assert "better" not in sealed["verdict"]["sentence"]


@pytest.mark.parametrize(
    ("effect", "words"), [(0.05, "better"), (-0.05, "worse"), (0.0, "undecided; up to 0.")]
)
def test_verdict_with_enough_seeds_documents_and_sources(tmp_path, effect, words):
    found = judged(tmp_path, documents=1000, effect=effect)
    assert found["verdict"]["reasons"] == []
    assert (
        found["verdict"]["words"].startswith(words)
        and words.split(";")[0] in found["verdict"]["sentence"].lower()
    )


def test_a_lost_endpoint_is_said_and_not_taken_for_a_missing_contrast(tmp_path):
    settings, store, stages = fabricated.run(tmp_path)
    collected = collect.collect(settings, store, stages)
    for seed in collected["arms"]["random"]["seeds"].values():
        del seed["metrics"]["bits_per_byte"]
    assert "not enough data" in build.judged(collected, settings.exp.contrasts)["verdict"]["sentence"]


def test_an_endpoint_without_a_part_that_others_have_is_none_and_the_model_is_named(tmp_path):
    """Of other tasks its mean would be another number: here a difference of nothing but the lost task."""
    settings, store, stages = fabricated.run(tmp_path)
    place = store.path(stages["arms"]["random"][1]["evaluate"]) / "summary.json"
    place.chmod(0o644)
    result = json.loads(place.read_text())
    result["bits_per_byte"] = result["text_bits_per_byte"]["wikitext"]["value"]
    result |= {"gold_bits_per_byte": {}, "missing": {"sciq": "no items", "arc_easy": "it failed"}}
    place.write_text(json.dumps(result))
    found = build.judged(collect.collect(settings, store, stages), settings.exp.contrasts)
    assert "bits_per_byte" not in found["arms"]["random"]["seeds"]["1"]["metrics"]
    assert "bits_per_byte" in found["arms"]["random"]["seeds"]["0"]["metrics"]
    assert found["verdict"]["demonstration"] and any(
        "random, seed 1: bits_per_byte is not in this model: others have" in why
        and "gold_bits_per_byte/arc_easy" in why
        for why in found["verdict"]["reasons"]
    )
    assert {r["seeds"] for r in found["comparisons"] if r["primary"] and r["metric"] == "bits_per_byte"} == {
        2
    }
    onway = collect.collect(settings, store, stages)
    for arm in onway["arms"].values():
        for n, seed in enumerate(arm["seeds"].values()):
            cells = {"bits_per_byte": {"value": 2.0}, "gold_bits_per_byte/arc_easy": {"value": 2.0}}
            seed["checkpoints"] = {"30": cells, "9": {"bits_per_byte": {"value": 3.0}} if n else cells}
            seed["metrics"]["gold_bits_per_byte/arc_easy"] = seed["metrics"]["bits_per_byte"] = {"value": 2.0}
            seed["evaluation"] = {}
    collect.whole_endpoints(onway["arms"])
    of_model = onway["arms"]["random"]["seeds"]["2"]
    assert "bits_per_byte" in of_model["metrics"] and "bits_per_byte" in of_model["checkpoints"]["30"]
    assert "bits_per_byte" not in of_model["checkpoints"]["9"]
    assert list(of_model["evaluation"]["missing"]) == ["bits_per_byte after 9 tokens"]  # no word on the end
    rows = {row[0]: row[1:] for row in run_tables.missing(found).rows}
    assert rows["sciq"] == ["no items", "all"] and rows["arc_easy"] == ["it failed", "random, seed 1"]


@pytest.mark.parametrize("stage", ["pretrain", "evaluate"])
def test_arms_of_different_kinds_of_device_are_not_paired(tmp_path, stage):
    settings, store, stages = fabricated.run(tmp_path)
    collected = collect.collect(settings, store, stages)
    collected["arms"]["random"]["seeds"]["1"]["artifacts"][stage]["device"] = "cuda:0"
    with pytest.raises(SettingError, match=f"seed 1: {stage} ran on cpu and cuda"):
        build.judged(collected, settings.exp.contrasts)


def test_an_accuracy_below_or_without_chance_level_is_not_above_it():
    def arm(value, chance):
        cells = {"t/acc": {"value": value, "n": 100} | ({} if chance is None else {"chance": chance})}
        return {"seeds": {str(seed): {"metrics": cells} for seed in range(3)}}

    for value, chance, covers in (
        (0.15, 0.25, True),
        (0.3, 0.25, True),
        (0.5, 0.25, False),
        (0.0, None, True),
        (0.2, None, False),
    ):
        assert outcomes.covers_chance(arm(value, chance), "t/acc") is covers, (value, chance)


def test_each_threshold_alone_makes_a_demonstration(tmp_path):
    few_sources = judged(tmp_path / "a", documents=1000, groups=2)["verdict"]
    few_seeds = judged(tmp_path / "b", documents=1000, seeds=(0, 1))["verdict"]
    assert all("sources" in reason for reason in few_sources["reasons"]) and len(few_sources["reasons"]) == 3
    assert few_seeds["reasons"] == ["2 paired seeds; a verdict needs 3"]


def test_one_seed_has_no_interval_and_no_table(tmp_path):
    found = judged(tmp_path, seeds=(0,))
    names = [t.name for t in sections.tables(found)]
    assert "outcome" not in names and "contrasts" not in names and "seeds" in names
    assert all(row["low"] is None for row in found["comparisons"])
    assert "no interval" in terminal.render(found)


def test_make_up_against_a_count_by_hand(run):
    _, sealed, store, stages = run
    selection = store.path(stages["arms"]["random"][1]["selection"]) / "selection.parquet"
    kept = set(polars.read_parquet(selection).filter(polars.col("repeats") > 0)["doc_id"])
    rows = polars.read_parquet(
        sorted((store.path(stages["corpus"]) / "documents").glob("*.parquet"))
    ).to_dicts()
    made = sealed["arms"]["random"]["seeds"]["1"]["make_up"]
    for domain in fabricated.DOMAINS:
        here = [r for r in rows if r["domain"] == domain]
        taken = [r for r in here if r["doc_id"] in kept]
        assert (made[domain]["documents"], made[domain]["selected"]) == (len(here), len(taken))
        assert made[domain]["selected_bytes"] == sum(r["n_bytes"] for r in taken)
        for group in made[domain]["by_group"]:
            assert group["selected"] == sum(r["group"] == group["group"] for r in taken)


def test_of_full_plus_selection_the_make_up_shows_what_was_added(tmp_path):
    documents_ = polars.DataFrame(
        {
            "doc_id": ["a", "b", "c"],
            "domain": ["x"] * 3,
            "group": ["g", "g", "h"],
            "source": ["s"] * 3,
            "n_bytes": [1, 2, 4],
        }
    )
    polars.DataFrame({"doc_id": ["a", "b", "c"], "domain": ["x"] * 3, "repeats": [1, 2, 1]}).write_parquet(
        tmp_path / "selection.parquet"
    )
    assert contents.make_up(tmp_path, documents_)["x"]["selected_bytes"] == 2
    polars.DataFrame({"doc_id": ["a", "b", "c"], "domain": ["x"] * 3, "repeats": [1, 1, 1]}).write_parquet(
        tmp_path / "selection.parquet"
    )
    assert contents.make_up(tmp_path, documents_)["x"]["selected_bytes"] == 7


def test_edited_foreign_and_broken_summaries_are_refused(run, tmp_path):
    whole = (run[0] / "summary.json").read_text()
    edited = json.loads(whole)
    edited["arms"]["random"]["seeds"]["0"]["metrics"]["bits_per_byte"]["value"] -= 0.001
    foreign = {**json.loads(whole), "schema": 999}
    for name, text, words in (
        ("edited", json.dumps(edited), "edited"),
        ("foreign", json.dumps(foreign), "schema 999"),
        ("cut", whole[:90], "not JSON"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "summary.json").write_text(text)
        with pytest.raises(SettingError, match=words):
            summary.read(tmp_path / name)
    with pytest.raises(SettingError, match="is not there"):
        summary.read(tmp_path / "nowhere")


def test_the_checksum_survives_another_layout_of_the_file(run, tmp_path):
    (tmp_path / "summary.json").write_text(
        json.dumps(json.loads((run[0] / "summary.json").read_text()), indent=7)
    )
    assert summary.read(tmp_path)["checksum"] == run[1]["checksum"]


def test_the_page_asks_no_network_and_escapes_documents(run):
    html = (run[0] / "report.html").read_text()
    assert len(html.encode()) < 6_000_000
    own = html.replace(interactive.plotly_script().replace("</script", "<\\/script"), "")
    beside = r"summary\.json|config\.yaml|statistics\.md|tables/\w+\.csv|figures/\w+\.svg"  # links to files of the same folder
    own = re.sub(rf'href="(?:{beside})"', "", own)
    assert not re.findall(r"""(?:src|href|action)=["'](?!#|data:)[^"']*""", own)
    assert (run[0] / "statistics.md").read_text().startswith(
        "# Statistics"
    ) and 'href="statistics.md"' in html
    assert "default-src 'none'" in own and '<link rel="stylesheet"' not in own
    assert "</script><b>bold</b>" not in html and "&lt;/script&gt;&lt;b&gt;bold" in own
    assert own.count("<script") == own.count("</script>") == 3
    assert "This is a demonstration" in own and run[1]["provenance"]["python"] in own


def test_every_plot_has_words_for_those_who_cannot_see_it(run):
    html = (run[0] / "report.html").read_text()
    drawn = sections.plots(run[1])
    assert len(drawn) == 8
    for plot in drawn:
        assert len(plot.alt) > 20 and f'data-plot="{plot.name}"' in html
        assert json.loads(json.dumps(interactive.to_plotly(plot)))["data"]


def test_tokens_are_coloured_by_how_much_masking_raised_their_loss():
    row = page._coloured({"tokens": [("a", -1.0), ("b", 0.2), ("c", 0.7), ("d", 2.0), ("e", 3.0)]})
    assert [level for _, level, _ in row["tokens"]] == [0, 1, 2, 3, 4]


def test_token_losses_of_the_score_artifact_are_shown(run, tmp_path):
    _, _, store, stages = run
    score = tmp_path / "score"
    (score / "scores").mkdir(parents=True)
    for path in (store.path(stages["score"]) / "scores").glob("*.parquet"):
        (score / "scores" / path.name).write_bytes(path.read_bytes())
    top = polars.read_parquet(score / "scores" / "code-00000.parquet").sort("score")["doc_id"][-1]
    (score / "tokens.json").write_text(
        json.dumps([{"doc_id": top, "tokens": [{"token": "ocument", "loss_base": 1.0, "loss_ref": 3.5}]}])
    )
    first = documents.examples(store.path(stages["corpus"]), score)["code"][0]
    assert (
        first["doc_id"] == top
        and first["tokens"] == [("D", 0.0), ("ocument", 2.5)]
        and first["place"] == "1 of 24"
    )


def test_figures_and_tables_are_the_same_bytes_again(run, tmp_path):
    folder, sealed, _, _ = run
    for plot in (figures.heads(sealed), figures.contrasts(sealed)):
        still.write(plot, tmp_path)
        for suffix in ("svg", "png"):
            assert (tmp_path / f"{plot.name}.{suffix}").read_bytes() == (
                folder / "figures" / f"{plot.name}.{suffix}"
            ).read_bytes()


def test_the_report_door_draws_again_from_the_summary_alone(run, tmp_path, capsys):
    (tmp_path / "summary.json").write_bytes((run[0] / "summary.json").read_bytes())
    assert main([str(tmp_path)]) == 0
    assert (
        tmp_path / "report.html"
    ).is_file() and "attention_influence - random *" in capsys.readouterr().out
    assert main([str(tmp_path / "nowhere")]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_the_terminal_fits_100_columns(run):
    assert max(map(len, terminal.render(run[1]).split("\n"))) <= 100


def test_every_seed_of_an_arm_is_shown_whole(run):
    found = json.loads(json.dumps(run[1]))
    arm = found["arms"]["full"]
    one = next(iter(arm["seeds"].values()))
    values = [1 + 0.0137 * seed for seed in range(12)]
    arm["seeds"] = {
        str(seed): {**one, "artifacts": {}, "metrics": {"bits_per_byte": {"value": value}}}
        for seed, value in enumerate(values)
    }
    shown = terminal.render(found)
    assert max(map(len, shown.split("\n"))) <= 100 and "mean over an arm's seeds" in shown
    assert ", ".join(f"{value:.4f}" for value in values) in " ".join(shown.split())


def test_a_scoring_run_leaves_kept_documents_ready_for_datasets(tmp_path):
    from datasets import load_dataset

    settings, store, stages = fabricated.run(tmp_path / "work", kind="score", seeds=(0,))
    folder = tmp_path / "run"
    folder.mkdir()
    sealed = build.build(folder, settings, store, stages)
    found = load_dataset(
        "parquet",
        data_files=str(folder / "kept" / "attention_influence" / "*.parquet"),
        cache_dir=str(tmp_path / "cache"),
    )["train"]
    kept = polars.read_parquet(
        store.path(stages["arms"]["attention_influence"][0]["selection"]) / "selection.parquet"
    ).filter(polars.col("repeats") > 0)
    assert sorted(found["doc_id"]) == sorted(kept["doc_id"])
    row = found[0]
    assert (
        row["year"] == 2000 + int(row["doc_id"].split("-")[1])
        and json.loads(row["tags"]) == ["a"]
        and row["score"] > 0
    )
    assert {"text", "license", "source", "group", "domain", "loss_base"} <= set(found.column_names)
    assert len(polars.read_parquet(folder / "scores.parquet")) == 72
    assert "nothing is concluded" in sealed["verdict"]["sentence"]
    assert "Highest and lowest documents" in (folder / "report.html").read_text()


def test_a_number_that_no_column_holds_is_kept_as_json(tmp_path):
    part = polars.DataFrame(
        {"doc_id": ["a", "b"], "extra": ['{"n": 1, "m": 1}', f'{{"n": {10**30}, "m": 2}}']}
    )
    part.write_parquet(tmp_path / "x.parquet")
    types = documents._extra_types([tmp_path / "x.parquet"], part.select("doc_id"))
    spread = documents._spread(part, types)
    assert spread["n"].to_list() == ["1", "1" + "0" * 30] and spread["m"].to_list() == [1, 2]


def test_a_kept_document_that_the_corpus_lacks_is_an_error(tmp_path):
    _, store, stages = fabricated.run(tmp_path / "work", kind="score", seeds=(0,))
    polars.DataFrame({"doc_id": ["nowhere"], "domain": ["code"], "repeats": [1]}).write_parquet(
        tmp_path / "selection.parquet"
    )
    with pytest.raises(ValueError, match="holds 0 of them"):
        documents.export(
            tmp_path / "kept", store.path(stages["corpus"]), store.path(stages["score"]), tmp_path
        )


def test_variance_from_texts_equals_the_jackknife_of_the_ratio(tmp_path):
    generator = numpy.random.default_rng(0)
    n_bytes = generator.integers(50, 500, 60)
    rows = {}
    for side in ("treatment", "control"):
        (tmp_path / side).mkdir()
        rows[side] = n_bytes * generator.normal(2.0, 0.3, 60)
        polars.DataFrame({"kind": "out_of_corpus", "source": "w", "doc_id": [str(i) for i in range(60)], "bits": rows[side], "n_bytes": n_bytes,
                          "n_tokens": n_bytes}).write_parquet(tmp_path / side / "texts.parquet")  # fmt: skip
        polars.DataFrame(schema={"task": polars.String, "entry": polars.String, "filter": polars.String, "doc_id": polars.Int64, "metrics": polars.String,
                                 "finite": polars.Boolean, "gold_bits_per_byte": polars.Float64, "gold_probability": polars.Float64}).write_parquet(tmp_path / side / "items.parquet")  # fmt: skip
    found = items.item_variances([(tmp_path / "treatment", tmp_path / "control")])
    gaps = rows["treatment"] - rows["control"]
    left_out = numpy.array([(gaps.sum() - gaps[i]) / (n_bytes.sum() - n_bytes[i]) for i in range(60)])
    jackknife = 59 / 60 * ((left_out - left_out.mean()) ** 2).sum()
    assert found["text_bits_per_byte/w"] == pytest.approx(jackknife, rel=0.1)
    assert found["bits_per_byte"] == found["text_bits_per_byte/w"]  # the only part of the endpoint here


def test_item_variance_of_an_accuracy(run):
    _, sealed, store, stages = run
    row = next(r for r in sealed["comparisons"] if r["primary"] and r["metric"] == "arc_easy/acc")
    gaps = []
    for seed in (0, 1, 2):
        sides = [
            store.path(stages["arms"][arm][seed]["evaluate"]) / "items.parquet"
            for arm in ("attention_influence", "random")
        ]
        right = [
            numpy.array(
                [
                    json.loads(m)["acc"]
                    for m in polars.read_parquet(p).filter(
                        (polars.col("task") == "arc_easy") & polars.col("metrics").str.contains('"acc"')
                    )["metrics"]
                ]
            )
            for p in sides
        ]
        gaps.append(right[0] - right[1])
    gaps = numpy.array(gaps)
    assert row["difference"] == pytest.approx(gaps.mean())
    assert row["item_variance"] == pytest.approx(paired_item_variance(gaps))


def test_without_a_wandb_login_runs_are_offline_and_the_specification_is_a_file(tmp_path, monkeypatch):
    from repro.report import wandb_report

    found = summary.write(tmp_path / "summary.json", judged(tmp_path / "work", kind="score", seeds=(0,)))
    build.draw(tmp_path, found)
    monkeypatch.setattr(wandb_report, "logged_in", lambda: False)
    line = wandb_report.publish(tmp_path, found)
    assert "wandb login" in line and "\n" not in line
    stages = artifacts(found)
    files = list(tmp_path.glob("wandb/offline-run-*/*.wandb"))
    assert len(files) == len(stages) + 1
    listed = (tmp_path / "wandb" / f"{tmp_path.name}.txt").read_text().split("\n")[:-1]
    assert sorted(listed) == sorted(str(file.parent) for file in files) and str(tmp_path) in line
    assert "wandb sync --project" in line
    assert wandb_report.publish(tmp_path, found) == line
    assert files == list(tmp_path.glob("wandb/offline-run-*/*.wandb")), "again changes nothing"
    metadata: dict[str, dict] = {}
    for _ in range(
        100
    ):  # on a busy machine W&B's own process writes the files a moment after finish() is back
        metadata = {
            a.name: json.loads(a.metadata) for file in files for a in logged_artifacts(file) if a.metadata
        }
        if len(metadata) >= len(stages):
            break
        time.sleep(0.2)
    names = {s["stage"]: f"{s['stage']}-{s['fingerprint'][:8]}" for s in stages}
    assert metadata[names["score"]]["inputs"] == {"corpus": names["corpus"]}
    assert metadata[names["selection"]]["arm"] == "attention_influence"


def test_the_wandb_report_tells_the_same_story(run):
    from pydantic import TypeAdapter

    from repro.report import wandb_report

    built = wandb_report.build(run[1])
    [runs] = [r for block in built.blocks for r in getattr(block, "runsets", [])]
    trained = [s["artifacts"]["pretrain"] for a in run[1]["arms"].values() for s in a["seeds"].values()]
    assert all(Path(one["folder"]).name in str(runs.filters) for one in trained)
    written = TypeAdapter(type(built)).dump_python(built, mode="json")
    assert run[1]["question"] == written["description"]
    text = json.dumps(written["blocks"], ensure_ascii=False)
    assert (
        run[1]["verdict"]["sentence"] in text
        and "attention_influence − random" in text
        and "This is a demonstration" in text
    )


def test_the_wandb_report_says_what_failed_and_what_was_stated_beforehand(run):
    """As the page does under its verdict."""
    from pydantic import TypeAdapter

    from repro.report import wandb_report

    found = json.loads(json.dumps(run[1]))
    failed = {"arm": "random", "seed": 7, "stage": "pretrain", "reason": "the loss is not finite"}
    absent = {"arm": "full", "seed": 8, "stage": "pretrain", "reason": "not there yet"}
    found |= {"failed": [failed], "absent": [absent]}
    found["registration"] |= {
        "conclusion": {"outcome": "better", "text": "They train a better model."},
        "deviations": ["endpoint: accuracy_average, registered bits_per_byte"],
    }
    built = wandb_report.build(found)
    blocks = TypeAdapter(type(built)).dump_python(built, mode="json")["blocks"]
    for line in (
        "Failed: random, seed 7: the loss is not finite",
        "Not there yet: full (seed 8).",
        "Stated beforehand for this outcome (better): They train a better model.",
        "Deviates from what was stated beforehand: endpoint: accuracy_average, registered bits_per_byte.",
    ):
        assert line in sections.said(found) and line in " ".join(terminal.render(found).split())
        assert line in json.dumps(blocks[1])
    assert "| failed: the loss is not finite" in json.dumps(blocks)


def test_a_wandb_outage_is_one_line(run, tmp_path, monkeypatch, capsys):
    from repro.report import wandb_report

    def refuse(*_args, **_kwargs):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(wandb_report, "logged_in", lambda: True)
    monkeypatch.setattr(wandb_report.wandb_log, "log", refuse)
    with pytest.raises(wandb_report.NotTaken, match=r"did not take the report \(no route\)"):
        wandb_report.publish(tmp_path, run[1])
    assert (tmp_path / "wandb_report.json").is_file()
    summary.write(tmp_path / "summary.json", run[1])
    assert main([str(tmp_path), "--wandb"]) == 1 and "error: W&B did not take" in capsys.readouterr().err


@pytest.mark.parametrize("entity", [None, "team"])
def test_a_wandb_report_is_its_entitys_and_says_how_to_send_the_curves_that_are_offline(
    entity, run, tmp_path, monkeypatch
):
    import wandb_workspaces.reports.v2 as wr

    from repro.report import wandb_report

    found, saved = json.loads(json.dumps(run[1])), []
    found["settings"]["tracking"]["entity"] = entity
    folder = tmp_path / "work/runs/mine"
    folder.mkdir(parents=True)
    monkeypatch.setattr(wandb_report, "logged_in", lambda: True)
    monkeypatch.setattr(wandb_report.wandb_log, "log", lambda *_: [])
    monkeypatch.setattr("wandb.Api", lambda: SimpleNamespace(default_entity="me"))
    monkeypatch.setattr(wr.Report, "save", lambda self, draft: saved.append(self))
    monkeypatch.setattr(wr.Report, "url", "address")
    assert wandb_report.publish(folder, found) == "W&B report: address"
    [runs] = [r for block in saved[0].blocks for r in getattr(block, "runsets", [])]
    assert saved[0].entity == runs.entity == (entity or "me")

    name = wandb_report._trained(found)[-1]
    mine = [
        tmp_path / f"work/wandb/offline-run-2026_1{i}-{name}-0123456{i}" for i in range(2)
    ]  # resumed once
    for path in (*mine, tmp_path / "work/wandb/offline-run-2026_10-another-01234567"):
        path.mkdir(parents=True)
    line, listed = wandb_report.publish(folder, found), tmp_path / "work/wandb/mine.txt"
    assert "in 2 offline runs. To send them: xargs -I@ wandb sync --project" in line and "\n" not in line
    assert line.endswith(f"@ < {listed}") and listed.read_text() == "".join(f"{path}\n" for path in mine)
    monkeypatch.setattr(wandb_report, "logged_in", lambda: False)
    assert wandb_report.publish(folder, found).endswith(f"@ < {listed}")
    assert listed.read_text() == "".join(f"{path}\n" for path in mine)


@pytest.mark.parametrize(
    ("given", "options", "said"),
    [
        ("run", ["--out", "X"], "--out is of a folder of runs"),
        ("", ["--wandb"], "--wandb is of one run"),
        ("run/copy.json", [], "give it a folder of its own"),
    ],
)
def test_options_of_a_report_that_would_have_no_effect_are_refused(
    given, options, said, run, tmp_path, capsys
):
    (tmp_path / "run").mkdir()
    for name in ("summary.json", "copy.json"):
        summary.write(tmp_path / "run" / name, run[1])
    assert main([str(tmp_path / given), *options]) == 2 and said in capsys.readouterr().err
    assert not (tmp_path / "run" / "report.html").exists()


def test_help_of_the_doors_is_quick_and_imports_nothing_heavy():
    for door in ("repro.report", "repro.tables", "repro.compare"):
        code = f"import sys, runpy; sys.argv = ['x', '--help']\ntry: runpy.run_module('{door}', run_name='__main__')\nexcept SystemExit: pass\nprint(sorted({{'torch', 'polars', 'matplotlib', 'wandb', 'plotly', 'scipy', 'numpy'}} & set(sys.modules)))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert "usage" in done.stdout and done.stdout.rstrip().endswith("[]"), door


def test_the_settings_in_a_summary_name_no_place(run):
    assert "work" not in run[1]["settings"] and "device" not in run[1]["settings"]
    assert run[1]["settings_digest"] == digest(run[1]["settings"])


def test_draws_of_a_corpus_have_an_interval_of_their_own(tmp_path):
    """One value a draw; the text names the command and the code."""
    from repro.report.sweep import collate

    runs = {}
    for draw in range(3):
        folder = tmp_path / str(draw)
        folder.mkdir()
        settings, store, stages = fabricated.run(folder / "work", seeds=(0, 1, 2, 3 + draw))
        found = build.judged(collect.collect(settings, store, stages), settings.exp.contrasts)
        summary.write(folder / "summary.json", found)
        runs[f"corpus.seed={draw}"] = folder
    ends = [next(r for r in summary.read(f)["comparisons"] if r["primary"]) for f in runs.values()]
    values = [row["difference"] for row in ends if row["metric"] == ends[0]["metric"]]
    low, high = limits(values)
    text = collate(tmp_path / "sweep", "corpus_draw", runs, ["scale=smoke", "work=/elsewhere"])
    assert (
        f"Over 3 draws of the corpus the mean difference is {numpy.mean(values):+.4f} [{low:+.4f}, {high:+.4f}]"
        in text
    )
    assert f"standard deviation {numpy.std(values, ddof=1):.4f}" in text
    assert "python -m repro.sweep sweep=corpus_draw scale=smoke`; code:" in text and "elsewhere" not in text
    two = collate(tmp_path / "two", "corpus_draw", dict(list(runs.items())[:2]))
    assert "have no interval" in two
    other = collate(tmp_path / "other", "rates", {f"rate={i}": path for i, path in enumerate(runs.values())})
    assert "draws of the corpus" not in other


def test_a_sweep_sets_its_members_side_by_side(run, tmp_path):
    from repro.report.sweep import collate

    (tmp_path / "one").mkdir()
    settings, store, stages = fabricated.run(tmp_path / "work", seeds=(0,))
    summary.write(
        tmp_path / "one" / "summary.json",
        build.judged(collect.collect(settings, store, stages), settings.exp.contrasts),
    )
    text = collate(tmp_path / "sweep", "shares", {"share=0.1": run[0], "share=0.2": tmp_path / "one"})
    row = next(r for r in run[1]["comparisons"] if r["primary"] and r["metric"] == "bits_per_byte")
    assert (
        f"{row['difference']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}]" in text
        and "no interval: one seed" in text
    )
    ends = {"share=0.1": run[1], "share=0.2": summary.read(tmp_path / "one")}
    means = {
        label: numpy.mean(run_tables.arm_values(one, "random", "bits_per_byte"))
        for label, one in ends.items()
    }
    best = min(means, key=means.get)
    assert (
        f"By random alone the best member is {best}; the order of the two arms is the same in every member"
        in text
    )
    assert (tmp_path / "sweep" / "tables" / "sweep.csv").is_file() and (
        tmp_path / "sweep" / "figures" / "sweep.svg"
    ).is_file()
    tied = collate(tmp_path / "tied", "shares", {"share=0.1": run[0], "share=0.2": run[0]})
    assert "The order of the two arms is the same in every member" in tied and "best member" not in tied


def test_a_member_of_which_some_models_failed_has_its_numbers_and_says_so(run, tmp_path, monkeypatch, capsys):
    from repro import sweep
    from repro.settings.root import to_yaml

    lost = {"arm": "full", "seed": 2, "stage": "pretrain", "reason": "diverged"}

    def returned(command, log, *_):
        folder = tmp_path / log.stem
        folder.mkdir()
        (folder / "config.yaml").write_text(to_yaml(compose(command[3:])))
        partly = "budget.share=0.1" in command
        found = json.loads(json.dumps(run[1]))
        summary.write(folder / "summary.json", {**found, **({"failed": [lost]} if partly else {})})
        log.write_text(f"run: {folder}\n")
        return int(partly)

    monkeypatch.setattr(sweep, "_returned", returned)
    folder, failed = sweep.run("select_share", ["scale=smoke", f"work={tmp_path / 'work'}"])
    assert failed == ["budget.share=0.1"]
    _, before, partly, *others = (folder / "tables" / "sweep.csv").read_text().splitlines()
    assert partly.startswith("budget.share=0.1 (1 model failed),")
    assert partly.split(",")[1:] == before.split(",")[1:] and "failed" not in "".join([before, *others])
    shown = capsys.readouterr().out
    assert "done but for 1 failed model, see" in shown and "the best member" not in shown


def test_a_failed_member_of_a_sweep_has_a_row_and_may_have_been_the_best(run, tmp_path):
    from repro.report.sweep import collate

    (tmp_path / "other").mkdir()
    settings, store, stages = fabricated.run(tmp_path / "work", seeds=(0, 1, 2, 3))
    other = build.judged(collect.collect(settings, store, stages), settings.exp.contrasts)
    summary.write(tmp_path / "other" / "summary.json", other)
    runs = {"share=0.1": run[0], "share=0.2": tmp_path / "other"}
    assert "the best member is" in collate(tmp_path / "whole", "shares", runs)
    text = collate(tmp_path / "sweep", "shares", {"share=0.05": None, **runs})
    assert re.search(r"^\| share=0.05 +\| failed +\|( +\|)+$", text, re.M) and "best member" not in text
    assert "share=0.05,failed," in (tmp_path / "sweep" / "tables" / "sweep.csv").read_text()
    assert "failed" in collate(tmp_path / "none", "shares", {"share=0.05": None})


def test_curves_over_checkpoints_and_shares(run):
    found = json.loads(json.dumps(run[1]))
    assert curve.performance(found) is None and curve.by_share(found) is None
    for row in found["arms"].values():
        for seed in row["seeds"].values():
            seed["checkpoints"] = {
                "9000": {"bits_per_byte": {"value": 3.0}},
                "90000": {"bits_per_byte": {"value": 2.5}},
            }
    other = json.loads(json.dumps(found["arms"]["random"])) | {"share": 0.1}
    found["arms"]["random_10"] = other
    [panel] = curve.performance(found).panels
    ends = found["arms"]["full"]["seeds"]["0"]["loss"][-1][0]
    assert panel.series[0].x == [9000, 90000, ends] and panel.series[0].y[:2] == [3.0, 2.5]
    line, *points = curve.by_share(found).panels[0].series
    assert [p.x for p in points] == [[30]] and all(
        s.marks for s in (line, *points)
    )  # a selector of one share is a point
    values = [s["metrics"]["bits_per_byte"]["value"] for s in found["arms"]["full"]["seeds"].values()]
    assert line.name == "random" and line.x == [10, 30, 100] and line.y[-1] == pytest.approx(sum(values) / 3)
    assert (line.low[-1], line.high[-1]) == pytest.approx([float(end) for end in limits(values)])


def test_every_stage_of_a_run_is_in_its_cost_once(tmp_path):
    """Also a proxy and scores of an arm's own, and what a comparison reads (proxy_size, head_evolution)."""
    settings, store, stages = fabricated.run(tmp_path, seeds=(0,))
    proxy = Stage("proxy", "larger", {"size": 2}, lambda c: None)
    heads = [Stage("heads", "retrieval", {"at": at}, lambda c: None, {"proxy": proxy}) for at in (1, 2)]
    scores = Stage("score", "retrieval", {}, lambda c: None, {"proxy": proxy, "heads": heads[0]})
    selection = replace(stages["arms"]["random"][0]["selection"], inputs={"scores": scores})
    stages["arms"]["random"] = {0: {"selection": selection}}
    pair = Stage(
        "evolution", "retrieval", {}, lambda c: write_json(c.out / "evolution.json", {}), {"2": heads[1]}
    )
    for stage in (proxy, *heads, scores, selection, pair):
        store.ensure(stage)
    found = collect.collect(settings, store, {**stages, "pairs": {"retrieval": pair}})
    every = [*(s for s in stages.values() if isinstance(s, Stage)), pair]
    every += [s for by_seed in stages["arms"].values() for of in by_seed.values() for s in of.values()]
    expected = {a.fingerprint for stage in every for a in stage.ancestors()}
    assert sorted(row[2] for row in run_tables.cost(found).rows) == sorted(f[:8] for f in expected)
    assert {"proxy", "heads", "score"} <= found["artifacts"].keys(), "what is shared keeps its plain name"
    assert f"score retrieval {scores.fingerprint[:8]}" in found["artifacts"]


def test_net_compute_sets_scoring_against_training_saved(run):
    found = json.loads(json.dumps(run[1]))
    assert compute.tables(found) == []  # every arm is trained for the same number of tokens
    found["arms"]["attention_influence"]["equal_passes"] = True
    for arm, tokens in (("full", 1000), ("random", 1000), ("attention_influence", 300)):
        for seed in found["arms"][arm]["seeds"].values():
            seed["artifacts"]["pretrain"]["facts"]["tokens"] = tokens
    found["artifacts"]["score"]["facts"]["tokens"] = 50
    for name, proxy in (("length", {}), ("own_proxy", {"parameters": 7.0})):  # other arms of equal passes
        found["arms"][name] = json.loads(json.dumps(found["arms"]["attention_influence"]))
        found["settings"]["exp"]["arms"][name] = {"proxy": proxy}
    own = {**found["artifacts"]["score"], "fingerprint": "own", "facts": {"tokens": 60}}
    found["artifacts"]["score uniform own"] = own
    for arm, read in (
        ("attention_influence", found["artifacts"]["score"]["fingerprint"]),
        ("length", "measures"),
        ("own_proxy", "own"),
    ):
        for seed in found["arms"][arm]["seeds"].values():
            seed["artifacts"]["selection"]["inputs"] = {"scores": read}
    [table] = compute.tables(found)
    rows = {row[0]: row for row in table.rows}
    model = found["settings"]["model"]
    products = model["layers"] * (
        2 * model["hidden"] ** 2 * (1 + model["kv_heads"] / model["heads"])
        + 3 * model["hidden"] * model["ffn"]
    )
    a_token = (
        6 * (products + model["vocabulary"] * model["hidden"])
        + 6 * model["layers"] * model["hidden"] * found["settings"]["train"]["context"]
    )
    for arm, scoring in (
        ("attention_influence", 4 * found["settings"]["proxy"]["parameters"] * 50),
        ("length", 0.0),
        ("own_proxy", 4 * 7.0 * 60),
    ):
        assert [float(c) for c in rows[arm][2:6]] == pytest.approx(
            [a_token * 300, a_token * 700, scoring, a_token * 700 - scoring], rel=5e-3
        ), arm


def logged_artifacts(path):
    """The artifact records of an offline run."""
    from wandb.proto.wandb_internal_pb2 import Record

    for record in records(path):
        found = Record.FromString(record)
        if found.HasField("artifact"):
            yield found.artifact
        elif found.request.HasField("log_artifact"):
            yield found.request.log_artifact.artifact


def records(path):
    """Records of LevelDB's log format after W&B's 7-byte header."""
    data, position, parts = path.read_bytes(), 7, b""
    while position + 7 <= len(data):
        if 32768 - position % 32768 < 7:
            position += 32768 - position % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        if position + 7 + length > len(data):
            return  # still being written
        parts += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):
            yield parts
            parts = b""


def test_the_command_names_the_threads_and_no_place():
    given = ["run.py", "exp=pilot", "work=somewhere", "exp.seeds=[0, 1]"]
    summary = {
        "experiment": "pilot",
        "scale": "smoke",
        "provenance": {"command": given, "omp_num_threads": "1"},
    }
    assert command(summary) == "OMP_NUM_THREADS=1 python -m repro.run exp=pilot 'exp.seeds=[0, 1]'"
    summary["provenance"] |= {"command": ["pytest", "-q"], "omp_num_threads": None}
    assert command(summary) == "python -m repro.run exp=pilot scale=smoke"
    summary["provenance"]["command"] = ["score.py", "my docs/", "--keep", "0.2"]
    assert command(summary) == "python -m repro.score 'my docs/' --keep 0.2"


def test_a_contrast_without_the_endpoint_is_a_row_that_says_so(tmp_path):
    settings, store, stages = fabricated.run(tmp_path, documents=1000)
    collected = collect.collect(settings, store, stages)
    for seed in collected["arms"]["full"]["seeds"].values():
        del seed["metrics"]["bits_per_byte"]
    table = run_tables.contrasts(build.judged(collected, settings.exp.contrasts))
    assert [row[-2] for row in table.rows if "full" in str(row[0])] == [
        "no interval: full without bits_per_byte"
    ]


def test_a_model_that_failed_is_a_row_and_the_pairs_that_exist_are_compared(tmp_path):
    settings, store, stages = fabricated.run(tmp_path)
    whole = build.judged(collect.collect(settings, store, stages), settings.exp.contrasts)
    arms = {arm: dict(by_seed) for arm, by_seed in stages["arms"].items()}
    del arms["random"][1], arms["full"]
    failed = [{"arm": "random", "seed": 1, "stage": "pretrain", "reason": "the loss is not <finite>"}]
    failed += [{"arm": "full", "seed": s, "stage": "pretrain", "reason": "out of memory"} for s in (0, 1, 2)]
    folder = tmp_path / "run"
    found = build.build(folder, settings, store, stages | {"arms": arms, "failed": failed})
    (row,) = [r for r in found["comparisons"] if r["metric"] == "bits_per_byte"]
    ours, theirs = (
        outcomes.seed_values(whole["arms"][arm], "bits_per_byte") for arm in ("attention_influence", "random")
    )
    assert row["seeds"] == 2 and row["difference"] == pytest.approx(
        numpy.mean([ours[s] - theirs[s] for s in (0, 2)])
    )
    assert list(found["arms"]) == ["random", "attention_influence"]
    (table,) = [t for t in sections.tables(found) if t.name == "failed"]
    assert ["random", 1, "failed: the loss is not <finite>", "pretrain"] in table.rows and len(
        table.rows
    ) == 4
    shown = " ".join(terminal.render(found).split())
    assert "Failed: full, seed 0, 1, 2: out of memory" in shown and "over the pairs that exist" in shown
    assert "failed: the loss is not &lt;finite&gt;" in (folder / "report.html").read_text()
    assert "failed" not in whole and not any(t.name == "failed" for t in sections.tables(whole))
    assert (folder / "tables" / "failed.md").is_file()
    build.draw(folder, whole)  # the same run, its failures mended
    left = {path.stem for path in (folder / "tables").iterdir()}
    assert left == {table.name for table in sections.tables(whole)}, "nothing of the report before"


def test_models_that_are_not_there_yet_hold_back_the_words(tmp_path, monkeypatch):
    settings, store, stages = fabricated.run(tmp_path)
    monkeypatch.setattr(verdict, "DOCUMENTS", 1)
    monkeypatch.setattr(verdict, "SOURCES", 1)
    absent = [{"arm": "random", "seed": s, "stage": "pretrain", "reason": "not there yet"} for s in (3, 4)]
    whole, found = (
        build.judged(collect.collect(settings, store, made), settings.exp.contrasts)
        for made in (stages, stages | {"absent": absent})
    )
    assert not whole["verdict"]["demonstration"] and found["verdict"]["demonstration"]
    assert found["verdict"]["reasons"] == ["a report in between: 2 of 8 models are not there yet"]
    for row in found["comparisons"]:
        held = DEMONSTRATION if "random" in (row["treatment"], row["control"]) else NOT_TESTED
        assert held in row["verdict"] or row["verdict"] == EXPLORATORY or row["at_chance"]
    said = " ".join(terminal.render(found).split())
    assert "Not there yet: random (seed 3, 4)." in said and "none is concluded from" in said
    assert found["verdict"] == build.again(found)["verdict"]


@pytest.mark.parametrize("demonstration", [False, True])
def test_the_terminal_names_both_sides_of_a_contrast_however_long_they_are(demonstration):
    sides = {"treatment": "a_within_source" * 3, "control": "b_within_source" * 3}
    row = sides | {"metric": "bits_per_byte", "primary": True, "lower_is_better": True, "difference": -0.1,
                   "low": -0.2, "high": -0.05, "verdict": "better", "detectable": None}  # fmt: skip
    found = {"kind": "train", "endpoint": "bits_per_byte", "comparisons": [row], "arms": {},
             "verdict": {"demonstration": demonstration}}  # fmt: skip
    lines = terminal._contrasts(found)
    assert [line.split()[0] for line in lines[1:3]] == list(sides.values())
    assert "-0.1000  [-0.2000, -0.0500]" in lines[2] and max(map(len, lines)) <= terminal.WIDTH
    assert ("better" in " ".join(lines[3:])) != demonstration  # a demonstration says once that it is one
