"""Tables of what was measured: results, recipes, curves and cost, per scale, data set and condition."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from reprise.evidence import Record
from reprise.judging import groups, values
from reprise.layout import NOTHING, Table, describe, scales_of, show, told, varying
from reprise.reported import Column, Curve, Reported
from reprise.stats import interval

Row = Callable[[list[Record]], list[str]]


def results_tables(reported: Reported, records: Sequence[Record]) -> list[Table]:
    """Per scale, data set and condition: methods against metrics, with collapsed and inverted runs counted."""
    display = reported.display
    columns = (*display.columns, *display.references)

    def row(runs: list[Record]) -> list[str]:
        counts = [_count(runs, c.metric) for c in display.counts]
        return [str(len(runs)), *(_mean(runs, c) for c in columns), *counts]

    swept = {curve.table for curve in display.curves}
    chosen = [r for r in records if not r.variant and r.table not in swept]
    header = ("Seeds", *(c.label for c in columns), *(c.label for c in display.counts))
    return _by_condition(reported, chosen, "Results", header, row)


def cost_tables(reported: Reported, records: Sequence[Record]) -> list[Table]:
    """The same layout for cost. Kept apart because wall-clock times differ from run to run and machine to machine."""
    columns = reported.display.cost

    def row(runs: list[Record]) -> list[str]:
        devices = sorted({str(r.env["device"]) for r in runs if r.env.get("device")})
        return [", ".join(devices) or NOTHING, str(len(runs)), *(_mean(runs, c) for c in columns)]

    return _by_condition(reported, records, "Cost", ("Device", "Seeds", *(c.label for c in columns)), row)


def variants_tables(reported: Reported, records: Sequence[Record]) -> list[Table]:
    """Deliberate departures from a method's recipe beside the recipe itself, on the data where any was run."""
    columns = reported.display.variants
    where = {(r.scale, r.protocol) for r in records if r.variant}
    methods = {r.method for r in records if r.variant}
    recipes = [r for r in records if (r.scale, r.protocol) in where and (r.variant or r.method in methods)]

    def row(runs: list[Record]) -> list[str]:
        return [str(len(runs)), *(_spread(runs, c) for c in columns)]

    return _by_condition(reported, recipes, "Recipes", ("Seeds", *(c.label for c in columns)), row)


def curves_tables(reported: Reported, records: Sequence[Record]) -> list[Table]:
    """Sweeps over one condition or setting: one table per data set, a line per value of it and method."""
    return [
        _curve(reported, curve, scale, dataset, runs)
        for curve in reported.display.curves
        for (scale, dataset), runs in sorted(curve_records(curve, records).items())
    ]


def curve_records(curve: Curve, records: Sequence[Record]) -> dict[tuple[str, str], list[Record]]:
    """The runs of a sweep over one of their facts, other sweeps' runs of its methods included.

    By scale and by data set, which the value of the condition ``per`` follows where there is one.
    """
    loose = {curve.by, *curve.free}

    def site(record: Record) -> tuple[Any, ...]:
        fixed = tuple(sorted((k, repr(v)) for k, v in record.facts.items() if k not in loose))
        return record.scale, record.dataset, record.method, fixed

    sites = {site(r) for r in records if r.table == curve.table}
    found: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        if not record.variant and curve.by in record.facts and site(record) in sites:
            where = ", ".join([record.dataset, *([str(record.facts.get(curve.per))] if curve.per else [])])
            found.setdefault((record.scale, where), []).append(record)
    return found


def _curve(reported: Reported, curve: Curve, scale: str, dataset: str, records: Sequence[Record]) -> Table:
    columns = [reported.display.metrics[name] for name in curve.columns]
    named = [
        (value, name, runs)
        for value in sorted({r.facts[curve.by] for r in records})
        for name, runs in _rows(reported, [r for r in records if r.facts[curve.by] == value])
    ]
    rows = tuple(
        (value if isinstance(value, str) else f"{value:g}", name, str(len(runs)), *(_mean(runs, c) for c in columns))
        for value, name, runs in named
    )
    header = (curve.label, "Method", "Seeds", *(c.label for c in columns))
    title = f"Curve over {curve.label}: {dataset}, {scale} scale"
    return _dense(Table(title, header, rows, runs=_groups(runs for _, _, runs in named)))


