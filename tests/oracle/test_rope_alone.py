"""Models whose position encoding depends on the longest row of a batch: results do not depend on neighbours or order."""

import json
import random

import pytest
import torch
from evaluating import tiny, words
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from repro.evaluate import bits_per_byte, harness, tasks
from repro.influence.scorer import Scorer
from repro.pretrained import Encoder
from repro.proxy import load

ROPE = {
    "dynamic": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0},
    "longrope": {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "factor": 4.0,
        "short_factor": [1.0] * 4,
        "long_factor": [1.0, 2.0, 4.0, 8.0],
        "original_max_position_embeddings": 32,
    },
}


@pytest.fixture(scope="module", params=ROPE)
def folder(request, tmp_path_factory):
    path = tiny(tmp_path_factory.mktemp(request.param))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=330,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=32 if request.param == "dynamic" else 128,
        rope_parameters=ROPE[request.param],
        initializer_range=0.3,
        bos_token_id=0,
        eos_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def documents(folder):
    draw = random.Random(0)
    return [words(draw, n) for n in (4, 9, 30, 30, 31, 50, 64)]


def fresh(folder, ids, read=None):
    """Losses by a model that has read nothing before, of one row, of which it is given the first ``read`` tokens."""
    model = LlamaForCausalLM.from_pretrained(folder).eval()
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([ids[:read]]), use_cache=False).logits[0]
    return torch.nn.functional.cross_entropy(
        logits[: len(ids) - 1], torch.tensor(ids[1:]), reduction="none"
    ).tolist()


def test_influence_scores_are_those_of_the_document_alone(folder, documents):
    proxy = load.load(folder, "float32")
    encoded = [ids[:100] for ids in proxy.encode(documents)]
    assert min(map(len, encoded)) < 32 < max(map(len, encoded))  # both kinds, or nothing is tested
    for order in (encoded, encoded[::-1]):
        found = Scorer(proxy, [(0, 0)], 100, 100, 4096).losses(order)
        for ids, [(base, _)] in zip(order, found, strict=True):
            assert base.tolist() == pytest.approx(fresh(folder, [*proxy.prefix, *ids]), abs=2e-4)


def test_bits_per_byte_are_those_of_the_text_alone(folder, documents):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = LlamaForCausalLM.from_pretrained(folder).eval()
    encode = Encoder(tokenizer).one
    found = bits_per_byte.measure(model, encode, 0, 100, documents)
    for text, own in zip(documents, found, strict=True):
        ids = encode(text)[:100]
        if len(encode(text)) <= 100:
            assert own.bits * 0.6931471805599453 == pytest.approx(sum(fresh(folder, [0, *ids], -1)), rel=1e-4)


def test_answers_are_those_of_the_item_alone(folder, documents, tmp_path):
    rows = [{"text": document} for document in documents]
    (tmp_path / "lambada_openai").mkdir()
    (tmp_path / "lambada_openai" / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    plan = tasks.plan("lambada_openai", tmp_path)
    tasks.write(plan, tmp_path / "generated")
    lm = harness.load(folder, 4, "float32", max_length=128)
    _, found = harness.run(lm, plan, tmp_path / "generated")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for text, row in zip(documents, found, strict=True):
        ids, before = (
            tokenizer(text)["input_ids"][-129:],
            len(tokenizer(text.rpartition(" ")[0])["input_ids"]),
        )
        if len(ids) < 128:
            assert row["gold_loglikelihood"] == pytest.approx(
                -sum(fresh(folder, ids, -1)[before - 1 :]), rel=1e-3, abs=1e-3
            )
