"""Formats of source files: each a function from the text of a file to its blocks (paragraphs, headings, rows,
definitions).

A new format is a function and one line in :data:`FORMATS`. A function raises :class:`Unreadable` for a file
that is not of its format; the file is dropped and counted under that reason.
"""

from __future__ import annotations

from collections.abc import Callable

from repro.corpus.extract import code, factbook, markdown, story, tex, xml
from repro.corpus.extract.unreadable import Unreadable

__all__ = ["FORMATS", "VERSION", "Unreadable"]

VERSION = 1  # raise it when a format gives other blocks for the same file: it is part of the fingerprint

# name: (function, the files that are read unless ``paths`` says otherwise)
FORMATS: dict[str, tuple[Callable[[str], list[str]], str]] = {
    "cnxml": (xml.cnxml, "**/*.cnxml"),
    "code": (code.definitions, "**/*.py"),
    "factbook": (factbook.facts, "**/*.json"),
    "law_xml": (xml.law, "**/*.xml"),
    "markdown": (markdown.paragraphs, "**/*.md"),
    # its paragraphs are those of Markdown; directives stay as they are
    "rst": (markdown.paragraphs, "**/*.rst"),
    "story": (story.pages, "**/*.md"),
    "tex": (tex.paragraphs, "**/*.tex"),
    "text": (tex.plain, "**/*.txt"),
    "xhtml": (xml.xhtml, "**/*.xhtml"),
}
