"""The words for one comparison, wherever they are printed: README, page, tables, verdicts by claim."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import ROUND_CEILING, Decimal

ALPHA = 0.05
# the latter where the treatment is a harm: heads are masked
WORDS = ("better", "worse"), ("hurts less", "hurts more")
AFTER_CORRECTION = "not established after correction"
NOT_TESTED = "not tested"  # the primary contrast did not open the way to the secondary ones
DEMONSTRATION = "demonstration only"
AT_CHANCE, EXPLORATORY = "at chance", "exploratory"


def conclusion(low: float | None, high: float | None, lower_is_better: bool, margin: float | None) -> str:
    """Which outcome of those an experiment registers: better, worse, equivalent or undecided.

    Better and worse leave zero outside the interval, whatever the size; equivalent holds zero and lies within
    ``margin``, the smallest effect of interest, on both sides (at 95 % stricter than two one-sided tests at 5
    %). No true difference makes both tests err, so that neither is corrected for the other.
    """
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return "undecided"
    if low > 0 or high < 0:
        return "better" if (high < 0) == lower_is_better else "worse"
    return "equivalent" if margin is not None and max(-low, high) < margin else "undecided"


def verdict(
    low: float | None,
    high: float | None,
    lower_is_better: bool = True,
    *,
    margin: float | None = None,
    p_corrected: float | None = None,
    tested: bool = True,
    no_interval: str = "",
    reasons: Sequence[str] = (),
    masked: bool = False,
) -> str:
    """The words for an interval.

    In this order: without one (``low`` or ``high`` is ``None`` or NaN) why there is ``no_interval``; a
    demonstration where there are ``reasons`` (what a verdict would need and the run does not have; method.md,
    section 6); nothing where the comparison is not ``tested``. Then "better" or "worse" (:data:`WORDS`;
    others where heads are ``masked``) where zero lies outside, if a secondary comparison's p-value after
    Holm, ``p_corrected``, allows it; "equivalent within" the ``margin`` that was stated beforehand; and else
    what is not excluded, rounded away from zero.
    """
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return f"no interval: {no_interval}" if no_interval else "no interval"
    if reasons:
        return DEMONSTRATION
    if not tested:
        return NOT_TESTED
    found = conclusion(low, high, lower_is_better, margin)
    if found == "equivalent":
        return f"equivalent within {margin:g}"
    if found == "undecided":
        return f"undecided; up to {outwards(max(-low, high))} not excluded"
    if p_corrected is not None and p_corrected > ALPHA:
        return AFTER_CORRECTION
    return WORDS[masked][found == "worse"]


def outwards(value: float, digits: int = 2) -> str:
    """A positive number with so many significant digits, never smaller than it is."""
    exact = Decimal(repr(float(value)))
    if not exact:
        return "0"
    step = Decimal(1).scaleb(exact.adjusted() - digits + 1)
    return f"{(exact.quantize(step, ROUND_CEILING)).normalize():f}"


def direction(words: str) -> int:
    """1 where the words of :func:`verdict` speak for the treatment, -1 where they speak against it, 0 where
    for neither.
    """
    return next(
        (sign for pair in WORDS for sign, word in zip((1, -1), pair, strict=True) if word == words), 0
    )
