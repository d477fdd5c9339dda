"""How selectors that count words split a text: by spaces, and where a script has none, letter by letter."""

from __future__ import annotations

import re
from collections.abc import Callable

import regex

from repro.corpus.ngrams import SPECIAL, UNSPACED

LETTER = rf"[[{UNSPACED}]&&[\p{{L}}\p{{N}}]]\p{{M}}*"  # with the marks on it
REST = rf"[[\w\p{{M}}]--[{UNSPACED}]]"  # of a word of other scripts; vowels may be marks


def splitter(plain: str, shortest: int = 1, marks: bool = False) -> Callable[[str], list[str]]:
    """A function from text to words: the matches of ``plain`` (as of scikit-learn's ``token_pattern``).

    Text with letters of scripts without spaces, or with combining marks (which ``\\w`` of Python ends a word
    at), is split otherwise: each such letter is a word, and so is a run of at least ``shortest`` others, and
    with ``marks`` a run of punctuation. All other text is split as ``plain`` says, to the letter.
    """
    usual = re.compile(plain)
    other = regex.compile(rf"(?V1){LETTER}|{REST}{{{shortest},}}" + (r"|[^\w\s\p{M}]+" if marks else ""))

    def words(text: str) -> list[str]:
        special = not text.isascii() and SPECIAL.search(text)
        return (other if special else usual).findall(text)

    return words
