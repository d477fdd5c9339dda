"""The forked, batched scorer against two plain passes, and eq. 5 on models whose losses are known by hand."""

import math
import random

import numpy as np
import proxy_families as families
import pytest
import torch

from repro.errors import SettingError
from repro.heads import controls
from repro.influence import examples, reference, statistics
from repro.influence.scorer import Scorer, batches
from repro.proxy.built import INDUCTION, build
from repro.proxy.load import prepare
from repro.proxy.losses import token_losses


@pytest.fixture(scope="module")
def documents():
    rng = random.Random(0)
    return [
        [rng.randrange(3, 96) for _ in range(rng.choice([0, 1, 2, 7, 16, 17, 33, 49, 50, 90]))]
        for _ in range(30)
    ]


@pytest.mark.parametrize(
    "family", ["llama", "mistral", "qwen3", "gpt_neox", "gpt2", "opt", "gemma2", "phi3", "granite"]
)
def test_forked_equals_two_passes(family, documents):
    """Windows, sliding windows, padding and batches included; every token loss to 1e-5 of its own size and more."""
    proxy = prepare(families.build(family), families.Tokenizer(), family)
    scorer = Scorer(proxy, [(1, 2), (2, 0)], window=17, max_tokens=49, tokens_per_batch=64)
    for document, found in zip(documents, scorer.losses(documents), strict=True):
        expected = reference.losses(scorer, document)
        assert [len(b) for b, _ in found] == [len(b) for b, _ in expected]
        for (base, masked), (plain_base, plain_masked) in zip(found, expected, strict=True):
            np.testing.assert_allclose(base, plain_base, rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(masked, plain_masked, rtol=1e-5, atol=1e-5)
    score = statistics.score(scorer.losses([documents[4]])[0])
    assert score["score"] is None or score["loss_ref"] != score["loss_base"]


SETS = [[(2, 0)], [(0, 1), (2, 3)], [(1, 2), (2, 0)], [(2, 5)], [(0, 4)]]  # lowest layers 2, 0, 1, 2, 0


@pytest.mark.parametrize("mask", ["uniform", "zero"])
@pytest.mark.parametrize("family", ["llama", "gpt_neox", "gpt2", "gemma2"])
def test_several_sets_of_heads_in_one_pass_are_each_alone(family, mask, documents):
    """Against two plain passes a set, and without forking."""
    proxy = prepare(families.build(family), families.Tokenizer(), family)
    together = Scorer(proxy, SETS[0], 17, 49, tokens_per_batch=64, mask=mask, others=SETS[1:])
    found = together.losses(documents)
    proxy.forks = False
    slow = together.losses(documents)
    for index, heads in enumerate(SETS):
        alone = Scorer(proxy, heads, window=17, max_tokens=49, mask=mask)
        for document, ours, unforked in zip(documents, found, slow, strict=True):
            for (base, masked), own, other in zip(
                reference.losses(alone, document), ours, unforked, strict=True
            ):
                assert len(own) == len(other) == 1 + len(SETS)
                for these in (own, other):
                    np.testing.assert_allclose(these[0], base, rtol=1e-5, atol=1e-5)
                    np.testing.assert_allclose(these[1 + index], masked, rtol=1e-5, atol=1e-5)


def test_sets_share_the_model_below_their_heads():
    """Rows that each layer computes: base, and each set from its lowest layer on."""
    proxy = prepare(families.build("llama"), families.Tokenizer(), "llama")
    rows = [0] * 3
    for number, layer in enumerate(proxy.layers):
        layer.register_forward_hook(
            lambda module, args, output, number=number: rows.__setitem__(number, len(output))
        )
    Scorer(proxy, SETS[0], 17, 49, others=SETS[1:]).losses([[5, 6, 7, 8]])
    assert rows == [3, 4, 6]
    assert not any(hasattr(module, "head_masks") for module in proxy.attentions)


def test_scores_do_not_depend_on_batches_order_or_neighbours(documents):
    proxy = prepare(families.build("llama"), families.Tokenizer(), "llama")

    def scores(documents, tokens_per_batch):
        scorer = Scorer(proxy, [(1, 2), (2, 0)], window=32, max_tokens=64, tokens_per_batch=tokens_per_batch)
        return [statistics.score(found) for found in scorer.losses(documents)]

    expected = scores(documents, 40)
    order = list(range(len(documents)))
    random.Random(1).shuffle(order)
    shuffled = scores([documents[i] for i in order], 1000)
    for rank, i in enumerate(order):
        for key in ("loss_base", "loss_ref"):
            if expected[i][key] is None:
                assert shuffled[rank][key] is None
            else:
                assert math.isclose(expected[i][key], shuffled[rank][key], rel_tol=1e-6)


@pytest.mark.parametrize("limit", [1, 64, 500, 10_000])
def test_batches_hold_every_window_once_with_little_padding(limit):
    rng = random.Random(limit)
    lengths = [rng.randrange(2, 300) for _ in range(200)]
    found = batches(lengths, limit)
    assert sorted(i for batch in found for i in batch) == list(range(200))
    for batch in found:
        longest = max(lengths[i] for i in batch)
        computed = longest * len(batch)
        assert computed <= limit or len(batch) == 1
        assert sum(lengths[i] for i in batch) >= 0.96 * computed


def test_a_token_is_predicted_from_those_before_it_and_once():
    """A hidden state at position t that knows token t + 1: its loss is 0 only if the shift is right and done once."""
    vocabulary, ids = 8, torch.tensor([3, 5, 1, 7, 2, 2, 6])
    head = torch.nn.Linear(vocabulary, vocabulary, bias=False)
    head.weight.data = torch.eye(vocabulary)
    successor = torch.nn.functional.one_hot(ids.roll(-1), vocabulary).float() * 50
    assert token_losses(successor[:-1], head, ids[1:]).max() < 1e-6
    assert (
        token_losses(successor[:-2], head, ids[2:]).min()
        < 1e-6
        < token_losses(successor[:-2], head, ids[2:]).max()
    )


def test_first_occurrence_is_unpredictable_and_repetition_is_not():
    """The constructed model copies: in `abc...abc...` the second half is cheap, from the token after the match on. With a
    label shifted twice, the cheap tokens would stand elsewhere."""
    model, tokenizer = build()
    proxy = prepare(model, tokenizer)
    half = random.Random(0).sample(range(300, 1000), 40)
    base, masked = Scorer(proxy, [INDUCTION], window=100).losses([[*half, *half]])[0][0]
    assert len(base) == 79
    # Losses are of tokens 1 .. 79; from token 43 on, the three tokens before are a known place.
    assert base[42:].max() < 1.0 < 3.0 < base[:39].min()
    assert masked[42:].min() > 3.0


def test_sign_and_value_of_the_score():
    """Eq. 5 by hand: base loss ln 2, reference loss ln 8: score = (ln 8 - ln 2) / ln 2 = 2. Masking hurts: positive."""
    base, masked = np.full(5, math.log(2), np.float32), np.full(5, math.log(8), np.float32)
    found = statistics.score([(base[:2], masked[:2]), (base[2:], masked[2:])])
    assert math.isclose(found["score"], 2.0, rel_tol=1e-6) and math.isclose(
        found["loss_difference"], math.log(4), rel_tol=1e-6
    )
    assert found["score_error"] == pytest.approx(0, abs=1e-9)
    assert math.isclose(statistics.score([(masked, base)])["score"], -2 / 3, rel_tol=1e-6)


def test_copied_text_scores_higher_than_fresh_text():
    """On the hand-made model, whose one masked head copies: positive where it copied, about nothing elsewhere."""
    model, tokenizer = build()
    proxy = prepare(model, tokenizer)
    rng = random.Random(3)
    copied = rng.sample(range(300, 1000), 30) * 3
    fresh = rng.sample(range(300, 1000), 90)
    scorer = Scorer(proxy, [INDUCTION], window=100)
    first, second = (statistics.score(found) for found in scorer.losses([copied, fresh]))
    assert first["score"] > 1.0 > 0.2 > abs(second["score"])


def test_windows_are_weighted_by_their_tokens():
    base = [np.array([1.0, 1.0, 1.0], np.float32), np.array([5.0], np.float32)]
    found = statistics.score([(base[0], 2 * base[0]), (base[1], base[1])])
    assert found["loss_base"] == 2.0 and found["loss_ref"] == 11 / 4


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_never_a_score(value):
    found = statistics.score([(np.array([1.0, value]), np.array([1.0, 2.0]))])
    assert found["score"] is None and found["loss_base"] is None and found["reason"] == "loss not finite"


def test_bos_stands_before_every_window_of_a_model_trained_with_it():
    class WithBos(families.Tokenizer):
        bos_token_id = 1

        def __call__(self, text, **options):
            bare = options.get("add_special_tokens") is False
            one = [5] if bare else [1, 5]
            return {"input_ids": [one for _ in text] if isinstance(text, list) else one}

    proxy = prepare(families.build("gemma"), WithBos(), "gemma")
    scorer = Scorer(proxy, [(1, 0)], window=5, max_tokens=10)
    assert scorer.windows([7] * 12) == [[1, 7, 7, 7, 7], [1, 7, 7, 7, 7], [1, 7, 7]]
    assert prepare(families.build("gemma"), families.Tokenizer(), "gemma").prefix == []


@pytest.fixture(scope="module")
def two_led():
    """The constructed proxy with a tokenizer that puts two special tokens before every text, as GLM-4's."""
    from tokenizers.processors import TemplateProcessing

    model, tokenizer = build()
    named = ["<|endoftext|>", "!"]
    ids = [tokenizer.convert_tokens_to_ids(token) for token in named]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=[*named, "$A"], special_tokens=list(zip(named, ids, strict=True))
    )
    proxy = prepare(model, tokenizer)
    assert proxy.prefix == ids
    return proxy


