"""Figures over many runs, from the records alone: methods side by side, recipes seed by seed, sweeps over a condition.

Like the tables, every figure is a pure function of the records and of a paper's ``reported.yaml``: no dates, no mixed
scales, the same evidence gives the same bytes. A method has the same colour and marker in all figures of its paper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reprise.canvas import (
    BLUE,
    COLOURS,
    DASHES,
    DOTTED,
    GREY,
    MORE_COLOURS,
    ORANGE,
    PALE,
    TEXT,
    VERMILION,
    canvas,
    headline,
    label,
    legend,
)
from reprise.evidence import Record
from reprise.judging import groups, judge_claim, matches, values
from reprise.layout import describe, scales_of, varying
from reprise.reported import Claim, Column, Curve, Reported, Selector
from reprise.results import curve_records
from reprise.stats import Interval, interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOG_FROM = 10  # an axis that spans more than this factor is logarithmic
ABREAST = 3  # panels side by side, where a sweep has more columns than fit
ROW = 0.22  # inches between the rows of a list
MARKERS = ("o", "D", "s", "v")


@dataclass(frozen=True)
class Style:
    """How a method is drawn."""

    colour: str
    marker: str


@dataclass(frozen=True)
class Site:
    """Data on which runs can be compared: one panel."""

    dataset: str
    protocol: str
    condition: Mapping[str, Any]


def styles(reported: Reported) -> dict[str, Style]:
    """A style for every method of ``display``, all different.

    The methods that the claims compare come first, in the order in which they are named, and so have the clearest
    colours. Those that come later also have another marker, so that colours can come again when they are used up.
    """
    sides = [side for claim in reported.claims for part in claim.parts for side in (part.left, part.right)]
    compared = [side.method for side in sides if isinstance(side, Selector)]
    ordered = list(dict.fromkeys([*compared, *reported.display.methods]))
    colours, n = (*COLOURS, *MORE_COLOURS), len(COLOURS)
    return {m: Style(colours[i % len(colours)], MARKERS[i // n % len(MARKERS)]) for i, m in enumerate(ordered)}


def standing(reported: Reported, records: Sequence[Record], free: str = "") -> dict[str, list[Record]]:
    """The runs that stand for each method of ``display`` in claims, in its order; never a variant.

    Of several settings of a method those stand for it that the first claim to name any of them selects, whatever it
    says of the ``free`` one.
    """
    found = {m: groups(r for r in records if r.method == m and not r.variant) for m in reported.display.methods}
    return {method: _selected(reported, method, split, free) for method, split in found.items() if split}


def _selected(reported: Reported, method: str, split: list[list[Record]], free: str) -> list[Record]:
    sides = [side for claim in reported.claims for part in claim.parts for side in (part.left, part.right)]
    for where in [side.where for side in sides if isinstance(side, Selector) and side.method == method]:
        for runs in split:
            wanted = {k: v for k, v in where.items() if k not in runs[0].condition and k != free}
            if wanted and matches(wanted, runs[0].settings):
                return runs
    return split[0]


def claims_on(reported: Reported, metric: str) -> list[Claim]:
    """The claims that judge ``metric``, in the file's order."""
    return [claim for claim in reported.claims if any(part.left.metric == metric for part in claim.parts)]


def sites(claim: Claim, records: Sequence[Record], scale: str) -> list[Site]:
    """The data sets and conditions on which a claim is judged at a scale."""
    judged = judge_claim(claim, records, scale).sites if scale in claim.scales else ()
    return [Site(s.dataset, s.protocol, s.condition) for s in judged if s.counted]


def at(records: Sequence[Record], scale: str, site: Site) -> list[Record]:
    """All runs on a site's data."""
    return [r for r in records if (r.scale, r.dataset, r.protocol) == (scale, site.dataset, site.protocol)]


def site_name(site: Site, among: Sequence[Site]) -> str:
    """The data set, and where there are several sites of it what differs between them."""
    keys = varying([other.condition for other in among if other.dataset == site.dataset])
    return ", ".join(filter(None, [site.dataset, describe(site.condition, keys)]))


def shared(among: Sequence[Site]) -> str:
    """The conditions that hold on all sites."""
    first = among[0].condition
    return describe(first, set(first) - set(varying([site.condition for site in among])))


def seeds_of(lists: Sequence[Sequence[Any]]) -> str:
    """How many seeds are behind each mean of a figure, ``5 seeds`` or ``3 to 5 seeds``; empty lists are not drawn."""
    counts = [len(some) for some in lists if some]
    low, high = min(counts), max(counts)
    return f"{low} to {high} seeds" if low < high else f"{low} seed{'s' * (low != 1)}"


# --- methods side by side ---------------------------------------------------------------------------------------------


