"""What a server refuses once is asked for again: with growing pauses, or after as long as its headers say."""

from __future__ import annotations

import email.utils
import re
import sys
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")

TRIES = 8
FIRST_SECONDS, LONGEST_SECONDS = 1.0, 60.0  # of the pauses, which double
ASKED_SECONDS = 900.0  # the longest that a server's word is followed
TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
# By name, of httpx, requests, urllib3, aiohttp, fsspec and botocore alike, whichever a library is built on.
NETWORK = frozenset(
    {
        "TransportError", "ConnectionError", "Timeout", "TimeoutError", "TimeoutException", "ProtocolError",
        "IncompleteRead", "ChunkedEncodingError", "ClientConnectionError", "ClientPayloadError",
        "FSTimeoutError", "HTTPClientError",
    }
)  # fmt: skip
LIMIT = re.compile(r"r\s*=\s*(\d+)\s*;\s*t\s*=\s*(\d+)")  # "api";r=0;t=55: what is left, and for how long


def patiently(action: Callable[[], T], tries: int = TRIES) -> T:
    """The answer of ``action``, asked up to ``tries`` times while what it raises is :func:`transient`."""
    for failures in range(1, tries + 1):
        try:
            return action()
        except Exception as error:
            pause(error, failures, tries)
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


def pause(error: Exception, failures: int, tries: int = TRIES) -> None:
    """Wait before the next try, or raise ``error`` again: it will not pass, or this was the last one."""
    if failures >= tries or not transient(error):
        raise error
    seconds = asked(error)
    if seconds is None:
        seconds = min(LONGEST_SECONDS, FIRST_SECONDS * 2 ** (failures - 1))
    if seconds >= 10:
        reason = told(error)[:200]
        print(f"waiting {seconds:.0f} s and trying again: {reason}", file=sys.stderr, flush=True)
    sleep(seconds)


def sleep(seconds: float) -> None:
    """A name of its own, for tests."""
    time.sleep(seconds)


def told(error: BaseException) -> str:
    """All that an error says, in one line."""
    return " ".join(str(error).split()) or type(error).__name__


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
    return False


def asked(error: BaseException | None) -> float | None:
    """Seconds that the server wants to be left alone: ``Retry-After``, or the reset of ``RateLimit``."""
    for found in _chain(error):
        headers = getattr(getattr(found, "response", None), "headers", None) or {}
        by_name = {str(key).lower(): str(value) for key, value in dict(headers).items()}
        limit = LIMIT.search(by_name.get("ratelimit", ""))
        if limit and limit[1] == "0":
            return min(ASKED_SECONDS, int(limit[2]) + 1.0)
        if "retry-after" in by_name:
            return min(ASKED_SECONDS, _seconds(by_name["retry-after"]))
    return None


def _seconds(value: str) -> float:
    """``Retry-After`` in either of its forms: seconds, or a date."""
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
