"""Blocks of a file joined into passages of about the same length, cut where the text itself has a break."""

from __future__ import annotations

import hashlib
import re

GAP = "\n\n"


def passage_id(text: str) -> str:
    """The id of a passage: 16 hexadecimal digits of its sha256, in lower case with white space collapsed."""
    return hashlib.sha256(re.sub(r"\s+", " ", text.lower()).encode()).hexdigest()[:16]


def passages(blocks: list[str], shortest: int, longest: int | None) -> list[str]:
    """Passages of at most ``longest`` characters (gaps between blocks aside), as even as the blocks allow.

    Whole blocks are joined until a passage has the wanted length, near the middle of the two limits; a block
    above ``longest`` is divided at a line's or a sentence's end. A rest below ``shortest`` joins the passage
    before it where there is room. What has no room before a long block or at the end comes back short.
    Without ``longest`` the file is one passage.
    """
    if longest is None:
        return [GAP.join(blocks).strip("\n")] if blocks else []
    pieces = [piece for block in blocks for piece in _divided(block, shortest, longest)]
    total = sum(len(piece) + len(GAP) for piece in pieces)
    wanted = total / max(1, round(total / ((shortest + longest) / 2)))
    made: list[list[str]] = []
    current: list[str] = []
    size = 0
    for piece in pieces:
        if size and (size + len(piece) > longest or size >= wanted):
            made.append(current)
            current, size = [], 0
        current.append(piece)
        size += len(piece) + len(GAP)
    if made and size < shortest and size + sum(map(len, made[-1])) < longest:
        made[-1] += current
    elif current:
        made.append(current)
    return [GAP.join(parts).strip("\n") for parts in made]


def _divided(block: str, shortest: int, longest: int) -> list[str]:
    pieces = []
    while len(block) > longest:
        cut = max(block.rfind("\n", shortest, longest), block.rfind(". ", shortest, longest) + 1)
        cut = cut if cut > shortest else longest
        pieces.append(block[:cut])
        block = block[cut:].lstrip("\n")
    return [*pieces, block]
