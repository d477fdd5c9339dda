"""Masked heads against an explicit softmax, per model family; the oracle is in :mod:`proxy_families`."""

import re
import sys
from pathlib import Path

import proxy_families as families
import pytest
import torch
from proxy_families import explicit, oracle
from torch import nn
from transformers import AttentionInterface
from transformers.models.llama.modeling_llama import LlamaAttention

from repro.errors import SettingError
from repro.proxy import masking

ROOT = Path(__file__).resolve().parents[2]
HEADS = [(0, 1), (1, 0), (1, 5), (2, 3)]


def close(found, expected):
    assert families.gap(found, expected) <= families.TOLERANCE


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(1)


@pytest.fixture(scope="module")
def documented():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import families as benchmark

    return benchmark.read(ROOT / "docs/families.md")


@pytest.mark.parametrize("family", families.FAMILIES)
def test_a_family_is_exact_or_refused_as_documented(family, documented):
    assert (families.FAMILIES[family][0], *families.outcome(family)) == documented[family]


def test_the_table_of_families_is_whole(documented):
    assert list(documented) == list(families.FAMILIES)
    assert sum(row[1] == "exact" for row in documented.values()) >= 40


@pytest.mark.parametrize("mode", ["zero", "mean"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_zero_and_mean_against_explicit(family, mode):
    proxy, by_hand = families.load(family), families.build(family, "explicit")
    ids = torch.randint(3, 96, (2, 17))
    means = torch.randn(3, 6, by_hand.model.layers[0].self_attn.head_dim if family != "gpt2" else 8)
    with (
        torch.inference_mode(),
        masking.masked(proxy.attentions, HEADS, mode, means),
        oracle(HEADS, mode, means=means),
    ):
        close(proxy.model(ids).logits, by_hand(ids).logits)


@pytest.mark.parametrize("family", ["llama", "mistral", "gpt_neox", "gemma2", "gemma3_text"])
def test_padding_is_not_visible(family):
    """Left padding as lm-eval uses it: equal weights over the real positions only."""
    proxy, by_hand = families.load(family), families.build(family, "explicit")
    ids = torch.randint(3, 96, (2, 17))
    real = torch.ones(2, 17, dtype=torch.long)
    real[0, :6] = 0
    positions = (real.cumsum(-1) - 1).clamp(min=0)
    with torch.inference_mode(), masking.masked(proxy.attentions, HEADS), oracle(HEADS, real=real.bool()):
        found = proxy.model(ids, attention_mask=real, position_ids=positions).logits
        expected = by_hand(ids, position_ids=positions).logits
    close(found[real.bool()], expected[real.bool()])
    right = real.flip(1)  # and forked, with a mask per row that was made before the fork
    with torch.inference_mode(), masking.forked(proxy.layers, proxy.attentions, [HEADS[1:]]):
        both = proxy.model(ids, attention_mask=right).logits
    for heads, logits in (([], both[:2]), (HEADS[1:], both[2:])):
        with torch.inference_mode(), oracle(heads, real=right.bool()):
            expected = by_hand(ids).logits
        close(logits[right.bool()], expected[right.bool()])


def test_mean_outputs_are_means_of_the_explicit_outputs():
    from repro.influence.calibration import mean_outputs

    proxy = families.load("qwen3")
    windows = [torch.randint(3, 96, (n,)).tolist() for n in (9, 17)]
    seen = {}

    def keep(module, *arguments, **options):
        out, _ = explicit(module, *arguments, **options)
        seen.setdefault(module.layer_idx, []).append(out[0])
        return out, None

    AttentionInterface.register("explicit", keep)
    try:
        by_hand = families.build("qwen3", "explicit")
        with torch.inference_mode(), oracle(chunks={}):
            for window in windows:
                by_hand(torch.tensor([window]))
    finally:
        AttentionInterface.register("explicit", explicit)
    expected = torch.stack([torch.cat(seen[layer]).mean(0) for layer in range(3)])
    close(mean_outputs(proxy, windows), expected)


# The properties a refusal comes from, each given to a model that is otherwise accepted: no family is known by its name.


def sink(module, query, key, value, mask, **options):
    """One more position that every query may attend to, and that holds nothing."""
    key, value = (nn.functional.pad(one, (0, 0, 0, 1)) for one in (key, value))
    return own_attention(module, query, key, value, nn.functional.pad(mask, (0, 1)), **options)


def bias(module, query, key, value, mask, **options):
    return own_attention(module, query, key, value, mask - 0.1 * torch.arange(key.shape[2]), **options)


def sharpened(module, query, key, value, mask, **options):
    return own_attention(module, 2 * query, key, value, mask, **options)


own_attention = sys.modules[LlamaAttention.__module__].eager_attention_forward


@pytest.mark.parametrize(
    ("attention", "reason"),
    [(sink, "a position bias or a sink"), (bias, "a position bias or a sink"), (sharpened, "softmax")],
)
def test_an_attention_that_a_zero_query_does_not_make_uniform_is_refused(attention, reason, monkeypatch):
    monkeypatch.setattr(sys.modules[LlamaAttention.__module__], "eager_attention_forward", attention)
    with pytest.raises(SettingError, match=reason):
        families.load("llama")


def chosen(module, arguments, options):
    """The layer takes one position away from every later one, as an indexer would; from which, its content says."""
    mask = torch.ones(12, 12, dtype=torch.bool).tril()
    return arguments, options | {
        "attention_mask": (mask & (torch.arange(12) != 3) | torch.eye(12, dtype=torch.bool))[None, None]
    }


def ahead(module, arguments, options):
    return arguments, options | {"attention_mask": torch.ones(1, 1, 12, 12, dtype=torch.bool)}


def indexed(module, arguments, options):
    return arguments, options | {"indices": torch.zeros(1)}


def named(module, arguments, options):
    """Another computation under the library's own name of an attention function."""
    hidden = options["hidden_states"] * (2 if module.config._attn_implementation == "eager" else 1)
    return arguments, options | {
        "hidden_states": hidden.flip(-1) if hidden is not options["hidden_states"] else hidden
    }


@pytest.mark.parametrize(
    ("hook", "reason"),
    [
        (chosen, "choose by content"),
        (indexed, "choose by content"),
        (ahead, "later tokens"),
        (named, "another attention function"),
    ],
)
def test_a_layer_that_does_more_than_attend_by_position_is_refused(hook, reason):
    model = families.build("llama")
    for layer in model.model.layers:
        layer.self_attn.register_forward_pre_hook(hook, with_kwargs=True)
    with pytest.raises(SettingError, match=reason) as refusal:
        families.prepare(model, families.Tokenizer(), "llama")
    assert "\n" not in str(refusal.value)


def test_refusals_are_one_line(documented):
    assert all(re.fullmatch(r"[^\n]{10,250}", why) for _, how, why in documented.values() if how == "refused")
