"""What a server refuses for a moment, or cuts off, is asked again, after a while that doubles; what it
refuses for good, and a network that is not there, is said at once.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

Found = TypeVar("Found")

TRIES = 4
FIRST = 1.0  # seconds before the second try, doubled before each further one
LONGEST = 60.0  # seconds: a server that asks for more is not waited for
PASSING = (408, 425, 429, 500, 502, 503, 504)  # HTTP: try again later
# cut off in the middle, in the words and types of the libraries that download
CUT = re.compile(
    r"RemoteProtocolError|IncompleteRead|incomplete (message|read|chunked)|peer closed connection|"
    r"Consistency check failed|ReadTimeout|ReadError|ChunkedEncodingError|connection broken: Incomplete|"
    r"Connection reset",
    re.IGNORECASE,
)


def patiently(call: Callable[[], Found], what: str) -> Found:
    """What ``call`` returns; called up to ``TRIES`` times while its failure may pass. The last failure is
    raised.
    """
    for attempt in range(1, TRIES + 1):
        try:
            return call()
        except Exception as error:
            wait = pause(error, attempt)
            if wait is None or attempt == TRIES:
                raise
            waiting(what, said(error), wait)
    raise AssertionError("no try was made")


def waiting(what: str, reason: str, seconds: float) -> None:
    """Say why, and wait."""
    from repro.secrecy import hidden

    print(f"{what}: {hidden(reason)}; again in {seconds:.0f} s", file=sys.stderr, flush=True)
    time.sleep(seconds)


def pause(error: BaseException, attempt: int) -> float | None:
    """Seconds before another try after the ``attempt``-th; ``None`` where none would help.

    A server's own ``Retry-After`` counts.
    """
    usual = FIRST * 2 ** (attempt - 1)
    for cause in causes(error):
        response = getattr(cause, "response", None)
        if (status := getattr(response, "status_code", None)) is not None:
            asked = seconds(response.headers.get("Retry-After")) or 0.0
            return max(usual, asked) if status in PASSING and asked <= LONGEST else None
    cut = any(
        isinstance(cause, ConnectionResetError) or CUT.search(f"{type(cause).__name__}: {cause}")
        for cause in causes(error)
    )
    return usual if cut else None


def said(error: BaseException) -> str:
    """What went wrong, in a few words: the server's answer, or the library's first line."""
    for cause in causes(error):
        response = getattr(cause, "response", None)
        if (status := getattr(response, "status_code", None)) is not None:
            return f"the server answers {status}"
    cut = [cause for cause in causes(error) if CUT.search(f"{type(cause).__name__}: {cause}")]
    lines = str(cut[0] if cut else error).strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and what it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def seconds(retry_after: str | None) -> float | None:
    """Seconds of a ``Retry-After`` header; dates are left to the ordinary waiting."""
    try:
        return max(0.0, float(retry_after)) if retry_after is not None else None
    except ValueError:
        return None