def ends(found: Interval, level: float | None) -> tuple[float, float]:
    """The ends to draw of an interval, the mean for a single value.

    Student's t knows no limits: where guessing gives a number between 0 and 1, a fraction is measured, so that the
    interval is cut at 0 and 1.
    """
    if found.low is None or found.high is None:
        return found.mean, found.mean
    fraction = level is not None and 0 < level < 1 and 0 <= found.mean <= 1
    return (max(found.low, 0.0), min(found.high, 1.0)) if fraction else (found.low, found.high)


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
    columns = reported.display.columns
    first = columns[0]
    judged = (sites(claim, records, scale) for claim in claims_on(reported, first.metric))
    where = next(filter(None, judged), [])
    there = [(site, standing(reported, at(records, scale, site))) for site in where]
    runs = [r for _, methods in there for some in methods.values() for r in some]
    second = next((c for c in columns if c.beside and c != first and values(runs, c.metric)), None)
    if not values(runs, first.metric):
        return None
    shown = [(first, ""), *([(second, second.beside[0])] if second else [])]
    lengths = [len(methods) for _, methods in there]
    height = sum(ROW * n + 0.5 for n in lengths) + 0.2
    figure, axes = canvas(len(there), len(shown), height, lengths, sharex="col", sharey="row")
    for row, (site, methods) in zip(axes, there, strict=True):
        for ax, (column, less) in zip(row, shown, strict=True):
            _methods_panel(ax, reported, methods, column, less, site.condition)
            label(ax, site_name(site, where) if ax is row[0] else "")
            ax.tick_params(labelleft=ax is row[0])
        _list(row[0], [reported.display.methods[m] for m in methods])
    for ax, (column, less) in zip(axes[-1], shown, strict=True):
        reference = f" less that of {reported.display.metrics[less].label}" if less else ""
        ax.set_xlabel(column.label + reference, fontsize=TEXT)
    count = seeds_of([values(some, first.metric) for _, methods in there for some in methods.values()])
    told = f"mean and 95 % interval over {count} (small dots); dotted: chance, no difference"
    headline(figure, f"Methods, {scale} scale: {told}", shared(where))
    return figure


def _methods_panel(
    ax: Axes,
    reported: Reported,
    methods: Mapping[str, list[Record]],
    column: Column,
    less: str,
    condition: Mapping[str, Any],
) -> None:
    """One column of numbers on one site, ``less`` another metric of the same run where one is named."""
    chosen = styles(reported)
    nothing = 0.0 if less else chance(column, condition)
    if nothing is not None:
        ax.axvline(nothing, color=GREY, linestyle=DOTTED, linewidth=1.2)
    for height, (method, runs) in enumerate(methods.items()):
        pairs = [(r.metric(column.metric), r.metric(less) if less else 0.0) for r in runs]
        gaps = [a - b for a, b in pairs if a is not None and b is not None]
        if gaps:
            below = [height + 0.3] * len(gaps)
            ax.plot(gaps, below, "o", color=chosen[method].colour, alpha=0.5, markersize=3.5, mew=0)
            _spread(ax, height, interval(gaps), nothing, chosen[method])
    _list(ax, [""] * len(methods))


def chance(column: Column, condition: Mapping[str, Any]) -> float | None:
    """What guessing gives in a column under a condition; ``None`` where it is not known."""
    level = condition.get(column.chance) if isinstance(column.chance, str) else column.chance
    return float(level) if isinstance(level, int | float) else None


# --- recipes ----------------------------------------------------------------------------------------------------------


def recipes_figure(reported: Reported, records: Sequence[Record], scale: str) -> Figure | None:
    """Recipes as rows, every seed a dot, on the data where a variant was run; the recipe itself on top.

    The dots show the first column of the recipes' table; the seeds that one of ``display.counts`` marks (collapsed, for
    example) have a colour and a marker of their own.
    """
    if not reported.display.variants:
        return None
    column = reported.display.metrics[reported.display.variants[0].metric]
    tried = [r for r in records if r.scale == scale and r.variant and r.metric(column.metric) is not None]
    places = {(r.dataset, r.protocol): Site(r.dataset, r.protocol, r.condition) for r in tried}
    where = sorted(places.values(), key=lambda site: (site.dataset, describe(site.condition), site.protocol))
    panels = [_recipes(reported, at(records, scale, site), column.metric) for site in where]
    if not panels:
        return None
    lengths = [len(rows) for rows in panels]
    figure, axes = canvas(len(panels), 1, sum(ROW * n + 0.5 for n in lengths) + 0.2, lengths, sharex="col")
    for ax, site, rows in zip(axes[:, 0], where, panels, strict=True):
        _recipes_panel(ax, reported, column, rows, site)
        label(ax, site_name(site, where))
    axes[-1, 0].set_xlabel(column.label, fontsize=TEXT)
    count = seeds_of([values(runs, column.metric) for rows in panels for runs in rows.values()])
    headline(figure, f"Recipes seed by seed, {scale} scale: {count}", shared(where))
    legend(figure, axes, columns=6)
    return figure


