"""What the terminal says after one run, and after a sweep."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from reprise.evidence import Record
from reprise.judging import judge_part, matches, pair
from reprise.layout import Table, describe, left_label, related, right_label, terminal, to_rich
from reprise.reported import SCALES, Claim, Column, Part, Reported, Selector, load_reported
from reprise.results import results_tables
from reprise.stats import MIN_SEEDS, combine, holds


def summary_of_run(run: Mapping[str, Any] | Record, reported: Reported, records: Sequence[Record] = ()) -> Any:
    """What one finished run says, for the terminal: its numbers beside their references, its health, its claims.

    ``records`` are the other runs to judge claims with (usually ``collect(...).records``); the run itself is added.
    """
    from rich.console import Group
    from rich.text import Text

    record = run if isinstance(run, Record) else Record.of(run)
    display = reported.display
    rivals = _rivals(record, reported, records)
    rows = [
        (c.label, format(v, c.format), *(_cell(c, rival) for rival in rivals), _beside(c, record, display.metrics))
        for c, v in _present(display.columns, record)
    ]
    method = display.methods.get(record.method, record.method)
    title = f"{method} on {record.dataset}, seed {record.seed}, {record.scale} scale"
    names = [display.methods[rival.method] for rival in rivals]
    table = Table(title, ("Measure", "This run", *names, "Beside"), tuple(rows), describe(record.condition))
    health = ", ".join(f"{c.label} {'YES' if v > 0.5 else 'no'}" for c, v in _present(display.counts, record))
    lines = [f"Health: {health}."] if health else []
    lines += claim_lines(record, reported, records)
    return Group(to_rich(table), *(Text(line) for line in lines))


def _present(columns: Iterable[Column], record: Record) -> list[tuple[Column, float]]:
    return [(c, v) for c in columns if (v := record.metric(c.metric)) is not None]


def _rivals(record: Record, reported: Reported, records: Sequence[Record]) -> list[Record]:
    """The runs of the methods to compare with, on the same data and seed; of several configurations the first."""
    same = [r for r in records if (r.scale, r.protocol, r.seed) == (record.scale, record.protocol, record.seed)]
    found = [[r for r in same if r.method == name] for name in reported.display.rivals if name != record.method]
    return [min(runs, key=lambda r: r.order) for runs in found if runs]


def _cell(column: Column, record: Record) -> str:
    value = record.metric(column.metric)
    return "" if value is None else format(value, column.format)


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
        r for r in records if (r.scale, r.protocol) == (record.scale, record.protocol) and r.run_key != record.run_key
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
    there = [r for r in there if not _stands_in(r, record, claim)]
    told, held, missing = [], [], []
    for part in parts:
        pairs = [(a, b) for seed, a, b in pair(part, there, record.scale, record.dataset)[0] if seed == record.seed]
        form = reported.display.metrics[part.left.metric].format
        label = right_label(reported, part)
        for a, b in pairs:
            held.append(holds(a, b, part.relation, part.tolerance))
            told.append(f"{a:{form}}{'' if held[-1] else ', not'} {related(part, f'{b:{form}}')} ({label})")
        here = _selected(part.left, record)
        missing += [] if pairs else [label if here else left_label(reported, part)]
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
    return any(_selected(side, record) for side in (part.left, part.right))


def _selected(side: Selector | float, record: Record) -> bool:
    return isinstance(side, Selector) and side.method == record.method and matches(side.where, record.facts)


def _stands_in(other: Record, record: Record, claim: Claim) -> bool:
    """Whether a run of another configuration would take this run's place on one side of the claim."""
    if other.method != record.method or other.group == record.group:
        return False
    sides = [side for part in claim.parts for side in (part.left, part.right)]
    return any(_selected(side, record) and _selected(side, other) for side in sides)


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
