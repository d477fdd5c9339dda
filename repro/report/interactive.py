"""Plots as plotly figures (plain dicts) for the page; colours of text and grid are set in the browser, light
or dark.
"""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass, replace
from html import escape
from typing import Any

from repro.plain import Json
from repro.report.plots import COLOURS, Heat, Panel, Plot, Series, Words

GAP = 84  # pixels between panels, for tick labels, an axis title and the next panel's title
CORNER = {"xref": "paper", "yref": "paper", "xanchor": "right", "yanchor": "bottom", "showarrow": False}
SYMBOLS = ["circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x", "star"]


def plotly_script() -> str:
    """The library's own minified source, to stand inside the page."""
    from plotly.offline import get_plotlyjs

    return get_plotlyjs()


def to_plotly(plot: Plot) -> Json:
    """``{"data": [...], "layout": {...}}``; panels stand under each other so that a phone shows them
    whole.
    """
    plot = _inert(plot)
    panels = plot.panels
    sizes = [_pixels(p) for p in panels]
    total = sum(sizes) + GAP * (len(panels) - 1)
    legend = len(plot.labelled) > 1
    margin = {"l": 8, "r": 12, "t": 26 + 44 * legend, "b": 60}
    layout: Json = {
        "height": total + margin["t"] + margin["b"],
        "margin": margin,
        "legend": {"orientation": "h", "yref": "container", "y": 1, "yanchor": "top", "x": 0},
        "showlegend": legend,
        "barmode": "stack",
        "bargap": 0.1,
        "annotations": [],
        "shapes": [],
    }
    data: list[Json] = []
    top = 1.0
    shown: set[str] = set()
    for number, (panel, size) in enumerate(zip(panels, sizes, strict=True), 1):
        suffix = "" if number == 1 else str(number)
        bottom = top - size / total
        x_axis, y_axis = f"x{suffix}", f"y{suffix}"
        across, up = _axes(panel)
        layout[f"xaxis{suffix}"] = across | {"anchor": y_axis}
        layout[f"yaxis{suffix}"] = up | {"anchor": x_axis, "domain": [max(bottom, 0.0), top]}
        if panel.title:
            layout["annotations"].append({"text": f"<b>{panel.title}</b>", "x": 1, "y": top, **CORNER})
        for trace in _traces(panel, plot.labelled):
            label = trace.get("name", "")
            trace |= {"xaxis": x_axis, "yaxis": y_axis, "legendgroup": label}
            trace["showlegend"] = bool(label) and label not in shown and trace.get("showlegend", True)
            if trace["showlegend"]:
                shown.add(label)
            data.append(trace)
        if panel.level is not None:
            across_all = {"type": "line", "xref": f"{x_axis} domain", "yref": y_axis, "x0": 0, "x1": 1}
            layout["shapes"].append(
                across_all
                | {
                    "label": {"text": panel.level_name, "textposition": "end", "font": {"size": 11}},
                    "y0": panel.level,
                    "y1": panel.level,
                    "line": {"dash": "dot", "width": 1},
                }
            )
        if isinstance(panel.content, Heat):
            frames = [
                {"x0": c - 0.5, "x1": c + 0.5, "y0": r - 0.5, "y1": r + 0.5} for r, c in panel.content.marked
            ]
            common = {
                "type": "rect",
                "xref": x_axis,
                "yref": y_axis,
                "line": {"color": COLOURS[1], "width": 2},
            }
            layout["shapes"] += [common | frame for frame in frames]
        top = bottom - GAP / total
    return {"data": data, "layout": layout}


def _inert(value: Any) -> Any:
    """A plot with every text escaped: plotly reads tags and links out of names, titles and labels."""
    if isinstance(value, str):
        return escape(value, quote=False)
    if isinstance(value, list | tuple):
        return type(value)(_inert(inner) for inner in value)
    if isinstance(value, dict):
        return {_inert(key): _inert(inner) for key, inner in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: _inert(getattr(value, f.name)) for f in fields(value) if f.init})
    return value


