"""Planted documents: text of known kinds, made from the text of a real one.

All documents are made from real ones of the same domain and have about the same length, so that neither topic
nor length gives a kind away; they stand against real documents cut to that length. A kind's number is the
AUROC of its documents over those: 0.5 when the selector does not see the difference, 1 when it puts all of
them above, 0 when below all.

Copying is what the influence score measures, and repeated text can be copied. So every document with repeated
passages also stands in the corpus without them, and the numbers are given before and after that
deduplication.
"""

from __future__ import annotations

import random
import re

SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
SYLLABLES = [c + v + e for c in "bdfgklmnprstv" for v in "aeiou" for e in ("", "l", "n", "r", "s")]
THINGS = (
    "locker",
    "library card",
    "boat",
    "garden plot",
    "radio station",
    "storeroom",
    "parcel",
    "ticket",
    "workshop",
    "mailbox",
)


def words(draw: random.Random, number: int, capital: bool = False) -> str:
    """Made-up words that no model has seen."""
    made = ["".join(draw.choice(SYLLABLES) for _ in range(draw.randint(2, 3))) for _ in range(number)]
    return " ".join(w.capitalize() if capital else w for w in made)


def facts(text: str, draw: random.Random, kept: bool = True) -> str:
    """Made-up facts stated in the first half and asked for in the second, in other words, between sentences
    of ``text``.

    What is answered can only be known from the statement. With ``kept`` false the answer is another made-up
    value: the same sentences, and nothing to copy.
    """
    number = max(2, len(text) // 300)
    names = [
        (words(draw, 2, capital=True), draw.choice(THINGS), words(draw, 3), words(draw, 3))
        for _ in range(number)
    ]
    stated = [f"{name} wrote {value} on the {thing}." for name, thing, value, _ in names]
    asked = [
        f"What stands on {name}'s {thing}? {value if kept else other}." for name, thing, value, other in names
    ]
    draw.shuffle(asked)
    sentences = [s for s in SENTENCE.split(cut(text, max(1, len(text) - sum(map(len, stated + asked))))) if s]
    half = len(sentences) // 2
    return "\n".join(_spread(sentences[:half], stated) + _spread(sentences[half:], asked))


def _spread(sentences: list[str], inserted: list[str]) -> list[str]:
    """``inserted`` at even distances among ``sentences``."""
    found = []
    for i, one in enumerate(inserted):
        found += [
            *sentences[i * len(sentences) // len(inserted) : (i + 1) * len(sentences) // len(inserted)],
            one,
        ]
    return found


def repeated(text: str, draw: random.Random) -> str:
    """The first quarter of ``text``, four times."""
    return "\n\n".join([cut(text, len(text) // 4)] * 4)


def shuffled(text: str, draw: random.Random) -> str:
    """The words of ``text`` in random order."""
    found = text.split()
    draw.shuffle(found)
    return " ".join(found)


def listed(text: str, draw: random.Random) -> str:
    """A list of pairs of the text's words with numbers; no line stands twice."""
    known = sorted({w for w in re.findall(r"\w+", text) if len(w) > 2}) or ["item"]
    lines: dict[str, None] = {}
    while sum(map(len, lines)) + len(lines) < len(text):
        lines[f"- {draw.choice(known)} {draw.choice(known)}: {draw.randint(1, 9999)}"] = None
    return "\n".join(lines)


def noise(text: str, draw: random.Random) -> str:
    """Random printable characters."""
    return "".join(chr(draw.randint(32, 126)) for _ in text).strip()


KINDS = {
    "facts": facts,
    "facts_shuffled": lambda text, draw: facts(text, draw, kept=False),
    "repeated": repeated,
    "list": listed,
    "shuffled_words": shuffled,
    "random_characters": noise,
}


def cut(text: str, characters: int) -> str:
    """The beginning of ``text``, up to the last white space within ``characters``."""
    if len(text) <= characters:
        return text
    head = text[: characters + 1]
    end = max(head.rfind(" "), head.rfind("\n"))
    return (head[:end] if end > characters // 2 else text[:characters]).rstrip()


def deduplicated(text: str, shortest: int = 20) -> str:
    """``text`` without the sentences and lines of ``shortest`` characters and more that stand earlier in
    it.
    """
    seen: set[str] = set()
    parts: list[str] = []
    for part in re.split(r"((?<=[.!?])\s+|\n+)", text):
        key = " ".join(part.lower().split())
        if len(key) >= shortest:
            if key in seen:
                continue
            seen.add(key)
        parts.append(part)
    return "".join(parts).strip()
