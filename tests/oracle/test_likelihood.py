"""Log-likelihoods read with shared contexts and cached keys against the obvious way: each row alone, whole, without a cache."""

import random

import proxy_families as families
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from repro.evaluate import likelihood
from repro.proxy import masking, rope

WINDOWS = (
    "mistral",
    "gemma2",
    "gemma3_text",
    "gemma3n_text",
    "phi3",
    "cohere2",
    "olmo3",
    "llama4_text",
    "gpt_oss",
)
OTHERS = ("llama", "gpt2", "gpt_neox", "opt", "qwen3", "mixtral", "bloom", "falcon")


def requests(vocabulary):
    """Contexts of several lengths, beyond windows too, each with answers of one token and of several, and with one answer."""
    draw = random.Random(0)

    def tokens(n):
        return tuple(draw.randrange(3, vocabulary) for _ in range(n))

    many = [
        (context, tokens(n))
        for context in (tokens(1), tokens(3), tokens(9), tokens(9), tokens(14))
        for n in (1, 2, 5, 7)
    ]
    return [*many, (tokens(11), tokens(3)), many[5]]


def plain(model, context, answer):
    with torch.inference_mode():
        logits = (
            model(input_ids=torch.tensor([[*context, *answer]])[:, :-1], use_cache=False).logits[0].float()
        )
    rows = logits.log_softmax(-1)[-len(answer) :]
    return sum(float(row[token]) for row, token in zip(rows, answer, strict=True)), [
        int(r.argmax()) for r in rows
    ] == [*answer]


def agree(model, vocabulary):
    asked = requests(vocabulary)
    found = likelihood.loglikelihoods(model, asked)
    for (context, answer), (nats, greedy) in zip(asked, found, strict=True):
        expected, likeliest = plain(model, context, answer)
        assert nats == pytest.approx(expected, rel=1e-4, abs=1e-4), (len(context), len(answer))
        assert greedy == likeliest


@pytest.mark.parametrize("family", [f for f in (*WINDOWS, *OTHERS) if f in families.FAMILIES])
def test_shared_contexts_change_nothing(family):
    agree(
        families.build(family, "sdpa" if family not in ("gemma2", "bloom", "gpt_oss") else "eager"),
        families.VOCABULARY,
    )


@pytest.mark.parametrize("family", ["llama", "gemma2", "gemma3_text", "gemma4_text"])
def test_shared_contexts_change_nothing_where_heads_can_be_masked(family):
    """Gemma 4 hands over the last queries alone, without a mask."""
    proxy = families.load(family)
    agree(proxy.model, families.VOCABULARY)
    with masking.masked(proxy.attentions, [(0, 1), (1, 0), (2, 3)]):
        agree(proxy.model, families.VOCABULARY)


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_positions_that_depend_on_the_length_are_read_whole(kind):
    torch.manual_seed(0)
    parameters = {"rope_type": kind, "rope_theta": 10000.0, "factor": 4.0}
    if kind == "longrope":
        factors = {"short_factor": [1.0] * 4, "long_factor": [1.0, 2.0, 4.0, 8.0]}
        parameters |= factors | {"original_max_position_embeddings": 10}
    config = LlamaConfig(vocab_size=60, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
                         max_position_embeddings=10 if kind == "dynamic" else 64, rope_parameters=parameters,
                         initializer_range=0.3)  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    assert rope.alone(model)
    agree(model, 60)


def test_of_equally_likely_tokens_the_first_is_the_greedy_one():
    """Against log_softmax and argmax, with ties in half of the places and a token that cannot come."""
    logits = torch.randint(0, 3, (4, 50, 11), generator=torch.Generator().manual_seed(0)).float()
    logits[..., 5] = float("-inf")
    targets = torch.randint(0, 11, (4, 50), generator=torch.Generator().manual_seed(1))
    expected = logits.double().log_softmax(-1).gather(-1, targets[..., None])[..., 0]
    likeliest = (logits.argmax(-1) == targets).tolist()
    found, greedy = likelihood._gathered(logits.clone(), targets)
    torch.testing.assert_close(torch.tensor(found).double(), expected, rtol=1e-6, atol=1e-6)
    assert greedy == likeliest and any(map(any, greedy))
    assert not likelihood._gathered(torch.full((1, 1, 3), float("nan")), torch.zeros(1, 1, dtype=int))[1][0][
        0
    ]
