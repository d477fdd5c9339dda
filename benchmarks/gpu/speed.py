"""How fast a GPU scores and trains, as a share of what it multiplies: shapes of SmolLM2 and of our own
models.

    python -m benchmarks.gpu.speed --device cuda --out results/benchmarks

Weights are random: they change no time. MFU counts the FLOPs of the model, for scoring those of both losses
with the layers below the lowest masked one run once, over the rate of a bfloat16 product measured first.
Contenders take turns in one process; a figure is the median of its rounds behind one that warms up.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from transformers import LlamaForCausalLM

from benchmarks.gpu import steps
from benchmarks.gpu.rows import Card, alternate, arguments
from repro.device import SIZES, matrix_rate
from repro.influence.scorer import Scorer, batches, right_padded
from repro.pretrain.cost import layer_parameters, parameters
from repro.pretrain.model import llama_config
from repro.pretrain.settings import Model
from repro.proxy import losses, masking
from repro.proxy.load import ProxyModel, prepare
from repro.settings.files import read_option

# lowest masked layer: the one found for 135M, about as deep for the others
FORK = {"135m": 17, "360m": 18, "1.7b": 14}
SHARE = 0.05  # of the heads is masked
WINDOW = 1024
TINY = Model(
    name="tiny", layers=2, hidden=32, heads=2, kv_heads=1, ffn=64, vocabulary=320, tie_embeddings=True
)


def main() -> int:
    """Measure every row, most valuable first; 1 where one failed."""
    options = arguments(__doc__, 120).parse_args()
    card = Card("speed", options)
    rate = Rates(options.device, options.tiny)
    card.row("matrix products", rate.measure)
    bench = Scoring(options.device, options.tiny, rate)
    card.row("scoring 135m bfloat16", partial(bench.sizes, "135m", "bfloat16"))
    card.row("scoring 1.7b bfloat16", partial(bench.sizes, "1.7b", "bfloat16"))
    trained = steps.Steps(options.device, options.tiny, rate.of)
    for name in ("135m", "30m", "10m", "360m"):
        card.row(f"training {name} bfloat16", partial(trained.eager, name))
    card.row("scoring 360m bfloat16", partial(bench.sizes, "360m", "bfloat16"))
    card.row("scoring 135m, texts of many lengths", partial(bench.lengths, "135m", "bfloat16"))
    card.row("scoring 135m, where the time goes", partial(bench.profile, "135m", "bfloat16"))
    card.row("training 135m, where the time goes", partial(trained.profile, "135m"))
    card.row("scoring 135m, logits at one time", partial(bench.chunks, "135m", "bfloat16"))
    card.row("scoring 135m float32", partial(bench.sizes, "135m", "float32"))
    compiles = card.row("torch.compile", partial(steps.compiles, options.device)) is not None
    if compiles:
        for name in ("30m", "10m"):
            card.row(f"training {name} bfloat16, compiled", partial(trained.compiled, name))
    card.row("scoring 135m, attention kernels", partial(bench.kernels, "135m", "bfloat16"))
    card.row("training 1m bfloat16", partial(trained.eager, "1m"))
    if compiles:
        card.row("scoring 135m, compiled layers", partial(bench.compiled, "135m", "bfloat16"))
        for name in ("135m", "360m", "1m"):
            card.row(f"training {name} bfloat16, compiled", partial(trained.compiled, name))
    return card.end()


@dataclass
class Rates:
    """Products a second of the device, measured once."""

    device: str
    tiny: bool
    found: dict[str, float] | None = None

    def measure(self) -> dict[str, Any]:
        """FLOP/s in both dtypes: of matrices of ones, as ``repro.device`` measures, and of random numbers in
        long runs.
        """
        self.found = {dtype: matrix_rate(self.device, dtype) for dtype in ("bfloat16", "float32")}
        said: dict[str, Any] = {f"{dtype}_tflops": value / 1e12 for dtype, value in self.found.items()}
        size = 128 if self.tiny else SIZES["cuda"][-1] if self.device == "cuda" else 512
        for dtype in ("bfloat16", "float32"):
            said[f"{dtype}_random_tflops"] = self.sustained(size, dtype) / 1e12
        return said

    def sustained(self, size: int, dtype: str, times: int = 10) -> float:
        """FLOP/s of products of random numbers, ``times`` of them without a pause; ones draw less power and
        flatter a GPU.
        """
        a, b = (torch.randn(size, size, device=self.device).to(getattr(torch, dtype)) for _ in range(2))

        def products() -> None:
            for _ in range(times):
                a @ b

        return times * 2 * size**3 / alternate({"": products}, 3, self.device)[""]["seconds"]

    def of(self, dtype: str) -> float:
        """FLOP/s in ``dtype``."""
        if self.found is None:
            self.measure()
        assert self.found is not None
        return self.found[dtype]


class Tokenizer:
    """Stands where a tokenizer must: ids are made up here."""

    def __init__(self, entries: int) -> None:
        self.entries = entries

    def __len__(self) -> int:
        return self.entries

    def __call__(self, texts: Any, **_: Any) -> dict[str, Any]:
        """One id a letter."""
        return {
            "input_ids": (
                [ord(c) % 256 for c in texts]
                if isinstance(texts, str)
                else [[ord(c) % 256 for c in t] for t in texts]
            )
        }


class Scoring:
    """Scoring of made-up documents by models of random weights."""

    def __init__(self, device: str, tiny: bool, rate: Rates) -> None:
        self.device, self.tiny, self.rate = device, tiny, rate
        self.window = 64 if tiny else WINDOW
        self.budgets = (128, 256) if tiny else (16_384, 65_536, 131_072)
        self.rounds = 2 if tiny else 3
        self.now: tuple[str, str] | None = None  # one model at a time
        self.proxy: ProxyModel | None = None

    def model(self, name: str) -> Model:
        """The settings of a shape."""
        return TINY if self.tiny else Model(**read_option("model", name))

    def load(self, name: str, dtype: str) -> ProxyModel:
        """A proxy of that shape with random weights."""
        if self.now != (name, dtype):
            self.proxy = None
            torch.manual_seed(0)
            model = self.model(name)
            config = llama_config(model, 2048, 0)
            config._attn_implementation = masking.NAME
            with torch.device(self.device):  # 1.7B random numbers take minutes on a CPU
                network = LlamaForCausalLM(config).eval()
            buffers = [buffer.clone() for buffer in network.buffers()]
            network = network.to(device=self.device, dtype=getattr(torch, dtype))
            for ours, theirs in zip(network.buffers(), buffers, strict=True):
                ours.data = theirs.to(self.device)  # rotary frequencies stay float32
            self.proxy, self.now = prepare(network, Tokenizer(model.vocabulary), name), (name, dtype)
        assert self.proxy is not None
        return self.proxy

    def fork(self, name: str) -> int:
        """The lowest masked layer."""
        return 1 if self.tiny else FORK[name]

    def heads(self, name: str) -> list[tuple[int, int]]:
        """One head in twenty, spread over the layers from the fork on; the first is at the fork."""
        model, first = self.model(name), self.fork(name)
        count = max(1, round(SHARE * model.layers * model.heads))
        deep = range(first, max(first + 1, int(0.85 * model.layers)))
        return [(deep[i % len(deep)], i // len(deep) % model.heads) for i in range(count)]

    def flops(self, name: str, lengths: list[int]) -> float:
        """FLOPs of both losses: layers below the fork once, all above and the output embedding twice."""
        model, below = self.model(name), self.fork(name)
        rows = below + 2 * (model.layers - below)
        weights = 2.0 * (layer_parameters(model) - 2 * model.hidden)
        # attention to half of the row
        body = sum(rows * (weights * n + 2.0 * model.hidden * n * n) for n in lengths)
        return body + sum(2 * 2.0 * model.vocabulary * model.hidden * (n - 1) for n in lengths)

    def documents(self, name: str, tokens: int, mixed: bool = False) -> list[list[int]]:
        """About ``tokens`` random ids, in documents of one window, or of 1/16 of it up to all."""
        rng = np.random.default_rng(0)
        count = max(1, tokens * (2 if mixed else 1) // self.window)
        lengths = rng.integers(self.window // 16, self.window + 1, count) if mixed else [self.window] * count
        return [rng.integers(0, self.model(name).vocabulary, int(n)).tolist() for n in lengths]

    def scorer(self, name: str, dtype: str, budget: int) -> Scorer:
        """The shipped scorer."""
        return Scorer(self.load(name, dtype), self.heads(name), self.window, self.window, budget)

    def speed(
        self, name: str, dtype: str, documents: list[list[int]], ways: dict[str, Callable[[], Any]]
    ) -> dict[str, Any]:
        """Tokens a second and MFU of each way to score the documents."""
        found = alternate(ways, self.rounds, self.device)
        tokens, flops = sum(map(len, documents)), self.flops(name, [len(document) for document in documents])
        for way in found.values():
            if "seconds" in way:
                way["tokens_per_second"] = tokens / way["seconds"]
                way["tflops"] = flops / way["seconds"] / 1e12
                way["mfu"] = flops / way["seconds"] / self.rate.of(dtype)
        return {
            "parameters": parameters(self.model(name)),
            "fork": self.fork(name),
            "heads": len(self.heads(name)),
            "tokens": tokens,
            "ways": found,
        }

    def sizes(self, name: str, dtype: str) -> dict[str, Any]:
        """Documents of one window, by how many tokens are fed at once."""
        large = name == "1.7b"  # a second and more for as many tokens
        documents = self.documents(name, self.budgets[-1] * (1 if large else 2))
        if dtype == "float32":
            documents = documents[: max(1, len(documents) // 4)]
        budgets = self.budgets if dtype == "bfloat16" and not large else self.budgets[:2]
        ways = {f"{n} tokens": partial(self.scorer(name, dtype, n).losses, documents) for n in budgets}
        return self.speed(name, dtype, documents, ways)

    def lengths(self, name: str, dtype: str) -> dict[str, Any]:
        """Documents of many lengths, in batches and fed; and how fast the feeding alone would be."""
        documents = self.documents(name, 2 * self.budgets[-1], mixed=True)
        scorer = self.scorer(name, dtype, self.budgets[1])

        def feeding() -> None:
            rows = [window for document in documents for window in scorer.windows(document)]
            for batch in batches([len(row) for row in rows], scorer.tokens_per_batch):
                right_padded([rows[i] for i in batch], scorer.proxy.device)

        found = self.speed(
            name, dtype, documents, {"scored": partial(scorer.losses, documents), "fed alone": feeding}
        )
        for unmeant in ("mfu", "tflops"):
            found["ways"]["fed alone"].pop(unmeant, None)
        return found

    def chunks(self, name: str, dtype: str) -> dict[str, Any]:
        """By how many logits exist at one time."""
        documents, scorer = self.documents(name, self.budgets[-1]), self.scorer(name, dtype, self.budgets[1])
        before = losses.CHUNK_LOGITS

        def scored(logits: int) -> None:
            losses.CHUNK_LOGITS = logits
            try:
                scorer.losses(documents)
            finally:
                losses.CHUNK_LOGITS = before

        return self.speed(
            name, dtype, documents, {f"2^{n} logits": partial(scored, 1 << n) for n in (25, 27, 29, 30)}
        )

    def kernels(self, name: str, dtype: str) -> dict[str, Any]:
        """By the kernel of the attention."""
        from torch.nn.attention import SDPBackend, sdpa_kernel

        documents, scorer = self.documents(name, self.budgets[-1]), self.scorer(name, dtype, self.budgets[1])

        def scored(kind: Any) -> None:
            with sdpa_kernel(kind):
                scorer.losses(documents)

        kinds = {"flash": SDPBackend.FLASH_ATTENTION, "cuDNN": SDPBackend.CUDNN_ATTENTION}
        ways: dict[str, Callable[[], Any]] = {"torch's choice": partial(scorer.losses, documents)}
        return self.speed(
            name, dtype, documents, ways | {kind: partial(scored, value) for kind, value in kinds.items()}
        )

    def compiled(self, name: str, dtype: str) -> dict[str, Any]:
        """With the feed-forward part and the norms of every layer compiled; the attention stays as it is."""
        documents, scorer = self.documents(name, self.budgets[-1]), self.scorer(name, dtype, self.budgets[1])
        parts = [
            part
            for layer in scorer.proxy.layers
            for part in (layer.mlp, layer.input_layernorm, layer.post_attention_layernorm)
        ]
        fast = [torch.compile(part.forward, dynamic=False) for part in parts]

        def scored(compiled: bool) -> None:
            for part, forward in zip(parts, fast, strict=True):
                if compiled:
                    part.forward = forward
            try:
                scorer.losses(documents)
            finally:
                for part in parts:
                    part.__dict__.pop("forward", None)

        try:
            return self.speed(
                name, dtype, documents, {"eager": partial(scored, False), "compiled": partial(scored, True)}
            )
        finally:
            torch.compiler.reset()

    def profile(self, name: str, dtype: str) -> dict[str, Any]:
        """The kernels that take most of the time of one batch."""
        documents, scorer = self.documents(name, self.budgets[1]), self.scorer(name, dtype, self.budgets[1])
        return steps.profiled(partial(scorer.losses, documents), self.device)


if __name__ == "__main__":
    sys.exit(main())
