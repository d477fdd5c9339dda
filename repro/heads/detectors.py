"""Detectors: a score per head from one sample at a time. Only the rows of attention that matter are computed.

A detector is a function ``(proxy, sample, settings) -> Sample result`` with scores [layers, heads] in [0, 1]:

- ``retrieval`` (the paper, after Wu et al., arXiv 2404.15574): share of the needle's tokens that the head copies. At the
  row that predicts answer token w, one BEFORE w, the head copies if the position it attends to most holds w.
- ``induction`` (Olsson et al., arXiv 2209.11895): on a random sequence repeated once, the attention that a token of the
  second half pays to the successor of its first occurrence (prefix matching), times how reliably the head writes that
  successor (copying).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from repro.config import Heads, SettingError
from repro.heads.probes import Probe
from repro.proxy import masking
from repro.proxy.load import ProxyModel

OUTPUT_PROJECTIONS = ("o_proj", "out_proj", "c_proj", "dense")  # of the attention module, by family


@dataclass
class Measurement:
    """What one sample says. ``accuracy`` and ``loss`` are over the tokens the sample asks for."""

    scores: np.ndarray  # [layers, heads]
    accuracy: float
    loss: float


Detector = Callable[[ProxyModel, Probe, Heads], Measurement]


@torch.inference_mode()
def attention_rows(
    proxy: ProxyModel, ids: list[int], rows: list[int], reduce: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Run the model on ``ids`` [T] and keep, of each layer, ``reduce(scores)`` of the wanted query rows.

    ``scores`` are the attention scores before the softmax, [heads, rows, T] in float32, minus infinity where not visible.

    Returns:
        stacked results [layers, ...] and last hidden states at ``rows`` [rows, D].
    """
    index = {module: layer for layer, module in enumerate(proxy.attentions)}
    kept: list[Tensor] = [torch.empty(0)] * len(index)
    at = torch.tensor(rows, device=proxy.device)

    def observe(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, options: dict
    ) -> None:
        length = key.shape[2]
        wanted = query[0, :, at].float()  # [H, R, D]
        keys = key[0].float()  # [H_kv, T, D]
        grouped = wanted.view(keys.shape[0], -1, wanted.shape[-1])  # query heads that share a key head stand side by side
        scores = (grouped @ keys.transpose(1, 2)).view(wanted.shape[0], len(rows), length)
        if (scaling := options.get("scaling")) is not None:
            scores *= scaling
        if (softcap := options.get("softcap")) is not None:
            scores = torch.tanh(scores / softcap) * softcap
        if attention_mask is None:
            seen = torch.arange(length, device=at.device)[None] <= at[:, None]
        else:
            seen = masking.visible(attention_mask, length, length, at.device)[0, 0, at]
        kept[index[module]] = reduce(scores.masked_fill(~seen, float("-inf")))

    with masking.observed(proxy.attentions, observe):
        hidden = proxy.hidden(torch.tensor([ids], device=proxy.device))[0, at]
    return torch.stack(kept), hidden


def retrieval(proxy: ProxyModel, probe: Probe, s: Heads) -> Measurement:
    """Retrieval score of every head on one probe (section 4.1): copied needle tokens / needle tokens."""
    answer = probe.needle if s.decoding == "teacher_forcing" else _greedy(proxy, probe)
    ids = [*probe.ids[: probe.answer_start], *answer]
    rows = list(range(probe.answer_start - 1, len(ids) - 1))
    positions, hidden = attention_rows(proxy, ids, rows, lambda scores: scores.argmax(-1))  # [L, H, R]
    tokens = torch.tensor(ids, device=positions.device)
    copied = tokens[positions] == torch.tensor(answer, device=positions.device)
    needle = set(probe.needle)
    copied &= torch.tensor([token in needle for token in answer], device=positions.device)
    start, length = probe.needle_start, len(probe.needle)
    if s.match == "needle":
        inside = copied & (positions >= start) & (positions < start + length)
        # A needle position counts once, however many rows attend to it.
        seen = torch.zeros(*positions.shape[:2], length + 1, dtype=torch.bool, device=positions.device)
        seen.scatter_(2, torch.where(inside, positions - start, length), True)
        counts = seen[..., :length].sum(-1)
    else:
        counts = copied.sum(-1)
    accuracy, loss = _quality(proxy, hidden, answer, probe.needle)
    return Measurement((counts / length).clamp(max=1).cpu().numpy().astype(np.float64), accuracy, loss)


@torch.inference_mode()
def _quality(proxy: ProxyModel, hidden: Tensor, answer: list[int], needle: list[int]) -> tuple[float, float]:
    """Share of needle tokens that the model ranks first, and its mean loss on the answer."""
    targets = torch.tensor(answer, device=hidden.device)
    first = proxy.model.get_output_embeddings()(hidden).argmax(-1).tolist()
    right = sum(a == b for a, b in zip(first, needle, strict=False))
    return right / len(needle), float(proxy.losses(hidden, targets).mean())


@torch.inference_mode()
def _greedy(proxy: ProxyModel, probe: Probe) -> list[int]:
    """The model's own answer, at most as long as the needle, at least one token."""
    prompt = torch.tensor([probe.ids[: probe.answer_start]], device=proxy.device)
    written = proxy.model.generate(
        input_ids=prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=len(probe.needle),
        min_new_tokens=1,
        do_sample=False,
        temperature=None,
        top_p=None,
        top_k=None,
        pad_token_id=0,
    )
    return written[0, prompt.shape[1] :].tolist()


