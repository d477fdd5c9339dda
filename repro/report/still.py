"""A plot as files for paper and for readers without scripts: drawn by matplotlib."""

from __future__ import annotations

import math
import re
import textwrap
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro.report.plots import COLOURS, Heat, Panel, Plot, Series, Words
from repro.store import atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*"]
WIDTHS = {1: 7.0, 2: 8.5, 3: 10.0}  # inches of a figure with so many panels side by side
LETTER, AXES = 0.08, 1.4  # inches: of a letter of a label, and what axes have at least
UNDRAWABLE = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")  # no SVG may hold them
DARK_INK, DARK_BACK = "#e6edf3", "#0d1117"
DARK = {
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), DARK_INK
    ),
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), DARK_BACK),
}


def write(plot: Plot, folder: Path, dark: bool = False) -> None:
    """``<name>.svg`` and ``<name>.png``: the same bytes for the same plot. ``dark``: ``<name>_dark.svg``
    alone, for pages on a dark ground.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.rcsetup import cycler

    style: dict[Any, Any] = {
        "svg.hashsalt": "repro",
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.25,
        "axes.axisbelow": True,
        "axes.prop_cycle": cycler(color=COLOURS),
        "text.parse_math": False,  # two $ in a name are no formula
        **(DARK if dark else {}),
    }
    plot = _drawable(plot)
    with matplotlib.rc_context(style):
        across = columns(plot)
        rows = math.ceil(len(plot.panels) / across)
        width = WIDTHS[across]
        heights = [max(_height(p) for p in plot.panels[r * across : (r + 1) * across]) for r in range(rows)]
        legend = _legend_columns(plot.labelled, width)
        # a long legend must not squeeze the axes
        room = max(0.0, 0.18 * (math.ceil(len(plot.labelled) / legend) - 3))
        figure, axes = pyplot.subplots(
            rows,
            across,
            figsize=(width, sum(heights) + room),
            squeeze=False,
            layout="constrained",
            height_ratios=heights,
        )
        flat = list(axes.flat)
        for axis, panel in zip(flat, plot.panels, strict=False):
            _draw(axis, panel, plot.labelled, _letters(across), int(width / across / LETTER))
        for axis in flat[len(plot.panels) :]:
            axis.set_visible(False)
        handles = {
            l: h
            for a in flat
            for h, l in zip(*a.get_legend_handles_labels(), strict=True)
            if not l.startswith("_")
        }
        if len(handles) > 1:
            place = {"loc": "outside lower center", "ncols": legend, "frameon": False}
            figure.legend(handles.values(), handles.keys(), **place)
        if plot.title:
            figure.suptitle(plot.title, fontsize=10)
        kinds = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}
        for suffix, metadata in list(kinds.items())[: 1 if dark else 2]:
            with atomic(folder / f"{plot.name}{'_dark' if dark else ''}.{suffix}") as temporary:
                figure.savefig(temporary, format=suffix, metadata=metadata, dpi=150)
        pyplot.close(figure)


def _drawable(found: Any) -> Any:
    """``found`` with another sign for each control character and half of a surrogate pair in its texts."""
    if isinstance(found, str):
        return UNDRAWABLE.sub("\ufffd", found)
    if isinstance(found, list | tuple):
        return type(found)(map(_drawable, found))
    if is_dataclass(found) and not isinstance(found, type):
        return replace(found, **{f.name: _drawable(getattr(found, f.name)) for f in fields(found)})
    return found


def columns(plot: Plot) -> int:
    """How many panels stand side by side: the labels of rows must leave the axes some room."""
    most = 2 if len(plot.panels) in (2, 4) else min(3, len(plot.panels))
    longest = max((len(str(label)) for panel in plot.panels for label in panel.labels), default=0)
    return next((columns for columns in range(most, 1, -1) if longest <= _letters(columns)), 1)


def _letters(columns: int) -> int:
    """How long a row's label may be where so many panels stand side by side."""
    return int((WIDTHS[columns] / columns - AXES) / LETTER)


def _short(label: str, letters: int) -> str:
    """Of a longer label the middle is left out: the ends of a path or an address tell most."""
    return label if len(label) <= letters else f"{label[: (letters - 1) // 2]}…{label[-(letters // 2) :]}"


def _legend_columns(names: list[str], width: float) -> int:
    """As many columns, four at most, as fit ``width`` inches; a column is as wide as its longest name."""
    for columns in range(min(4, len(names)), 1, -1):
        size = math.ceil(len(names) / columns)
        longest = [max(map(len, names[start : start + size])) for start in range(0, len(names), size)]
        if sum(0.6 + 0.075 * length for length in longest) <= width:
            return columns
    return 1


def _height(panel: Panel) -> float:
    """Inches: panels of labelled rows grow with their rows."""
    labels = len(panel.labels)
    if isinstance(panel.content, Heat):
        return max(2.4, 1.0 + 0.13 * len(panel.content.values))
    return 1.0 + 0.26 * labels * panel.row_height if labels else 3.0


