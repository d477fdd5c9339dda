"""Decontamination against benchmark items, and when two texts are the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

from repro.corpus.ngrams import distinct, hashed, ngrams, split, weight

NGRAM = 13  # words that a document may not share with an item
SHORTEST_ITEM = 8  # shorter items are phrases that stand everywhere
BATCH = 20_000  # strings whose n-grams are hashed together


def text_digest(text: str) -> str:
    """Digest under which two texts are the same: letters in lower case, white space collapsed."""
    return hashlib.sha256(" ".join(text.lower().split()).encode()).hexdigest()[:32]


def benchmark_index(texts: Iterable[str]) -> dict[int, np.ndarray]:
    """Sorted hashes by n: every 13-gram of the texts, and texts of 8 to 12 words as a whole.

    A text in letters that count as words (:func:`repro.corpus.ngrams.split`) is not shorter than 13 of them.
    """
    found: dict[int, list[np.ndarray]] = {n: [] for n in range(SHORTEST_ITEM, NGRAM + 1)}
    batch: list[np.ndarray] = []
    for text in sorted(set(texts)):
        own = split(text) if len(text) >= SHORTEST_ITEM else []
        if weight(own) >= SHORTEST_ITEM:
            batch.append(hashed(own))
            if len(batch) == BATCH:
                _add(found, batch)
                batch = []
    _add(found, batch)
    return {
        n: distinct(np.concatenate(parts)) if parts else np.zeros(0, np.uint64) for n, parts in found.items()
    }


def _add(found: dict[int, list[np.ndarray]], batch: list[np.ndarray]) -> None:
    """N-grams of many texts at once: hash them laid end to end, keep the runs that do not cross a border."""
    lengths = np.array([len(hashes) for hashes in batch], np.int64)
    if not lengths.sum():
        return
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    owner = np.repeat(np.arange(len(batch)), lengths)
    for n, run in ngrams(np.concatenate(batch), NGRAM):
        if n == NGRAM:
            found[n].append(run[owner[: len(run)] == owner[n - 1 :]])
        elif n >= SHORTEST_ITEM:
            found[n].append(run[starts[lengths == n]])


def examine(hashes: np.ndarray, index: dict[int, np.ndarray]) -> bool:
    """Whether a document (hashes of its words, uint64 [T]) shares a 13-gram or a whole short item with the
    benchmarks.
    """
    for n, run in ngrams(hashes, NGRAM):
        known = index.get(n)
        if known is not None and len(known):
            at = np.searchsorted(known, run)
            at[at == len(known)] = 0
            if (known[at] == run).any():
                return True
    return False
