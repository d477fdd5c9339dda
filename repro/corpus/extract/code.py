"""Source code, for languages whose top-level definitions begin at the margin behind a blank line, such as Python."""

from __future__ import annotations

import re

DEFINITION = re.compile(r"\n\s*\n(?=\S)")


def definitions(text: str) -> list[str]:
    """Top-level definitions and statements, each with all that is indented below it."""
    return [block for block in DEFINITION.split(text) if block.strip()]
