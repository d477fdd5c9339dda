"""What a server refuses once is asked for again: with growing pauses, or after as long as its headers say."""

from __future__ import annotations

import email.utils
import re
import sys
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from repro.secrecy import hidden

T = TypeVar("T")

TRIES = 8
FEW = 4  # where somebody waits at a terminal
FIRST_SECONDS, LONGEST_SECONDS = 1.0, 60.0  # of the pauses, which double
ASKED_SECONDS = 900.0  # a server that asks for more is not waited for
TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
# By name, of httpx, requests, urllib3, aiohttp, fsspec and botocore alike, whichever a library is built on.
NETWORK = frozenset(
    {
        "TransportError", "ConnectionError", "Timeout", "TimeoutError", "TimeoutException", "ProtocolError",
        "IncompleteRead", "ChunkedEncodingError", "ClientConnectionError", "ClientPayloadError",
        "FSTimeoutError", "HTTPClientError",
    }
)  # fmt: skip
# Cut off in the middle, in the words of the libraries that download.
CUT = re.compile(
    r"RemoteProtocolError|incomplete (message|read|chunked)|peer closed connection|Connection reset|"
    r"Consistency check failed|connection broken: Incomplete",
    re.IGNORECASE,
)
LIMIT = re.compile(r"r\s*=\s*(\d+)\s*;\s*t\s*=\s*(\d+)")  # "api";r=0;t=55: what is left, and for how long


def patiently(action: Callable[[], T], tries: int = TRIES, what: str = "") -> T:
    """The answer of ``action``, asked up to ``tries`` times while what it raises is :func:`transient`.

    The last failure is raised. Every wait for ``what`` has a line; without a name only the long ones do.
    """
    for failures in range(1, tries + 1):
        try:
            return action()
        except Exception as error:
            pause(error, failures, tries, what)
    raise AssertionError("pause raises at the last try")


def resumed(make: Callable[[int], Iterator[T]], skip: int = 0) -> Iterator[T]:
    """The items of ``make(skip)``; after a cut it is called again with how many were had. ``make`` is
    deterministic.
    """
    failures = 0
    while True:
        try:
            for item in make(skip):
                yield item
                skip, failures = skip + 1, 0
            return
        except Exception as error:
            failures += 1
            pause(error, failures)


def pause(error: Exception, failures: int, tries: int = TRIES, what: str = "") -> None:
    """Wait before the next try, or raise ``error`` again: it will not pass, the server asks for longer than
    anybody waits, or this was the last one.
    """
    wanted = asked(error) or 0.0
    if failures >= tries or not transient(error) or wanted > ASKED_SECONDS:
        raise error
    duration = max(wanted, min(LONGEST_SECONDS, FIRST_SECONDS * 2 ** (failures - 1)))
    if what or duration >= 10:
        waiting(what or "a server", said(error), duration)
    else:
        sleep(duration)


def waiting(what: str, reason: str, duration: float) -> None:
    """Say why, and wait so many seconds."""
    print(f"{what}: {hidden(reason)}; again in {duration:.0f} s", file=sys.stderr, flush=True)
    sleep(duration)


def sleep(seconds: float) -> None:
    """A name of its own, for tests."""
    time.sleep(seconds)


def told(error: BaseException) -> str:
    """All that an error says, in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def said(error: BaseException) -> str:
    """What went wrong, in a few words: the server's answer, or the library's first line."""
    for cause in _chain(error):
        if (status := _status(cause)) is not None:
            return f"the server answers {status}"
    cut = [cause for cause in _chain(error) if CUT.search(f"{type(cause).__name__}: {cause}")]
    lines = str(cut[0] if cut else error).strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__


def transient(error: BaseException | None) -> bool:
    """Whether the same request may be answered later: a server's status that says so, or a connection that
    broke.
    """
    for found in _chain(error):
        status = _status(found)
        if status is not None:
            return status in TRANSIENT
        if type(found).__name__ == "OfflineModeIsEnabled":
            return False
        if any(base.__name__ in NETWORK for base in type(found).__mro__):
            return True
        if CUT.search(f"{type(found).__name__}: {found}"):
            return True
    return False


def asked(error: BaseException | None) -> float | None:
    """Seconds that the server wants to be left alone: ``Retry-After``, or the reset of ``RateLimit``."""
    for found in _chain(error):
        headers = getattr(getattr(found, "response", None), "headers", None) or {}
        by_name = {str(key).lower(): str(value) for key, value in dict(headers).items()}
        limit = LIMIT.search(by_name.get("ratelimit", ""))
        if limit and limit[1] == "0":
            return int(limit[2]) + 1.0
        if "retry-after" in by_name:
            return seconds(by_name["retry-after"])
    return None


def seconds(value: str | None) -> float | None:
    """``Retry-After`` in either of its forms, seconds or a date; ``None`` without one."""
    if value is None:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return FIRST_SECONDS


def _status(error: BaseException) -> int | None:
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