def _axes(panel: Panel) -> tuple[Json, Json]:
    """Horizontal and vertical axis of a panel, but for their places."""
    across: Json = {
        "automargin": True,
        "title": {"text": panel.xlabel.replace(" (", "<br>(")},
        "zeroline": panel.zero_line,
    }
    up: Json = {"automargin": True, "title": {"text": panel.ylabel}, "zeroline": False}
    if panel.span is not None:
        up["range"] = panel.shown
    if panel.log_x:
        across["type"] = "log"
    if panel.zero_line:
        across["rangemode"] = "tozero"
    if isinstance(panel.content, Words):
        hidden = {"visible": False, "fixedrange": True, "range": [0, 1]}
        return across | hidden, up | hidden
    if isinstance(panel.content, Heat):
        rows, columns = len(panel.content.values), len(panel.content.values[0])
        up |= {"range": [rows - 0.5, -0.5], "dtick": 1 + rows // 16, "showgrid": False}
        return across | {"dtick": 1 + columns // 16, "showgrid": False}, up
    if any(s.mode in ("interval", "bars") for s in panel.series):
        labels = list(dict.fromkeys(y for s in panel.series for y in s.y))
        ticks = {"tickvals": list(range(len(labels))), "ticktext": labels}
        up |= {"type": "linear", "range": [len(labels) - 0.5, -0.5], "showgrid": False, **ticks}
    return across, up


def _pixels(panel: Panel) -> int:
    labels = len({y for s in panel.series if s.mode in ("interval", "bars") for y in s.y})
    if isinstance(panel.content, Heat):
        return max(220, 15 * len(panel.content.values))
    return 34 + round(26 * labels * panel.row_height) if labels else 240


def _traces(panel: Panel, names: list[str]) -> list[Json]:
    if isinstance(panel.content, Heat):
        heat = panel.content
        limits = {"zmin": 0, "zmax": heat.highest} if heat.unit_range else {}
        hover = f"layer %{{y}}, head %{{x}}: %{{z:.3f}}<extra>{heat.label}</extra>"
        return [
            {
                "type": "heatmap",
                "z": heat.values,
                "colorscale": "Cividis",
                "hovertemplate": hover,  # fmt: skip
                "colorbar": {"title": {"text": heat.label, "side": "right"}, "thickness": 12},
                **limits,
            }
        ]
    if isinstance(panel.content, Words):
        placed = panel.content.placed()
        sizes = {
            "size": [size for *_, size in placed],
            "color": [COLOURS[len(word) % 3] for word, *_ in placed],
        }
        return [
            {
                "type": "scatter",
                "mode": "text",
                "text": [word for word, *_ in placed],
                "x": [p[1] for p in placed],  # fmt: skip
                "y": [p[2] for p in placed],
                "textposition": "top right",
                "textfont": sizes,
                "hoverinfo": "skip",
            }
        ]
    rows = list(dict.fromkeys(y for s in panel.series if s.mode in ("interval", "bars") for y in s.y))
    several = sum(s.mode == "interval" for s in panel.series)
    places = [x for s in panel.series if s.marks for x in s.x]
    # the outermost marks stand 1.5 % of the axis beside their place
    step = 0.015 * (max(places) - min(places)) / max(max(panel.aside), 3.0) if places else 0.0
    traces: list[Json] = []
    for number, series in enumerate(panel.series):
        index = series.colour_index(names, number)
        colour = COLOURS[index % len(COLOURS)]
        if series.mode == "interval":
            offset = (number - (several - 1) / 2) * 0.6 / max(several, 1)
            dots = [
                (x, rows.index(y) + offset)
                for y, values in zip(series.y, series.dots, strict=False)
                for x in values
            ]
            if dots:
                traces.append({
                    "type": "scatter", "mode": "markers", "x": [x for x, _ in dots], "y": [y for _, y
                    in dots],
                    "marker": {"color": colour, "size": 5, "opacity": 0.4}, "hoverinfo": "x",
                    "showlegend": False,
                })  # fmt: skip
            traces.append({
                "type": "scatter", "mode": "markers", "name": series.name, "x": series.x,
                "y": [rows.index(label) + offset for label in series.y],
                "marker": {"color": colour, "symbol": SYMBOLS[index % len(SYMBOLS)], "size": 8},
                "error_x": {"type": "data", "symmetric": False, "color": colour,
                            "array": _minus(series.high, series.x), "arrayminus": _minus(series.x,
                            series.low)},
                "text": [f"{y}: {_digits(x)} [{_digits(l)}, {_digits(h)}]" if h > l else f"{y}: {_digits(x)}"
                         for y, x, l, h in zip(series.y, series.x, series.low, series.high, strict=True)],
                "hovertemplate": f"%{{text}}<extra>{series.name}</extra>",
            })  # fmt: skip
        elif series.mode == "bars":
            traces.append(
                {
                    "type": "bar",
                    "orientation": "h",
                    "name": series.name,
                    "x": series.x,  # fmt: skip
                    "y": [rows.index(label) for label in series.y],
                    "marker": {"color": colour},
                }
            )
        elif series.mode == "histogram":
            traces.append(
                {
                    "type": "bar",
                    "name": series.name,
                    "x": series.x,
                    "y": series.y,
                    "marker": {"color": colour},
                }
            )
        elif series.mode == "points":
            traces.append({"type": "scatter", "mode": "markers", "name": series.name, "x": series.x,
                           "y": series.y,
                           "marker": {"color": colour, "size": 6, "opacity": 0.6}})  # fmt: skip
        else:
            symbol = SYMBOLS[(index + index // len(COLOURS)) % len(SYMBOLS)]
            traces += _line(series, colour, symbol, 0.0 if panel.log_x else panel.aside[number] * step)
    return traces


def _line(series: Series, colour: str, symbol: str, aside: float) -> list[Json]:
    """A line, in its band or with marks and whiskers ``aside`` of where they belong."""
    line = {"type": "scatter", "mode": "lines", "name": series.name, "x": series.x, "y": series.y,
            "line": {"color": colour, "dash": "dash" if series.dashed else "solid"}}  # fmt: skip
    if not series.low:
        return [line]
    if series.marks:
        whiskers = {"type": "data", "symmetric": False, "array": _minus(series.high, series.y),
                    "arrayminus": _minus(series.y, series.low)}  # fmt: skip
        moved = {"x": [x + aside for x in series.x], "text": [f"{x:,.6g}" for x in series.x],
                 "hovertemplate": f"%{{text}}: %{{y}}<extra>{series.name}</extra>"}  # fmt: skip
        return [line | moved | {"mode": "lines+markers", "error_y": whiskers, "marker": {"symbol": symbol}}]
    band = {"type": "scatter", "mode": "lines", "name": series.name, "x": series.x + series.x[::-1],
            "y": series.high + series.low[::-1], "fill": "toself", "fillcolor": colour + "26",
            "line": {"width": 0},
            "hoverinfo": "skip", "showlegend": False}  # fmt: skip
    return [band, line]


def _minus(a: list[float], b: list[float]) -> list[float]:
    return [x - y for x, y in zip(a, b, strict=True)]


def _digits(value: float) -> str:
    return f"{value:.3g}" if not math.isclose(value, 0.0) else "0"