def _recipes(reported: Reported, records: Sequence[Record], metric: str) -> dict[str, list[Record]]:
    """Rows by name: for each method with variants the method itself, then its variants by name."""
    rows: dict[str, list[Record]] = {}
    for method, name in reported.display.methods.items():
        variants = sorted({r.variant for r in records if r.method == method and r.variant})
        for variant in ["", *variants] if variants else []:
            split = groups(r for r in records if (r.method, r.variant) == (method, variant))
            rows |= {", ".join(filter(None, [name, variant])): split[0]} if split else {}
    return {name: runs for name, runs in rows.items() if values(runs, metric)}


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
            if _kind(r, kinds) == kind and (value := r.metric(column.metric)) is not None
        ]
        if dots:
            ax.plot(*zip(*dots, strict=True), marker, color=colour, alpha=0.75, markersize=5.5, mew=0, label=name)
    means = [interval(values(runs, column.metric)).mean for runs in rows.values()]
    ax.plot(means, range(len(means)), "|", color="black", markersize=11, mew=1.4, label="mean")
    _list(ax, list(rows))


def _kind(record: Record, kinds: Mapping[str, Any]) -> str:
    """The first of ``display.counts`` that is true of a run; empty if none is."""
    return next((metric for metric in kinds if (record.metric(metric) or 0.0) > 0.5), "")


# --- sweeps over one condition ----------------------------------------------------------------------------------------


def curve_figure(reported: Reported, curve: Curve, records: Sequence[Record], scale: str) -> Figure | None:
    """A sweep over one numeric condition: rows of panels per data set, a line with its interval per method.

    Of the curve's columns those that give another one its meaning are grey lines in that one's panel.
    """
    known = [r for r in records if isinstance(r.facts.get(curve.by), int | float)]
    found = {d: runs for (s, d), runs in sorted(curve_records(curve, known).items()) if s == scale}
    found = {d: runs for d, runs in found.items() if len({r.facts[curve.by] for r in runs}) > 1}
    metrics = reported.display.metrics
    everything = [r for runs in found.values() for r in runs]
    beside = {name for shown in curve.columns for name in metrics[shown].beside}
    columns = [metrics[c] for c in curve.columns if c not in beside and values(everything, c)]
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
            _scale(ax, "x", [r.facts[curve.by] for r in everything])
            _scale(ax, "y", values(everything, column.metric))
    for ax in axes.ravel():
        _ticks(ax, sorted({r.facts[curve.by] for r in everything}))
    points = [some for runs in found.values() for some in _points(reported, curve, runs).values()]
    headline(
        figure,
        f"Sweep over {curve.label}, {scale} scale: mean and 95 % interval over {seeds_of(points)}",
        shared([Site(r.dataset, r.protocol, r.condition) for r in everything]),
    )
    legend(figure, axes)
    return figure


def _points(reported: Reported, curve: Curve, records: Sequence[Record]) -> dict[tuple[str, float], list[Record]]:
    """The runs behind each point, by method and value of the condition."""
    steps = sorted({r.facts[curve.by] for r in records})
    return {
        (method, step): runs
        for step in steps
        for method, runs in standing(reported, [r for r in records if r.facts[curve.by] == step], curve.by).items()
    }


def _curve_panel(
    ax: Axes, reported: Reported, curve: Curve, column: Column, references: Sequence[Column], records: Sequence[Record]
) -> None:
    points, chosen = _points(reported, curve, records), styles(reported)
    levels = {r.facts[curve.by]: level for r in records if (level := chance(column, r.condition)) is not None}
    if levels:
        ax.plot(*zip(*sorted(levels.items()), strict=True), color=PALE, linestyle=DOTTED, label="chance")
    for reference, dash in zip(references, DASHES, strict=False):
        steps, means = _reference(reference.metric, curve, points)
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


def _reference(metric: str, curve: Curve, points: Mapping[tuple[str, float], list[Record]]) -> tuple[list, list]:
    """Mean of a number that no method has a part in, over the seeds of all methods, at each value of the condition."""
    steps, means = [], []
    for step in sorted({step for _, step in points}):
        by_seed = {
            r.seed: v
            for (_, s), runs in points.items()
            if s == step
            for r in runs
            if (v := r.metric(metric)) is not None
        }
        if by_seed:
            steps.append(step)
            means.append(interval(list(by_seed.values())).mean)
    return steps, means


def _scale(ax: Axes, axis: str, numbers: Sequence[float]) -> None:
    """A logarithmic axis where the numbers call for it; a condition that can be 0 gets one with a place for it."""
    positive = [number for number in numbers if number > 0]
    if not positive or max(positive) <= LOG_FROM * min(positive):
        return
    if min(numbers) > 0:
        ax.set(**{f"{axis}scale": "log"})
    elif axis == "x" and min(numbers) == 0:
        ax.set_xscale("symlog", linthresh=min(positive))


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
