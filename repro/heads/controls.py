"""Heads of the controls: as many as are important, chosen otherwise; and what masking heads does.

A selector that masks random heads must do worse than one that masks retrieval heads, for the claim to be
about retrieval. Random heads differ from them in depth and in how much they hurt; the controls take these
away one by one.
"""

from __future__ import annotations

import random

import numpy as np
import torch

from repro.errors import SettingError, require
from repro.heads.found import Control, Example
from repro.heads.settings import CALIBRATION_TOKENS, Heads
from repro.proxy import masking
from repro.proxy.load import ProxyModel

Pairs = list[tuple[int, int]]
WINDOW = 256
REPLACEMENTS = 4  # of the last head of a bisection


def draw(
    s: Heads, scores: np.ndarray, important: Pairs, proxy: ProxyModel, texts: list[str]
) -> tuple[Pairs, Control]:
    """The heads of control ``s.detector``: as many as ``important``, none of them, and facts about the
    draw.
    """
    rng = random.Random(f"{s.control_seed}/{s.detector}")
    everything = [(layer, head) for layer in range(scores.shape[0]) for head in range(scores.shape[1])]
    others = [pair for pair in everything if pair not in set(important)]
    require(
        len(others) >= len(important),
        f"heads.share={s.share} takes {len(important)} of {len(everything)} heads; a control needs "
        "as many others: lower heads.share",
    )
    if s.detector == "random":
        return _any_layers(rng, others, important), {"drawn_from": len(others)}
    if s.detector == "random_same_layers":
        return same_layers(rng, others, important), {"drawn_from": len(others)}
    if s.detector == "bottom":
        lowest = sorted(others, key=lambda pair: scores[pair])
        ceiling = scores[lowest[len(important) - 1]]
        below = [pair for pair in others if scores[pair] < ceiling]
        tied = [pair for pair in others if scores[pair] == ceiling]
        return sorted(below + rng.sample(tied, len(important) - len(below))), {
            "drawn_from": len(below) + len(tied),
            "score_at_most": float(ceiling),
        }
    return matched_damage(s, rng, others, important, proxy, texts)


def same_layers(rng: random.Random, others: Pairs, important: Pairs) -> Pairs:
    """As many random heads in every layer as there are important ones in it."""
    drawn: Pairs = []
    for layer in sorted({layer for layer, _ in important}):
        wanted = sum(l == layer for l, _ in important)
        free = [pair for pair in others if pair[0] == layer]
        if len(free) < wanted:
            raise SettingError(
                f"layer {layer} has {wanted} important heads and only {len(free)} others; lower heads.share "
                "for random_same_layers"
            )
        drawn += rng.sample(free, wanted)
    return sorted(drawn)


def matched_damage(
    s: Heads, rng: random.Random, others: Pairs, important: Pairs, proxy: ProxyModel, texts: list[str]
) -> tuple[Pairs, Control]:
    """Random heads whose masking raises the loss on ordinary held-out text about as much as masking
    ``important`` does.

    Draws sets, of the same layers and of any in turn, until one hurts too little and one too much. Between
    two such sets it bisects: half of the heads in which they differ from the one, half from the other. Where
    a single head is left, a few others take its place, then two new sets are drawn. Ends with the loss rise
    within ``damage_tolerance``, or with the closest of ``draws`` sets.
    """
    windows = text_windows(proxy, texts)
    require(
        bool(windows),
        "heads.detector=random_matched_damage measures damage on held-out text and the corpus holds none out;"
        " set corpus.heldout_share above 0",
    )
    base = mean_loss(proxy, windows)
    target = mean_loss(proxy, windows, important) - base
    best, best_rise = [], float("inf")
    low: Pairs = []  # hurts too little
    high: Pairs = []  # hurts too much
    tried = replaced = 0
    while tried < s.draws and abs(best_rise - target) > s.damage_tolerance * abs(target):
        if low and high and len(set(low) - set(high)) == 1:
            replaced += 1
            if replaced > REPLACEMENTS:  # one head makes all the difference: no head of its size
                low, high, replaced = [], [], 0
        if low and high:
            candidate = between(rng, low, high, others)
        else:
            candidate = (
                _any_layers(rng, others, important)
                if tried % 2
                else _same_layers_or_any(rng, others, important)
            )
        rise = mean_loss(proxy, windows, candidate) - base
        tried += 1
        low, high = (candidate, high) if rise < target else (low, candidate)
        if abs(rise - target) < abs(best_rise - target):
            best, best_rise = candidate, rise
    within = abs(best_rise - target) <= s.damage_tolerance * abs(target)
    return best, {
        "draws_tried": tried,
        "loss_base": base,
        "loss_rise": best_rise,
        "loss_rise_of_important": target,
        "tolerance": s.damage_tolerance,
        "within_tolerance": bool(within),
        "tokens": sum(map(len, windows)),
        "same_layers_as_important": sum((l in {i for i, _ in important}) for l, _ in best),
    }


