"""Markdown (and what is close to it): the prose, without front matter, comments, images, link targets and
templates.
"""

from __future__ import annotations

import html
import re

from repro.corpus.extract import spacing
from repro.corpus.extract.unreadable import bounded

SQUARE, ROUND = ("[", "]"), ("](", ")")
# (pattern, what takes its place, where it may begin and end). In this order: what one takes away, another
# would misread.
REMOVED: tuple[tuple[re.Pattern[str], str, tuple[tuple[str, str], ...]], ...] = (
    (re.compile(r"\A---\n.*?\n---\n", re.DOTALL), "", ()),  # front matter
    (re.compile(r"<!--.*?-->", re.DOTALL), "", (("<!--", "-->"),)),
    (re.compile(r"!\[[^\]]*\]\([^)]*\)"), "", (SQUARE, ROUND)),  # images
    (re.compile(r"\[([^\]]+)\]\([^)]*\)"), r"\1", (SQUARE, ROUND)),  # [words](target)
    (re.compile(r"\[([^\]]+)\]\[[^\]]*\]"), r"\1", (SQUARE,)),  # [words][name]
    (re.compile(r"^\[[^\]]+\]:.*$", re.MULTILINE), "", (SQUARE,)),  # [name]: target
    (re.compile(r"\[?@(doi|url|arxiv|pmid|pmcid|isbn|tag)[:0-9A-Za-z./_()-]*[;\s]*\]?"), "", ()),  # citations
    # Liquid, kramdown, ERB
    (re.compile(r"\{%.*?%\}|\{:.*?\}|<%.*?%>", re.DOTALL), "", (("{%", "%}"), ("{:", "}"), ("<%", "%>"))),
    (re.compile(r"</?[a-zA-Z][^>\n]{0,200}>"), "", ()),  # HTML tags
)


def paragraphs(text: str) -> list[str]:
    """Paragraphs, headings, lists and code blocks as they stand between blank lines."""
    for pattern, replacement, ends in REMOVED:
        text = pattern.sub(replacement, bounded(text, *ends))
    return spacing.paragraphs(html.unescape(text))
