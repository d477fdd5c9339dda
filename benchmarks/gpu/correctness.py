"""Does the GPU compute what the CPU computes? Heads, scores, likelihoods, a training step, a resumed
training.

    python -m benchmarks.gpu.correctness --device cuda --out results/benchmarks

Every row says what it compared, the largest difference and whether it is ``ok``; rows are on disk the moment
they are done.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

from benchmarks.gpu import training
from benchmarks.gpu.rows import Card, arguments
from repro.evaluate import bits_per_byte
from repro.evaluate.likelihood import loglikelihoods
from repro.heads import importance, probes
from repro.heads.detectors import retrieval
from repro.heads.settings import Heads
from repro.influence import reference, statistics
from repro.influence.scorer import Scorer
from repro.proxy import built, masking
from repro.proxy.load import ProxyModel, prepare

FLOAT32 = 1e-4  # of a loss in nats
LIKELIHOOD = 1e-3  # of a sum over an answer of up to 20 tokens
RANKS = 0.99  # least rank correlation of bfloat16 with float32
WINDOW = 256


def main() -> int:
    """Measure every row; 1 where one is not as it should be."""
    options = arguments(__doc__, 60)
    options = options.parse_args()
    card = Card("correctness", options)
    with tempfile.TemporaryDirectory() as folder:
        models = Models(options.device, options.tiny)
        for name in ("built", "trained"):
            card.row(f"heads, {name}", partial(heads, models, name))
            card.row(f"losses in float32, {name}", partial(scores_float32, models, name))
            card.row(f"scores in bfloat16, {name}", partial(scores_bfloat16, models, name))
            card.row(f"one pass against two, {name}", partial(fused, models, name))
        card.row("likelihoods of answers", partial(likelihoods, models))
        card.row("bits per byte", partial(bits, models))
        trainings = training.Trainings(Path(folder), options.device, options.tiny)
        for dtype in ("bfloat16", "float32"):
            card.row(f"training against plain PyTorch, {dtype}", partial(trainings.against_plain, dtype))
            card.row(f"resumed training, {dtype}", partial(trainings.resumed, dtype))
        card.row("training on the CPU and here, float32", trainings.against_cpu)
        card.row("resumed after SIGKILL, bfloat16", partial(trainings.killed, "bfloat16"))
    return card.end()


class Models:
    """Two models with known kinds of heads, on the CPU and on the device, in both dtypes, and texts for
    them.
    """

    def __init__(self, device: str, tiny: bool) -> None:
        self.device, self.tiny = device, tiny
        self.count = 12 if tiny else 200
        self.kept: dict[tuple[str, str, str], ProxyModel] = {}
        self.found: dict[tuple[str, str, str], Any] = {}  # losses

    @cached_property
    def built(self) -> tuple[Any, Any]:
        """The model written by hand and its tokenizer."""
        return built.build()

    @cached_property
    def trained(self) -> Any:
        """A model that learned to copy: random sequences, repeated; trained here and now on the device."""
        return repeater(self.device, steps=4 if self.tiny else 400)

    def proxy(self, name: str, device: str, dtype: str) -> ProxyModel:
        """The model ``built`` or ``trained`` on a device, in a dtype."""
        if (name, device, dtype) not in self.kept:
            import copy

            source, tokenizer = self.built[0] if name == "built" else self.trained, self.built[1]
            model = copy.deepcopy(source).to(device=device, dtype=getattr(torch, dtype))
            for ours, theirs in zip(model.buffers(), source.buffers(), strict=True):
                ours.data = theirs.to(device)  # rotary frequencies stay float32
            self.kept[name, device, dtype] = prepare(model, tokenizer, name)
        return self.kept[name, device, dtype]

    @cached_property
    def texts(self) -> list[str]:
        """Text that every Python has, in pieces of a few hundred words."""
        import pydoc_data.topics

        topics = [pydoc_data.topics.topics[key] for key in sorted(pydoc_data.topics.topics)]
        lengths = itertools.cycle([300, 900, 500, 1300, 700])
        found = [
            text[at : at + size]
            for text, size in zip(topics, lengths, strict=False)
            for at in range(0, len(text), 2500)
        ]
        return [text for text in found if len(text) > 200][: self.count]

    @cached_property
    def ids(self) -> list[list[int]]:
        """Their token ids."""
        return self.proxy("built", "cpu", "float32").encode(self.texts)

    def documents(self, name: str) -> list[list[int]]:
        """What is scored: the texts; for the model that learned from repeated sequences, texts that are
        repeated in part.
        """
        if name == "built":
            return self.ids
        repeated = [(ids[: 8 + at % 24], ids[40 : 40 + 3 * at % 32]) for at, ids in enumerate(self.ids)]
        return [[*first, *first, *rest] for first, rest in repeated]

    def heads(self, name: str) -> list[tuple[int, int]]:
        """The heads that are masked: the copying one that is known, and the best that are found on the
        CPU.
        """
        return (
            [built.INDUCTION]
            if name == "built"
            else importance.top(self.detected(name, "cpu", "float32"), 0.25)
        )

    def detected(self, name: str, device: str, dtype: str) -> np.ndarray:
        """Mean retrieval score of every head: [layers, heads]."""
        proxy = self.proxy(name, device, dtype)
        s = Heads(probes=2 if self.tiny else 12, probe_tokens=1024)
        values, _ = probes.values_from(self.texts, proxy.encode, s)
        samples = [probes.build(i, values, proxy.encode, s, proxy.prefix) for i in range(s.probes)]
        return np.mean([retrieval.detect(proxy, sample, s).scores for sample in samples], axis=0)

    def losses(self, name: str, device: str, dtype: str) -> list[list[tuple[np.ndarray, np.ndarray]]]:
        """Of every document, base and reference loss of its tokens."""
        if (name, device, dtype) not in self.found:
            scorer = Scorer(
                self.proxy(name, device, dtype), self.heads(name), WINDOW, WINDOW, tokens_per_batch=8192
            )
            self.found[name, device, dtype] = scorer.losses(self.documents(name))
        return self.found[name, device, dtype]


def repeater(device: str, steps: int) -> Any:
    """A Llama of two layers with grouped keys and values, trained on random sequences that are repeated once;
    float32.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(
        **sizes, vocab_size=built.VOCABULARY, num_key_value_heads=2, max_position_embeddings=8192
    )
    config._attn_implementation = masking.NAME
    network = LlamaForCausalLM(config).to(device).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.01)
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        half = torch.randint(built.VOCABULARY, (32, 32), generator=generator).to(device)
        ids = half.repeat(1, 2)
        logits = network(input_ids=ids[:, :-1], use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.cpu().eval()


def heads(models: Models, name: str) -> dict[str, Any]:
    """Retrieval scores here in both dtypes against the CPU's in float32, and the heads that they choose."""
    expected = models.detected(name, "cpu", "float32")
    single = models.detected(name, models.device, "float32")
    half = models.detected(name, models.device, "bfloat16")
    best = importance.top(expected, 0.25)
    found = {
        "difference": float(np.abs(single - expected).max()),
        "difference_bfloat16": float(np.abs(half - expected).max()),
        "heads": best,
        "heads_here": importance.top(single, 0.25),
        "heads_bfloat16": importance.top(half, 0.25),
        "best_score": float(expected.max()),
    }
    right = found["difference"] <= 0.02  # one token of one probe may be a near tie
    if name == "built":
        right &= best[0] == found["heads_here"][0] == found["heads_bfloat16"][0] == built.INDUCTION
    return found | {"ok": bool(right)}


def flat(losses: list[list[tuple[np.ndarray, np.ndarray]]]) -> np.ndarray:
    """Base and reference loss of every token: [2, tokens]."""
    pairs = [pair for document in losses for pair in document]
    return np.stack([np.concatenate([pair[i] for pair in pairs]) for i in (0, 1)])


def score(losses: list[list[tuple[np.ndarray, np.ndarray]]]) -> np.ndarray:
    """Score of every document, NaN where there is none."""
    return np.array(
        [value if (value := statistics.score(of)["score"]) is not None else np.nan for of in losses]
    )


def scores_float32(models: Models, name: str) -> dict[str, Any]:
    """Both losses of every token, and the score of every document, on the CPU and here."""
    expected, found = models.losses(name, "cpu", "float32"), models.losses(name, models.device, "float32")
    one, other = flat(expected), flat(found)
    tokens, documents = (
        float(np.abs(one - other).max()),
        float(np.nanmax(np.abs(score(expected) - score(found)))),
    )
    mean = float(np.abs(one.mean(1) - other.mean(1)).max())
    relative = float((np.abs(one - other) / np.maximum(1, one)).max())
    said = {
        "documents": len(expected),
        "tokens": one.shape[1],
        "token_difference": tokens,
        "relative_difference": relative,
    }
    said |= {"score_difference": documents, "mean_difference": mean, "mean_losses": one.mean(1).tolist()}
    return said | {"ok": relative <= FLOAT32 and documents <= FLOAT32}


def scores_bfloat16(models: Models, name: str) -> dict[str, Any]:
    """Rank correlation of the scores in bfloat16 here with those in float32 of the CPU, and with those of
    float32 here.
    """
    half = score(models.losses(name, models.device, "bfloat16"))
    found = {"documents": len(half)}
    for where in dict.fromkeys(["cpu", models.device]):
        found[f"rank_correlation_{where}"] = float(
            spearmanr(half, score(models.losses(name, where, "float32"))).statistic
        )
    # nothing was learned when tiny
    return found | {"ok": found["rank_correlation_cpu"] >= (RANKS if not models.tiny else 0)}


def fused(models: Models, name: str) -> dict[str, Any]:
    """The forked pass over batches against two whole passes of the library, one document at a time, on the
    device.
    """
    documents = models.documents(name)
    documents = documents[:: max(1, len(documents) // 24)]
    found: dict[str, Any] = {"documents": len(documents)}
    for dtype in ("float32", "bfloat16"):
        proxy = models.proxy(name, models.device, dtype)
        scorer = Scorer(proxy, models.heads(name), WINDOW, WINDOW, tokens_per_batch=4096)
        ours, plain = scorer.losses(documents), [reference.losses(scorer, document) for document in documents]
        gap = np.abs(flat(ours) - flat(plain)) / np.maximum(1, flat(plain))
        found |= {
            f"relative_difference_{dtype}": float(gap.max()),
            f"mean_difference_{dtype}": float(gap.mean()),
        }
        found[f"rank_correlation_{dtype}"] = float(spearmanr(score(ours), score(plain)).statistic)
        found["one_pass"] = proxy.forks
    ranks = 0 if models.tiny else RANKS  # a model of four steps has no scores to rank
    right = found["relative_difference_float32"] <= FLOAT32 and found["rank_correlation_bfloat16"] >= ranks
    return found | {"ok": bool(right and found["one_pass"])}


def likelihoods(models: Models) -> dict[str, Any]:
    """Log-likelihoods of answers behind contexts that they share, on the CPU and here."""
    documents = [document for document in models.ids if len(document) > 60]
    requests = [
        (document[: 20 + at % 3], documents[(at + k) % len(documents)][30 : 32 + 3 * k])
        for at, document in enumerate(documents)
        for k in range(4)
    ]
    models_of = {where: models.proxy("trained", where, "float32").model for where in {"cpu", models.device}}
    expected, found = (loglikelihoods(models_of[where], requests) for where in ("cpu", models.device))
    gap = max(abs(one[0] - other[0]) for one, other in zip(expected, found, strict=True))
    greedy = sum(one[1] != other[1] for one, other in zip(expected, found, strict=True))
    return {"requests": len(requests), "difference": gap, "greedy_differs": greedy, "ok": gap <= LIKELIHOOD}


def bits(models: Models) -> dict[str, Any]:
    """Bits per byte of every text, on the CPU and here in float32, and here in bfloat16."""

    def of(where: str, dtype: str) -> np.ndarray:
        proxy = models.proxy("trained", where, dtype)
        measured = bits_per_byte.measure(
            proxy.model, lambda text: proxy.encode([text])[0], 0, WINDOW, models.texts
        )
        return np.array([text.bits / text.n_bytes for text in measured])

    expected, single, half = of("cpu", "float32"), of(models.device, "float32"), of(models.device, "bfloat16")
    gap = float(np.abs(expected - single).max())
    said = {
        "texts": len(expected),
        "difference": gap,
        "difference_bfloat16": float(np.abs(expected - half).max()),
    }
    return said | {"ok": gap <= FLOAT32}


if __name__ == "__main__":
    sys.exit(main())
