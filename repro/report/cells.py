"""What a cell of a table holds: text, whole numbers, numbers with their digits, estimates with limits."""

from __future__ import annotations

from dataclasses import dataclass

NOT_RUN = "not run"
NO_INTERVAL = " (no interval: too few sources)"
FINEST = 8  # digits behind the point
CHANCE = " (chance)"  # behind an accuracy whose interval covers chance; a star would read as a finding


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence limits; printed as ``+0.012 [-0.003, +0.027]``."""

    value: float
    low: float
    high: float
    digits: int = 3
    signed: bool = True  # a difference; shares have no sign
    mark: str = ""

    def __str__(self) -> str:
        sign, digits = "+" if self.signed else "", self.digits
        while digits < FINEST and any(
            end and not float(_digits(end, digits)) for end in (self.low, self.high)
        ):
            digits += 1  # a limit that is not zero must not look like it
        value, low, high = (_digits(x, digits, sign) for x in (self.value, self.low, self.high))
        return f"{value} [{low}, {high}]{self.mark}"


@dataclass(frozen=True)
class Number:
    """A number with its printed digits and a mark (:data:`CHANCE`)."""

    value: float
    digits: int = 3
    mark: str = ""

    def __str__(self) -> str:
        return _digits(self.value, self.digits) + self.mark


def _digits(value: float, digits: int, sign: str = "") -> str:
    """Fixed digits; large values (perplexities) with four significant ones."""
    return f"{value:{sign}.4g}" if abs(value) >= 100_000 and digits else f"{value:{sign}.{digits}f}"


Cell = str | int | Interval | Number | None


def cell_text(cell: Cell) -> str:
    """A cell as a reader sees it."""
    return "" if cell is None else f"{cell:,}" if isinstance(cell, int) else str(cell)
