"""The types of what a run found are true: of every committed summary and of FABRICATED runs of every kind."""

import json
from pathlib import Path

import pytest
from pydantic import ConfigDict, TypeAdapter, ValidationError
from test_page import COMMITTED, made

from repro import judge, kinds
from repro.outcomes import measure, outcome, statistics, summary
from repro.report import build

RESULTS = Path(__file__).resolve().parents[2] / "results"


@pytest.fixture(scope="module")
def adapter():
    """Strict: a field that the types do not know, or of another type, is an error."""
    for record in vars(outcome).values():
        if isinstance(record, type) and hasattr(record, "__required_keys__"):
            record.__pydantic_config__ = ConfigDict(extra="forbid", strict=True)
    return TypeAdapter(outcome.Outcome)


@pytest.mark.parametrize("name", COMMITTED)
def test_a_committed_summary_has_the_fields_that_the_types_name(name, adapter):
    adapter.validate_python(summary.read(RESULTS / name))


@pytest.mark.parametrize("name", COMMITTED)
def test_a_committed_summary_is_judged_by_the_rules_of_today(name):
    found = summary.read(RESULTS / name)
    assert summary.seal(build.again(found)) == found, f"python -m repro.judge results/{name}"


def test_a_pilot_that_an_earlier_version_named_gives_its_noise():
    found = summary.read(RESULTS / "selection_30pct_evening")
    power = {"pilot": "pilot-evening-1a2b3c4d", "deviation": 0.05}
    found["registration"] = {"registered": {}, "run": {"conclusions": {}}, "deviations": [], "power": power}
    once = build.again(found)
    rows = {(r["treatment"], r["control"]): r for r in once["comparisons"] if r["metric"] == "bits_per_byte"}
    first = rows["attention_influence", "random"]
    assert first["detectable"] == pytest.approx(statistics.smallest_effect(0.05, 8, first["item_variance"]))
    assert rows["perplexity_low", "random"]["detectable"] > first["detectable"]  # after the correction
    assert rows["random", "full"]["detectable"] is None  # of another share than the pilot's
    assert build.again(once) == once


def test_judging_again_leaves_what_was_measured_and_mends_the_words(tmp_path, capsys):
    found = summary.read(RESULTS / "selection_30pct_evening")
    row = next(r for r in found["comparisons"] if r["primary"] and r["metric"] == "bits_per_byte")
    row |= {"verdict": "better", "low": -1.0, "p": 0.5}
    summary.write(tmp_path / "run" / "summary.json", found)
    assert judge.main([str(tmp_path / "run")]) == 0
    assert "attention_influence - random, bits_per_byte: better -> worse" in capsys.readouterr().out
    assert summary.read(tmp_path / "run") == summary.read(RESULTS / "selection_30pct_evening")
    assert judge.main([str(tmp_path / "nowhere")]) == 2 and "is not there" in capsys.readouterr().err


def test_a_copy_is_judged_where_it_is_and_what_lies_beside_it_stays(tmp_path):
    found = summary.read(RESULTS / "selection_30pct_evening")
    row = next(r for r in found["comparisons"] if r["primary"] and r["metric"] == "bits_per_byte")
    row |= {"verdict": "better", "low": -1.0, "p": 0.5}
    for name in ("copy.json", "summary.json"):
        summary.write(tmp_path / name, found)
    (tmp_path / "report.html").write_text("of the other")
    before = (tmp_path / "summary.json").read_bytes()
    assert judge.main([str(tmp_path / "copy.json")]) == 0
    assert summary.read(tmp_path / "copy.json") == summary.read(RESULTS / "selection_30pct_evening")
    assert (tmp_path / "summary.json").read_bytes() == before
    assert (tmp_path / "report.html").read_text() == "of the other"


@pytest.mark.parametrize("kind", kinds.NAMES)
def test_a_run_of_every_kind_has_the_fields_that_the_types_name(kind, tmp_path, adapter):
    adapter.validate_python(summary.write(tmp_path / "summary.json", made(kind, tmp_path / "work")))


def test_a_field_of_another_name_or_type_is_an_error(adapter):
    found = summary.read(RESULTS / COMMITTED[0])
    for change in ({"arms": 3}, {"news": 1}, {"comparisons": [{"treatment": "a"}]}):
        with pytest.raises(ValidationError):
            adapter.validate_python({**found, **change})


@pytest.mark.parametrize(
    ("metric", "is_"),
    [("bits_per_byte", {"lower_is_better", "bits"}), ("text_bits_per_byte/wikitext", {"lower_is_better", "bits"}),
     ("gold_probability/blimp", set()), ("blimp/acc", {"accuracy"}), ("blimp_acc/binding", {"part"}), ("accuracy_average", set()),
     ("wikitext/word_perplexity,none", {"lower_is_better", "perplexity"}), ("gsm8k/exact_match,strict-match", {"accuracy"})],
)  # fmt: skip
def test_what_a_metric_is_stands_in_its_measure(metric, is_):
    one = measure.of(metric)
    assert {
        name for name in ("lower_is_better", "bits", "accuracy", "part", "perplexity") if getattr(one, name)
    } == is_
    assert (
        measure.of("text_bits_per_byte/wikitext").task == "wikitext"
        and measure.of("a/b/acc,none").task == "a/b"
    )


@pytest.mark.parametrize("value", [{}, [], {"a": []}, [[]], {"é\n": [None, True, 0.1, {}]}, 3])
def test_json_is_laid_out_without_a_change(value):
    for whole in (value, {"many": [value] * 60}, [{"key": value, "text": "ä" * 200}]):
        assert json.loads(summary.laid_out(whole)) == whole


def test_what_fits_into_a_line_stands_in_one():
    text = summary.laid_out({"short": [1, 2], "long": [[i, 10 * i] for i in range(40)]})
    assert text.split("\n")[:4] == ["{", ' "short": [1, 2],', ' "long": [', "  [0, 0],"]


def test_nan_is_no_json():
    with pytest.raises(ValueError, match="not JSON compliant"):
        summary.laid_out({"a": [float("nan")] * 60})
