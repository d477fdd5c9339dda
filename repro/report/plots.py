"""A plot as data: panels of series. Drawn by matplotlib for files and paper (``still.py``), by plotly for the
page (``interactive.py``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from itertools import compress
from typing import Any, Literal

# Okabe and Ito's colours: told apart with every common colour vision, on white and on dark grey.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F", "#B8A000"]
BANDS = 5  # lines whose bands can still be told apart; of more the intervals are whiskers
MOST_PANELS = 24  # of a figure: laying out hundreds takes for ever, and nobody reads them
MOST_ROWS = 60  # labelled rows of a panel: an image may not be higher than 65,535 points


@dataclass
class Series:
    """Points of one name. ``interval``: horizontal whiskers from ``low`` to ``high`` at the labels ``y``;
    ``bars``: stacked horizontal bars of length ``x`` at the labels ``y``; ``histogram``: upright bars of
    height ``y`` centred at ``x``.
    """

    name: str
    x: list[Any]
    y: list[Any]
    mode: Literal["line", "points", "interval", "bars", "histogram"] = "line"
    low: list[float] = field(default_factory=list)  # of x for intervals, of y for lines (a band)
    high: list[float] = field(default_factory=list)
    dashed: bool = False
    colour: int | None = None  # index of COLOURS; default: position in the panel
    marks: bool = False  # of a line: a mark and whiskers at each point instead of a band
    dots: list[list[float]] = field(default_factory=list)  # of an interval: the values that each rests on

    def colour_index(self, names: list[str], number: int) -> int:
        """Which colour: its own, else by its name among those of the plot, else by its place in the panel."""
        if self.colour is not None:
            return self.colour
        return names.index(self.name) if self.name in names else number

    def only(self, labels: set[Any]) -> Series:
        """The points at some of its labels."""
        kept = [label in labels for label in self.y]
        lists = {
            name: list(compress(getattr(self, name), kept)) for name in ("x", "y", "low", "high", "dots")
        }
        return replace(self, **lists)


@dataclass
class Heat:
    """A matrix [row][column] with some cells marked by a frame."""

    values: list[list[float]]
    marked: list[tuple[int, int]] = field(default_factory=list)  # (row, column)
    label: str = ""
    unit_range: bool = True  # the colour scale runs from 0 to ``highest``
    highest: float = 1.0


@dataclass
class Words:
    """Words with weights, drawn in sizes, largest first, in reading order."""

    words: list[tuple[str, float]]

    def placed(self) -> list[tuple[str, float, float, float]]:
        """(word, x, y, points) in rows on a unit square: area follows weight, widths are estimated, nothing
        is random.
        """
        top = max((weight for _, weight in self.words), default=1.0)
        found, x, y, line = [], 0.0, 1.0, 0.0
        for word, weight in self.words:
            size = 7 + 13 * math.sqrt(max(weight, 0.0) / top)
            width, height = 0.0034 * size * len(word) + 0.03, size / 150
            if x + width > 1.0 and x > 0:
                x, y, line = 0.0, y - line - 0.03, 0.0
            if y - height < 0:
                break
            found.append((word, x, y - height, size))
            x, line = x + width, max(line, height)
        return found


@dataclass
class Panel:
    """One pair of axes."""

    title: str = ""
    xlabel: str = ""
    ylabel: str = ""
    series: list[Series] = field(default_factory=list)
    content: Heat | Words | None = None
    zero_line: bool = False
    log_x: bool = False
    level: float | None = None  # a dotted line across
    level_name: str = "chance"
    span: tuple[float, float] | None = None  # of y that is shown, where whiskers reach further

    @property
    def shown(self) -> list[float]:
        """Both ends of the y axis where it is cut: ``span``, the dotted line and a little room."""
        low, high = self.span or (0.0, 0.0)
        ends = [low, high] + ([] if self.level is None else [self.level])
        room = 0.05 * (max(ends) - min(ends))
        return [min(ends) - room, max(ends) + room]

    @property
    def labels(self) -> list[Any]:
        """The labelled rows of intervals and bars, each once, from the top."""
        return list(dict.fromkeys(y for s in self.series if s.mode in ("interval", "bars") for y in s.y))

    @property
    def row_height(self) -> float:
        """How high a labelled row has to be, by one that holds up to three intervals."""
        return max(1.0, sum(s.mode == "interval" for s in self.series) / 3)

    @property
    def aside(self) -> list[float]:
        """Of each series with marks, how many places it stands beside its x, the middle one none: whiskers of
        many lines at one x could not be told apart. ``0`` for the others.
        """
        marked = [s.marks for s in self.series]
        middle = (sum(marked) - 1) / 2
        return [sum(marked[:i]) - middle if mark else 0.0 for i, mark in enumerate(marked)]

    def shortened(self) -> Panel:
        """With the first :data:`MOST_ROWS` labelled rows only."""
        kept = set(self.labels[:MOST_ROWS])
        return replace(
            self, series=[s.only(kept) if s.mode in ("interval", "bars") else s for s in self.series]
        )


@dataclass
class Plot:
    """A figure: its file name, a title, what a reader who cannot see it should know, and its panels.

    Of more panels than :data:`MOST_PANELS`, or rows of one than :data:`MOST_ROWS`, the first are drawn and
    the title says so; tables hold them all.
    """

    name: str
    title: str
    alt: str
    panels: list[Panel]

    def __post_init__(self) -> None:
        said = (
            [f"the first {MOST_PANELS} of {len(self.panels)} panels"]
            if len(self.panels) > MOST_PANELS
            else []
        )
        self.panels = self.panels[:MOST_PANELS]
        if longest := max(
            (len(panel.labels) for panel in self.panels if len(panel.labels) > MOST_ROWS), default=0
        ):
            said.append(f"{MOST_ROWS} rows of up to {longest}")
        if said:
            self.panels = [panel.shortened() for panel in self.panels]
            self.title = f"{self.title} ({', '.join(said)}; all are in the tables)"

    @property
    def labelled(self) -> list[str]:
        """Names of the series, each once: the legend."""
        return list(dict.fromkeys(s.name for p in self.panels for s in p.series if s.name))
