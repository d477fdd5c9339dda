"""Induction heads (Olsson et al., arXiv 2209.11895), on a random sequence repeated once.

Prefix matching, the attention that a token of the second half pays to the successor of its first occurrence,
times copying, how reliably the head writes that successor.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from repro.heads.detectors import Measurement
from repro.heads.probes import Probe
from repro.heads.settings import Heads
from repro.store import Context

if TYPE_CHECKING:
    from torch import Tensor, nn

    from repro.proxy.load import ProxyModel

READS: tuple[str, ...] = ()


def detect(proxy: ProxyModel, probe: Probe, s: Heads) -> Measurement:
    """Prefix matching times copying of every head on random tokens that are repeated once (``probe`` of
    :func:`repeated`).

    Prefix matching is the attention from a repeated token to the successor of its first occurrence, 0 to 1.
    Copying is how much more often than not the head's output raises the logit of that successor above the
    mean logit, 0 to 1.
    """
    import numpy as np
    import torch

    from repro.heads import attention
    from repro.proxy import masking

    period = probe.answer_start - probe.needle_start
    rows = list(range(probe.answer_start - 1, len(probe.ids) - 1))
    target = torch.tensor([row - period + 1 for row in rows], device=proxy.device)
    outputs: dict[nn.Module, Tensor] = {}

    def mass(scores: Tensor) -> Tensor:
        return scores.softmax(-1).gather(2, target.expand(scores.shape[0], -1)[..., None])[..., 0].mean(-1)

    def keep(module: nn.Module, output: Tensor) -> None:
        outputs[module] = output[0, rows]

    with masking.observed(proxy.attentions, keep, outputs=True):
        matching, hidden = attention.attention_rows(proxy, probe.ids, rows, mass)
    accuracy, loss = attention.quality(proxy, hidden, probe.needle, probe.needle)
    scores = matching * attention.copying(
        proxy, [outputs[module] for module in proxy.attentions], probe.needle
    )
    return Measurement(scores.cpu().numpy().astype(np.float64), accuracy, loss)


def samples(s: Heads, proxy: ProxyModel, context: Context) -> Callable[[int], Probe]:
    """Probes of random tokens of the vocabulary, special ones left out."""
    special = set(proxy.tokenizer.all_special_ids)
    vocabulary = [i for i in range(len(proxy.tokenizer)) if i not in special]
    return lambda index: repeated(index, vocabulary, s, proxy.prefix)


def repeated(
    index: int, vocabulary: list[int], s: Heads, prefix: list[int], answer_tokens: int = 64
) -> Probe:
    """Random tokens, then the same again; the answer is the end of the second half."""
    rng = random.Random(f"{s.seed}/induction/{index}")
    period = (s.probe_tokens - len(prefix)) // 2
    half = rng.choices(vocabulary, k=period)
    n = min(answer_tokens, period - 1)
    ids = [*prefix, *half, *half]
    return Probe(ids, len(ids) - period - n, len(ids) - n, 0)
