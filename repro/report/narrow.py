"""A table as Markdown whose lines fit a terminal: blocks under a heading each, what was not run in one line,
long cells over several rows, too many columns in parts that repeat those that name the rows.
"""

from __future__ import annotations

from itertools import groupby
from textwrap import wrap
from typing import TYPE_CHECKING

from repro.report.cells import NOT_RUN, Cell, cell_text

if TYPE_CHECKING:
    from repro.report.table import Table

WIDTH = 110
Row = list[Cell]


def markdown(table: Table, width: int = WIDTH) -> str:
    """GitHub Markdown with the notes under the table. CSV and LaTeX hold the rows that are only named
    here.
    """
    lines = [f"# {table.title}", ""] if table.title else []
    columns = table.columns[table.by :]
    absent: list[str] = []
    for head, rows in groupby(table.rows, key=lambda row: [cell_text(cell) for cell in row[: table.by]]):
        body = [row[table.by :] for row in rows]
        kept, left = _run(columns, body)
        if table.by and not kept and not any(_of_paper(name) for name in columns):
            needs = dict.fromkeys(str(c) for row in left for c in row if str(c).startswith("needs "))
            absent.append(f"- {head[0]}" + "".join(f" ({text})" for text in needs))
            continue
        if table.by:
            said = [
                f"{name}: {text}" for name, text in zip(table.columns[1:], head[1:], strict=False) if text
            ]
            lines += [*wrap("; ".join([f"**{head[0]}**", *said]), width, break_on_hyphens=False), ""]
        if not kept and left and any(_of_paper(name) for name in columns):
            chosen = [i for i, name in enumerate(columns) if not i or _of_paper(name)]
            lines += _parts([columns[i] for i in chosen], [[row[i] for i in chosen] for row in left], width)
            lines += ["Ours: not run.", ""]
            continue
        lines += _parts(columns, kept, width) if kept or not left else []
        if left:
            printed = any(map(_of_paper, columns))
            said_of = f" (the paper's numbers of these: {table.name}.csv)" if printed else ""
            names = ", ".join(dict.fromkeys(_name(row) for row in left))
            lines += [*wrap(f"Not run: {names}{said_of}.", width, break_on_hyphens=False), ""]
    if absent:
        lines += ["Not run:", ""]
        lines += [part for text in absent for part in wrap(text, width, subsequent_indent="  ")] + [""]
    for note in table.notes:
        folded = wrap(note.replace("\n", " "), width - 2, break_long_words=False, break_on_hyphens=False)
        lines += [*folded[:-1], f"{folded[-1]}  "] if folded else []
    return "\n".join(lines).rstrip() + "\n"


def _name(row: Row) -> str:
    """What a row that was not run is called; one that has no name of its own is ours."""
    return "all of it" if row[0] == NOT_RUN else cell_text(row[0])


def _of_paper(column: str) -> bool:
    return column.startswith("paper:")


def _run(columns: list[str], rows: list[Row]) -> tuple[list[Row], list[Row]]:
    """Rows with something of ours, and those where every cell of ours is empty or says that it was not
    run.
    """

    def empty(row: Row) -> bool:
        ours = [c for name, c in list(zip(columns, row, strict=True))[1:] if not _of_paper(name)]
        said = [str(cell) for cell in [row[0], *ours] if cell is not None]
        return NOT_RUN in said and all(c is None or c == NOT_RUN or str(c).startswith("needs ") for c in ours)

    found: tuple[list[Row], list[Row]] = ([], [])
    for row in rows:
        found[empty(row)].append(row)
    return found


def _parts(columns: list[str], rows: list[Row], width: int) -> list[str]:
    """One or more tables side by side in meaning, under each other on the page."""
    full = [i for i in range(len(columns)) if not i or not rows or any(row[i] is not None for row in rows)]
    names = full[: _naming([[row[i] for i in full] for row in rows])]
    parts, part = [], names
    for i in full[len(names) :]:
        if len(part) > len(names) and not _fits([*part, i], columns, rows, width):
            parts.append(part)
            part = names
        part = [*part, i]
    return [line for one in [*parts, part] for line in [*_table(one, columns, rows, width), ""]]


def _naming(rows: list[Row]) -> int:
    """How many of the first columns, all of them text, name a row: no two rows have the same in them."""
    for count in range(1, 1 + max(map(len, rows), default=0)):
        heads = [tuple(row[:count]) for row in rows]
        if not all(isinstance(cell, str) for head in heads for cell in head):
            break
        if len(set(heads)) == len(heads):
            return count
    return 1


def _headings(part: list[int], columns: list[str]) -> list[str]:
    """Names of columns, without what stands before a colon where the column before has the same."""
    found, last = [], None
    for i in part:
        group, _, rest = columns[i].partition(": ")
        found.append(rest if rest and group == last else columns[i])
        last = group if rest else None
    return [_pipe(name) for name in found]


def _fits(part: list[int], columns: list[str], rows: list[Row], width: int) -> bool:
    room = width - 3 * len(part) - 1
    headings = sum(map(len, _headings(part, columns)))
    return headings <= room and all(sum(_least(row[i]) for i in part) <= room for row in rows)


def _least(cell: Cell) -> int:
    """The narrowest a cell can be: text breaks at blanks, numbers do not break."""
    text = _text(cell)
    return max(map(len, text.split()), default=0) if isinstance(cell, str) else len(text)


def _table(part: list[int], columns: list[str], rows: list[Row], width: int) -> list[str]:
    numeric = [any(not isinstance(row[i], str | None) for row in rows) for i in part]
    lines = ["| " + " | ".join(_headings(part, columns)) + " |"]
    lines += ["|" + "|".join(" ---: " if right else " --- " for right in numeric) + "|"]
    for row in rows:
        cells = [row[i] for i in part]
        widths = [len(_text(cell)) for cell in cells]
        room = width - 3 * len(part) - 1
        while sum(widths) > room:  # the widest text gives way
            give = [(w - _least(c), n) for n, (w, c) in enumerate(zip(widths, cells, strict=True))]
            spare, widest = max(give)
            if spare <= 0:
                break
            widths[widest] -= min(spare, sum(widths) - room)
        folded = [
            wrap(_text(cell), max(w, 1), break_long_words=False, break_on_hyphens=False)
            if len(_text(cell)) > w
            else [_text(cell)]
            for cell, w in zip(cells, widths, strict=True)
        ]
        for n in range(max(map(len, folded))):
            lines.append("| " + " | ".join(text[n] if n < len(text) else "" for text in folded) + " |")
    return lines


def _text(cell: Cell) -> str:
    return _pipe(cell_text(cell))


def _pipe(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")
