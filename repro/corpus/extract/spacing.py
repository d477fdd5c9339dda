"""White space as every format treats it."""

from __future__ import annotations

import html
import re

BLANK_LINE = re.compile(r"\n\s*\n")


def squeeze(text: str) -> str:
    """One line: entities as characters, runs of white space as one space."""
    return re.sub(r"\s+", " ", html.unescape(text)).strip()


def paragraphs(text: str) -> list[str]:
    """What stands between blank lines; indentation and line breaks inside stay."""
    return [block.strip("\n") for block in BLANK_LINE.split(text) if block.strip()]
