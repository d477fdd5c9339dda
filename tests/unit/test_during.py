"""Differences of models that were kept on the way: paired as those at the end are, described and never judged."""

import itertools
import json
import shutil
from statistics import mean

import fabricated
import numpy
import polars
import pytest
from scipy import stats

from repro.outcomes.compare import between
from repro.paper import committed, picture, readme
from repro.report import build, during, interactive
from repro.store import read_json, write_json

ARM, OTHER = "attention_influence", "random"
BITS, HELD_OUT = "bits_per_byte", "heldout_bits_per_byte"
COPIED = {  # arm -> the gain of each seed at 90 tokens
    "attention_influence": [0.5, 0.9, 0.4],
    "random": [0.1, 0.2, 0.3],
    "full": [0.0, 0.1, 0.0],
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Every model kept twice: at 90 tokens as good as at its end, at 30 a bit a byte worse; one lacks another at 60."""
    work = tmp_path_factory.mktemp("during")
    settings, store, stages = fabricated.run(work)
    for arm, by_seed in stages["arms"].items():
        for seed, named in by_seed.items():
            folder = store.path(named["evaluate"])
            texts(arm).write_parquet(folder / "texts.parquet")
            found = read_json(folder / "summary.json")
            worse = json.loads(json.dumps(found))
            worse["bits_per_byte"] += 1
            for cell in worse[HELD_OUT].values():
                cell["value"] += 1
            kept = {"90": found, "30": worse}
            if (arm, seed) != (OTHER, 1):
                kept["60"] = found
            for tokens in kept:
                (folder / "checkpoints" / tokens).mkdir(parents=True)
                for name in ("items.parquet", "texts.parquet"):
                    shutil.copy(folder / name, folder / "checkpoints" / tokens / name)
            write_json(folder / "summary.json", {**found, "checkpoints": kept})
            named["copying"] = fabricated.Stage("copying", f"{arm}-{seed}", {}, lambda c, a=arm, s=seed: write_json(
                c.out / "copying.json", {"gain": {"value": 1.0, "n": 32}, "checkpoints": {"90": {"value": COPIED[a][s], "n": 32}}}
            ))  # fmt: skip
            store.ensure(named["copying"])
    return build.build(work / "run", settings, store, stages), work / "run"


def texts(arm):
    """Texts of which models of each arm find others hard, so that which were asked matters."""
    generator = numpy.random.default_rng(sum(map(ord, arm)))
    sources = [("out_of_corpus", "wikitext"), *(("heldout", domain) for domain in fabricated.DOMAINS)]
    return polars.DataFrame([
        {"kind": kind, "source": source, "doc_id": str(i), "bits": 100 * generator.normal(2, 0.3), "n_bytes": 100}
        for kind, source in sources for i in range(20)
    ])  # fmt: skip


def row(sealed, tokens, metric, sides=(ARM, OTHER)):
    [found] = [
        r for r in sealed["during"] if (r["treatment"], r["control"], r["tokens"], r["metric"]) == (*sides, tokens, metric)
    ]  # fmt: skip
    return found


@pytest.mark.parametrize("tokens", [30, 90])
def test_what_both_arms_gain_or_lose_alike_leaves_the_interval_of_the_end(run, tokens):
    """Items included: the same items as at the end, so the same variance of theirs."""
    sealed, _ = run
    held_out = [f"{HELD_OUT}/{domain}" for domain in fabricated.DOMAINS]
    for metric, of_end in ((BITS, [BITS]), (HELD_OUT, held_out)):
        at, end = row(sealed, tokens, metric), between(sealed, ARM, OTHER, of_end)
        for key in ("difference", "low", "high", "p"):
            assert at[key] == pytest.approx(end[key], abs=1e-9), (metric, key)
        assert at["seeds"] == 3 and at["lower_is_better"] and at["primary"]
        assert at["item_variance"] > 0


def test_the_gain_by_copying_is_paired_by_seed(run):
    sealed, _ = run
    gaps = [a - b for a, b in zip(COPIED[ARM], COPIED[OTHER], strict=True)]
    expected = stats.t.interval(0.95, 2, mean(gaps), stats.sem(gaps))
    found = row(sealed, 90, "copying_gain")
    assert (found["low"], found["high"]) == pytest.approx(expected) and not found["lower_is_better"]


def test_only_tokens_that_every_shared_seed_has(run):
    sealed, _ = run
    at = {(r["treatment"], r["control"]): set() for r in sealed["during"]}
    for r in sealed["during"]:
        at[r["treatment"], r["control"]].add(r["tokens"])
    assert at == {(ARM, OTHER): {30, 90}, (ARM, "full"): {30, 60, 90}}


def test_nothing_of_it_is_judged_and_judging_again_changes_nothing(run):
    sealed, _ = run
    assert {(r["treatment"], r["control"]) for r in sealed["during"]} == {(ARM, OTHER), (ARM, "full")}
    assert not any({"verdict", "p_holm"} & r.keys() for r in sealed["during"])
    again = build.again(sealed)
    assert json.loads(json.dumps(again["during"])) == sealed["during"]
    old = {key: value for key, value in sealed.items() if key != "during"}
    assert "during" not in build.again(old)  # of an earlier version: the items' share is not known


def test_the_end_is_the_last_point_and_the_page_has_picture_and_table(run):
    sealed, folder = run
    plot = during.plot(sealed)
    by_label = {panel.title: panel for panel in plot.panels}
    assert sorted(by_label) == [
        "bits per byte (lower is better)",
        "copying gain (higher is better)",
        "heldout bits per byte (lower is better)",
    ]
    bits, copying, _ = (by_label[label] for label in sorted(by_label))
    end = int(sealed["arms"][ARM]["seeds"]["0"]["loss"][-1][0])
    of_primary = next(s for s in bits.series if s.name == f"{ARM} − {OTHER}")
    compared = between(sealed, ARM, OTHER, [BITS])
    assert of_primary.x == [30, 90, end] and of_primary.low[-1] == compared["low"]
    assert all(p.level == 0 and p.level_name == "equal" for p in plot.panels) and len(copying.series) == 2
    assert "equal" in json.dumps(interactive.to_plotly(plot))
    text = (folder / "tables" / "during.md").read_text()
    blocks = [(row[0], row[1]) for row in during.table(sealed).rows]
    assert len(list(itertools.groupby(blocks))) == len(set(blocks))  # each block once, of all its tokens
    assert "copying_gain" in text and "neither tested" in " ".join(text.split())
    assert (folder / "figures" / "during.svg").is_file() and "Differences during training" in (
        folder / "report.html"
    ).read_text()


def test_the_readme_shows_the_primary_contrast_against_the_tokens_read(run):
    sealed, _ = run
    result = committed.Result("r", {**sealed, "verdict": {**sealed["verdict"], "demonstration": False}})
    *_, panel = picture.figure([result]).panels
    [line] = panel.series
    at = {tokens: row(sealed, tokens, BITS) for tokens in (30, 90)}
    assert line.name == f"{ARM} − {OTHER}" and line.x[:2] == [30, 90] and panel.level == 0
    assert (line.y[0], line.low[1]) == (at[30]["difference"], at[90]["low"])
    said = f"{at[30]['difference']:+.3f} [{at[30]['low']:+.3f}, {at[30]['high']:+.3f}] at 0.0 million tokens (3 pairs)"
    assert said in readme.block([result])
    without = committed.Result("r", {**result.summary, "during": []})
    assert len(picture.figure([without]).panels) == len(picture.figure([result]).panels) - 1
    assert "before the end" not in readme.block([without])
    # of two, the one whose models were trained for longer
    long = committed.Result("long", json.loads(json.dumps(result.summary)))
    for arm in long.summary["arms"].values():
        for seed in arm["seeds"].values():
            seed["loss"][-1][0] *= 2
    assert picture.figure([long, result]).alt.startswith("long") and picture.figure(
        [result, long]
    ).alt.startswith("long")
