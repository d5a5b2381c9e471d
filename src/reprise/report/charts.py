"""Charts as Vega-Lite specifications, built from rows of plain numbers; nothing here reads a record or draws.

A chart is one or more panels that share a legend. Colours are names of the page's style sheet (see `ink`), so that one
chart serves light, dark and paper. Every row keeps what it shows as text, written as in the tables.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reprise.canvas import DASHED, DOTTED, GREY
from reprise.layout import show
from reprise.panels import axis_scale, ends
from reprise.stats import interval

Row = dict[str, Any]
SHAPES = {"o": "circle", "D": "diamond", "s": "square", "v": "triangle-down", "X": "cross"}  # Matplotlib's and Vega's
STEP, LINE = 26, 12  # pixels between the rows of a list, and of one line of their names
NAME, TITLE = 22, 34  # letters that fit in a line of a row's name, and of an axis' title
HEIGHT, PADDING = 230, 8  # pixels of a panel with two axes, and between its edges and what is drawn
SOLID = (1, 0)
LOG_LABEL = "datum.label && datum.value < 1 ? format(datum.value, '~g') : datum.label"  # 0.02, not 20m; minor ones bare


@dataclass(frozen=True)
class Series:
    """How one entry of the legend looks; ``shape`` is one of Vega's, ``dash`` pairs of stroke and gap."""

    name: str
    colour: str = GREY
    shape: str = ""
    dash: tuple[float, ...] = SOLID


@dataclass(frozen=True)
class Panel:
    """One picture of a chart: a Vega-Lite specification without a width, since the page decides that."""

    title: str
    spec: Mapping[str, Any]


@dataclass(frozen=True)
class Chart:
    """``title`` says what is shown, ``told`` how to read it; ``name`` is unique within its paper."""

    name: str
    title: str
    told: str
    panels: tuple[Panel, ...]
    series: tuple[Series, ...] = ()

    @property
    def toggles(self) -> bool:
        """Whether the entries of the legend can be hidden."""
        return any("params" in panel.spec for panel in self.panels)


@dataclass(frozen=True)
class Picture:
    """A figure that the records cannot give: ``png`` was drawn while the runs' folders were there."""

    name: str
    title: str
    told: str
    png: bytes


@dataclass(frozen=True)
class Axis:
    """An axis: its name, its kind of scale (see `axis_scale`), the ticks where they are given, and what bounds it."""

    title: str
    scale: str = "linear"
    ticks: tuple[float, ...] = ()
    domain: tuple[float, float] | None = None


def ink(colour: str) -> str:
    """A colour of the project's palette as the style sheet names it."""
    return f"var(--ink-{colour.removeprefix('#')})"


def short(value: float) -> float:
    """Six significant digits: more than a chart shows, and no noise of the last bit."""
    return float(f"{value:.6g}")


def spread(found: Sequence[float], number_format: str, level: float | None = None, signed: bool = False) -> Row:
    """Mean and 95 % interval of one value per seed, with its text as in the tables (see `ends` for ``level``).

    A single seed has no interval, so that no band narrows to it.
    """
    over = interval(found)
    low, high = (None, None) if over.low is None else map(short, ends(over, level))
    text = show(over, number_format, signed=signed)
    return {"mean": short(over.mean), "low": low, "high": high, "seeds": over.n, "shown": text}


def axis_over(title: str, numbers: Sequence[float], ticked: bool = False) -> Axis:
    """An axis that suits the numbers, ticked at each of them where asked."""
    return Axis(title, axis_scale(numbers), tuple(sorted(set(numbers))) if ticked else ())


def plain(value: float, number_format: str, seeds: int = 1) -> Row:
    """What `spread` gives, for a number without an interval: a reference, chance, a mean that is quoted."""
    return {"mean": short(value), "low": None, "high": None, "seeds": seeds, "shown": format(value, number_format)}


def lines(rows: Sequence[Row], x: Axis, y: Axis, series: Sequence[Series], joined: bool = True) -> dict[str, Any]:
    """Rows of ``series``, ``x`` and `spread` as lines with bands; not ``joined``, as points with bars.

    Series without a shape have no points.
    """
    drawn = present(series, rows)
    marked = [one.name for one in drawn if one.shape]
    across = {"field": "x", "type": "quantitative", "axis": _axis(x), "scale": _scale(x, rows)}
    up = {"type": "quantitative", "axis": _axis(y), "scale": _scale(y, rows)}
    colour, dash, shape = _styles(drawn)
    tooltip = [
        _tip("series", "Line"),
        _tip("x", x.title, "quantitative"),
        _tip("shown", y.title),
        _tip("seeds", "Seeds"),
    ]
    band = {"y": {"field": "low", **up}, "y2": {"field": "high"}}
    dot = {"type": "point", "filled": True}
    extent = {"type": "area", "opacity": 0.14} if joined else {"type": "rule", "strokeWidth": 2}
    spans = [{"mark": extent, "encoding": band}] if any(row["low"] is not None for row in rows) else []
    joins = [{"mark": {"type": "line", "strokeWidth": 1.8}, "encoding": {"strokeDash": dash}}] if joined else []
    return {
        "height": HEIGHT,
        "data": {"values": list(rows)},
        "params": [{"name": "hidden", "value": []}],
        "transform": [{"filter": "indexof(hidden, datum.series) < 0"}],
        "encoding": {"x": across, "y": {"field": "mean", **up}, "color": colour},
        "layer": [
            *spans,
            *joins,
            {
                "transform": [{"filter": {"field": "series", "oneOf": marked}}],
                "mark": dot | {"size": 44, "opacity": 1},
                "encoding": {"shape": shape},
            },
            {"mark": dot | {"size": 260, "opacity": 0}, "encoding": {"tooltip": tooltip}},  # a larger place to point at
        ],
    }


