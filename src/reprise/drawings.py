"""Figures over many runs, from the records alone: methods side by side, recipes seed by seed, sweeps over a condition.

Like the tables, every figure is a pure function of the records and of a paper's ``reported.yaml``: no dates, no mixed
scales, the same evidence gives the same bytes. What is in them is chosen by `panels`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reprise.canvas import BLUE, DASHES, DOTTED, GREY, ORANGE, PALE, TEXT, VERMILION, canvas, headline, label, legend
from reprise.evidence import Record
from reprise.judging import values
from reprise.layout import scales_of
from reprise.panels import (
    Site,
    Style,
    axis_scale,
    chance,
    compared,
    curve_points,
    ends,
    less,
    level_scale,
    mark_of,
    recipe_panels,
    reference_line,
    seeds_of,
    shared,
    site_name,
    styles,
    swept,
)
from reprise.reported import Column, Curve, Reported
from reprise.stats import Interval, interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ABREAST = 3  # panels side by side, where a sweep has more columns than fit
ROW = 0.22  # inches between the rows of a list


# --- methods side by side ---------------------------------------------------------------------------------------------


def _spread(ax: Axes, height: float, found: Interval, level: float | None, style: Style) -> None:
    """A mean with its interval on the line ``height``."""
    ax.plot(ends(found, level), [height, height], color=style.colour, linewidth=1.8, solid_capstyle="butt")
    ax.plot(found.mean, height, style.marker, color=style.colour, markersize=5.5)


def _list(ax: Axes, names: Sequence[str]) -> None:
    """One line of text per row of the panel, the first on top."""
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.grid(False, axis="y")
    ax.spines["left"].set_visible(False)


def methods_figure(reported: Reported, records: Sequence[Record], scale: str) -> Figure | None:
    """Methods as rows on the sites of the first claim with runs about the first column of ``display``.

    On the left that column; on the right the first column that has a reference, less that reference on the same seed.
    """
    there, shown = compared(reported, records, scale)
    if not there:
        return None
    where = [site for site, _ in there]
    lengths = [len(methods) for _, methods in there]
    height = sum(ROW * n + 0.5 for n in lengths) + 0.2
    figure, axes = canvas(len(there), len(shown), height, lengths, sharex="col", sharey="row")
    for row, (site, methods) in zip(axes, there, strict=True):
        for ax, (column, reference) in zip(row, shown, strict=True):
            _methods_panel(ax, reported, methods, column, reference, site.condition)
            label(ax, site_name(site, where) if ax is row[0] else "")
            ax.tick_params(labelleft=ax is row[0])
        _list(row[0], [reported.display.methods[m] for m in methods])
    for ax, (column, reference) in zip(axes[-1], shown, strict=True):
        told = f" less that of {reported.display.metrics[reference].label}" if reference else ""
        ax.set_xlabel(column.label + told, fontsize=TEXT)
    count = seeds_of([values(some, shown[0][0].metric) for _, methods in there for some in methods.values()])
    told = f"mean and 95 % interval over {count} (small dots); dotted: chance, no difference"
    headline(figure, f"Methods, {scale} scale: {told}", shared(where))
    return figure


def _methods_panel(
    ax: Axes,
    reported: Reported,
    methods: Mapping[str, list[Record]],
    column: Column,
    reference: str,
    condition: Mapping[str, Any],
) -> None:
    """One column of numbers on one site, less another metric of the same run where one is named."""
    chosen = styles(reported)
    nothing = 0.0 if reference else chance(column, condition)
    if nothing is not None:
        ax.axvline(nothing, color=GREY, linestyle=DOTTED, linewidth=1.2)
    for height, (method, runs) in enumerate(methods.items()):
        gaps = list(less(runs, column, reference).values())
        if gaps:
            below = [height + 0.3] * len(gaps)
            ax.plot(gaps, below, "o", color=chosen[method].colour, alpha=0.5, markersize=3.5, mew=0)
            _spread(ax, height, interval(gaps), nothing, chosen[method])
    _list(ax, [""] * len(methods))


# --- recipes ----------------------------------------------------------------------------------------------------------


def recipes_figure(reported: Reported, records: Sequence[Record], scale: str) -> Figure | None:
    """Recipes as rows, every seed a dot, on the data where a variant was run; the recipe itself on top.

    The dots show the first column of the recipes' table; the seeds that one of ``display.counts`` marks (collapsed, for
    example) have a colour and a marker of their own.
    """
    panels = recipe_panels(reported, records, scale)
    if not panels:
        return None
    column = reported.display.metrics[reported.display.variants[0].metric]
    where = [site for site, _ in panels]
    lengths = [len(rows) for _, rows in panels]
    figure, axes = canvas(len(panels), 1, sum(ROW * n + 0.5 for n in lengths) + 0.2, lengths, sharex="col")
    for ax, (site, rows) in zip(axes[:, 0], panels, strict=True):
        _recipes_panel(ax, reported, column, rows, site)
        label(ax, site_name(site, where))
    axes[-1, 0].set_xlabel(column.label, fontsize=TEXT)
    count = seeds_of([values(runs, column.metric) for _, rows in panels for runs in rows.values()])
    headline(figure, f"Recipes seed by seed, {scale} scale: {count}", shared(where))
    legend(figure, axes, columns=6)
    return figure


def _recipes_panel(ax: Axes, reported: Reported, column: Column, rows: Mapping[str, list[Record]], site: Site) -> None:
    marks = ((ORANGE, "X"), (VERMILION, "v"), (GREY, "s"))
    kinds = {c.metric: (c.label, *mark) for c, mark in zip(reported.display.counts, marks, strict=False)}
    level = chance(column, site.condition)
    if level is not None:
        ax.axvline(level, color=GREY, linestyle=DOTTED, linewidth=1.2, label="chance")
    for kind, (name, colour, marker) in {"": ("a seed", BLUE, "o"), **kinds}.items():
        dots = [
            (value, i)
            for i, runs in enumerate(rows.values())
            for r in runs
            if mark_of(r, kinds) == kind and (value := r.metric(column.metric)) is not None
        ]
        if dots:
            ax.plot(*zip(*dots, strict=True), marker, color=colour, alpha=0.75, markersize=5.5, mew=0, label=name)
    means = [interval(values(runs, column.metric)).mean for runs in rows.values()]
    ax.plot(means, range(len(means)), "|", color="black", markersize=11, mew=1.4, label="mean")
    _list(ax, list(rows))


# --- sweeps over one condition ----------------------------------------------------------------------------------------


def curve_figure(reported: Reported, curve: Curve, records: Sequence[Record], scale: str) -> Figure | None:
    """A sweep over one numeric condition: rows of panels per data set, a line with its interval per method.

    Of the curve's columns those that give another one its meaning are grey lines in that one's panel.
    """
    found, columns = swept(reported, curve, records, scale)
    metrics, everything = reported.display.metrics, [r for runs in found.values() for r in runs]
    if not columns:
        return None
    across = len(columns) if len(columns) <= ABREAST + 1 else ABREAST
    rows = -(-len(columns) // across)
    figure, axes = canvas(len(found) * rows, across, 2.3 * len(found) * rows + 0.1, sharex="all")
    for panels, (dataset, runs) in zip(axes.reshape(len(found), -1), found.items(), strict=True):
        for ax in panels[len(columns) :]:
            ax.set_visible(False)
        for ax, column in zip(panels, columns, strict=False):
            references = [metrics[name] for name in curve.columns if name in column.beside]
            _curve_panel(ax, reported, curve, column, references, runs)
            label(ax, f"{dataset}: {column.label}", curve.label)
            _across(ax, [r.facts[curve.by] for r in everything])
            _up(ax, level_scale(values(everything, column.metric), [float(ax.dataLim.ymin)]))
    for ax in axes.ravel():
        _ticks(ax, sorted({r.facts[curve.by] for r in everything}))
    points = [some for runs in found.values() for some in curve_points(reported, curve, runs).values()]
    headline(
        figure,
        f"Sweep over {curve.label}, {scale} scale: mean and 95 % interval over {seeds_of(points)}",
        shared([Site(r.dataset, r.protocol, r.condition) for r in everything]),
    )
    legend(figure, axes)
    return figure


def _curve_panel(
    ax: Axes, reported: Reported, curve: Curve, column: Column, references: Sequence[Column], records: Sequence[Record]
) -> None:
    points, chosen = curve_points(reported, curve, records), styles(reported)
    levels = {r.facts[curve.by]: level for r in records if (level := chance(column, r.condition)) is not None}
    if levels:
        ax.plot(*zip(*sorted(levels.items()), strict=True), color=PALE, linestyle=DOTTED, label="chance")
    for reference, dash in zip(references, DASHES, strict=False):
        steps, means = reference_line(reference.metric, curve, points)
        ax.plot(steps, means, color=GREY, linestyle=dash, linewidth=1.2, label=reference.label)
    for method, name in reported.display.methods.items():
        line = {
            step: found for (m, step), runs in points.items() if m == method and (found := values(runs, column.metric))
        }
        if not line:
            continue
        spread, style = [interval(found) for found in line.values()], chosen[method]
        band = [ends(found, levels.get(step)) for step, found in zip(line, spread, strict=True)]
        ax.fill_between(list(line), *zip(*band, strict=True), color=style.colour, alpha=0.15, linewidth=0)
        ax.plot(list(line), [s.mean for s in spread], color=style.colour, marker=style.marker, markersize=4, label=name)


def _across(ax: Axes, numbers: Sequence[float]) -> None:
    kind = axis_scale(numbers)
    if kind == "log":
        ax.set_xscale("log")
    elif kind == "symlog":
        ax.set_xscale("symlog", linthresh=min(number for number in numbers if number > 0))


def _up(ax: Axes, kind: str) -> None:
    """The scale upwards; a logarithmic one within two decades has ticks between them, and all are plain numbers."""
    from matplotlib.ticker import LogLocator, NullFormatter

    ax.set_yscale(kind)
    if kind == "log":
        low, high = ax.get_ylim()
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter(NullFormatter())


def _ticks(ax: Axes, steps: Sequence[float]) -> None:
    """Ticks at the values that were run, in plain numbers."""
    ax.set_xticks(steps, [f"{step:,g}" for step in steps])
    ax.set_xticks([], minor=True)


def draw(reported: Reported, records: Sequence[Record]) -> dict[str, Figure]:
    """Every figure that the records have data for, by name: ``methods_cpu``, ``recipes_cpu``, ``<sweep>_cpu``."""
    figures: dict[str, Figure | None] = {}
    for scale in scales_of(records):
        figures[f"methods_{scale}"] = methods_figure(reported, records, scale)
        figures[f"recipes_{scale}"] = recipes_figure(reported, records, scale)
        for curve in reported.display.curves:
            name = curve.table.rpartition("/")[2]
            figures[f"{name}_{scale}"] = curve_figure(reported, curve, records, scale)
    return {name: figure for name, figure in figures.items() if figure}
