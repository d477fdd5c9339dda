"""Detectors against attention maps written out in full, and on the constructed model whose copying head is known."""

import pydoc_data.topics

import numpy as np
import proxy_families as families
import pytest
import torch

from repro.heads import attention, importance, probes
from repro.heads.detectors import induction, retrieval
from repro.heads.probes import Probe
from repro.heads.settings import Heads
from repro.proxy import masking
from repro.proxy.built import INDUCTION, build
from repro.proxy.load import prepare

SETTINGS = Heads(probe_tokens=512, shots=1)
TOPICS = [pydoc_data.topics.topics[key] for key in sorted(pydoc_data.topics.topics)]


@pytest.fixture(scope="module")
def constructed():
    return prepare(*build())


@pytest.fixture(scope="module")
def samples(constructed):
    values, cut = probes.values_from(TOPICS, constructed.encode, SETTINGS)
    assert not cut
    return [probes.build(i, values, constructed.encode, SETTINGS, []) for i in range(6)]


def brute_force(attentions, probe, match):
    """Section 4.1 read aloud, one loop per sentence, on full attention maps [layers][1, H, T, T]."""
    needle = range(probe.needle_start, probe.needle_start + len(probe.needle))
    scores = np.zeros((len(attentions), attentions[0].shape[1]))
    for layer, weights in enumerate(attentions):
        for head in range(weights.shape[1]):
            copied = set()
            for position in range(probe.answer_start, len(probe.ids)):
                word = probe.ids[position]
                attended = int(weights[0, head, position - 1].argmax())  # the row that predicts `word`
                if probe.ids[attended] == word and (match == "any" or attended in needle):
                    copied.add(position if match == "any" else attended)
            scores[layer, head] = len(copied) / len(needle)
    return scores


@pytest.mark.parametrize("match", ["needle", "any"])
@pytest.mark.parametrize("family", ["llama", "mistral", "gpt_neox", "gemma2", "opt"])
def test_retrieval_score_against_full_maps(family, match):
    """Random models with few tokens, so that there are many accidental copies to count."""
    proxy = prepare(families.build(family), families.Tokenizer(), family)
    eager = families.build(family, "eager")
    generator = torch.Generator().manual_seed(0)
    total = 0.0
    for _ in range(12):
        ids = torch.randint(3, 9, (40,), generator=generator).tolist()
        probe = Probe([*ids[:30], *ids[25:30]], 25, 30, 3)  # near enough for the sliding windows of 5
        with torch.no_grad():
            maps = eager(torch.tensor([probe.ids]), output_attentions=True).attentions
        expected = brute_force(maps, probe, match)
        found = retrieval.detect(proxy, probe, Heads(match=match))
        np.testing.assert_allclose(found.scores, expected)
        total += expected.sum()
    assert total > 3


def test_the_head_known_to_copy_is_the_one_found(constructed, samples):
    mean = np.mean([retrieval.detect(constructed, probe, SETTINGS).scores for probe in samples], axis=0)
    assert importance.top(mean, 0.05) == [INDUCTION]
    assert mean[INDUCTION] > 0.6 and mean.sum() == mean[INDUCTION]


def test_its_own_row_would_find_nothing(constructed, samples):
    """Off by one: looking at the row of the answer token itself, the copying head scores next to nothing."""
    probe = samples[0]
    positions, _ = attention.attention_rows(
        constructed,
        probe.ids,
        list(range(probe.answer_start, len(probe.ids))),
        lambda scores: scores.argmax(-1),
    )
    tokens = torch.tensor(probe.ids)
    own_row = (tokens[positions[INDUCTION]] == tokens[probe.answer_start :]).float().mean()
    assert own_row < 0.2 < retrieval.detect(constructed, probe, SETTINGS).scores[INDUCTION]


def test_masking_it_makes_copying_fail(constructed, samples):
    before = retrieval.detect(constructed, samples[0], SETTINGS)
    with masking.masked(constructed.attentions, [INDUCTION]):
        after = retrieval.detect(constructed, samples[0], SETTINGS)
    assert before.accuracy > 0.7 > 0.1 >= after.accuracy
    assert after.loss > before.loss + 3