def _groups(rows: Iterable[Sequence[Record]]) -> tuple[tuple[str, ...], ...]:
    """The configuration behind each row, which is one."""
    return tuple((runs[0].group,) for runs in rows)


def _by_condition(
    reported: Reported,
    records: Sequence[Record],
    title: str,
    header: tuple[str, ...],
    row: Row,
) -> list[Table]:
    tables = []
    ordered = sorted(records, key=lambda r: r.order)
    for scale in scales_of(ordered):
        sites = {(r.dataset, describe(r.condition), r.protocol) for r in ordered if r.scale == scale}
        for dataset, condition, protocol in sorted(sites):
            there = [r for r in ordered if (r.scale, r.dataset, r.protocol) == (scale, dataset, protocol)]
            named = _rows(reported, there)
            rows = tuple((name, *row(runs)) for name, runs in named)
            plain = [runs[0].method for _, runs in named if not runs[0].variant]
            twice = len(set(plain)) < len(plain)
            notes = (
                ("Where a method stands twice, its first row counts for claims that name no settings.",)
                if twice
                else ()
            )
            twins = sum((d, c) == (dataset, condition) for d, c, _ in sites) > 1
            caption = condition + (f" (protocol {protocol[:6]})" if twins else "")
            name, behind = f"{title}: {dataset}, {scale} scale", _groups(runs for _, runs in named)
            tables.append(_dense(Table(name, ("Method", *header), rows, caption, notes, behind)))
    return tables


def _dense(table: Table) -> Table:
    """Without the columns that no row fills (a regression has no accuracy, clean labels nothing to discover)."""
    kept = [i for i in range(len(table.header)) if any(row[i] != NOTHING for row in table.rows)]
    rows = tuple(tuple(row[i] for i in kept) for row in table.rows)
    return replace(table, header=tuple(table.header[i] for i in kept), rows=rows)


def _rows(reported: Reported, records: Sequence[Record]) -> list[tuple[str, list[Record]]]:
    """One row per configuration, in the order of ``display``; what differs is named where a method has several."""
    known = list(reported.display.methods)
    methods = sorted({r.method for r in records}, key=lambda m: (known.index(m) if m in known else len(known), m))
    rows = []
    for method in methods:
        label = reported.display.methods.get(method, method)
        split = groups([r for r in records if r.method == method and not r.variant])
        keys = varying([told(runs[0].settings) for runs in split])
        for runs in split:
            differs = describe(told(runs[0].settings), keys) or f"configuration {runs[0].group[:6]}"
            rows.append((f"{label} [{differs}]" if len(split) > 1 else label, runs))
        variants = groups([r for r in records if r.method == method and r.variant])
        rows += [(f"{label}, {runs[0].variant}", runs) for runs in sorted(variants, key=lambda runs: runs[0].variant)]
    return rows


def _mean(runs: Sequence[Record], column: Column) -> str:
    found = values(runs, column.metric)
    if not found:
        return NOTHING
    return show(interval(found), column.format) + ("" if len(found) == len(runs) else f" ({len(found)} of {len(runs)})")


def _count(runs: Sequence[Record], metric: str) -> str:
    found = values(runs, metric)
    return f"{sum(v > 0.5 for v in found)}/{len(found)}" if found else NOTHING


def _spread(runs: Sequence[Record], column: Column) -> str:
    """What a column of the recipes' table shows of the seeds: see ``reported.Column``."""
    pairs = [(r.metric(column.metric), r.metric(column.less) if column.less else 0.0) for r in runs]
    gaps = [a - b for a, b in pairs if a is not None and b is not None]
    if not gaps:
        return NOTHING
    if column.of == "positive":
        return f"{sum(gap > 0 for gap in gaps)}/{len(gaps)}"
    if column.of == "lowest":
        return format(min(gaps), column.format)
    return show(interval(gaps), column.format, signed=bool(column.less))
