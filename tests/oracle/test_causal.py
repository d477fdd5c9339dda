"""Attention in blocks and cross-entropy in blocks against their definitions in float64."""

import math

import proxy_families as families
import pytest
import torch

from repro.proxy import causal, losses, masking
from repro.proxy.load import prepare


def by_hand(query, key, value, scaling):
    query, key, value = query.double(), key.double(), value.double()
    key, value = (tensor.repeat_interleave(query.shape[1] // key.shape[1], 1) for tensor in (key, value))
    scores = query @ key.transpose(2, 3) * scaling
    scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), -math.inf)
    return (scores.softmax(-1) @ value).transpose(1, 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("heads, groups", [(9, 3), (4, 4), (14, 2), (7, 1)])
@pytest.mark.parametrize("length", [2, 31, 64, 65, 333])
def test_attention_in_blocks_is_softmax_attention(heads, groups, length, dtype, monkeypatch):
    monkeypatch.setattr(causal, "SCORES", 20_000)  # so that a block holds some of the rows
    torch.manual_seed(length)
    query = torch.randn(3, length, heads, 16).transpose(1, 2).to(dtype)
    key, value = torch.randn(3, groups, length, 16).to(dtype), torch.randn(3, groups, length, 24).to(dtype)
    for scaling in (None, 0.7):
        found = causal.attention(query, key, value, scaling)
        expected = by_hand(query, key, value, 0.25 if scaling is None else scaling)
        assert found.shape == (3, length, heads, 24) and found.dtype == dtype
        gap = (found.double() - expected).norm() / expected.norm()
        assert gap < (1e-6 if dtype == torch.float32 else 0.01)


def test_bfloat16_on_a_cpu_takes_it_where_heads_share_keys(monkeypatch):
    """And the masked model is still the explicit one: zero queries, forked rows, blocks."""
    calls = []
    own = causal.attention
    monkeypatch.setattr(causal, "attention", lambda *a: calls.append(a[0].dtype) or own(*a))
    shared, alone = families.build("llama").bfloat16(), families.build("gpt2").bfloat16()
    for model, expected in ((shared, True), (alone, False), (families.build("llama"), False)):
        calls.clear()
        proxy = prepare(model, families.Tokenizer())
        proxy.hidden(torch.randint(3, 96, (2, 40)))
        assert bool(calls) == expected


def test_a_foreign_mask_is_not_passed_over():
    module = torch.nn.Module()
    module.num_key_value_groups = 3
    query, key = torch.randn(1, 6, 8, 16).bfloat16(), torch.randn(1, 2, 8, 16).bfloat16()
    window = torch.ones(8, 8, dtype=torch.bool).tril().triu(-2)[None, None]
    found, _ = masking.attention(module, query, key, key, window, scaling=0.25)
    plain, _ = masking.attention(module, query, key, key, None, scaling=0.25)
    assert not torch.allclose(found[:, 5:], plain[:, 5:], atol=0.05)
    free, _ = masking.attention(module, query, key, key, None, scaling=0.25, is_causal=False)
    assert not torch.allclose(free[:, 0], plain[:, 0], atol=0.05)


@pytest.mark.parametrize("columns", [7, 32, 96, 4096])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("scale, softcap", [(1.0, None), (0.3, None), (2.0, 5.0)])
def test_cross_entropy_in_blocks_is_the_librarys(columns, bias, scale, softcap, monkeypatch):
    monkeypatch.setattr(losses, "COLUMNS", columns)
    monkeypatch.setattr(losses, "ROWS", 13)
    torch.manual_seed(columns)
    head = torch.nn.Linear(8, 96, bias=bias).requires_grad_(False)
    hidden, targets = 30 * torch.randn(40, 8), torch.randint(96, (40,))
    found = losses.token_losses(hidden, head, targets, scale, softcap)
    logits = head.double()(hidden.double()) * scale
    logits = logits if softcap is None else (logits / softcap).tanh() * softcap
    expected = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("columns", [32, 4096])
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_in_16_bits_differences_are_rounded_and_not_logits(columns, scale, monkeypatch):
    """Logits of about 20, of which bfloat16 keeps a sixteenth; the same numbers multiplied in float64."""
    monkeypatch.setattr(losses, "COLUMNS", columns)
    torch.manual_seed(0)
    head = torch.nn.Linear(64, 96, bias=False).requires_grad_(False).bfloat16()
    hidden = (20 * head.weight.float().mean(0) / head.weight.float().mean(0).square().sum()).repeat(500, 1)
    hidden = (hidden + 2 * torch.randn(500, 64)).bfloat16()
    logits = hidden.double() @ head.weight.double().T * scale
    targets = logits.topk(3, -1).indices[torch.arange(500), torch.randint(3, (500,))]
    expected = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    rounded = torch.nn.functional.cross_entropy(head(hidden).double() * scale, targets, reduction="none")
    found = losses.token_losses(hidden, head, targets, scale).double()
    errors = [float((values - expected).square().mean().sqrt()) for values in (found, rounded)]
    assert errors[0] < errors[1] / 5


def test_tokens_that_cannot_be_said_and_numbers_that_are_none(monkeypatch):
    """A bias of minus infinity hides a token, in a block of its own, too; what is not finite stays so."""
    monkeypatch.setattr(losses, "COLUMNS", 4)
    head = torch.nn.Linear(8, 12).requires_grad_(False)
    head.bias[:4] = -math.inf
    hidden, targets = torch.randn(3, 8), torch.tensor([5, 11, 7])
    expected = torch.nn.functional.cross_entropy(head(hidden), targets, reduction="none")
    torch.testing.assert_close(losses.token_losses(hidden, head, targets), expected)
    hidden[1, 0] = math.nan
    assert losses.token_losses(hidden, head, targets).isnan().tolist() == [False, True, False]
