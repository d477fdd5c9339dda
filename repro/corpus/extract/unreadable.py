"""What an extractor raises for a file that is not of its format, or that would take for ever."""

MOST = 50_000_000  # characters looked at in vain, a second or two


class Unreadable(Exception):
    """The reason under which the file is counted, such as ``broken_xml``."""


def bounded(text: str, *ends: tuple[str, str]) -> str:
    """The text, unless looking for each ``(opening, closing)`` would take time that grows with the square of
    its length.

    A search from every opening goes on to the next closing: a file of a hundred thousand brackets that
    nothing closes takes minutes. Raises :class:`Unreadable` for such a one.
    """
    if len(text) ** 2 <= 2 * MOST:
        return text
    for opening, closing in ends:
        looked_at, at = 0, text.find(opening)
        while at >= 0:
            end = text.find(closing, at)
            looked_at += (len(text) if end < 0 else end) - at
            if looked_at > MOST:
                raise Unreadable("too_tangled")
            at = text.find(opening, at + 1)
    return text