def induction(proxy: ProxyModel, probe: Probe, s: Heads) -> Measurement:
    """Prefix matching times copying of every head on random tokens that are repeated once (``probe`` of :func:`repeated`).

    Prefix matching is the attention from a repeated token to the successor of its first occurrence, 0 to 1. Copying is
    how much more often than not the head's output raises the logit of that successor above the mean logit, 0 to 1.
    """
    period = probe.answer_start - probe.needle_start
    rows = list(range(probe.answer_start - 1, len(probe.ids) - 1))
    target = torch.tensor([row - period + 1 for row in rows], device=proxy.device)
    outputs: dict[nn.Module, Tensor] = {}

    def mass(scores: Tensor) -> Tensor:
        return scores.softmax(-1).gather(2, target.expand(scores.shape[0], -1)[..., None])[..., 0].mean(-1)

    def keep(module: nn.Module, output: Tensor) -> None:
        outputs[module] = output[0, rows]

    with masking.observed(proxy.attentions, keep, outputs=True):
        matching, hidden = attention_rows(proxy, probe.ids, rows, mass)
    accuracy, loss = _quality(proxy, hidden, probe.needle, probe.needle)
    scores = matching * copying(proxy, [outputs[module] for module in proxy.attentions], probe.needle)
    return Measurement(scores.cpu().numpy().astype(np.float64), accuracy, loss)


@torch.inference_mode()
def copying(proxy: ProxyModel, outputs: list[Tensor], tokens: list[int]) -> Tensor:
    """How far each head writes the given tokens: [layers, heads], 0 (as often against as for, or worse) to 1 (always for).

    The direct path only: head output [rows, heads, head_dim], output projection, output embedding; no final norm.
    """
    unembedding = proxy.model.get_output_embeddings().weight
    directions = (unembedding[torch.tensor(tokens, device=proxy.device)] - unembedding.mean(0)).float()  # [R, D]
    found = []
    for module, output in zip(proxy.attentions, outputs, strict=True):
        projection = next((getattr(module, name) for name in OUTPUT_PROJECTIONS if hasattr(module, name)), None)
        width = output.shape[1] * output.shape[2]
        weight = None if projection is None else projection.weight.float()
        if weight is not None and not isinstance(projection, nn.Linear):
            weight = weight.T  # the Conv1D of GPT-2 keeps [in, out]
        if weight is None or weight.shape != (directions.shape[1], width):
            raise SettingError(
                f"heads.detector=induction does not know the output projection of {type(module).__name__}; "
                "use heads.detector=retrieval"
            )
        raised = ((directions @ weight).view(output.shape) * output.float()).sum(-1) > 0  # [R, heads]
        found.append((2 * raised.float().mean(0) - 1).clamp(min=0))
    return torch.stack(found)


def repeated(index: int, vocabulary: list[int], s: Heads, prefix: list[int], answer_tokens: int = 64) -> Probe:
    """Random tokens, then the same again; the answer is the end of the second half."""
    rng = random.Random(f"{s.seed}/induction/{index}")
    period = (s.probe_tokens - len(prefix)) // 2
    half = rng.choices(vocabulary, k=period)
    n = min(answer_tokens, period - 1)
    ids = [*prefix, *half, *half]
    return Probe(ids, len(ids) - period - n, len(ids) - n, 0)


DETECTORS: dict[str, Detector] = {"retrieval": retrieval, "induction": induction}


def top(scores: np.ndarray, share: float) -> list[tuple[int, int]]:
    """The ``share`` of all heads with the highest scores [layers, heads]: (layer, head), best first.

    Rounded to the nearest number, at least one; ties broken by layer, then head.
    """
    count = head_count(scores.size, share)
    layers, heads = np.unravel_index(np.argsort(-scores, axis=None, kind="stable")[:count], scores.shape)
    return [(int(layer), int(head)) for layer, head in zip(layers, heads, strict=True)]


def head_count(heads: int, share: float) -> int:
    """How many heads a share is: nearest whole number (halves up), at least one."""
    return max(1, int(heads * share + 0.5))


def overlap(a: list[tuple[int, int]], b: list[tuple[int, int]]) -> float:
    """Share of heads that two equally long lists have in common."""
    return len(set(a) & set(b)) / len(a)


def halves_overlap(scores: np.ndarray, share: float) -> float:
    """Share of the top heads that the even and the odd probes agree on; scores are [probes, layers, heads]."""
    return overlap(top(scores[::2].mean(0), share), top(scores[1::2].mean(0), share))


def probes_needed(scores: np.ndarray, share: float) -> int:
    """After how many probes the top heads share 95 % or more with the final ones, and go on to do so."""
    final = top(scores.mean(0), share)
    sums = np.cumsum(scores, axis=0)
    n = len(scores)
    while n > 1 and overlap(top(sums[n - 2], share), final) >= 0.95:
        n -= 1
    return n


def is_stable(scores: np.ndarray, share: float) -> bool:
    """Rule of ``stop_when_stable``: 16 probes or more, the halves agree on 90 % or more of the top heads, and the last
    quarter of the probes changed at most 5 % of them."""
    n = len(scores)
    if n < 16:
        return False
    unchanged = overlap(top(scores.mean(0), share), top(scores[: n - n // 4].mean(0), share)) >= 0.95
    return unchanged and halves_overlap(scores, share) >= 0.9