def intervals(
    rows: Sequence[Row], seeds: Sequence[Row], x: Axis, kinds: Sequence[Series], nothing: float | None = None
) -> dict[str, Any]:
    """A list, top down: rows of ``row``, ``kind`` and `spread`, below each its ``seeds`` (row, kind, seed, value).

    ``kinds`` say how each kind looks; ``nothing`` is the value that a dotted line marks.
    """
    order = list(dict.fromkeys(row["row"] for row in rows))
    wrapped = {name: textwrap.wrap(name, NAME) for name in order}
    down_axis = {"title": None, "labelExpr": f"({json.dumps(wrapped)})[datum.label]", "labelLineHeight": LINE}
    colour, _, shape = _styles(kinds, "kind")
    down = {"field": "row", "type": "nominal", "sort": order, "axis": down_axis}
    across = {"type": "quantitative", "axis": _axis(x), "scale": _scale(x, rows)}
    tooltip = [_tip("row", "Row"), _tip("shown", x.title), _tip("seeds", "Seeds")]
    at_seed = [_tip("row", "Row"), _tip("seed", "Seed", "quantitative"), _tip("value", x.title, "quantitative")]
    several = any(row["low"] is not None for row in rows)
    spanned = {"x": {"field": "low", **across}, "x2": {"field": "high"}}
    layers: list[dict[str, Any]] = [
        {
            "data": {"values": list(seeds)},
            "mark": {"type": "point", "filled": True, "size": 24, "opacity": 0.55, "yOffset": 8},
            "encoding": {"x": {"field": "value", **across}, "shape": shape, "tooltip": at_seed},
        },
        *([{"mark": {"type": "rule", "strokeWidth": 2}, "encoding": spanned}] if several else []),
        {
            "mark": {"type": "point", "filled": True, "size": 60, "opacity": 1},
            "encoding": {"x": {"field": "mean", **across}, "shape": shape, "tooltip": tooltip},
        },
    ]
    if nothing is not None:
        mark = {"type": "rule", "color": ink(GREY), "strokeDash": list(DOTTED[1])}
        datum = {"x": {"datum": nothing, **across}, "y": None, "color": {"value": ink(GREY)}}
        layers.insert(0, {"data": {"values": [{}]}, "mark": mark, "encoding": datum})
    return {
        "height": len(order) * max([STEP, *(LINE * len(name) + 4 for name in wrapped.values())]),
        "data": {"values": list(rows)},
        "encoding": {"y": down, "color": colour},
        "layer": layers,
    }


def reference(name: str, dash: tuple[float, ...] = DASHED[1], colour: str = GREY) -> Series:
    """A line without seeds: chance, the best possible, a model that no method has a part in."""
    return Series(name, colour, dash=dash)


def present(series: Iterable[Series], rows: Iterable[Row], field: str = "series") -> tuple[Series, ...]:
    """The legend's entries that have rows, each once."""
    names = {row[field] for row in rows}
    return tuple({one.name: one for one in series if one.name in names}.values())


def _styles(series: Sequence[Series], field: str = "series") -> tuple[Row, Row, Row]:
    """Encodings of colour, dash and shape."""
    names = [one.name for one in series]
    looks = {
        "colour": [ink(one.colour) for one in series],
        "dash": [list(one.dash) for one in series],
        "shape": [one.shape or "circle" for one in series],
    }
    made = [
        {"field": field, "type": "nominal", "legend": None, "scale": {"domain": names, "range": look}}
        for look in looks.values()
    ]
    return made[0], made[1], made[2]


def _axis(axis: Axis) -> Row:
    made: Row = {"title": textwrap.wrap(axis.title, TITLE), "labelFlush": False}
    if axis.ticks:
        made |= {"values": [short(tick) for tick in axis.ticks], "format": ",~g", "grid": False}
    elif axis.scale == "log":
        made |= {"format": "~s", "labelExpr": LOG_LABEL, "tickCount": 5, "grid": False}
    return made


def _scale(axis: Axis, rows: Sequence[Row]) -> Row:
    made: Row = {"type": axis.scale, "nice": False, "padding": PADDING}
    if axis.scale == "linear":
        made["zero"] = False
    if axis.scale == "symlog":
        made["constant"] = min(x for row in rows if (x := row.get("x", 0.0)) > 0)
    if axis.domain:
        made |= {"domain": list(axis.domain), "padding": 0}
    return made


def _tip(field: str, title: str, kind: str = "nominal") -> Row:
    return {"field": field, "type": kind, "title": title} | ({"format": ",.4~g"} if kind == "quantitative" else {})
