"""How much a model gains from tokens it has read before: the loss of random tokens less that of the same
tokens in the same order again.

This is the copying of induction heads on repeated random tokens (Elhage et al. 2021; Olsson et al. 2022), out
of which retrieval heads are made. Small models learn it within a short stretch of training, and whether and
when they do moves every likelihood of text that repeats itself: two models that differ in the draw of their
documents alone can differ in this first of all.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypedDict

import torch
import torch.nn.functional as F

from repro.evaluate.settings import ROWS, SEED, TOKENS
from repro.pretrained import load_model, load_tokenizer
from repro.store import Context, finite, write_json

BATCH = 4  # rows whose logits are in memory at once


class Gain(TypedDict):
    """Nats a token, and the standard error over rows; ``None`` where the model's losses are not finite."""

    value: float | None
    stderr: float | None
    n: int  # rows


class Copying(TypedDict):
    """``copying.json``: of the last model, and of those that the training kept on the way."""

    gain: Gain
    checkpoints: dict[str, Gain]  # by tokens read in training


def write(context: Context) -> None:
    """``copying.json`` of the trained model in ``context.inputs``."""
    place = context.inputs["model"]
    special = load_tokenizer(place / "model").all_special_ids

    def of(folder: Path) -> Gain:
        return measure(load_model(folder, dtype=torch.float32).to(context.device), special)

    kept = [path.parent for path in place.glob("models/*/config.json") if path.parent.name.isdigit()]
    found = Copying(
        gain=of(place / "model"),
        checkpoints={path.name: of(path) for path in sorted(kept, key=lambda path: int(path.name))},
    )
    write_json(context.out / "copying.json", found)
    context.facts["gain"] = found["gain"]["value"]


@torch.inference_mode()
def measure(model: Any, special: list[int]) -> Gain:
    """The gain of a causal language model of transformers in nats a token, with its standard error over rows.

    Each row is ``TOKENS`` random tokens twice, or half of what the model reads at once where that is less. No
    loss is counted of the first token of either half: nothing says that the second one begins. ``special``
    token ids do not occur.
    """
    config = model.config.get_text_config()
    length = min(TOKENS, getattr(config, "max_position_embeddings", 2 * TOKENS) // 2)
    words = torch.tensor(sorted(set(range(config.vocab_size)) - set(special)))
    drawn = torch.randint(len(words), (ROWS, length), generator=torch.Generator().manual_seed(SEED))
    half_BT = words[drawn].to(model.device)
    ids_BT = torch.cat([half_BT, half_BT], 1)
    gains: list[float] = []
    for rows_BT in ids_BT.split(BATCH):
        logits_BTV = model(input_ids=rows_BT, use_cache=False).logits[:, :-1].float()
        losses_BT = F.cross_entropy(logits_BTV.transpose(1, 2), rows_BT[:, 1:], reduction="none").double()
        gains += (losses_BT[:, : length - 1].mean(1) - losses_BT[:, length:].mean(1)).tolist()
    spread = torch.tensor(gains).std() / ROWS**0.5
    return Gain(value=finite(sum(gains) / ROWS), stderr=finite(float(spread)), n=ROWS)
