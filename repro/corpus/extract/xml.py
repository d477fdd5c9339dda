"""XML texts: books in XHTML, textbooks in CNXML, statutes. Blocks in document order, each on one line; rows
of tables too.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree

from repro.corpus.extract import mathml
from repro.corpus.extract.spacing import squeeze
from repro.corpus.extract.unreadable import Unreadable, bounded

# Entities declared in a document are not expanded, whatever they say: what stands inside the brackets breaks
# the parse.
DOCTYPE = re.compile(r"<!DOCTYPE[^>]*>")
APART = {"metadata", "head", "figure", "nav"}  # no running text in them
HIDDEN = {"note-ref", "media", "figure", "image", "style", "script"}  # inside a paragraph
SECTION_CHARACTERS = 6000  # a section of law below this is one block: its numbers and words belong together


def xhtml(text: str) -> list[str]:
    """Paragraphs, headings, quotations, list entries and definitions of a book's chapter."""
    return _blocks(text, {"p", "h2", "h3", "h4", "blockquote", "li", "dt", "dd"})


def cnxml(text: str) -> list[str]:
    """Paragraphs, titles, entries, equations, definitions and captions of a textbook's module."""
    found = _blocks(text, {"para", "title", "item", "equation", "definition", "caption"})
    return [block for block in found if len(block) > 20 or not block.isdigit()]


def law(text: str) -> list[str]:
    """Numbers, headings and words of a section, whole where it is short."""
    found = _blocks(text, {"num", "heading", "text", "aftertext"})
    return [" ".join(found)] if sum(map(len, found)) < SECTION_CHARACTERS else found


def _blocks(text: str, names: set[str]) -> list[str]:
    try:
        root = ElementTree.fromstring(DOCTYPE.sub("", bounded(text, ("<!DOCTYPE", ">"))))
    except (ElementTree.ParseError, ValueError):  # the latter for an encoding that Python has not
        raise Unreadable("broken_xml") from None
    found: list[str] = []
    _walk(root, names, found)
    return found


def _walk(element: ElementTree.Element, names: set[str], found: list[str]) -> None:
    name = mathml.local_name(element)
    if name in APART:
        return
    if name == "row":
        found.append(" | ".join(squeeze(_words(cell)) for cell in element))
    elif name in names:
        if block := squeeze(_words(element)):
            found.append(block)
    else:
        for inner in element:
            _walk(inner, names, found)


def _words(element: ElementTree.Element) -> str:
    """Text of an element and all within it, formulas in linear notation, marks of notes left out."""
    name = mathml.local_name(element)
    if name in HIDDEN or name == "a" and "noteref" in str(element.attrib):
        return ""
    inside = [(_words(inner), inner.tail or "") for inner in element]
    if mathml.is_formula(element):
        return mathml.linear(element, [words for words, _ in inside])
    return (element.text or "") + "".join(words + tail for words, tail in inside)
