"""Tables as data, written as Markdown, CSV and LaTeX (booktabs) with the same content."""

from __future__ import annotations

import csv
import io
import re
import textwrap
from dataclasses import dataclass, field
from pathlib import Path

from repro.report import narrow
from repro.report.cells import Cell, Interval, Number, cell_text
from repro.store import atomic

FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # the full-width ones too
PLAIN = re.compile(r"[-+][\w. ]+|[-+]?[\d.]+e[-+]\d+")


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