def text_losses(model, prefix, ids):
    """Of every token of a text behind a prefix: -ln p of it after all before it, one forward pass each."""
    found = []
    for at, token in enumerate(ids):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([[*prefix, *ids[:at]]])).logits[0, -1]
        found.append(-float(logits.double().log_softmax(0)[token]))
    return found


def test_no_special_token_is_in_the_losses_of_a_model_that_reads_two_before_a_text(two_led):
    """Against a pass for every token, on a model whose head's query weights are zeroed by hand."""
    text = "The same words again. The same words again, and a cat. The same words again."
    [ids] = two_led.encode([text])
    masked, _ = build()
    masked.model.layers[INDUCTION[0]].self_attn.q_proj.weight.data[:256] = 0
    scorer = Scorer(two_led, [INDUCTION], window=14)
    parts = [ids[start : start + 12] for start in range(0, len(ids), 12)]
    assert INDUCTION[1] == 0 and len(parts) > 2 and scorer.losses([[]]) == [[]]
    for both, plain, part in zip(scorer.losses([ids])[0], reference.losses(scorer, ids), parts, strict=True):
        for model, ours, theirs in zip((two_led.model, masked), both, plain, strict=True):
            expected = text_losses(model, two_led.prefix, part)
            np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(theirs, expected, rtol=1e-4, atol=1e-5)
    tokens = examples.token_losses(two_led, [INDUCTION], text, window=14)
    assert "".join(token["token"] for token in tokens) == text
    window = [*two_led.prefix, *ids[:12]]
    assert controls.mean_loss(two_led, [window]) == pytest.approx(
        np.mean(text_losses(two_led.model, two_led.prefix, ids[:12])), rel=1e-5
    )


