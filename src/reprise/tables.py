"""Tables: claims, paper against ours, results, cost. For Markdown files and for the terminal.

Every table is a pure function of the records and the reported numbers: sorted, without dates, so that the same evidence
gives the same bytes. No table mixes scales. Which methods and metrics appear, and under which names, is said by the
``display`` section of a paper's ``reported.yaml``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

from reprise.evidence import Record
from reprise.judging import (
    CellResult,
    ClaimResult,
    PartResult,
    SiteResult,
    groups,
    judge_cell,
    judge_claim,
    judge_part,
    matches,
    pair,
    values,
)
from reprise.layout import (
    NOTHING,
    Table,
    comparison,
    describe,
    related,
    right_label,
    show,
    terminal,
    to_markdown,
    to_rich,
    varying,
)
from reprise.reported import SCALES, Cell, Claim, Column, Part, Reported, Selector, load_reported
from reprise.stats import MIN_SEEDS, combine, holds, interval

MARKS = {"exact": "", "secondary": "°", "recalled": "?"}
LEGEND = "° from a secondary source, not compared with the paper itself; ? recalled only, not a reference value."
NUMBERS = {"fraction": ".4f", "percent": ".2f"}
LISTED = 4  # so many cells are named one by one where they share a line
SCALE_ORDER = ("paper", "cpu", "smoke")


def scales_of(records: Iterable[Record]) -> list[str]:
    """The scales that occur, largest first."""
    return sorted({r.scale for r in records}, key=lambda s: SCALE_ORDER.index(s) if s in SCALE_ORDER else -1)


# --- claims -----------------------------------------------------------------------------------------------------------


def _judged(reported: Reported, records: Sequence[Record]) -> dict[str, list[ClaimResult]]:
    """Claim results by scale, for the scales at which any claim could be judged (for all where none could)."""
    judged = {
        scale: [judge_claim(claim, records, scale) for claim in reported.claims if scale in claim.scales]
        for scale in [s for s in scales_of(records) if s != "smoke"] or ["cpu"]
    }
    return {scale: results for scale, results in judged.items() if any(r.sites for r in results)} or judged


def claims_tables(reported: Reported, records: Sequence[Record]) -> list[Table]:
    """Per scale: the verdict on each claim."""
    header = ("Claim", "What the paper says", "Verdict", "Why")
    return [
        Table(
            f"Claims, {scale} scale",
            header,
            tuple((r.claim.id, r.claim.sentence, r.verdict.value, r.reason) for r in results),
        )
        for scale, results in _judged(reported, records).items()
    ]


def evidence_tables(reported: Reported, records: Sequence[Record]) -> list[Table]:
    """Per scale: the numbers behind the verdicts, data set by data set."""
    header = ("Claim", "Data", "Comparison", "Left", "Right", "Difference", "Pairs", "Verdict")
    notes = ("Left and right are means over the paired seeds, with 95 % intervals.",)
    tables = []
    for scale, results in _judged(reported, records).items():
        keys = varying([site.condition for result in results for site in result.sites])
        details = tuple(
            _detail(reported, result.claim, site, part, keys)
            for result in results
            for site in result.sites
            for part in site.parts
        )
        if details:
            tables.append(Table(f"Evidence for the claims, {scale} scale", header, details, notes=notes))
    return tables


def _detail(reported: Reported, claim: Claim, site: SiteResult, result: PartResult, keys: list[str]) -> tuple[str, ...]:
    where = describe(site.condition, keys)
    column = reported.display.metrics[result.part.left.metric]
    judged = result.judgement
    return (
        f"{claim.id} (our check)" if result.part.ours else claim.id,
        site.dataset + (f" ({where})" if where else "") + ("" if site.counted else " (not counted)"),
        comparison(reported, result.part),
        show(result.left, column.format),
        show(result.right, column.format),
        show(judged.difference, column.format, signed=True),
        str(judged.n),
        f"{judged.verdict.value}: {judged.reason}",
    )


# --- paper against ours -----------------------------------------------------------------------------------------------


def comparison_tables(reported: Reported, records: Sequence[Record]) -> list[Table]:
    """Every reported cell: beside our runs where there are any, else with the reason why not."""
    results = [result for cell in reported.cells for result in judge_cell(cell, records)]
    tables = []
    for scale in [s for s in SCALE_ORDER if any(r.scale == s for r in results)]:
        rows = tuple(_compared(reported, r) for r in results if r.scale == scale)
        header = ("Reported in", "Row", "Column", "Paper", "Ours", "Seeds", "Verdict")
        tables.append(Table(f"Paper against ours, {scale} scale", header, rows, notes=(LEGEND,)))
    absent = [r for r in results if not r.scale]
    blocks = groupby(absent, key=lambda r: _reason(r, reported))
    rows = tuple(_absent(list(block), reported) for _, block in blocks)
    notes = tuple(f"Not found in any source: {'; '.join(reported.not_found)}." for _ in reported.not_found[:1])
    header = ("Reported in", "What", "Paper", "Verdict")
    caption = "Reported, without a run of ours to set beside it."
    return [*tables, Table("Not compared", header, rows, caption, (LEGEND, *notes))]


def _compared(reported: Reported, result: CellResult) -> tuple[str, ...]:
    cell, ours = result.cell, result.ours
    own = reported.display.metrics[cell.experiment.metric].format if cell.experiment else ".4g"
    return (
        reported.tables[cell.table],
        cell.row,
        cell.column,
        paper_number(cell),
        show(ours, NUMBERS.get(cell.unit, own)),
        str(ours.n if ours else 0),
        f"{result.judgement.verdict.value}: {result.judgement.reason}",
    )


def paper_number(cell: Cell) -> str:
    """The reported number with its spread and its mark of confidence."""
    if cell.value is None:
        return "n/a (not recovered)"
    form = NUMBERS.get(cell.unit, ".4g")
    spread = "" if cell.std is None else f" ± {cell.std:{form}}"
    return f"{cell.value:{form}}{spread}{MARKS[cell.confidence]}"


def _reason(result: CellResult, reported: Reported) -> tuple[str, ...]:
    """Cells are listed together when table and reason agree, except a number that a run could still be set beside."""
    alone = result.cell.id if result.cell.experiment and result.cell.value is not None else ""
    return reported.tables[result.cell.table], result.judgement.reason, alone


def _absent(results: list[CellResult], reported: Reported) -> tuple[str, ...]:
    cells, judged = [r.cell for r in results], results[0].judgement
    names = [c.row if c.column == "-" else f"{c.row}, {c.column}" for c in cells]
    marks = "".join(sorted({MARKS.get(c.confidence, "") for c in cells}))
    numbers = list(dict.fromkeys(paper_number(c) for c in cells))
    return (
        reported.tables[cells[0].table],
        "; ".join(names) if len(names) <= LISTED else f"{len(names)} cells",
        "; ".join(numbers) if len(names) <= LISTED or len(numbers) == 1 else f"see reported.yaml {marks}".rstrip(),
        f"{judged.verdict.value}: {judged.reason}",
    )


# --- results and cost -------------------------------------------------------------------------------------------------


def results_tables(reported: Reported, records: Sequence[Record]) -> list[Table]:
    """Per scale, data set and condition: methods against metrics, with collapsed and inverted runs counted."""
    display = reported.display
    columns = (*display.columns, *display.references)

    def row(runs: list[Record]) -> list[str]:
        counts = [_count(runs, c.metric) for c in display.counts]
        return [str(len(runs)), *(_mean(runs, c) for c in columns), *counts]

    header = ("Seeds", *(c.label for c in columns), *(c.label for c in display.counts))
    return _by_condition(reported, records, "Results", header, row)


def cost_tables(reported: Reported, records: Sequence[Record]) -> list[Table]:
    """The same layout for cost. Kept apart because wall-clock times differ from run to run and machine to machine."""
    columns = reported.display.cost

    def row(runs: list[Record]) -> list[str]:
        devices = sorted({str(r.env["device"]) for r in runs if r.env.get("device")})
        return [", ".join(devices) or NOTHING, str(len(runs)), *(_mean(runs, c) for c in columns)]

    return _by_condition(reported, records, "Cost", ("Device", "Seeds", *(c.label for c in columns)), row)


def _by_condition(
    reported: Reported,
    records: Sequence[Record],
    title: str,
    header: tuple[str, ...],
    row: Callable[[list[Record]], list[str]],
) -> list[Table]:
    tables = []
    ordered = sorted(records, key=lambda r: r.order)
    for scale in scales_of(ordered):
        sites = {(r.dataset, describe(r.condition), r.protocol) for r in ordered if r.scale == scale}
        for dataset, condition, protocol in sorted(sites):
            there = [r for r in ordered if (r.scale, r.dataset, r.protocol) == (scale, dataset, protocol)]
            named = _rows(reported, there)
            rows = tuple((name, *row(runs)) for name, runs in named)
            twice = len({runs[0].method for _, runs in named}) < len(named)
            notes = ("Where a method stands twice, claims are judged on its first row.",) if twice else ()
            twins = sum((d, c) == (dataset, condition) for d, c, _ in sites) > 1
            caption = condition + (f" (protocol {protocol[:6]})" if twins else "")
            tables.append(
                _dense(Table(f"{title}: {dataset}, {scale} scale", ("Method", *header), rows, caption, notes))
            )
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
        split = groups([r for r in records if r.method == method])
        keys = varying([runs[0].settings for runs in split])
        for runs in split:
            differs = describe(runs[0].settings, keys) or f"configuration {runs[0].group[:6]}"
            label = reported.display.methods.get(method, method)
            rows.append((f"{label} [{differs}]" if len(split) > 1 else label, runs))
    return rows


def _mean(runs: Sequence[Record], column: Column) -> str:
    found = values(runs, column.metric)
    if not found:
        return NOTHING
    return show(interval(found), column.format) + ("" if len(found) == len(runs) else f" ({len(found)} of {len(runs)})")


def _count(runs: Sequence[Record], metric: str) -> str:
    found = values(runs, metric)
    return f"{sum(v > 0.5 for v in found)}/{len(found)}" if found else NOTHING


SECTIONS: Mapping[str, Callable[[Reported, Sequence[Record]], list[Table]]] = {
    "claims": claims_tables,
    "evidence": evidence_tables,
    "comparison": comparison_tables,
    "results": results_tables,
    "cost": cost_tables,
}


def provenance(records: Sequence[Record]) -> str:
    """One line on what the tables rest on: number of runs, commits, versions of torch."""

    def listed(name: str) -> str:
        return ", ".join(sorted({str(r.env[name]) for r in records if r.env.get(name)})) or "unknown"

    dirty = sum(bool(r.env.get("dirty")) for r in records)
    changed = f", {dirty} of them with uncommitted changes" if dirty else ""
    return f"From {len(records)} runs{changed}; commits: {listed('commit')}; torch: {listed('torch')}."


def build(reported: Reported, records: Sequence[Record], names: Iterable[str]) -> list[Table]:
    """The tables of the named sections, in that order."""
    return [table for name in names for table in SECTIONS[name](reported, records)]


def markdown(reported: Reported, records: Sequence[Record], names: Iterable[str]) -> str:
    """The named sections as Markdown, closed by their provenance."""
    return f"{to_markdown(build(reported, records, names))}\n{provenance(records)}\n"


# --- one run, one sweep -----------------------------------------------------------------------------------------------


def summary_of_run(run: Mapping[str, Any] | Record, reported: Reported, records: Sequence[Record] = ()) -> Any:
    """What one finished run says, for the terminal: its numbers beside their references, its health, its claims.

    ``records`` are the other runs to judge claims with (usually ``collect(...).records``); the run itself is added.
    """
    from rich.console import Group
    from rich.text import Text

    record = run if isinstance(run, Record) else Record.of(run)
    display = reported.display
    rows = [
        (c.label, format(v, c.format), _beside(c, record, display.metrics))
        for c, v in _present(display.columns, record)
    ]
    method = display.methods.get(record.method, record.method)
    title = f"{method} on {record.dataset}, seed {record.seed}, {record.scale} scale"
    table = Table(title, ("Measure", "This run", "Beside"), tuple(rows), describe(record.condition))
    health = ", ".join(f"{c.label} {'YES' if v > 0.5 else 'no'}" for c, v in _present(display.counts, record))
    lines = [f"Health: {health}."] if health else []
    lines += claim_lines(record, reported, records)
    return Group(to_rich(table), *(Text(line) for line in lines))


def _present(columns: Iterable[Column], record: Record) -> list[tuple[Column, float]]:
    return [(c, v) for c in columns if (v := record.metric(c.metric)) is not None]


def _beside(column: Column, record: Record, metrics: Mapping[str, Column]) -> str:
    others = [metrics[name] for name in column.beside]
    told = [f"{c.label} {v:{column.format}}" for c, v in _present(others, record)]
    chance = record.condition.get(column.chance) if isinstance(column.chance, str) else column.chance
    if isinstance(chance, int | float):
        told.append(f"chance {chance:{column.format}}")
    return ", ".join(told)


def claim_lines(record: Record, reported: Reported, records: Sequence[Record] = ()) -> list[str]:
    """One line per claim that this run can speak to: what this seed showed, and the verdict so far on the same data."""
    if record.scale not in SCALES:
        return [f"No claim is judged at {record.scale} scale: it tests the mechanics."]
    there = [
        r
        for r in records
        if (r.scale, r.protocol) == (record.scale, record.protocol)
        and r.run_key != record.run_key
        and (r.method != record.method or r.group == record.group)
    ]
    lines = [
        line
        for claim in reported.claims
        if record.scale in claim.scales and record.dataset in claim.datasets
        for ours in (False, True)
        if (line := _claim_line(claim, ours, record, reported, [*there, record]))
    ]
    return lines or ["No claim of the paper speaks about this run."]


def _claim_line(claim: Claim, ours: bool, record: Record, reported: Reported, there: list[Record]) -> str:
    parts = [p for p in claim.parts if p.ours is ours and _concerns(p, record)]
    if not parts:
        return ""
    told, held, missing = [], [], []
    for part in parts:
        pairs = [(a, b) for seed, a, b in pair(part, there, record.scale, record.dataset)[0] if seed == record.seed]
        form = reported.display.metrics[part.left.metric].format
        label = right_label(reported, part)
        for a, b in pairs:
            held.append(holds(a, b, part.relation, part.tolerance))
            told.append(f"{a:{form}}{'' if held[-1] else ', not'} {related(part, f'{b:{form}}')} ({label})")
        here = record.method == part.left.method
        missing += [] if pairs else [label if here else reported.display.methods[part.left.method]]
    recipes = {p.left.method for p in parts}  # a check of another recipe says nothing about this run
    every = [p for p in claim.parts if p.ours is ours and p.left.method in recipes]
    judged = [judge_part(p, there, record.scale, record.dataset).judgement for p in every]
    fewest = min(j.n for j in judged)
    verdict = combine([j.verdict for j in judged])
    seeds = f"{fewest} of {MIN_SEEDS} seeds" if fewest < MIN_SEEDS else f"{fewest} seeds"
    name = f"{claim.id} (our check)" if ours else claim.id
    needs = f"needs {', '.join(dict.fromkeys(missing))} on the same data and seed" if missing else ""
    seen = f"{'held' if all(held) else 'did not hold'} on this seed ({'; '.join(told)})" if held else ""
    return f"{name} {'; '.join(t for t in (seen, needs) if t)}; verdict {verdict.value}: {seeds}"


def _concerns(part: Part, record: Record) -> bool:
    sides = [side for side in (part.left, part.right) if isinstance(side, Selector)]
    return any(side.method == record.method and matches(side.where, record.condition) for side in sides)


def print_sweep(entries: Sequence[Mapping[str, Any]]) -> None:
    """How the jobs of a sweep ended and a table of what they measured.

    Each entry holds method, dataset, seed, paper, folder, state (done, stored or failed) and error.
    """
    console = terminal()
    tally = {state: sum(e["state"] == state for e in entries) for state in sorted({e["state"] for e in entries})}
    for paper in sorted({e["paper"] for e in entries if e["state"] != "failed"}):
        folders = {e["folder"] for e in entries if e["paper"] == paper and e["state"] != "failed"}
        records = [Record.of(json.loads((Path(f) / "record.json").read_bytes())) for f in sorted(folders)]
        for table in results_tables(load_reported(paper), records):
            console.print(to_rich(table))
    console.print(f"{len(entries)} jobs: " + ", ".join(f"{count} {state}" for state, count in tally.items()))
    for entry in entries:
        if entry["state"] == "failed":
            name = f"{entry['method']} on {entry['dataset']}, seed {entry['seed']}"
            console.print(f"failed: {name}: {entry['error']}", markup=False, soft_wrap=True)
