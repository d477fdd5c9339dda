"""Bits per byte against a loop that predicts one token at a time."""

import math
import random

import pytest
import torch
from evaluating import tiny, words
from transformers import AutoModelForCausalLM, AutoTokenizer

from repro.evaluate.bits_per_byte import measure, pooled, windows
from repro.pretrained import Encoder

CONTEXT = 16
PREFIX = 0


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tiny(tmp_path_factory.mktemp("model"))
    return AutoModelForCausalLM.from_pretrained(folder).eval(), Encoder(
        AutoTokenizer.from_pretrained(folder)
    ).one


TEXTS = [words(random.Random(i), n) for i, n in enumerate((1, 3, 9, 40, 80))] + [
    "日本\u2028\n\n  émigré",
    "x" * 50,
]


@torch.no_grad()
def naive_bits(model, ids, context):
    """-log2 p of each token, one forward pass a token, given what its window holds before it."""
    total = 0.0
    for position, token in enumerate(ids):
        begin = position - position % context  # the first token of the window
        before = [PREFIX if begin == 0 else ids[begin - 1], *ids[begin:position]]
        logits = model(input_ids=torch.tensor([before])).logits[0, -1].double()
        total -= (logits - logits.logsumexp(0))[token].item() / math.log(2)
    return total


def test_every_token_is_predicted_exactly_once():
    for n in (1, CONTEXT - 1, CONTEXT, CONTEXT + 1, 3 * CONTEXT, 50):
        tokens = list(range(100, 100 + n))
        found = list(windows(tokens, PREFIX, CONTEXT))
        assert [token for _, targets in found for token in targets] == tokens
        assert all(len(inputs) == len(targets) <= CONTEXT for inputs, targets in found)
        assert [token for inputs, _ in found for token in inputs] == [PREFIX, *tokens[:-1]]
    assert list(windows([], PREFIX, CONTEXT)) == []


def test_bits_equal_a_loop_over_tokens(model):
    network, encode = model
    for text, found in zip(TEXTS, measure(network, encode, PREFIX, CONTEXT, TEXTS), strict=True):
        assert found.bits == pytest.approx(naive_bits(network, encode(text), CONTEXT), rel=1e-5)
        assert found.n_bytes == len(text.encode("utf-8"))
        assert found.n_tokens == len(encode(text))


def test_bits_depend_on_neither_batch_nor_order(model):
    network, encode = model
    expected = [text.bits for text in measure(network, encode, PREFIX, CONTEXT, TEXTS)]
    for tokens_per_batch in (1, 20, 64):
        found = measure(network, encode, PREFIX, CONTEXT, TEXTS[::-1], tokens_per_batch)
        assert [text.bits for text in found][::-1] == pytest.approx(expected, rel=1e-6)


def test_a_uniform_model_pays_log2_of_the_vocabulary(model):
    network, encode = model
    flat = AutoModelForCausalLM.from_config(network.config)
    torch.nn.init.zeros_(flat.lm_head.weight)
    for text, found in zip(TEXTS, measure(flat.eval(), encode, PREFIX, CONTEXT, TEXTS), strict=True):
        assert found.bits == pytest.approx(len(encode(text)) * math.log2(network.config.vocab_size), rel=1e-6)


def test_pooling_weighs_bytes_and_names_what_is_not_finite():
    found = pooled([10.0, 30.0, math.nan, math.inf], [10, 10, 5, 5])
    assert found["value"] == 2.0
    assert (found["n"], found["bytes"], found["non_finite"]) == (2, 20, 2)
    # two documents of equal length: the ratio is a mean, its standard error that of a mean
    assert found["stderr"] == pytest.approx(math.sqrt(((1 - 2) ** 2 + (3 - 2) ** 2) / 1) / math.sqrt(2))
    assert pooled([math.nan], [5])["value"] is None