def test_a_window_that_the_prefix_fills_is_refused(two_led):
    assert len(Scorer(two_led, [INDUCTION], window=3).losses([[5, 6]])[0]) == 2
    with pytest.raises(SettingError, match="score.window=2 has no room for text behind the 2 tokens"):
        Scorer(two_led, [INDUCTION], window=2)


def test_jackknife_agrees_with_the_spread_of_the_score():
    """Independent token losses: the error estimated from one document is the standard deviation over many."""
    rng = np.random.default_rng(0)

    def draw():
        base = rng.gamma(2.0, 1.5, 400)
        return base, base * rng.uniform(0.9, 1.6, 400)

    pairs = [draw() for _ in range(400)]
    spread = np.std([r.sum() / b.sum() - 1 for b, r in pairs])
    errors = [statistics.jackknife_error(b, r) for b, r in pairs]
    assert 0.9 < np.mean(errors) / spread < 1.1


def test_jackknife_by_hand():
    """Two tokens, two blocks: leaving one out leaves the other's ratio."""
    found = statistics.jackknife_error(np.array([1.0, 2.0]), np.array([2.0, 3.0]))
    ratios = np.array([3.0 / 2.0 - 1, 2.0 / 1.0 - 1])
    assert math.isclose(found, math.sqrt(0.5 * ((ratios - ratios.mean()) ** 2).sum()))


def test_text_properties():
    assert statistics.repetition(list(range(40))) == 0
    ids = list(range(20)) * 2  # 28 13-grams; the last 8 start in the second half and stand earlier
    assert statistics.repetition(ids) == pytest.approx(8 / 28)
    assert statistics.repetition([1] * 12) == 0
    assert statistics.compressibility("") is None
    assert (
        statistics.compressibility("ab" * 1000)
        < 0.05
        < 0.5
        < statistics.compressibility(str(random.Random(0).random()))
    )
