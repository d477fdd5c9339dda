"""Tables as data, written as Markdown, CSV and LaTeX (booktabs) with the same content."""

from __future__ import annotations

import csv
import io
import re
import textwrap
from dataclasses import dataclass, field
from pathlib import Path

from repro.report import narrow
from repro.store import atomic

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


FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # the full-width ones too
PLAIN = re.compile(r"[-+][\w. ]+|[-+]?[\d.]+e[-+]\d+")

Cell = str | int | Interval | Number | None


@dataclass
class Table:
    """Rows of cells. ``None`` is an empty cell; what was not run says so in words."""

    name: str
    title: str
    columns: list[str]
    rows: list[list[Cell]]
    notes: list[str] = field(default_factory=list)
    by: int = 0  # leading columns that head a block of rows each in Markdown

    def right_aligned(self) -> list[bool]:
        """Which columns hold numbers."""
        return [
            any(isinstance(row[i], (int, Number, Interval)) for row in self.rows)
            for i in range(len(self.columns))
        ]

    def markdown(self) -> str:
        """GitHub Markdown of lines that fit :data:`repro.report.narrow.WIDTH`, the notes under the table."""
        return narrow.markdown(self)

    def csv(self) -> str:
        """One column a cell, and three (value, low, high) where a column holds intervals; full precision."""
        wide = [any(isinstance(row[i], Interval) for row in self.rows) for i in range(len(self.columns))]
        header = [
            name
            for i, c in enumerate(self.columns)
            for name in ([c, f"{c} low", f"{c} high"] if wide[i] else [c])
        ]
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(map(_harmless, header))
        for row in self.rows:
            cells: list[str | float | int] = []
            for i, cell in enumerate(row):
                if isinstance(cell, Interval):
                    cells += [repr(cell.value), repr(cell.low), repr(cell.high)]
                else:
                    plain = (
                        ""
                        if cell is None
                        else repr(cell.value)
                        if isinstance(cell, Number)
                        else _harmless(cell)
                    )
                    cells += [plain, "", ""] if wide[i] else [plain]
            writer.writerow(cells)
        return buffer.getvalue()

    def latex(self) -> str:
        """A ``tabular`` with booktabs rules; title and notes stand as comments for the caption."""
        head = [f"% {line}" for text in [self.title, *self.notes] for line in _lines(text, narrow.WIDTH - 2)]
        body = [" & ".join(_tex(c) for c in self.columns) + r" \\", r"\midrule"]
        body += [" & ".join(_tex(cell_text(cell)) for cell in row) + r" \\" for row in self.rows]
        spec = "".join("r" if right else "l" for right in self.right_aligned())
        body = [line for text in body for line in _lines(text, narrow.WIDTH)]
        return "\n".join(
            [*head, rf"\begin{{tabular}}{{{spec}}}", r"\toprule", *body, r"\bottomrule", r"\end{tabular}", ""]
        )

    def write(self, folder: Path) -> None:
        """``<name>.md``, ``<name>.csv`` and ``<name>.tex`` in ``folder``."""
        for suffix, content in (("md", self.markdown()), ("csv", self.csv()), ("tex", self.latex())):
            with atomic(folder / f"{self.name}.{suffix}") as temporary:
                temporary.write_text(content, encoding="utf-8")


def cell_text(cell: Cell) -> str:
    """A cell as a reader sees it."""
    return "" if cell is None else f"{cell:,}" if isinstance(cell, int) else str(cell)


def _harmless(cell: str | int) -> str:
    """Text that a spreadsheet would compute begins with an apostrophe; numbers and plain words ("+
    selection") stay.
    """
    text = str(cell)
    formula = text.lstrip().startswith(FORMULA) or text[:1] in ("\t", "\r", "\n")
    return f"'{text}" if formula and not PLAIN.fullmatch(text) else text


def _lines(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


def _tex(text: str) -> str:
    replaced = text.replace("\\", r"\textbackslash ")
    for character in "&%$#_{}":
        replaced = replaced.replace(character, "\\" + character)
    replaced = replaced.replace("~", r"\textasciitilde{}").replace("^", r"\textasciicircum{}")
    return re.sub(r"(?<!\w)-(?=\d)", "$-$", replaced)  # minus signs, not the hyphens of words