def _draw(axis: Axes, panel: Panel, names: list[str], letters: int, title: int) -> None:
    from matplotlib.ticker import EngFormatter, LogFormatter

    if isinstance(panel.content, Heat):
        _draw_heat(axis, panel.content)
    elif isinstance(panel.content, Words):
        _draw_words(axis, panel.content)
    rows = panel.labels
    left = dict.fromkeys(rows, 0.0)
    several = sum(s.mode == "interval" for s in panel.series)
    for number, series in enumerate(panel.series):
        index = series.colour_index(names, number)
        colour = COLOURS[index % len(COLOURS)]
        if series.mode == "interval":
            offset = (number - (several - 1) / 2) * 0.6 / max(several, 1)
            y = [rows.index(label) + offset for label in series.y]
            axis.hlines(y, series.low, series.high, color=colour, linewidth=1.6)
            for height, values in zip(y, series.dots, strict=False):
                axis.plot(
                    values,
                    [height] * len(values),
                    "o",
                    color=colour,
                    markersize=3,
                    alpha=0.4,
                    markeredgewidth=0,
                )
            axis.plot(
                series.x, y, MARKERS[index % len(MARKERS)], color=colour, label=series.name, markersize=4.5
            )
        elif series.mode == "bars":
            start = [left[label] for label in series.y]
            axis.barh(
                [rows.index(label) for label in series.y],
                series.x,
                left=start,
                color=colour,
                label=series.name,
            )
            for label, length in zip(series.y, series.x, strict=True):
                left[label] += length
        elif series.mode == "histogram":
            axis.bar(
                series.x,
                series.y,
                width=series.x[1] - series.x[0] if len(series.x) > 1 else 1.0,
                color=colour,
            )
        elif series.mode == "points":
            axis.plot(series.x, series.y, ".", color=colour, label=series.name, markersize=3, alpha=0.6)
        elif series.marks:
            _draw_marks(axis, series, colour, index, panel.aside, number)
        else:
            axis.plot(
                series.x,
                series.y,
                "--" if series.dashed else "-",
                color=colour,
                label=series.name,
                linewidth=1.4,
            )
            if series.low:
                axis.fill_between(series.x, series.low, series.high, color=colour, alpha=0.15, linewidth=0)
    if rows:
        axis.set_yticks(range(len(rows)), [_short(str(label), letters) for label in rows])
        axis.set_ylim(len(rows) - 0.5, -0.5)
        axis.grid(False, axis="y")
    if panel.zero_line:
        axis.axvline(0, color=_ink(), linewidth=0.8)  # also brings zero into view
    if panel.level is not None:
        axis.axhline(panel.level, color=_ink(), linewidth=0.9, linestyle=":")
        axis.annotate(panel.level_name, (1, panel.level), (-2, 2), ("axes fraction", "data"), "offset points",
                      ha="right", va="bottom", fontsize=8)  # fmt: skip
    if panel.span is not None:
        axis.set_ylim(*panel.shown)
    if panel.log_x:
        axis.set_xscale("log")  # whose own ticks are formulas
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
        axis.xaxis.set_minor_formatter(LogFormatter(labelOnlyBase=False))
    elif panel.series and max(map(abs, axis.get_xlim())) >= 1e5:  # 2M tokens, where 2 and 1e6 in a corner
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    axis.set_title(textwrap.fill(panel.title, title), fontsize=9)
    axis.set_xlabel(panel.xlabel)
    axis.set_ylabel(panel.ylabel)


def _ink() -> str:
    from matplotlib import rcParams

    return rcParams["text.color"]


def _draw_marks(axis: Axes, series: Series, colour: str, index: int, aside: list[float], number: int) -> None:
    """A line with a mark and whiskers at each point, all of them (``Panel.aside``) within a quarter of an
    inch.
    """
    from matplotlib.transforms import ScaledTranslation

    step = min(4.0, 16 / (2 * max(aside) + 1)) / 72
    beside = ScaledTranslation(aside[number] * step, 0, axis.figure.dpi_scale_trans)
    around = [
        [abs(y - end) for y, end in zip(series.y, ends, strict=True)]
        for ends in (series.low or series.y, series.high or series.y)
    ]
    # another one where the colours begin again
    marker = MARKERS[(index + index // len(COLOURS)) % len(MARKERS)]
    style = {
        "linestyle": "--" if series.dashed else "-",
        "linewidth": 1.0,
        "markersize": 4.5,
        "elinewidth": 0.9,
    }
    moved = axis.transData + beside
    axis.errorbar(
        series.x, series.y, around, color=colour, marker=marker, label=series.name, transform=moved, **style
    )
    axis.update_datalim(
        [(x, y) for ends in (series.y, series.low, series.high) for x, y in zip(series.x, ends, strict=False)]
    )
    axis.margins(x=0.08)
    axis.autoscale_view()


def _draw_heat(axis: Axes, heat: Heat) -> None:
    from matplotlib.patches import Rectangle

    limits = {"vmin": 0, "vmax": heat.highest} if heat.unit_range else {}
    image = axis.imshow(heat.values, cmap="cividis", aspect="auto", interpolation="nearest", **limits)
    for row, column in heat.marked:
        axis.add_patch(
            Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="#D55E00", linewidth=1.2)
        )
    axis.grid(False)
    for side in (axis.xaxis, axis.yaxis):
        locator: Any = side.get_major_locator()
        locator.set_params(integer=True)
    axis.figure.colorbar(image, ax=axis, label=heat.label, shrink=0.85)


def _draw_words(axis: Axes, cloud: Words) -> None:
    axis.set_axis_off()
    for word, x, y, size in cloud.placed():
        axis.text(
            x,
            y,
            word,
            fontsize=size,
            color=COLOURS[len(word) % 3],
            transform=axis.transAxes,
        )