def test_greedy_equals_teacher_forcing_where_the_model_answers_right(constructed):
    """A key whose model continues exactly with the needle: both readings see the same rows."""
    ids = list(range(300, 420))
    probe = Probe([*ids, 700, *ids[40:60]], 40, 121, 2)  # prompt ends in a token the model has not seen
    prompt = Probe(
        [*ids, *ids[37:40], *ids[40:60]], 40, 123, 2
    )  # prompt ends with the three tokens before the needle
    forced = retrieval.detect(constructed, prompt, Heads())
    greedy = retrieval.detect(constructed, prompt, Heads(decoding="greedy"))
    np.testing.assert_array_equal(forced.scores, greedy.scores)
    assert forced.accuracy == greedy.accuracy == 1.0 and forced.scores[INDUCTION] == 1.0
    lost = retrieval.detect(constructed, probe, Heads(decoding="greedy"))
    assert lost.scores[INDUCTION] < 0.5  # what it writes is not the needle, so it copies nothing of it


@pytest.mark.parametrize(
    "chat", [{"repetition_penalty": 1.5}, {"no_repeat_ngram_size": 3}, {"suppress_tokens": [340]}]
)
def test_greedy_is_the_likeliest_token_each_time_whatever_the_model_comes_with(
    chat, constructed, monkeypatch
):
    """Against an argmax for every token; what a chat model's generation_config.json asks for is not asked here."""
    from transformers import GenerationConfig

    ids = list(range(300, 420))
    probe = Probe([*ids, *ids[37:40], *ids[40:60]], 40, 123, 2)
    expected = probe.ids[: probe.answer_start]
    for _ in probe.needle:
        with torch.no_grad():
            logits = constructed.model(input_ids=torch.tensor([expected])).logits[0, -1]
        expected.append(int(logits.argmax()))
    config = GenerationConfig(**chat)
    monkeypatch.setattr(constructed.model, "generation_config", config)
    assert attention.greedy(constructed, probe) == expected[probe.answer_start :]
    config.eos_token_id = 345  # the sixth token: there an answer ends
    assert attention.greedy(constructed, probe) == list(range(340, 346))
    assert constructed.model.generation_config is config


@pytest.mark.parametrize("family", ["qwen2", "gpt2", "gpt_neox", "gemma"])
def test_induction_against_full_maps(family):
    """Prefix matching from whole attention maps; copying by taking each head's output out of the residual stream alone."""
    proxy, eager = prepare(families.build(family), families.Tokenizer()), families.build(family, "eager")
    sample = induction.repeated(1, list(range(3, 96)), Heads(probe_tokens=128), [])
    period = len(sample.ids) // 2
    assert sample.ids[:period] == sample.ids[period:]
    name = next(n for n, _ in eager.named_modules() if n.endswith(("o_proj", "c_proj", "dense")))
    projection = name.rsplit(".", 1)[1]
    inputs = []
    for proxy_layer in proxy.attentions:
        own = next(n for n, m in proxy.model.named_modules() if m is proxy_layer)
        module = eager.get_submodule(f"{own}.{projection}")
        module.register_forward_pre_hook(lambda module, given: inputs.append((module, given[0][0].clone())))
    with torch.no_grad():
        maps = eager(torch.tensor([sample.ids]), output_attentions=True).attentions
        rows = list(range(sample.answer_start - 1, len(sample.ids) - 1))
        unembedding = eager.get_output_embeddings().weight
        expected = np.zeros((3, 6))
        for layer, weights in enumerate(maps):
            module, given = inputs[layer]
            for head in range(6):
                matching = np.mean([float(weights[0, head, row, row + 1 - period]) for row in rows])
                alone = torch.zeros_like(given)
                width = given.shape[-1] // 6
                alone[:, head * width : (head + 1) * width] = given[:, head * width : (head + 1) * width]
                written = module(alone) - module(torch.zeros_like(given))
                logits = written @ unembedding.T
                raised = np.mean(
                    [bool(logits[row, sample.ids[row + 1]] > logits[row].mean()) for row in rows]
                )
                expected[layer, head] = matching * max(0, 2 * raised - 1)
    assert (expected > 0).sum() > 3
    np.testing.assert_allclose(
        induction.detect(proxy, sample, Heads()).scores, expected, rtol=1e-4, atol=1e-6
    )


def test_induction_on_the_constructed_model(constructed):
    sample = induction.repeated(0, list(range(1000)), Heads(probe_tokens=128), [])
    found = induction.detect(constructed, sample, Heads())
    assert found.scores[INDUCTION] > 0.95 and np.delete(found.scores.ravel(), 4).max() < 0.1


def test_attention_maps_are_never_whole(constructed, samples):
    """The largest score tensor has as many rows as the answer has tokens."""
    seen = []

    def shape(scores):
        seen.append(tuple(scores.shape))
        return scores.argmax(-1)

    probe = samples[0]
    rows = list(range(probe.answer_start - 1, len(probe.ids) - 1))
    attention.attention_rows(constructed, probe.ids, rows, shape)
    assert seen == [(4, len(probe.needle), len(probe.ids))] * 2
