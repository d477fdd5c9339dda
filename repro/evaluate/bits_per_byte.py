"""Bits per byte of text: -log2 p of every token, summed, over the UTF-8 bytes. Lower is better, whatever the
tokenizer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from repro.evaluate.cells import Pooled
from repro.proxy import rope

TOKENS = {"cpu": 2**12, "cuda": 2**16}  # of a batch


@dataclass
class Text:
    """One document's bits."""

    bits: float  # NaN or infinite where the model's loss is
    n_bytes: int
    n_tokens: int


def windows(tokens: list[int], prefix: int, context: int) -> Iterator[tuple[list[int], list[int]]]:
    """Inputs and targets, at most ``context`` tokens long, that predict every token of a text exactly once.

    The stream is ``prefix`` (the model's BOS or else EOS token) followed by the text. Windows of inputs do
    not overlap; a later window's first input is the last token of the window before it, so each target has at
    least one token before it and no token of the text goes unpredicted.
    """
    inputs = [prefix, *tokens[:-1]]
    for start in range(0, len(tokens), context):
        yield inputs[start : start + context], tokens[start : start + context]


@torch.inference_mode()
def measure(
    model: Any,
    encode: Callable[[str], list[int]],
    prefix: int,
    context: int,
    texts: list[str],
    tokens_per_batch: int | None = None,
    progress: Any = None,
) -> list[Text]:
    """Bits and bytes of each text under a causal language model.

    ``encode`` maps a text to token ids without special tokens; ``context`` is the length of a window in
    tokens. Windows are batched by length and padded on the right: with a causal mask no token sees the
    padding, so the result does not depend on the batch beyond rounding. Log-probabilities are taken in
    float32. ``progress.update`` counts tokens.
    """
    tokenised = [encode(text) for text in texts]
    work = [
        (index, *window)
        for index, tokens in enumerate(tokenised)
        for window in windows(tokens, prefix, context)
    ]
    work.sort(key=lambda item: -len(item[1]))
    nats = [0.0] * len(texts)
    device, alike = next(model.parameters()).device, rope.alone(model)
    tokens_per_batch = tokens_per_batch or TOKENS[device.type]
    while work:
        width = len(work[0][1])
        rows = max(1, tokens_per_batch // width)
        if alike:
            rows = min(rows, sum(len(ids) == width for _, ids, _ in work[:rows]))
        batch, work = work[:rows], work[rows:]
        inputs_BT = torch.tensor([ids + [prefix] * (width - len(ids)) for _, ids, _ in batch], device=device)
        targets_BT = torch.tensor([ids + [-100] * (width - len(ids)) for _, _, ids in batch], device=device)
        logits_BTV = model(input_ids=inputs_BT, use_cache=False).logits
        losses = F.cross_entropy(
            logits_BTV.flatten(0, 1).float(), targets_BT.flatten(), reduction="none", ignore_index=-100
        )
        for (index, _, _), loss in zip(
            batch, losses.view_as(targets_BT).double().sum(1).tolist(), strict=True
        ):
            nats[index] += loss
        if progress is not None:
            progress.update(sum(len(ids) for _, ids, _ in batch))
    return [
        Text(bits=nat / math.log(2), n_bytes=len(text.encode()), n_tokens=len(tokens))
        for nat, text, tokens in zip(nats, texts, tokenised, strict=True)
    ]


def pooled(bits: list[float], n_bytes: list[int]) -> Pooled:
    """Bits per byte of a collection, sum of bits over sum of bytes, with the standard error of that ratio
    over documents.

    Documents whose bits are not finite are left out and counted.
    """
    kept = [(b, n) for b, n in zip(bits, n_bytes, strict=True) if math.isfinite(b) and n > 0]
    total, documents = sum(n for _, n in kept), len(kept)
    if not total:
        return {"value": None, "stderr": None, "n": 0, "bytes": 0, "non_finite": len(bits)}
    value = sum(b for b, _ in kept) / total
    residual = sum((b - value * n) ** 2 for b, n in kept)
    stderr = math.sqrt(residual * documents / (documents - 1)) / total if documents > 1 else None
    return {
        "value": value,
        "stderr": stderr,
        "n": documents,
        "bytes": total,
        "non_finite": len(bits) - documents,
    }
