"""MathML in linear notation: ``x^2``, ``a_1``, ``(a+b)/(c)``, ``sqrt(x)``."""

from __future__ import annotations

from xml.etree.ElementTree import Element

SPACED = "=+-−<>≤≥×·"  # an empty operator counts as one: a gap
POSTFIX = {"msup": "^", "mover": "^", "msub": "_", "munder": "_"}


def local_name(element: Element) -> str:
    """The tag without its namespace."""
    return element.tag.rsplit("}", 1)[-1]


def is_formula(element: Element) -> bool:
    """Whether an element belongs to a formula."""
    return "MathML" in element.tag


def linear(element: Element, inside: list[str]) -> str:
    """One element of a formula; ``inside`` are its children, written already."""
    name, parts = local_name(element), [part.strip() for part in inside]
    match name, len(parts):
        case "mfrac", 2:
            above, below = parts
            simple = min(len(above), len(below)) <= 1 and max(len(above), len(below)) <= 2
            return f"{above}/{below}" if simple else f"({above})/({below})"
        case (("msup" | "mover" | "msub" | "munder"), 2):
            return f"{parts[0]}{POSTFIX[name]}{parts[1]}"
        case "msubsup", 3:
            return f"{parts[0]}_{parts[1]}^{parts[2]}"
        case "msqrt", _:
            return f"sqrt({''.join(parts)})"
        case (("mtr" | "mtable"), _):
            return " ".join(parts)
        case "mspace", _:
            return " "
    own = (element.text or "").strip()
    if name == "mo":
        return f" {own} " if own in SPACED else own
    return own + "".join(parts)
