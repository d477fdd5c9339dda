"""What a model gains by copying, against a loop over tokens and against a model that is known to copy."""

import json

import pytest
import torch
from evaluating import tiny
from transformers import AutoModelForCausalLM, AutoTokenizer

from repro.evaluate import copying, stage
from repro.outcomes import measure
from repro.outcomes.collect import flatten_metrics
from repro.proxy import masking
from repro.proxy.built import INDUCTION, build
from repro.proxy.load import prepare
from repro.store import Context, Stage, read_json


@torch.no_grad()
def by_hand(model, row):
    """Nats of each token of a row but the first, one pass a token."""
    losses = []
    for at in range(1, len(row)):
        logits = model(input_ids=torch.tensor([row[:at]])).logits[0, -1].double()
        losses.append(float(logits.logsumexp(0) - logits[row[at]]))
    return losses


def test_the_gain_is_that_of_a_loop_over_tokens(tmp_path, monkeypatch):
    monkeypatch.setattr(copying, "ROWS", 5)
    monkeypatch.setattr(copying, "TOKENS", 7)
    folder = tiny(tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    special = AutoTokenizer.from_pretrained(folder).all_special_ids
    seen, plain = [], model.forward

    def watched(*args, **options):
        seen.extend(options["input_ids"].tolist())
        return plain(*args, **options)

    monkeypatch.setattr(model, "forward", watched)
    found = copying.measure(model, special)
    monkeypatch.undo()
    assert len(seen) == 5 and all(row[:7] == row[7:] and not set(row) & set(special) for row in seen)
    gains = []
    for row in seen:
        losses = by_hand(model, row)
        gains.append(sum(losses[:6]) / 6 - sum(losses[7:]) / 6)
    mean = sum(gains) / 5
    assert found["value"] == pytest.approx(mean, abs=1e-4) and found["n"] == 5
    spread = (sum((gain - mean) ** 2 for gain in gains) / 4 / 5) ** 0.5
    assert found["stderr"] == pytest.approx(spread, rel=1e-2)


def test_a_model_that_is_built_to_copy_gains_and_without_its_head_it_does_not():
    model = prepare(*build())
    special = model.tokenizer.all_special_ids
    gain = copying.measure(model.model, special)
    assert gain["value"] > 2 and 0 <= gain["stderr"] < gain["value"]
    with masking.masked(model.attentions, [INDUCTION]):
        assert copying.measure(model.model, special)["value"] < gain["value"] / 4


def test_a_stage_measures_the_last_model_and_those_on_the_way(tmp_path):
    place = tmp_path / "trained"
    tiny(place / "model")
    for name in ("2000", "30000", "notes"):
        tiny(place / "models" / name)
    context = Context(tmp_path / "out", {"model": place}, "cpu")
    context.out.mkdir()
    stage.copying_stage(3, Stage("pretrain", "arm", {}, print)).run(context)
    found = read_json(context.out / "copying.json")
    assert list(found["checkpoints"]) == ["2000", "30000"]
    assert found["checkpoints"]["2000"] == found["gain"]  # the same weights
    assert context.facts == {"gain": found["gain"]["value"]}
    cells = flatten_metrics({measure.COPYING: found["gain"]})
    assert list(cells) == [measure.COPYING] and measure.of(measure.COPYING).part
    assert not measure.of(measure.COPYING).lower_is_better


def test_a_model_that_broke_has_no_gain_and_the_file_is_written(tmp_path):
    model = AutoModelForCausalLM.from_pretrained(tiny(tmp_path / "model")).eval()
    for weight in model.parameters():
        weight.data.fill_(float("nan"))
    found = copying.measure(model, [])
    assert found["value"] is None and found["stderr"] is None and json.dumps(found, allow_nan=False)
    assert flatten_metrics({measure.COPYING: found}) == {}
