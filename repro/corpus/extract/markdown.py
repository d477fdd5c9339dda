"""Markdown (and what is close to it): the prose, without front matter, comments, images, link targets and templates."""

from __future__ import annotations

import html
import re

from repro.corpus.extract import spacing

# In this order: what one takes away, another would misread.
REMOVED = (
    (re.compile(r"\A---\n.*?\n---\n", re.DOTALL), ""),  # front matter
    (re.compile(r"<!--.*?-->", re.DOTALL), ""),
    (re.compile(r"!\[[^\]]*\]\([^)]*\)"), ""),  # images
    (re.compile(r"\[([^\]]+)\]\([^)]*\)"), r"\1"),  # [words](target)
    (re.compile(r"\[([^\]]+)\]\[[^\]]*\]"), r"\1"),  # [words][name]
    (re.compile(r"^\[[^\]]+\]:.*$", re.MULTILINE), ""),  # [name]: target
    (re.compile(r"\[?@(doi|url|arxiv|pmid|pmcid|isbn|tag)[:0-9A-Za-z./_()-]*[;\s]*\]?"), ""),  # citations
    (re.compile(r"\{%.*?%\}|\{:.*?\}|<%.*?%>", re.DOTALL), ""),  # Liquid, kramdown, ERB
    (re.compile(r"</?[a-zA-Z][^>\n]{0,200}>"), ""),  # HTML tags
)


def paragraphs(text: str) -> list[str]:
    """Paragraphs, headings, lists and code blocks as they stand between blank lines."""
    for pattern, replacement in REMOVED:
        text = pattern.sub(replacement, text)
    return spacing.paragraphs(html.unescape(text))
