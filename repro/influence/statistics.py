"""What is kept per document: the two losses and the score, how sure it is, and two plain properties of the
text.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import numpy as np

from repro.plain import Row

BLOCKS = 16  # of the jackknife
NGRAM = 13


def score(losses: Sequence[tuple[np.ndarray, ...]]) -> Row:
    """Mean losses in nats, their difference, and the score (L_ref - L_base) / L_base of one document (eq. 5).

    Means are over all predicted tokens of all windows. What cannot be scored has a ``reason`` and no score.
    """
    empty = {"loss_base": None, "loss_ref": None, "loss_difference": None, "score": None, "score_error": None}
    if not losses:
        return empty | {"reason": "one token or none"}
    base = np.concatenate([b for b, _ in losses]).astype(np.float64)
    reference = np.concatenate([r for _, r in losses]).astype(np.float64)
    mean_base, mean_reference = float(base.mean()), float(reference.mean())
    if not (math.isfinite(mean_base) and math.isfinite(mean_reference)):
        return empty | {"reason": "loss not finite"}
    if mean_base <= 0:
        return empty | {"loss_base": mean_base, "loss_ref": mean_reference, "reason": "base loss is zero"}
    return {
        "loss_base": mean_base,
        "loss_ref": mean_reference,
        "loss_difference": mean_reference - mean_base,
        "score": (mean_reference - mean_base) / mean_base,
        "score_error": jackknife_error(base, reference),
        "reason": None,
    }


def jackknife_error(base: np.ndarray, reference: np.ndarray) -> float | None:
    """Standard error of the score by leaving out one of up to 16 blocks of neighbouring tokens at a time.

    Blocks, because the losses of neighbouring tokens are not independent. ``None`` below two tokens.
    """
    blocks = min(BLOCKS, len(base))
    if blocks < 2:
        return None
    edges = np.linspace(0, len(base), blocks + 1).astype(int)[:-1]
    left_base = base.sum() - np.add.reduceat(base, edges)
    left_reference = reference.sum() - np.add.reduceat(reference, edges)
    if (left_base <= 0).any():
        return None
    estimates = left_reference / left_base - 1
    return float(np.sqrt((blocks - 1) / blocks * ((estimates - estimates.mean()) ** 2).sum()))


def compressibility(text: str) -> float | None:
    """Compressed bytes / bytes (zlib, level 6); low for repetitive text. ``None`` for no text."""
    raw = text.encode("utf-8", "surrogatepass")
    return len(zlib.compress(raw, 6)) / len(raw) if raw else None


def repetition(ids: list[int] | np.ndarray) -> float:
    """Share of the 13-grams of the whole document's proxy tokens that stand earlier in the same document."""
    tokens = np.asarray(ids, np.int32)
    count = len(tokens) - NGRAM + 1
    if count <= 0:
        return 0.0
    hashes = _hashes(tokens)
    ordered = np.sort(hashes)
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    if not len(twice):  # other hashes, other n-grams
        return 0.0
    nearest = twice[np.minimum(np.searchsorted(twice, hashes), len(twice) - 1)]
    again = np.flatnonzero(nearest == hashes)
    raw = tokens.tobytes()  # n-grams of one hash are compared themselves, as bytes, 4 a token
    distinct = count - len(again) + len({raw[i : i + 4 * NGRAM] for i in (4 * again).tolist()})
    return 1 - distinct / count


def _hashes(tokens: np.ndarray) -> np.ndarray:
    """A 64-bit hash of every 13-gram: those of 1, 2, 4 and 8 tokens, joined."""
    prime = 0x9E3779B97F4A7C15

    def joined(left: np.ndarray, right: np.ndarray, shift: int) -> np.ndarray:
        """Of ``left`` and the ``right`` that begins ``shift`` tokens behind it."""
        count = min(len(left), len(right) - shift)
        return left[:count] * np.uint64(pow(prime, shift, 2**64)) + right[shift : shift + count]

    one = tokens.view(np.uint32).astype(np.uint64)
    two = joined(one, one, 1)
    four = joined(two, two, 2)
    eight = joined(four, four, 4)
    return joined(joined(eight, four, 8), one, 12)
