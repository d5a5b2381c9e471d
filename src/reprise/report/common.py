"""The charts that every paper gets from its records and the ``display`` of its reported.yaml."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from reprise.canvas import BLUE, DASHES, DOTTED, GREY, ORANGE, PALE, VERMILION
from reprise.evidence import Record
from reprise.judging import values
from reprise.layout import scales_of
from reprise.panels import (
    Methods,
    Site,
    chance,
    compared,
    curve_points,
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
from reprise.report.charts import (
    SHAPES,
    Axis,
    Chart,
    Panel,
    Row,
    Series,
    axis_over,
    intervals,
    lines,
    plain,
    present,
    reference,
    short,
    spread,
)
from reprise.reported import Column, Curve, Reported

CHANCE = Series("chance", PALE, dash=DOTTED[1])
MARKS = ((ORANGE, "X"), (VERMILION, "v"), (GREY, "s"))  # of runs that one of ``display.counts`` marks


def charts(reported: Reported, records: Sequence[Record]) -> list[Chart]:
    """Every chart that the records have data for, the largest scale first."""
    found: list[Chart | None] = []
    for scale in scales_of(records):
        found += [methods_chart(reported, records, scale), recipes_chart(reported, records, scale)]
        for curve in reported.display.curves:
            found += [curve_chart(reported, curve, records, scale), choices_chart(reported, curve, records, scale)]
    return [chart for chart in found if chart]


def method_series(reported: Reported) -> dict[str, Series]:
    """By method, its name and look in all charts of its paper."""
    names = reported.display.methods
    return {m: Series(names.get(m, m), style.colour, SHAPES[style.marker]) for m, style in styles(reported).items()}


def methods_chart(reported: Reported, records: Sequence[Record], scale: str) -> Chart | None:
    """Methods as rows on the sites of a claim, one panel per site and column (see `panels.compared`)."""
    there, shown = compared(reported, records, scale)
    if not there:
        return None
    where = [site for site, _ in there]
    panels = [
        _methods_panel(reported, site, where, methods, column, reference)
        for site, methods in there
        for column, reference in shown
    ]
    count = seeds_of([values(some, shown[0][0].metric) for _, methods in there for some in methods.values()])
    told = (
        f"Mean and 95 % interval over {count}, the seeds as small marks; dotted: chance, no difference. {shared(where)}"
    )
    return Chart(f"methods_{scale}", f"Methods side by side, {scale} scale", told, tuple(panels))


def _methods_panel(
    reported: Reported, site: Site, among: Sequence[Site], methods: Methods, column: Column, reference: str
) -> Panel:
    chosen, rows, seeds = method_series(reported), [], []
    nothing = 0.0 if reference else chance(column, site.condition)
    for method, runs in methods.items():
        name, found = chosen[method].name, less(runs, column, reference)
        if found:
            numbers = spread(list(found.values()), column.format, nothing, signed=bool(reference))
            rows.append({"row": name, "kind": name, **numbers})
            seeds += [{"row": name, "kind": name, "seed": s, "value": short(v)} for s, v in found.items()]
    told = f" less that of {reported.display.metrics[reference].label}" if reference else ""
    spec = intervals(rows, seeds, Axis(column.label + told), present(chosen.values(), rows, "kind"), nothing)
    return Panel(f"{site_name(site, among)}: {column.label}{told}", spec)


def recipes_chart(reported: Reported, records: Sequence[Record], scale: str) -> Chart | None:
    """Recipes as rows, every seed a mark, on the data where a variant was run; the recipe itself on top."""
    panels = recipe_panels(reported, records, scale)
    if not panels:
        return None
    column = reported.display.metrics[reported.display.variants[0].metric]
    where = [site for site, _ in panels]
    marks = zip(reported.display.counts, MARKS, strict=False)
    kinds = {"": Series("a seed", BLUE, "circle")}
    kinds |= {c.metric: Series(c.label, colour, SHAPES[marker]) for c, (colour, marker) in marks}
    drawn = tuple(Panel(site_name(site, where), _recipes_panel(column, site, rows, kinds)) for site, rows in panels)
    count = seeds_of([values(runs, column.metric) for _, rows in panels for runs in rows.values()])
    told = f"Mean and 95 % interval over {count}, every seed a mark below it; dotted: chance. {shared(where)}"
    return Chart(f"recipes_{scale}", f"Recipes seed by seed, {scale} scale", told, drawn, tuple(kinds.values()))


def _recipes_panel(column: Column, site: Site, methods: Methods, kinds: Mapping[str, Series]) -> Row:
    level, rows, seeds = chance(column, site.condition), [], []
    whole = next(iter(methods))
    one = all(name.startswith(whole) for name in methods)  # method, whose name need not stand in every row
    for name, runs in ((name.removeprefix(f"{whole}, ") if one else name, runs) for name, runs in methods.items()):
        rows.append({"row": name, "kind": kinds[""].name, **spread(values(runs, column.metric), column.format, level)})
        for run in runs:
            value = run.metric(column.metric)
            if value is not None:
                kind = kinds[mark_of(run, [k for k in kinds if k])].name
                seeds.append({"row": name, "kind": kind, "seed": run.seed, "value": short(value)})
    return intervals(rows, seeds, Axis(column.label), tuple(kinds.values()), level)


def curve_chart(reported: Reported, curve: Curve, records: Sequence[Record], scale: str) -> Chart | None:
    """A sweep over one numeric condition: a panel per data set and column, a line with its band per method."""
    found, columns = swept(reported, curve, records, scale)
    if not columns:
        return None
    everything = [r for runs in found.values() for r in runs]
    x = axis_over(curve.label, [r.facts[curve.by] for r in everything], ticked=True)
    panels, named = [], list(method_series(reported).values())
    for dataset, runs in found.items():
        for column in columns:
            beside = [reported.display.metrics[name] for name in curve.columns if name in column.beside]
            named += [reference(one.label, dash[1]) for one, dash in zip(beside, DASHES, strict=False)]
            rows = _curve_rows(reported, curve, column, beside, runs)
            lows = [row["low"] for row in rows if row["low"] is not None]
            y = Axis(column.label, level_scale(values(everything, column.metric), lows))
            panels.append((Panel(f"{dataset}: {column.label}", lines(rows, x, y, [CHANCE, *named])), rows))
    points = [some for runs in found.values() for some in curve_points(reported, curve, runs).values()]
    told = f"Mean and 95 % interval over {seeds_of(points)}. "
    told += shared([Site(r.dataset, r.protocol, r.condition) for r in everything])
    return Chart(
        f"{curve.table.rpartition('/')[2]}_{scale}",
        f"Sweep over {curve.label}, {scale} scale",
        told,
        tuple(panel for panel, _ in panels),
        present([*named, CHANCE], [row for _, rows in panels for row in rows]),
    )


def _curve_rows(
    reported: Reported, curve: Curve, column: Column, beside: Sequence[Column], records: Sequence[Record]
) -> list[Row]:
    points = curve_points(reported, curve, records)
    levels = {r.facts[curve.by]: level for r in records if (level := chance(column, r.condition)) is not None}
    rows = [{"series": CHANCE.name, "x": x, **plain(level, column.format)} for x, level in sorted(levels.items())]
    for one in beside:
        steps, means = reference_line(one.metric, curve, points)
        rows += [{"series": one.label, "x": x, **plain(mean, one.format)} for x, mean in zip(steps, means, strict=True)]
    for (method, step), runs in sorted(points.items(), key=lambda item: item[0]):
        found = values(runs, column.metric)
        if found:
            name = reported.display.methods[method]
            rows.append({"series": name, "x": step, **spread(found, column.format, levels.get(step))})
    return rows


def choices_chart(reported: Reported, curve: Curve, records: Sequence[Record], scale: str) -> Chart | None:
    """A sweep over names: a panel per data set and column, a row per name and method."""
    found, columns = swept(reported, curve, records, scale, kind=str)
    everything = [r for runs in found.values() for r in runs]
    panels = [
        Panel(f"{dataset}: {column.label}", _choices_panel(reported, curve, column, runs))
        for dataset, runs in found.items()
        for column in columns
    ]
    if not panels:
        return None
    points = [some for runs in found.values() for some in curve_points(reported, curve, runs).values()]
    told = f"Mean and 95 % interval over {seeds_of(points)}, the seeds as small marks. "
    told += shared([Site(r.dataset, r.protocol, r.condition) for r in everything])
    name = f"{curve.table.rpartition('/')[2]}_names_{scale}"
    return Chart(name, f"Sweep over {curve.label}, {scale} scale", told, tuple(panels))


def _choices_panel(reported: Reported, curve: Curve, column: Column, records: Sequence[Record]) -> Row:
    points, chosen, rows, seeds = curve_points(reported, curve, records), method_series(reported), [], []
    several = len({method for method, _ in points}) > 1
    for (method, choice), runs in points.items():
        found = less(runs, column, "")
        if found:
            series = chosen[method]
            who = {"row": f"{choice}, {series.name}" if several else str(choice), "kind": series.name}
            rows.append(who | spread(list(found.values()), column.format, chance(column, runs[0].condition)))
            seeds += [who | {"seed": seed, "value": short(value)} for seed, value in found.items()]
    return intervals(rows, seeds, Axis(column.label), present(chosen.values(), rows, "kind"))
