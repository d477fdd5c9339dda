"""Hashes of words and of runs of words, vectorised: what deduplication and decontamination compare."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

import numpy as np

WORD = re.compile(r"[a-z0-9]+")
CHARACTER = re.compile(r"[^\W_]")
_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd: multiplication modulo 2^64 loses nothing


class _WordHashes(dict):
    """64-bit hash of a word, remembered while the vocabulary is of sane size."""

    def __missing__(self, word: str) -> int:
        value = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
        if len(self) < 2_000_000:
            self[word] = value
        return value


_hashes = _WordHashes()


def words(text: str) -> np.ndarray:
    """Hashes of the words of a text, uint64 [T]. A word is a run of [a-z0-9] in lower case."""
    return _hash_all(WORD.findall(text.lower()))


def shingle_words(text: str, hashes: np.ndarray) -> np.ndarray:
    """The words that near-duplicates are judged by: ``hashes``, or characters where a script has no words of [a-z0-9]."""
    return hashes if len(hashes) * 20 >= len(text) else _hash_all(CHARACTER.findall(text.lower()))


def distinct(values: np.ndarray) -> np.ndarray:
    """Sorted distinct values; several times as fast as ``np.unique``, which hashes."""
    ordered = np.sort(values)
    return ordered[np.r_[True, ordered[1:] != ordered[:-1]]] if len(ordered) else ordered


def _hash_all(found: list[str]) -> np.ndarray:
    return np.fromiter(map(_hashes.__getitem__, found), np.uint64, len(found))


def ngrams(hashes: np.ndarray, longest: int) -> Iterator[tuple[int, np.ndarray]]:
    """(n, hashes of all runs of n words, uint64 [T - n + 1]) for n = 1 .. ``longest``."""
    with np.errstate(over="ignore"):
        run = np.zeros(len(hashes), np.uint64)
        for n in range(1, min(longest, len(hashes)) + 1):
            run = run[: len(hashes) - n + 1] * _FACTOR + hashes[n - 1 :]
            yield n, run
