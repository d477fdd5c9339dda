"""TeX and plain text: paragraphs; of TeX without comments, labels, citations and inclusions."""

from __future__ import annotations

import re

from repro.corpus.extract import spacing
from repro.corpus.extract.unreadable import bounded

COMMENT = re.compile(r"(?<!\\)%.*")
NAMES = ("label", "index", "input", "include", "cite", "oleref", "olfileid")
REFERENCE = re.compile(rf"\\({'|'.join(NAMES)})\b(\[[^\]]*\])?\{{[^}}]*\}}(\{{[^}}]*\}})?")
ENDS = tuple((f"\\{name}{opening}", closing) for name in NAMES for opening, closing in ("[]", "{}"))


def paragraphs(text: str) -> list[str]:
    """Paragraphs, statements and proofs, commands left in: mathematics is written in them."""
    return plain(REFERENCE.sub("", bounded(COMMENT.sub("", text), *ENDS)))


def plain(text: str) -> list[str]:
    """What stands between blank lines."""
    return spacing.paragraphs(text)
