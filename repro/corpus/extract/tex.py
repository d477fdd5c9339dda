"""TeX and plain text: paragraphs; of TeX without comments, labels, citations and inclusions."""

from __future__ import annotations

import re

from repro.corpus.extract import spacing

COMMENT = re.compile(r"(?<!\\)%.*")
REFERENCE = re.compile(r"\\(label|index|input|include|cite|oleref|olfileid)\b(\[[^\]]*\])?\{[^}]*\}(\{[^}]*\})?")


def paragraphs(text: str) -> list[str]:
    """Paragraphs, statements and proofs, commands left in: mathematics is written in them."""
    return plain(REFERENCE.sub("", COMMENT.sub("", text)))


def plain(text: str) -> list[str]:
    """What stands between blank lines."""
    return spacing.paragraphs(text)
