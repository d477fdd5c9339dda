"""Source code, for languages whose top-level definitions begin at the margin behind a blank line, such as
Python.
"""

from __future__ import annotations

import re

from repro.corpus.extract.unreadable import Unreadable

# characters of white space in a row: no one writes them, and they take the square of the time
MOST_BLANK = 10_000
DEFINITION = re.compile(r"\n\s*\n(?=\S)")


def definitions(text: str) -> list[str]:
    """Top-level definitions and statements, each with all that is indented below it."""
    if any(len(blank[0]) > MOST_BLANK for blank in re.finditer(r"\n\s+", text)):
        raise Unreadable("too_tangled")
    return [block for block in DEFINITION.split(text) if block.strip()]
