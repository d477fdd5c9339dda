"""Two language models that know no grammar: how often words are, and which words follow which.

What a neural model must beat before its accuracy on minimal pairs says anything. The n-gram model is
interpolated Kneser-Ney (Kneser and Ney 1995; Chen and Goodman 1999, section 2.8) with one discount an order,
n1 / (n1 + 2 n2); counting is sorting, so five orders of twenty megabytes of text take some ten seconds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

TOKEN = re.compile(r"[a-z]+(?:['’][a-z]+)*|[0-9]+|[^\sa-z0-9]")
ENDS = frozenset(".!?")
START, UNKNOWN = 0, 1  # ids of the start of a sentence and of a word that the text has not


def words(text: str) -> list[str]:
    """Words, numbers and signs, in small letters."""
    return TOKEN.findall(text.lower())


class Counted:
    """A text as word ids, every sentence after ``START``; what both models count."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.vocabulary: dict[str, int] = {"<start>": START, "<unknown>": UNKNOWN}
        known, stream = self.vocabulary, []
        for text in texts:
            stream.append(START)
            for word in words(text):
                stream.append(known.setdefault(word, len(known)))
                if word in ENDS:
                    stream.append(START)
        self.ids = np.array(stream, dtype=np.int64)

    @cached_property
    def frequencies(self) -> np.ndarray:
        """How often each word stands in the text, by id."""
        counts = np.bincount(self.ids, minlength=len(self.vocabulary))
        counts[START] = 0
        return counts

    def encode(self, text: str) -> list[int]:
        """Ids of a sentence, without the start."""
        return [self.vocabulary.get(word, UNKNOWN) for word in words(text)]


def word_frequency(counted: Counted, texts: Sequence[str]) -> list[float]:
    """Sum of the log-frequencies of a sentence's words (nats, one added to every count). The order of words
    plays no part, to the last bit.
    """
    counts = counted.frequencies
    logs = np.log((counts + 1) / (counts.sum() + len(counts) - 1)).tolist()  # START is no word
    return [math.fsum(logs[i] for i in counted.encode(text)) for text in texts]


@dataclass
class _Order:
    """N-grams of one length."""

    # sorted: number of the first n - 1 words among those of that length, times vocabulary, plus last word
    keys: np.ndarray
    counts: np.ndarray  # of each: how often, or, below the highest order, after how many different words
    total: np.ndarray  # by context: sum of the counts
    followers: np.ndarray  # by context: how many words follow
    discount: float


class KneserNey:
    """An interpolated Kneser-Ney model of ``order`` words over a counted text."""

    def __init__(self, counted: Counted, order: int = 5) -> None:
        self.counted, self.size = counted, len(counted.vocabulary)
        ids, place = counted.ids, _place(counted.ids)
        # of each length: keys, where each ends for the first time, how often it is there, and its number by
        # where it ends
        found = [(np.arange(self.size), np.zeros(0, dtype=np.int64), counted.frequencies, ids)]
        for n in range(2, order + 1):
            ends = np.flatnonzero((place >= n - 1) & (ids != START))
            keys, first, own, counts = np.unique(
                found[-1][3][ends - 1] * self.size + ids[ends],
                return_index=True,
                return_inverse=True,
                return_counts=True,
            )
            number = np.full(len(ids), -1, dtype=np.int64)
            number[ends] = own
            found.append((keys, ends[first], counts, number))
        self.orders: list[_Order] = []
        for n, (keys, ends, counts, number) in enumerate(found, 1):
            if n < order:  # after how many words; where nothing can stand before, how often
                after = np.bincount(number[found[n][1]], minlength=len(keys))
                counts = after if n == 1 else np.where(place[ends] == n - 1, counts, after)
            context, groups = keys // self.size, 1 if n == 1 else len(found[n - 2][0])
            total = np.bincount(context, weights=counts, minlength=groups)
            followers = np.bincount(context[counts > 0], minlength=groups)
            ones, twos = int((counts == 1).sum()), int((counts == 2).sum())
            discount = ones / (ones + 2 * twos) if ones and twos else 0.5
            self.orders.append(_Order(keys, counts, total, followers, discount))

    def score(self, texts: Sequence[str]) -> list[float]:
        """Log-probability of each sentence (nats), its first word after the start of a sentence."""
        encoded = [self.counted.encode(text) for text in texts]
        ids = np.array([i for own in encoded for i in (START, *own)], dtype=np.int64)
        logs = np.log(self.probabilities(ids))
        ends = np.cumsum([len(own) + 1 for own in encoded]).tolist()
        return [math.fsum(logs[end - len(own) : end]) for end, own in zip(ends, encoded, strict=True)]

    def probabilities(self, ids: np.ndarray) -> np.ndarray:
        """p(word | words before it in its sentence) at every place of a stream of ids; meaningless where
        ``START`` stands.

        p_n(w | h) = (max(c(hw) - D, 0) + D followers(h) p_{n-1}(w | h')) / c(h), and p_{n-1} where h was
        never seen.
        """
        place, number = _place(ids), ids
        p = np.full(len(ids), 1 / (self.size - 1))  # any word, the unknown one among them, but not the start
        for n, order in enumerate(self.orders, 1):
            context = np.roll(number, 1) if n > 1 else np.zeros_like(ids)
            known = (place >= n - 1) & (context >= 0)
            context = np.where(known, context, 0)
            key = context * self.size + ids
            at = np.minimum(np.searchsorted(order.keys, key), len(order.keys) - 1)
            there = known & (order.keys[at] == key)
            total = np.where(known, order.total[context], 0)
            kept = np.where(there, np.maximum(order.counts[at] - order.discount, 0), 0)
            smoothed = (kept + order.discount * order.followers[context] * p) / np.where(total, total, 1)
            p = np.where(total > 0, smoothed, p)
            number = ids if n == 1 else np.where(there, at, -1)
        return p


def _place(ids: np.ndarray) -> np.ndarray:
    """How many words after the start of its sentence each place is; a stream begins with a start."""
    place = np.arange(len(ids))
    return place - np.maximum.accumulate(np.where(ids == START, place, 0))
