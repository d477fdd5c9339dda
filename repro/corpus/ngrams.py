"""Hashes of words and of runs of words, vectorised: what deduplication and decontamination compare."""

from __future__ import annotations

import functools
import hashlib
import re
import unicodedata
from collections.abc import Iterator

import numpy as np
import regex

ASCII_WORD = re.compile(r"[a-z0-9]+")
PLAIN_WORD = re.compile(r"[^\W_]+")
CHARACTER = re.compile(r"[^\W_]")
# Written without spaces between words: each letter, with the marks on it, counts as a word.
UNSPACED = "".join(
    rf"\p{{Script={name}}}"
    for name in (
        "Han", "Hiragana", "Katakana", "Bopomofo", "Yi", "Tangut", "Nushu", "Thai", "Lao", "Khmer",
        "Myanmar", "Tibetan",
        "Tai_Le", "New_Tai_Lue", "Tai_Tham", "Tai_Viet", "Javanese", "Balinese",
    )
)  # fmt: skip
WORD = regex.compile(
    rf"(?V1)[[{UNSPACED}]&&[\p{{L}}\p{{N}}]]\p{{M}}*|[[\p{{L}}\p{{N}}]--[{UNSPACED}]][[\p{{L}}\p{{N}}\p{{M}}]--[{UNSPACED}]]*"
)
LETTER = regex.compile(rf"(?V1)^[[{UNSPACED}]&&[\p{{L}}\p{{N}}]]")
# What may stand inside a word or be left out of it: joiners, soft hyphens, marks of direction, the vowel
# points of Arabic and Hebrew, the stretched line of Arabic.
OPTIONAL = regex.compile(r"[\p{Cf}\p{Variation_Selector}\u0640\u064b-\u065f\u0670\u0591-\u05c7]")
DIGIT = regex.compile(r"(?V1)[\p{Nd}--[0-9]]")
SPECIAL = regex.compile(rf"(?V1)[\p{{M}}{UNSPACED}]")
_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd: multiplication modulo 2^64 loses nothing


class _WordHashes(dict):
    """64-bit hash of a word, remembered while the vocabulary is of sane size."""

    def __missing__(self, word: str) -> int:
        value = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
        if len(self) < 2_000_000:
            self[word] = value
        return value


_hashes = _WordHashes()


def split(text: str) -> list[str]:
    """The words of a text in any script, case and compatibility forms aside (NFKC, case folding), digits as 0
    to 9.

    A word is a run of letters, the marks on them, and digits; in scripts without spaces it is one letter.
    """
    if text.isascii():
        return ASCII_WORD.findall(text.lower())
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    changed = {ord(character): new for character in set(folded) if (new := _replaced(character)) is not None}
    folded = folded.translate(changed) if changed else folded
    # The pattern that knows of marks and scripts takes ten times as long as the plain one.
    return (WORD if any(map(_is_special, set(folded))) else PLAIN_WORD).findall(folded)


@functools.cache
def _replaced(character: str) -> str | None:
    """Nothing for what is left out of words, 0 to 9 for the digits of all scripts; ``None``: it stays."""
    if OPTIONAL.match(character):
        return ""
    return str(unicodedata.decimal(character)) if DIGIT.match(character) else None


@functools.cache
def _is_special(character: str) -> bool:
    return bool(SPECIAL.match(character))


def weight(found: list[str]) -> float:
    """How much is said in ``found``, in words of spaced scripts: 13 letters of the others say as much as 8
    words.
    """
    letters = 0 if all(map(str.isascii, found)) else sum(LETTER.match(word) is not None for word in found)
    return len(found) - letters * 5 / 13


def words(text: str) -> np.ndarray:
    """Hashes of the words of a text (:func:`split`), uint64 [T]."""
    return hashed(split(text))


def shingle_words(text: str, hashes: np.ndarray) -> np.ndarray:
    """What near-duplicates are judged by: ``hashes`` of words, or characters of a text that has hardly any
    words.
    """
    return hashes if len(hashes) * 20 >= len(text) else hashed(CHARACTER.findall(text.lower()))


def distinct(values: np.ndarray) -> np.ndarray:
    """Sorted distinct values; several times as fast as ``np.unique``, which hashes."""
    ordered = np.sort(values)
    return ordered[np.r_[True, ordered[1:] != ordered[:-1]]] if len(ordered) else ordered


def hashed(found: list[str]) -> np.ndarray:
    """64-bit hashes of words, uint64 [T]."""
    return np.fromiter(map(_hashes.__getitem__, found), np.uint64, len(found))


def ngrams(hashes: np.ndarray, longest: int) -> Iterator[tuple[int, np.ndarray]]:
    """(n, hashes of all runs of n words, uint64 [T - n + 1]) for n = 1 .. ``longest``."""
    with np.errstate(over="ignore"):
        run = np.zeros(len(hashes), np.uint64)
        for n in range(1, min(longest, len(hashes)) + 1):
            run = run[: len(hashes) - n + 1] * _FACTOR + hashes[n - 1 :]
            yield n, run