def between(rng: random.Random, low: Pairs, high: Pairs, others: Pairs) -> Pairs:
    """The heads that both sets have, and half of each one's own; where they differ in one head, any other in
    its place.
    """
    both = sorted(set(low) & set(high))
    own = [sorted(set(side) - set(both)) for side in (low, high)]
    if len(own[0]) <= 1:
        return sorted(
            [*both, rng.choice([pair for pair in others if pair not in {*both, *own[0], *own[1]}] or others)]
        )
    half = len(own[0]) // 2
    return sorted([*both, *rng.sample(own[0], half), *rng.sample(own[1], len(own[1]) - half)])


def _any_layers(rng: random.Random, others: Pairs, important: Pairs) -> Pairs:
    return sorted(rng.sample(others, len(important)))


def _same_layers_or_any(rng: random.Random, others: Pairs, important: Pairs) -> Pairs:
    try:
        return same_layers(rng, others, important)
    except SettingError:  # a layer has too few other heads
        return _any_layers(rng, others, important)


def text_windows(proxy: ProxyModel, texts: list[str]) -> list[list[int]]:
    """Windows of ordinary text: the start of each document, up to ``CALIBRATION_TOKENS`` in all."""
    windows: list[list[int]] = []
    spent = 0
    for text in texts:
        ids = [*proxy.prefix, *proxy.encode([text[: 8 * WINDOW]])[0]][:WINDOW]
        if len(ids) >= 32 and spent < CALIBRATION_TOKENS:
            windows.append(ids)
            spent += len(ids)
    return windows


@torch.inference_mode()
def mean_loss(proxy: ProxyModel, windows: list[list[int]], heads: Pairs | None = None) -> float:
    """Mean loss per token of the text in windows, in nats, with ``heads`` masked uniformly."""
    total, count = 0.0, 0
    with masking.masked(proxy.attentions, heads or []):
        for ids in windows:
            tokens = torch.tensor([ids], device=proxy.device)
            losses = proxy.losses(proxy.hidden(tokens)[0, proxy.lead - 1 : -1], tokens[0, proxy.lead :])
            total += float(losses.double().sum())
            count += len(losses)
    return total / count


@torch.inference_mode()
def effect(proxy: ProxyModel, examples: list[Example], heads: Pairs) -> dict[str, float | int]:
    """Loss and token accuracy on the answers of a few probes, without and with ``heads`` masked."""
    found: dict[str, list[float]] = {}
    for example in examples:
        ids, start = torch.tensor([example["ids"]], device=proxy.device), example["answer_start"]
        answer = ids[0, start:]
        both = proxy.both(ids, heads)[:, start - 1 : -1]
        for name, hidden in zip(("base", "masked"), both, strict=True):
            first = proxy.model.get_output_embeddings()(hidden).argmax(-1)
            found.setdefault(f"loss_{name}", []).append(float(proxy.losses(hidden, answer).mean()))
            found.setdefault(f"accuracy_{name}", []).append(float((first == answer).float().mean()))
    return {"probes": len(examples)} | {name: float(np.mean(values)) for name, values in found.items()}
