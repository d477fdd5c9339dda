"""From scores of every head to the important ones, and how stable that choice is."""

from __future__ import annotations

import numpy as np


def top(scores: np.ndarray, share: float) -> list[tuple[int, int]]:
    """The ``share`` of all heads with the highest scores [layers, heads]: (layer, head), best first.

    Rounded to the nearest number, at least one; ties broken by layer, then head.
    """
    count = head_count(scores.size, share)
    layers, heads = np.unravel_index(np.argsort(-scores, axis=None, kind="stable")[:count], scores.shape)
    return [(int(layer), int(head)) for layer, head in zip(layers, heads, strict=True)]


def none_copied(scores: np.ndarray, selected: list[tuple[int, int]]) -> str:
    """A warning where heads that copied nothing count as important because of their place; else nothing."""
    zeros = sum(bool(scores[pair] == 0) for pair in selected)
    if not zeros:
        return ""
    return (
        f"{zeros} of the {len(selected)} important heads copied nothing in any probe and are taken in the"
        " order of their layers: this model has fewer heads that copy. Lower heads.share, use more or longer"
        " probes, or another model"
    )


def head_count(heads: int, share: float) -> int:
    """How many heads a share is: nearest whole number (halves up), at least one."""
    return max(1, int(heads * share + 0.5))


def overlap(a: list[tuple[int, int]], b: list[tuple[int, int]]) -> float:
    """Share of heads that two equally long lists have in common."""
    return len(set(a) & set(b)) / len(a)


def halves_overlap(scores: np.ndarray, share: float) -> float:
    """Share of the top heads that the even and the odd probes agree on; scores are [probes, layers,
    heads].
    """
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
    """Rule of ``stop_when_stable``: 16 probes or more, the halves agree on 90 % or more of the top heads, and
    the last quarter of the probes changed at most 5 % of them.
    """
    n = len(scores)
    if n < 16:
        return False
    unchanged = overlap(top(scores.mean(0), share), top(scores[: n - n // 4].mean(0), share)) >= 0.95
    return unchanged and halves_overlap(scores, share) >= 0.9
