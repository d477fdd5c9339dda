"""Masked heads against an explicit softmax, per model family.

The oracle is another attention function: the whole T x T map by hand, with what is visible worked out from positions,
window and padding alone, and the masked heads' weights written as 1 / (number of visible positions).
"""

import proxy_families as families
import pytest
import torch
from transformers import AttentionInterface, AttentionMaskInterface

from repro.config import SettingError
from repro.proxy import masking
from repro.proxy.load import prepare

HEADS = [(0, 1), (1, 0), (1, 5), (2, 3)]
ORACLE: dict = {}


def explicit(module, query, key, value, attention_mask, scaling=None, softcap=None, sliding_window=None, **_):
    length, groups = query.shape[2], query.shape[1] // key.shape[1]
    i, j = torch.arange(length)[:, None], torch.arange(length)[None]
    visible = (j <= i) & (i - j < (sliding_window or length))
    visible = visible[None, None] & ORACLE["real"][:, None, None, :]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scores = torch.einsum("bhid,bhjd->bhij", query, key) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    weights = scores.masked_fill(~visible, -1e30).softmax(-1)
    masked = [head for layer, head in ORACLE["heads"] if layer == module.layer_idx]
    uniform = visible.float() / visible.sum(-1, keepdim=True).clamp(min=1)
    for head in masked:
        weights[:, head] = uniform[:, 0]
    out = torch.einsum("bhij,bhjd->bihd", weights, value)
    for head in masked:
        if ORACLE["mode"] == "zero":
            out[:, :, head] = 0
        if ORACLE["mode"] == "mean":
            out[:, :, head] = ORACLE["means"][module.layer_idx, head]
    return out.contiguous(), None


AttentionInterface.register("explicit", explicit)
AttentionMaskInterface.register("explicit", lambda *arguments, **options: None)


def close(found, expected):
    """Equal to 1e-5 of the largest entry, float32."""
    assert found.shape == expected.shape and bool(torch.isfinite(expected).all())
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.fixture(autouse=True)
def oracle_state():
    ORACLE.update(heads=[], mode="uniform", real=torch.ones(1, 1, dtype=torch.bool))
    torch.manual_seed(1)
    yield
    ORACLE.clear()


@pytest.mark.parametrize("family", families.FAMILIES)
def test_uniform_against_explicit_softmax(family):
    proxy = prepare(families.build(family), families.Tokenizer(), family)
    oracle, eager = families.build(family, "explicit"), families.build(family, "eager")
    ids = torch.randint(3, 96, (2, 17))
    with torch.inference_mode():
        base = oracle(ids).logits
        close(base, eager(ids).logits)  # the oracle itself is right
        close(proxy.model(ids).logits, base)
        ORACLE["heads"] = HEADS
        expected = oracle(ids).logits
        with masking.masked(proxy.attentions, HEADS):
            found = proxy.model(ids).logits
        close(found, expected)
        assert (expected - base).abs().max() > 1e-2  # masking these heads does something
        with masking.forked(proxy.layers, proxy.attentions, HEADS[1:]):
            both = proxy.hidden(ids)
        ORACLE["heads"] = HEADS[1:]
        for rows, hidden in ((both[:2], eager.base_model(ids)), (both[2:], oracle.base_model(ids))):
            close(rows, hidden.last_hidden_state)
        # The losses of our cross-entropy are those of the model's own logits.
        losses = proxy.losses(both[2:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        expected = torch.nn.functional.cross_entropy(
            oracle(ids).logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="none"
        )
        close(losses, expected)


@pytest.mark.parametrize("mode", ["zero", "mean"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_zero_and_mean_against_explicit(family, mode):
    proxy = prepare(families.build(family), families.Tokenizer(), family)
    oracle = families.build(family, "explicit")
    ids = torch.randint(3, 96, (2, 17))
    means = torch.randn(3, 6, oracle.model.layers[0].self_attn.head_dim if family != "gpt2" else 8)
    ORACLE.update(heads=HEADS, mode=mode, means=means)
    with torch.inference_mode(), masking.masked(proxy.attentions, HEADS, mode, means):
        close(proxy.model(ids).logits, oracle(ids).logits)


@pytest.mark.parametrize("family", ["llama", "mistral", "gpt_neox", "gemma3_text"])
def test_padding_is_not_visible(family):
    """Left padding as lm-eval uses it: equal weights over the real positions only."""
    proxy = prepare(families.build(family), families.Tokenizer(), family)
    oracle = families.build(family, "explicit")
    ids = torch.randint(3, 96, (2, 17))
    real = torch.ones(2, 17, dtype=torch.long)
    real[0, :6] = 0
    positions = (real.cumsum(-1) - 1).clamp(min=0)
    ORACLE.update(heads=HEADS, real=real.bool())
    with torch.inference_mode(), masking.masked(proxy.attentions, HEADS):
        found = proxy.model(ids, attention_mask=real, position_ids=positions).logits
        expected = oracle(ids, position_ids=positions).logits
    close(found[real.bool()], expected[real.bool()])
    right = real.flip(1)  # and forked, with a mask per row that was made before the fork
    with torch.inference_mode(), masking.forked(proxy.layers, proxy.attentions, HEADS[1:]):
        both = proxy.model(ids, attention_mask=right).logits
    for heads, logits in (([], both[:2]), (HEADS[1:], both[2:])):
        ORACLE.update(heads=heads, real=right.bool())
        with torch.inference_mode():
            expected = oracle(ids).logits
        close(logits[right.bool()], expected[right.bool()])


def test_mean_outputs_are_means_of_the_explicit_outputs():
    from repro.influence.calibration import mean_outputs

    proxy = prepare(families.build("qwen3"), families.Tokenizer(), "qwen3")
    windows = [torch.randint(3, 96, (n,)).tolist() for n in (9, 17)]
    seen = {}

    def keep(module, *arguments, **options):
        out, _ = explicit(module, *arguments, **options)
        seen.setdefault(module.layer_idx, []).append(out[0])
        return out, None

    AttentionInterface.register("explicit", keep)
    try:
        oracle = families.build("qwen3", "explicit")
        with torch.inference_mode():
            for window in windows:
                oracle(torch.tensor([window]))
    finally:
        AttentionInterface.register("explicit", explicit)
    expected = torch.stack([torch.cat(seen[layer]).mean(0) for layer in range(3)])
    close(mean_outputs(proxy, windows), expected)


REFUSED = {
    "bloom": "0 of 3 layers have separable attention heads",
    "mamba": "0 of 3 layers have separable attention heads",
    "jamba": "of 3 layers have separable attention heads",
    "gpt_oss": "sink",
    "diffllama": "cannot be masked one by one",
    "jetmoe": "cannot be masked one by one",
    "gpt_bigcode": "cannot share one pass",
}


@pytest.mark.parametrize("family", REFUSED)
def test_models_that_would_not_be_exact_are_refused(family, monkeypatch):
    options = families.GPT2 if family == "gpt_bigcode" else {}
    monkeypatch.setitem(families.FAMILIES, family, options)
    if family == "gpt_bigcode":
        monkeypatch.setattr(families, "COMMON", {"bos_token_id": 1, "eos_token_id": 2})
    with pytest.raises(SettingError, match=REFUSED[family]) as refusal:
        prepare(families.build(family), families.Tokenizer(), family)
    assert "\n" not in str(refusal.value)
